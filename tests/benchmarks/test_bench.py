"""The bench of step time compares equal systems, and its table is medians of what it measured."""

import importlib
from pathlib import Path

import pytest

NAMES = "clip", "bert", "gpt2", "llama", "llama-writes", "vit", "wav2vec2", "blip"


@pytest.fixture
def bench(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return importlib.import_module("bench")


def test_every_system_is_tested(bench):
    assert tuple(bench.SMALL) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_both_sides_have_equal_losses(bench, name):
    """And as many parameters, which building them checks."""
    size = next(iter(bench.SIZES.values())) | dict(depth=2, image=16, samples=4000)
    sides = bench.build(bench.SMALL[name], size)
    assert tuple(sides) == bench.SIDES


def test_a_ratio_is_the_median_over_starts(bench):
    starts = [{("small", "vit", 1): [ours, 2.0]} for ours in (2.0, 5.0, 3.0)]
    assert list(bench.rows(starts)) == [
        {
            "size": "small",
            "system": "ViT",
            "threads": 1,
            "step_ms": 3000.0,
            "twin_step_ms": 2000.0,
            "ratio": 1.5,
            "ratio_of_each_start": [1.0, 2.5, 1.5],
        }
    ]


def test_what_writes_is_measured_in_tokens(bench):
    (row,) = bench.rows([{("64 wide, 3 layers", "llama-writes", 1): [0.5, 1.0]}])
    assert (row["system"], row["ratio"]) == ("Llama, writing", 0.5)
    assert (row["tokens_a_second"], row["twin_tokens_a_second"]) == (2 * 32 * 23, 32 * 23)


def test_a_system_that_there_is_not_is_told_in_one_line(bench):
    assert (
        bench.main("clap")
        == "There is no system 'clap'; there are clip, bert, gpt2, llama, llama-writes, vit, wav2vec2, blip."
    )
