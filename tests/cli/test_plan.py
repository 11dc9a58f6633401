"""``mmlearn plan``."""

import json
import re

import pytest

from mmlearn.training import counting

ASKED = [
    "plan",
    "clip",
    "--preset",
    "ViT-B/16",
    "--pairs",
    "400e6",
    "--batch-size",
    "32768",
    "--devices",
    "8",
    "--device",
    "h100",
]


@pytest.fixture(scope="module")
def known():
    return {}


@pytest.fixture(autouse=True)
def counted_once(known, monkeypatch):
    """What was asked before is not counted again."""
    count = counting.count

    def once(recipe, config, batch, **options):
        asked = repr((recipe.system, config, batch, options))
        if asked not in known:
            known[asked] = count(recipe, config, batch, **options)
        return known[asked]

    monkeypatch.setattr(counting, "count", once)


def test_a_plan_as_a_table(mmlearn):
    said = mmlearn(*ASKED)
    assert said.code == 0
    assert (
        said.err
        == "clip ViT-B/16, 400,000,000 samples in batches of 32,768, on 8 × h100 (80 GiB each) in bf16, adamw\n"
    )
    lines = said.out.splitlines()
    assert lines[0].split() == ["parameters", "149,620,737,", "149,620,737", "of", "them", "trained"]
    assert [line[:24].strip() for line in lines[1:7]] == [
        "FLOPs of a step", "steps", "hours at 40% of peak", "device hours", "samples a second", "to load",
    ]  # fmt: skip
    assert lines[2].split() == ["steps", "12,208"]
    rows = [re.split(" {2,}", line) for line in lines[10:]]
    assert [row[0] for row in rows] == ["plain", "recomputed", "in chunks of 1,024", "sharded"]
    assert {row[-1] for row in rows} <= {"yes", "no"}


def test_a_plan_as_json_agrees_with_the_table(mmlearn):
    table, made = mmlearn(*ASKED).out, json.loads(mmlearn(*ASKED, "--json").out)
    assert f"{made['flops']:.3g}" in table
    assert f"{made['hours']:,.1f}" in table
    assert made["device_hours"] == 8 * made["hours"]
    for held in made["memory"].values():
        assert f"{held['all'] / 2**30:.2f}" in table


def test_what_is_wrong_is_told_in_one_line(mmlearn):
    usual = {"--pairs": "1e6", "--batch-size": "64", "--device": "a100"}
    for says, system, changes in (
        ("There is no system 'clap2'", "clap2", {}),
        ("no preset 'ViT-B/15'; did you mean 'ViT-B/16'", "clip", {"--preset": "ViT-B/15"}),
        ("There is no device 'a10'; did you mean 'a100'", "clip", {"--device": "a10"}),
        ("3 devices cannot share a batch of 64", "clip", {"--devices": "3"}),
    ):
        options = [word for pair in (usual | changes).items() for word in pair]
        said = mmlearn("plan", system, *options)
        assert said.code == 1
        assert says in said.err.splitlines()[-1]
    said = mmlearn("plan", "vlm", "--pack", "0")
    assert (said.code, "'--pack': Input should be greater than or equal to 1" in said.err) == (2, True)


def test_a_plan_of_nothing_but_a_system(mmlearn):
    said = mmlearn("plan", "clip")
    assert said.code == 0
    assert said.err.startswith("clip tiny, 1,000,000 samples in batches of 1,024, on 1 × h100 ")
