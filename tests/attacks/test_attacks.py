"""Attacks by kind, each in a process of its own: the library says in one line what is wrong, and nothing is touched.

``make attack`` goes on with attacks at random.
"""

import pytest
from attack import BY_KIND
from held import Attack, Said, problems, processes, tried
from starts import write_runs

CLASSES = BY_KIND
MOST = 24  # of a class


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


def chosen(attacks, base):
    """So many of a class that all classes together take less than a minute; ``make attack`` draws from all."""
    found = list(attacks(base))
    count = min(MOST, len(found))
    return [found[len(found) * i // count] for i in range(count)]


def test_there_are_many(base):
    assert sum(len(chosen(attacks, base)) for attacks in CLASSES) >= 300


@pytest.mark.parametrize("attacks", CLASSES, ids=lambda attacks: attacks.__name__)
def test_attacks(start, base, tmp_path, attacks):
    failed = {}
    for number, attack in enumerate(chosen(attacks, base)):
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
        (Said(1, "", "mmlearn: [Errno 28] no weights"), False, "not foreseen"),
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
