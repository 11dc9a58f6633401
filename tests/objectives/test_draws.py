"""What a step leaves to chance: by what it is decided, and where it is drawn."""

import random

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmlearn.objectives.draws import draw_by_odds, generator_of_step, generator_on_device_of
from mmlearn.recipes.discovery import find_recipe


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
    with FakeTensorMode():
        x = [torch.empty(2, device="cuda:1"), torch.empty(2)]
    monkeypatch.setattr(torch, "Generator", lambda device: made.append(device) or real())
    for each in (*x, torch.empty(2, device="meta")):
        generator_on_device_of(each, 5)
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


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["wav2vec2", "blip"])
def test_a_compiled_loss_is_broken_at_its_draws_alone(name):
    """Once for all that it draws, and once more where it looks at its step, as BLIP's does."""
    recipe = find_recipe(name)
    config = recipe.tiny()
    system, batch = recipe.make(config), next(recipe.examples(config))
    torch._dynamo.reset()
    assert torch._dynamo.explain(system.loss)(batch).graph_break_count <= 2


@pytest.mark.parametrize("rows", [0, 1, 50])
def test_draws_by_odds_are_those_of_multinomial(rows):
    odds = torch.rand(rows, 30)
    odds[:, ::7] = 0
    one, two = (torch.Generator().manual_seed(3) for _ in range(2))
    assert torch.equal(draw_by_odds(odds, one), torch.multinomial(odds, 1, generator=two)[:, 0])
    assert torch.equal(one.get_state(), two.get_state())


def test_what_has_no_odds_is_never_drawn():
    odds = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1e-30]]).expand(3000, 2, 3).flatten(0, 1)
    assert draw_by_odds(odds, torch.Generator().manual_seed(0)).view(-1, 2).unique(dim=0).tolist() == [[1, 2]]
