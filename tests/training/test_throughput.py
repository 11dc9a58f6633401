"""The pace of a training, and its operations."""

import math

import pytest
import torch
from torch import nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.training import throughput as module
from mmlearn.training.throughput import Pace, peak_flops, step_flops


def test_the_second_half_counts(monkeypatch):
    clock = iter([0.0, 50.0, 51.0, 52.0, 52.5, 53.0])  # the first step is slow
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(clock))
    told = []
    pace = Pace(lambda step, metrics: told.append((step, metrics)))
    for step in range(1, 7):
        pace(step, {"loss": 1.0})
    assert pace.steps_a_second == pytest.approx(3 / 2)
    assert told == [(step, {"loss": 1.0}) for step in range(1, 7)]


def test_one_step_has_no_pace():
    pace = Pace()
    assert math.isnan(pace.steps_a_second)
    pace(1, {})
    assert math.isnan(pace.steps_a_second)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.body = nn.Linear(8, 16), Transformer(TransformerConfig(16, 1, 2))

    def loss(self, batch):
        return {"a": self.body(self.one(batch["x"])).square().mean()}


def test_operations_of_a_step_by_hand():
    toy = Toy().eval()
    b, n, d = 3, 5, 16
    block = 2 * b * n * 12 * d * d + 4 * b * n * n * d  # projections and MLP; scores and their product with values
    first = 2 * b * n * 8 * d
    batch = {"x": torch.randn(b, n, 8)}
    # The input needs no gradient, so the first layer's backward pass costs as much as its forward pass.
    assert step_flops(toy, [batch]) == 3 * block + 2 * first
    assert step_flops(toy, [batch, {"x": torch.randn(2 * b, n, 8)}]) == 1.5 * (3 * block + 2 * first)
    assert not toy.training
    assert all(parameter.grad is None for parameter in toy.parameters())


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Tesla T4", None),  # which has no bf16
        ("Something else", None),
    ],
)
def test_the_peak_of_a_card(name, peak, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert peak_flops("bf16") == peak


def test_no_card_no_peak(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert peak_flops("bf16") is None
