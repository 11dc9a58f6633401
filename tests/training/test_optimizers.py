"""The optimisers against their papers' equations in float64, and the schedule against its curve."""

import math

import pytest
import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.layers import Attention
from mmlearn.layers.transformer import MLP
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.models.contrastive.lit import LiT, LiTConfig
from mmlearn.models.fusion.lxmert import LXMERT
from mmlearn.models.fusion.vilbert import ViLBERT
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.optimizers import Muon, build_optimizers, scaled_rate, schedule


class Small(nn.Module):
    """Matrices inside a block and outside, a table, norms, and a temperature."""

    def __init__(self):
        super().__init__()
        self.encoder = MLP(6, 10)
        self.table = nn.Embedding(5, 6)
        self.norm = nn.LayerNorm(6)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))


MATRICES = ("encoder.expand.weight", "encoder.contract.weight")


def train(model, optimizers, steps, seed=0):
    """Random gradients, the same for the same seed; yields after each step."""
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for parameter in model.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator).to(parameter)
        for optimizer in optimizers:
            optimizer.step()
        yield step


def newton_schulz(x, steps=5):
    """Quintic iteration of Jordan et al. 2024, one singular value at a time: s → 3.4445 s - 4.775 s³ + 2.0315 s⁵."""
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(steps):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh, s


def test_muon_follows_its_equations():
    """Momentum 0.95 with Nesterov's look ahead, orthogonalised, as long a step as AdamW's, decay decoupled.

    Iterated in float32, where PyTorch takes bfloat16, whose steps are right to about 2 % only.
    """
    model = Small()
    rate, decay = 0.02, 0.3
    weights = {name: dict(model.named_parameters())[name].detach().double() for name in MATRICES}
    buffers = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    optimizers = build_optimizers(model, "muon", learning_rate=rate, weight_decay=decay)
    for _ in train(model, optimizers, steps=4):
        for name, parameter in model.named_parameters():
            if name in MATRICES:
                gradient = parameter.grad.double()
                buffers[name] = 0.95 * buffers[name] + 0.05 * gradient
                direction, values = newton_schulz(0.95 * buffers[name] + 0.05 * gradient)
                assert ((values > 0.6) & (values < 1.3)).all()
                step = rate * 0.2 * math.sqrt(10) * direction  # 10 is the longer side of both
                expected = weights[name] * (1 - rate * decay) - step
                error = (parameter.detach().double() - expected).norm() / step.norm()
                assert error < 1e-3, name
                weights[name] = parameter.detach().double()


def test_muon_takes_together_only_what_is_alike():
    """Two precisions and two devices of one shape each move as they would alone."""

    def moved(*kinds):
        matrices = [nn.Parameter(torch.full((3, 4), 0.5, dtype=dtype, device=device)) for dtype, device in kinds]
        for matrix in matrices:
            matrix.grad = torch.arange(12.0).view(3, 4).to(matrix)
        Muon(matrices, lr=0.1, weight_decay=0.1).step()
        return [matrix.detach() for matrix in matrices]

    kinds = (torch.float32, "cpu"), (torch.float64, "cpu"), (torch.float32, "meta"), (torch.float32, "cpu")
    for kind, got in zip(kinds, moved(*kinds)):
        (alone,) = moved(kind)
        assert (got.dtype, got.device.type) == kind
        assert got.is_meta or torch.equal(got, alone)
        assert got.is_meta or (got != 0.5).all()


