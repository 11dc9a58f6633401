"""The pace of a training: counted by hand, with a clock that is set."""

import pytest
import torch
from testing_tools import refused
from torch import nn

from mmlearn.training import pace
from mmlearn.training.pace import Pace, Speed


class Layer(nn.Module):
    """One layer of 8 by 8."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def loss(self, batch):
        return {"sum": self.layer(batch["x"]).sum()}


@pytest.fixture
def clock(monkeypatch):
    """Each look at the clock is the next of these."""

    def set_to(*times):
        left = iter(times)
        monkeypatch.setattr(pace.time, "perf_counter", lambda: next(left))

    return set_to


def test_the_second_half_of_the_steps_is_counted(clock):
    clock(100, 110, 110.5, 111)  # the first steps compile
    told = []
    steps = Pace(32, lambda step, metrics: told.append((step, metrics)))
    for step in range(1, 5):
        steps(step, {"loss": 1.0})
    assert told == [(step, {"loss": 1.0}) for step in range(1, 5)]
    system = Layer()
    speed = steps.speed(system, {"x": torch.ones(4, 8)})
    assert speed.samples == pytest.approx(64)
    # The input needs no gradient: a product forward, and one back.
    assert speed.flops == pytest.approx(64 * 2 * (2 * 8 * 8))
    assert speed.utilisation is None
    assert system.layer.weight.grad is None


def test_two_steps_are_too_few():
    steps = Pace(32)
    steps(1, {})
    steps(2, {})
    refused("at least three steps, got 2", steps.speed, Layer(), {"x": torch.ones(4, 8)})


@pytest.mark.parametrize(
    ("card", "precision", "most"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.4e12),
        ("NVIDIA A100-SXM4-40GB", "bf16", 312e12),
        ("NVIDIA GeForce RTX 4090", "bf16", 165.2e12),
        ("Tesla T4", "fp16", 65e12),
        ("Tesla T4", "bf16", None),
        ("Another Card", "bf16", None),
    ],
)
def test_a_card_is_known_by_its_name(card, precision, most, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: card)
    assert pace._most(torch.device("cuda"), precision) == most
    assert pace._most(torch.device("cpu"), precision) is None


def test_a_speed_in_words():
    assert str(Speed(1234.5, 2.5e13, 0.256)) == "1,234 samples a second, 25 TFLOP/s, 26% of this card's data sheet"
    assert str(Speed(10, 1e9, None)) == "10 samples a second, 0.001 TFLOP/s"
