"""Attacks by kind, each in a process of its own: the library says in one line what is wrong, and nothing is touched.

``make attack`` goes on with attacks at random.
"""

import of_data
import of_runs
import of_words
import pytest
from held import MEMORY, Attack, Said, problems, processes, tried
from starts import write_runs

CLASSES = (
    *(of_runs.weights, of_runs.configurations, of_runs.tokenizers, of_runs.manifests, of_runs.checkpoint_files),
    *(of_data.captions, of_data.coco, of_data.shards, of_data.pictures, of_data.sounds, of_data.paths),
    *(of_words.words, of_words.outputs, of_words.resumed),
)


@pytest.fixture(scope="module")
def start():
    with processes() as started:
        yield started


@pytest.fixture(scope="module")
def base(start, tmp_path_factory):
    """A small run and data that nothing has spoiled."""
    folder = tmp_path_factory.mktemp("base")
    write_runs(start, folder, ("clip",))
    return folder


def test_there_are_many(base):
    assert sum(len(list(attacks(base))) for attacks in CLASSES) >= 300


@pytest.mark.parametrize("attacks", CLASSES, ids=lambda attacks: attacks.__name__)
def test_attacks(start, base, tmp_path, attacks):
    failed = {}
    for number, attack in enumerate(attacks(base)):
        if found := tried(start, attack, tmp_path / str(number)):
            failed[attack.name] = found
    assert failed == {}


# What is no holding.


@pytest.mark.parametrize(
    ("said", "changed", "problem"),
    [
        (Said(None, "", ""), False, "still running"),
        (Said(0, "", ""), False, "ended with 0"),
        (Said(-9, "", "mmlearn: no weights"), False, "ended with -9"),
        (Said(1, "", "Traceback (most recent call last)\nmmlearn: no weights"), False, "not foreseen"),
        (Said(1, "", "mmlearn: 'weights' (KeyError, which was not foreseen; add --debug)"), False, "not foreseen"),
        (Said(1, "", "mmlearn: something else"), False, "did not say"),
        (Said(1, "", "no weights"), False, "line of its own"),
        (Said(1, "", "mmlearn: no weights \x1b[2J"), False, "control characters"),
        (Said(1, "\x9b", "mmlearn: no weights"), False, "control characters"),
        (Said(1, "", "mmlearn: no weights" + "x" * 5_000), False, "too long"),
        (Said(1, "", "mmlearn: no weights"), True, "changed b"),
        (Said(1, "", "mmlearn: no weights"), False, None),
    ],
)
def test_what_does_not_hold(said, changed, problem):
    before, attack = {"a": b"1", "b": b"2"}, Attack("x", print, (), says="no weights")
    found = problems(attack, said, before, before | {"b": b"3"} if changed else before)
    assert found == [] if problem is None else problem in " ".join(found)


def test_memory_beyond_the_limit_and_time_are_failures(start, tmp_path):
    """The guards themselves: a command that takes more than it may, and one that hangs."""
    for name, work in (("memory", "bytearray(2 * MEMORY)"), ("time", "time.sleep(60)")):
        folder = tmp_path / name
        attack = Attack(
            name,
            lambda here, w=work: (here / "x.py").write_text(f"import time\nMEMORY = {MEMORY}\n{w}\n"),
            ("train", "x.py", "--data", "scenes", "--output", "run"),
        )
        assert any(
            words in " ".join(tried(start, attack, folder, seconds=5))
            for words in ("not foreseen", "still running", "did not")
        )
