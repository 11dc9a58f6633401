"""What is worked out on paper is what is counted of a model that runs."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from mmlearn.evaluation.cost import count_flops
from mmlearn.layers import record_attention
from mmlearn.layers.transformer import Transformer, TransformerBlock, TransformerConfig
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.counting import count
from mmlearn.training.estimates import block_flops, kept_by_block, recomputed_bytes, sharded_bytes, utilisation
from mmlearn.training.memory import recompute_blocks
from mmlearn.training.plan import plan

SHAPES = [(10, 32, 4, 128), (48, 64, 2, 96), (200, 64, 8, 256)]


def kept_numbers(model, x):
    """What a forward pass keeps beside weights, each storage once."""
    kept = {p.untyped_storage().data_ptr(): (0, p) for p in model.parameters()}

    def keep(x):
        kept.setdefault(x.untyped_storage().data_ptr(), (x.untyped_storage().nbytes() // 4, x))
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        model(x)
    return sum(numbers for numbers, _ in kept.values())


@pytest.mark.parametrize(("tokens", "width", "num_heads", "mlp_width"), SHAPES)
def test_a_block_computes_and_keeps_what_is_worked_out(tokens, width, num_heads, mlp_width):
    block = TransformerBlock(TransformerConfig(width, 1, num_heads, mlp_width))
    x = torch.randn(1, tokens, width, requires_grad=True)
    assert count_flops(lambda: block(x)) == block_flops(tokens, width, mlp_width)
    assert kept_numbers(block, x) == kept_by_block(tokens, width, num_heads, mlp_width, fused=True)
    with record_attention(block):  # weights are computed, and kept
        assert count_flops(lambda: block(x)) == block_flops(tokens, width, mlp_width)
        assert kept_numbers(block, x) == kept_by_block(tokens, width, num_heads, mlp_width)


def test_recomputed_blocks_keep_their_inputs():
    """As training has it, with segments of one block; the last term is the block that is computed again."""
    tokens, width, depth = 10, 32, 5
    model = Transformer(TransformerConfig(width, depth, 4))
    with recompute_blocks(model):
        kept = kept_numbers(model, torch.randn(1, tokens, width, requires_grad=True))
    assert kept == recomputed_bytes(depth, 1, tokens * width, 0)


def test_segments_of_the_root_of_the_depth_keep_least():
    kept = {every: recomputed_bytes(64, every, 1.0, 1.0) for every in range(1, 65)}
    assert min(kept, key=kept.get) == 8
    assert kept[8] == 16
    assert recomputed_bytes(7, 3, 1.0, 10.0) == 33  # of three segments the last has one block


def test_shares_of_devices_are_those_of_the_planner():
    recipe = find_recipe("gpt2")
    held = (counted := count(recipe, recipe.tiny(), 8, devices=4, text_length=16)).memory
    bytes_of = {way: sum(held[way][name] for name in ("weights", "gradients", "optimiser")) for way in held}
    assert sharded_bytes(counted.parameters, 4, 0) == pytest.approx(bytes_of["plain"], rel=1e-3)
    gathered = held["sharded"]["weights"] - counted.parameters  # what a device puts together for its turn
    assert sharded_bytes(counted.parameters, 4, 3) == pytest.approx(bytes_of["sharded"] - gathered, rel=1e-3)
    shares = [sharded_bytes(1.0, 64, stage) for stage in range(4)]
    assert shares == sorted(shares, reverse=True)


def test_utilisation_is_that_from_which_the_planner_takes_its_hours():
    recipe = find_recipe("gpt2")
    counted = count(recipe, recipe.tiny(), 64, precision="bf16", text_length=16)
    made = plan(counted, samples=1e6, device="a100", utilisation=0.37)
    assert utilisation(made.flops / 64 / 3, made.samples_per_second, 312e12) == pytest.approx(0.37)
