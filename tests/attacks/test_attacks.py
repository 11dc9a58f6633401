"""Attacks by kind, each in a process of its own: the library says in one line what is wrong, and nothing is touched.

``make attack`` goes on with attacks at random.
"""

import of_runs
import pytest
from held import processes, tried
from starts import write_runs

CLASSES = (of_runs.weights, of_runs.configurations, of_runs.tokenizers, of_runs.manifests, of_runs.checkpoint_files)


@pytest.fixture(scope="module")
def start():
    with processes() as started:
        yield started


@pytest.fixture(scope="module")
def base(start, tmp_path_factory):
    """Small runs and data that nothing has spoiled."""
    folder = tmp_path_factory.mktemp("base")
    write_runs(start, folder, ("clip",))
    return folder


@pytest.mark.parametrize("attacks", CLASSES, ids=lambda attacks: attacks.__name__)
def test_attacks(start, base, tmp_path, attacks):
    failed = {}
    for number, attack in enumerate(attacks(base)):
        if found := tried(start, attack, tmp_path / str(number)):
            failed[attack.name] = found
    assert failed == {}