def test_muon_moves_matrices_in_blocks_and_adamw_the_rest():
    model = CLIP(CLIPConfig.tiny())
    adamw, muon = build_optimizers(model, "muon", learning_rate=1.0, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    moved = [names[id(p)] for group in muon.param_groups for p in group["params"]]
    rest = [names[id(p)] for group in adamw.param_groups for p in group["params"]]
    assert sorted(moved + rest) == sorted(names.values())
    assert all(".blocks." in name and name.endswith("weight") and "norm" not in name for name in moved)
    assert len(moved) == 6 * (3 + 1)  # query, key, value, output, expand, contract; three blocks and one


@pytest.mark.parametrize(("system", "count"), [(LXMERT, 34), (ViLBERT, 54)])
def test_muon_moves_the_attention_between_streams_as_well(system, count):
    model = system(find_recipe(system.__name__.lower()).config.tiny())
    _, muon = build_optimizers(model, "muon", learning_rate=1.0, weight_decay=0.1)
    moved = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    looks = [module for module in model.modules() if isinstance(module, Attention)]
    assert {id(look.query.weight) for look in looks} <= moved
    assert len(moved) == count


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_adamw_is_the_one_of_its_paper(name):
    """Loshchilov & Hutter 2019, algorithm 2, in float64: to 1e-10 after ten steps of changing rates."""
    model = Small().double()
    optimizers = build_optimizers(model, name, learning_rate=1.0, weight_decay=0.3)
    mine = {k: p.detach().clone() for k, p in model.named_parameters() if name == "adamw" or k not in MATRICES}
    first = {key: torch.zeros_like(value) for key, value in mine.items()}
    second = {key: torch.zeros_like(value) for key, value in mine.items()}
    rate = 0.01
    for group in optimizers[0].param_groups:
        group["lr"] = rate
    for step in train(model, optimizers, steps=10):
        for key, parameter in model.named_parameters():
            if key in mine:
                first[key] = 0.9 * first[key] + 0.1 * parameter.grad
                second[key] = 0.98 * second[key] + 0.02 * parameter.grad**2
                mean, square = first[key] / (1 - 0.9 ** (step + 1)), second[key] / (1 - 0.98 ** (step + 1))
                decay = 0.3 if parameter.ndim > 1 else 0.0
                mine[key] = mine[key] - rate * (mean / (square.sqrt() + 1e-8) + decay * mine[key])
        rate = 0.01 * (step + 2)
        for group in optimizers[0].param_groups:
            group["lr"] = rate
    for key, parameter in model.named_parameters():
        if key in mine:
            torch.testing.assert_close(parameter.detach(), mine[key], atol=1e-10, rtol=1e-10)


def test_only_matrices_shrink():
    """Without gradients to speak of, decay alone moves weights: by exactly rate · decay, and no vector at all."""
    for name in ("adamw", "muon"):
        model = Small()
        before = {key: value.detach().clone() for key, value in model.named_parameters()}
        optimizers = build_optimizers(model, name, learning_rate=0.1, weight_decay=0.5)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for optimizer in optimizers:
            optimizer.step()
        for key, value in model.named_parameters():
            close(value.detach(), before[key] * (0.95 if value.ndim > 1 else 1), 1e-6)


def test_frozen_parameters_are_left_out():
    model = LiT(LiTConfig.tiny(), nn.Linear(4, 1280))
    parameters = [p for o in build_optimizers(model, "muon", learning_rate=1.0, weight_decay=0.0) for p in _all(o)]
    assert not any(p is frozen for p in parameters for frozen in model.image_tower.parameters())
    assert len(parameters) == sum(p.requires_grad for p in model.parameters())
    with pytest.raises(ValueError, match="No parameter of Small is to be trained"):
        build_optimizers(Small().requires_grad_(False), "adamw", learning_rate=1.0, weight_decay=0.0)


def _all(optimizer):
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def test_a_model_of_vectors_only():
    model = nn.LayerNorm(4)
    for name in ("adamw", "muon"):
        (optimizer,) = build_optimizers(model, name, learning_rate=1.0, weight_decay=0.1)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0]


def test_unknown_names():
    with pytest.raises(ValueError, match=r"no optimiser 'adam'; .*'adamw'.*adamw, muon"):
        build_optimizers(Small(), "adam", learning_rate=1.0, weight_decay=0.0)
    refused(r"no decay 'cosin'; .*'cosine'.*cosine, linear", schedule, 0, 10, warmup=0, decay="cosin")


@pytest.mark.parametrize("rate", [-1.0, float("nan")])
def test_impossible_rates(rate):
    refused("learning rate", build_optimizers, Small(), "adamw", learning_rate=rate, weight_decay=0.0)


# The schedule.


def test_cosine():
    values = [schedule(step, 100, warmup=0, decay="cosine") for step in range(101)]
    assert values[0] == 1
    close(torch.tensor(values[50]), torch.tensor(0.5), 1e-12)
    close(torch.tensor(values[100]), torch.tensor(0.0), 1e-12)
    close(torch.tensor(values[25]), torch.tensor((1 + math.sqrt(0.5)) / 2), 1e-6)
    assert values == sorted(values, reverse=True)


def test_linear_is_level_and_then_falls_over_the_last_two_fifths():
    values = [schedule(step, 100, warmup=0, decay="linear") for step in range(101)]
    assert values[:61] == [1.0] * 61
    assert values[100] == 0
    falls = torch.tensor(values[60:]).diff()
    close(falls, torch.full_like(falls, -1 / 40), 1e-6)


@pytest.mark.parametrize("decay", ["cosine", "linear"])
def test_warmup_rises_evenly_and_never_lifts_the_decay(decay):
    warmup = 9
    values = [schedule(step, 100, warmup=warmup, decay=decay) for step in range(100)]
    plain = [schedule(step, 100, warmup=0, decay=decay) for step in range(100)]
    assert values[0] == pytest.approx(0.1)  # the first step moves already
    assert values[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    assert values[warmup:] == pytest.approx(plain[warmup:])
    assert all(0 < value <= one for value, one in zip(values, plain))  # no step is for nothing


@pytest.mark.parametrize("decay", ["cosine", "linear"])
@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 50), (2, 50), (10, 50)])
def test_runs_shorter_than_their_warmup(decay, steps, warmup):
    values = [schedule(step, steps, warmup=warmup, decay=decay) for step in range(steps)]
    assert all(0 < value <= (step + 1) / (warmup + 1) for step, value in enumerate(values))


@pytest.mark.parametrize(("rule", "factor"), [("linear", 16), ("root", 4)])
def test_rates_of_larger_batches_begin_at_the_rate_and_end_at_the_scaled_one(rule, factor):
    rates = [scaled_rate(step, 0.5, 4096, 256, 10, rule) for step in range(13)]
    assert rates[0] == 0.5
    assert rates[10:] == [0.5 * factor] * 3
    ways = torch.tensor(rates[:11]).diff()
    close(ways, ways[:1].expand(10))
    assert scaled_rate(0, 0.5, 4096, 256, 0, rule) == 0.5 * factor
    assert scaled_rate(3, 0.5, 256, 256, 10, rule) == 0.5
    assert scaled_rate(99, 0.5, 256, 4096, 10, rule) == 0.5 / factor
    refused("no rule 'cube'", scaled_rate, 1, 0.5, 2, 1, 1, "cube")
