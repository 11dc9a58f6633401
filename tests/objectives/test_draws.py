"""What a step leaves to chance: by what it is decided, and where it is drawn."""

import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmlearn.objectives.draws import generator_of_step, generator_on_device_of


def drawn(*numbers):
    return tuple(torch.rand(4, generator=generator_of_step(*numbers)).tolist())


def test_the_numbers_decide_and_nothing_else():
    step, position = torch.tensor(3), torch.tensor(7)
    first, before = drawn(0, step, position), torch.get_rng_state()
    torch.manual_seed(99)
    random.seed(99)
    assert drawn(0, step, position) == first
    torch.set_rng_state(before)
    others = {drawn(1, step, position), drawn(0, step + 1, position), drawn(0, step, position + 1), drawn(0, step)}
    assert len(others | {first}) == 5


def test_what_recorded_runs_have_drawn_is_drawn_again():
    seed = random.Random("5 3").getrandbits(32)
    assert drawn(5, torch.tensor(3)) == tuple(torch.rand(4, generator=torch.Generator().manual_seed(seed)).tolist())


def test_what_is_on_a_gpu_is_drawn_there(monkeypatch):
    made, real = [], torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device: made.append(device) or real())
    with FakeTensorMode():
        generator_on_device_of(torch.empty(2, device="cuda:1"), 5)
        generator_on_device_of(torch.empty(2), 5)
    generator_on_device_of(torch.empty(2, device="meta"), 5)
    assert made == [torch.device("cuda:1"), "cpu", "cpu"]


@pytest.mark.usefixtures("unchecked")
def test_a_compiled_loss_may_draw_and_is_compiled_once():
    graphs = []

    def spy(graph, inputs):
        graphs.append(graph)
        return graph

    def noisy(x, step):
        return x * 2 + torch.rand(3, generator=generator_of_step(0, step, step)).sum()

    torch._dynamo.reset()
    compiled, x = torch.compile(noisy, backend=spy), torch.ones(3)
    for step in map(torch.tensor, range(12)):
        torch.testing.assert_close(compiled(x, step), noisy(x, step))
    assert 1 <= len(graphs) <= 2
