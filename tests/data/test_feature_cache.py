"""Features are computed once for the same content, and anew for any other or where the file is of no use."""

import os

import pytest
import torch
from torch import nn

from mmlearn.data.feature_cache import cached_features, features_folder


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MMLEARN_HOME", str(tmp_path / "home"))


class Counted:
    """Something that takes long, and how often it was asked."""

    def __init__(self, value=1.0):
        self.value, self.calls = value, 0

    def __call__(self):
        self.calls += 1
        return {"mean": torch.full((2, 3), self.value).mT, "count": torch.tensor([self.calls])}


def test_the_same_content_is_computed_once():
    compute, tower = Counted(), nn.Linear(3, 2)
    content = ("tower", 64, torch.arange(6.0).view(2, 3), *tower.parameters())
    first = cached_features(compute, *content)
    again = cached_features(compute, "tower", 64, torch.arange(6.0).view(2, 3).clone(), *tower.state_dict().values())
    assert compute.calls == 1
    assert {name: value.tolist() for name, value in first.items()} == {k: v.tolist() for k, v in again.items()}
    assert len(list(features_folder().iterdir())) == 1


@pytest.mark.parametrize(
    "other",
    [
        ("tower", 65, torch.zeros(4)),
        ("towers", 64, torch.zeros(4)),
        ("tower", "64", torch.zeros(4)),
        ("tower", 64, torch.zeros(2, 2)),
        ("tower", 64, torch.zeros(4, dtype=torch.int32)),
        ("tower", 64, torch.tensor([0, 0, 0, 1e-30])),
        ("tower", 64, torch.zeros(2), torch.zeros(2)),
        (64, "tower", torch.zeros(4)),
        ("tower", 64),
    ],
)
def test_other_content_is_computed_anew(other):
    compute = Counted()
    cached_features(compute, "tower", 64, torch.zeros(4))
    cached_features(compute, *other)
    assert compute.calls == 2


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-5], lambda data: b"x" * len(data)])
def test_a_damaged_file_is_computed_anew_and_replaced(damage):
    compute = Counted()
    cached_features(compute, "tower")
    (path,) = features_folder().iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert cached_features(compute, "tower")["count"].item() == 2
    assert cached_features(compute, "tower")["count"].item() == 2


def test_where_nothing_can_be_written_the_result_is_handed_back():
    compute = Counted()
    features_folder().parent.mkdir(parents=True)
    features_folder().write_text("a file where the folder should be")
    for calls in (1, 2):
        assert cached_features(compute, "tower")["count"].item() == calls


def test_a_write_that_fails_leaves_nothing_behind(monkeypatch):
    def refuse(*paths):
        raise OSError("disk full")

    compute = Counted()
    monkeypatch.setattr(os, "replace", refuse)
    assert cached_features(compute, "tower")["count"].item() == 1
    assert not list(features_folder().iterdir())
