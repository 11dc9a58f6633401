"""Checks draw fresh inputs each time; here each test draws the same in every run, so that a failure can be repeated."""

import random

import pytest

from mmlearn.exercises import inputs


@pytest.fixture(autouse=True)
def draws(request, monkeypatch):
    """What gives numbers that differ from call to call and from test to test, and not from run to run."""
    numbers = random.Random(request.node.nodeid)
    monkeypatch.setattr(inputs.secrets, "randbelow", numbers.randrange)
    return numbers
