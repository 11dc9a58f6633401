"""Runs that several tests look at and none changes."""

import pytest
from small_data import SETS, set_of

from mmlearn.training.runs import new_run

QUEUES = {"albef": {"queue_size": 40}, "blip": {"queue_size": 40}}


@pytest.fixture(scope="session")
def sets():
    return {name: build() for name, build in SETS.items()}


@pytest.fixture(scope="session")
def made(sets):
    """A new run of each system on data that it can learn from, made once."""
    known = {}

    def make(name, **options):
        key = f"{name} {options}"
        if key not in known:
            known[key] = new_run(name, sets[set_of(name)], **{"settings": QUEUES.get(name)} | options)
        return known[key]

    return make
