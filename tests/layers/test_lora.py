"""LoRA: nothing changes at the start, the layer stays as it is, and merging says the same."""

import pytest
import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.layers.lora import LoRALinear, add_lora, lora_weights, merge_lora
from mmlearn.models import GPT2, GPT2Config


def test_at_the_start_it_is_the_layer_bit_for_bit():
    layer, x = nn.Linear(12, 7), torch.randn(3, 5, 12)
    expected = layer(x)
    changed = LoRALinear(layer, rank=2)
    assert torch.equal(changed(x), expected)
    assert {name for name, value in changed.named_parameters() if value.requires_grad} == {"down", "up"}


@pytest.mark.parametrize(("rank", "alpha"), [(1, 1.0), (3, 6.0), (7, 0.5)])
def test_it_is_a_product_of_two_thin_matrices(rank, alpha):
    layer, x = nn.Linear(12, 7), torch.randn(3, 5, 12)
    changed = LoRALinear(layer, rank, alpha)
    with torch.no_grad():
        changed.up.normal_()
    close(changed(x), x @ (layer.weight + alpha / rank * changed.up @ changed.down).T + layer.bias)
    assert torch.linalg.matrix_rank(changed.up @ changed.down) == rank


def test_only_the_change_learns_and_merging_says_the_same():
    model, tokens = GPT2(GPT2Config.tiny()), torch.randint(4, 500, (4, 9))
    before, plain = {name: value.clone() for name, value in model.state_dict().items()}, model(tokens).token_logits
    names = add_lora(model, rank=4, layers=("query", "value", "expand"))
    assert len(names) == 9
    assert torch.equal(model(tokens).token_logits, plain)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert sum(parameter.numel() for parameter in learning) == 3 * (2 * 4 * (64 + 64) + 4 * (64 + 256))
    optimizer = torch.optim.AdamW(learning, lr=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        model.loss({"tokens": tokens})["lm"].backward()
        optimizer.step()
    after = {name.replace(".linear.", "."): value for name, value in model.state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    said = model(tokens).token_logits
    assert not torch.allclose(said, plain, atol=1e-2)
    merge_lora(model)
    assert model.state_dict().keys() == before.keys()
    close(model(tokens).token_logits, said)


def test_beside_a_layer_in_bf16_the_change_learns_in_float32():
    layer, x = nn.Linear(12, 7).bfloat16(), torch.randn(3, 12).bfloat16()
    changed = LoRALinear(layer, rank=2)
    assert {changed.down.dtype, changed.up.dtype} == {torch.float32}
    assert torch.equal(changed(x), layer(x))
    changed.up.data.normal_()
    said = changed(x)
    assert said.dtype == torch.bfloat16
    wanted = x.float() @ (layer.weight.float() + 8 * changed.up @ changed.down).T + layer.bias.float()
    torch.testing.assert_close(said.float(), wanted, rtol=0.05, atol=0.1)
    torch.testing.assert_close(changed.merged()(x).float(), wanted, rtol=0.05, atol=0.1)


def test_the_names_of_what_was_added():
    model = GPT2(GPT2Config.tiny())
    before = set(model.state_dict())
    assert lora_weights(model) == set()
    names = add_lora(model, rank=4, layers=("value",))
    assert lora_weights(model) == {f"{name}.{thin}" for name in names for thin in ("down", "up")}
    assert {name.replace(".linear.", ".") for name in set(model.state_dict()) - lora_weights(model)} == before


def test_what_cannot_be_is_told():
    model = Transformer(TransformerConfig(8, 1, 2))
    refused("no linear layer called nothing", add_lora, model, layers=("nothing",))
    for rank in (0, 9):
        refused(f"rank is from 1 to 8, .* not {rank}", add_lora, model, rank=rank)
