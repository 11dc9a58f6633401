"""LIMoE: each token is computed by the experts that it chose, and by no others."""

import dataclasses

import pytest
import torch
from testing_tools import close

from mmlearn.layers import TransformerBlock
from mmlearn.models.unified.limoe import LIMoE, LIMoEConfig
from mmlearn.models.unified.sparse import SparseBlock, SparseMLP
from mmlearn.recipes.discovery import find_recipe

CONFIG = LIMoEConfig.tiny()


def system(**changes):
    torch.manual_seed(0)
    return LIMoE(dataclasses.replace(CONFIG, **changes)).eval()


def batch():
    return next(find_recipe("limoe").examples(CONFIG))


@pytest.mark.parametrize("chosen", [1, 2, 4])
def test_a_token_is_the_weighted_sum_of_the_experts_that_it_chose(chosen):
    torch.manual_seed(0)
    layer, x = SparseMLP(dataclasses.replace(CONFIG, chosen=chosen)), torch.randn(2, 5, 64)
    y, routing = layer(x)
    every = torch.stack([expert(x.flatten(0, 1)) for expert in layer.experts], 1)  # (n, e, d)
    kept = routing.probability.argsort(-1, descending=True).argsort(-1) < chosen
    close(y.flatten(0, 1), ((routing.probability * kept)[..., None] * every).sum(1))


def test_experts_compute_their_own_tokens_alone():
    torch.manual_seed(0)
    layer, x, seen = SparseMLP(CONFIG), torch.randn(3, 7, 64), []
    for expert in layer.experts:
        expert.register_forward_hook(lambda part, inputs, output: seen.append(len(output)))
    mask = torch.arange(7) < torch.tensor([[7], [4], [2]])
    y, _ = layer(x, mask)
    assert sum(seen) == 7 + 4 + 2
    assert len(seen) == 4
    assert (y[~mask] == 0).all()


def test_a_single_expert_is_a_plain_block():
    model = system(experts=1, image_experts=1.0, text_experts=1.0)
    sparse = model.blocks[1]
    plain = TransformerBlock(CONFIG).eval()
    plain.load_state_dict(
        {name.replace("mlp.experts.0.", "mlp."): x for name, x in sparse.state_dict().items() if "router" not in name}
    )
    x = torch.randn(2, 5, 64)
    close(sparse(x)[0], plain(x))


def test_every_second_block_is_sparse_and_the_last_one_is():
    kinds = [isinstance(block, SparseBlock) for block in system(depth=5).blocks]
    assert kinds == [True, False, True, False, True]
    assert all(isinstance(block, SparseBlock) for block in system(sparse_every=1).blocks)


def test_losses_of_routing_have_their_weight_and_teach_the_router():
    model, given = system(), batch()
    losses = model.loss(given)
    assert list(losses) == ["itc", "balance", "z", "local", "global"]
    double = system(auxiliary_weight=0.08).loss(given)
    for name in ("balance", "z", "local"):
        close(double[name], 2 * losses[name])
    router = model.blocks[1].mlp.router.weight
    for name in ("itc", "balance", "z", "local"):
        (gradient,) = torch.autograd.grad(losses[name], router, retain_graph=True)
        assert gradient.abs().max() > 0, name


def test_what_is_missing_or_wrong_is_told_in_one_line():
    model, given = system(), batch()
    with pytest.raises(ValueError, match=r"^LIMoE compares pictures with texts, and this batch has no image\.$"):
        model.loss({name: value for name, value in given.items() if name != "image"})
    with pytest.raises(ValueError, match="a token goes to 1 to 4 experts; got"):
        system(chosen=5)
    with pytest.raises(ValueError, match="can use 1 to 4 experts, not 9"):
        system(text_experts=9.0).loss(given)
