"""Training in less memory changes no number: blocks computed again, and towers that read in chunks."""

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from testing_tools import Listed, close, fit, pairs, refused, seeded
from torch import nn

from mmlearn.layers import Transformer, TransformerConfig
from mmlearn.models.contrastive.clip import CLIP, CLIPConfig
from mmlearn.recipes.discovery import find_recipe
from mmlearn.training.memory import backward_in_chunks, encode_in_chunks, recompute_blocks, save_memory

B, N, D = 4, 6, 24


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("whole", [True, False])
def test_blocks_computed_again_change_nothing(whole, dropout):
    model = Transformer(TransformerConfig(D, 3, 2, dropout=dropout)).train()
    found = []
    for again in (False, True):
        torch.manual_seed(1)
        x = torch.randn(B, N, D, requires_grad=True)
        with recompute_blocks(model) if again else nullcontext():
            output = model(x, causal=True) if whole else model.read(x, 0, causal=True)
        found.append([output, *torch.autograd.grad(output.square().sum(), [x, *model.parameters()])])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)
    assert all("forward" not in vars(block) for block in model.blocks)


def test_the_trainer_computes_blocks_again_where_it_is_asked_to():
    weights, batch = [], pairs(4)
    rows = Listed([{name: values[i] for name, values in batch.items()} for i in range(4)])
    for recompute in (False, True):
        torch.manual_seed(0)
        model, calls = CLIP(CLIPConfig.tiny()), []
        model.text_encoder.transformer.blocks[0].mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        collate = torch.utils.data.default_collate
        fit(model, rows, collate, steps=2, batch_size=4, recompute=recompute, progress=False)
        weights.append(model.state_dict())
        assert len(calls) == (4 if recompute else 2)
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def gradients(system, batch, chunk):
    """Of the loss with respect to every weight that learns."""
    system.zero_grad()
    with encode_in_chunks(system, chunk) if chunk else nullcontext():
        sum(system.loss(batch).values()).backward()
    return {name: value.grad for name, value in system.named_parameters() if value.grad is not None}


@pytest.mark.parametrize("name", ["clip", "siglip", "filip", "lit", "vse", "image-bind"])
@pytest.mark.parametrize("chunk", [1, 3, 8, 100])
def test_gradients_in_chunks_are_those_of_the_whole_batch(name, chunk):
    recipe = find_recipe(name)
    torch.manual_seed(0)
    system, batch = recipe.make(recipe.tiny()).train(), next(recipe.examples(recipe.tiny(), 8))
    whole, chunks = gradients(system, batch, None), gradients(system, batch, chunk)
    assert whole.keys() == chunks.keys()
    assert len(whole) >= 7
    for key, value in whole.items():
        close(chunks[key], value, 1e-6 * max(1, value.abs().max().item()))
    assert not any(key.startswith("encode_") or key == "loss" for key in vars(system))


def test_towers_read_no_more_than_a_chunk_and_keep_little():
    recipe, sizes, kept = find_recipe("clip"), [], []
    system, batch = recipe.make(recipe.tiny()).train(), next(recipe.examples(recipe.tiny(), 8))
    system.image_encoder.transformer.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    for chunk in (None, 3):
        found = {}

        def keep(x, found=found):
            found[x.data_ptr()] = x.nbytes
            return x

        chunks = encode_in_chunks(system, chunk) if chunk else nullcontext()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x), chunks:
            loss = sum(system.loss(batch).values())
            kept.append(sum(found.values()))
            loss.backward()
    assert kept[1] < kept[0] / 2
    assert max(sizes[1:]) == 3


def test_the_trainer_reads_in_chunks_and_refuses_what_it_is_not_for():
    weights = []
    for chunk in (None, 2):
        weights.append(trained("clip", chunk=chunk))
    for name, value in weights[0].items():
        close(weights[1][name], value)
    refused("The loss of GPT2 asks no tower for embeddings: leave chunks out", trained, "gpt2", chunk=2)


def trained(name, **options):
    """The weights after two steps."""
    recipe = find_recipe(name)
    torch.manual_seed(0)
    system, batch = recipe.make(recipe.tiny()), next(recipe.examples(recipe.tiny(), 4))
    rows = Listed([{key: values[i] for key, values in batch.items()} for i in range(4)])
    collate = torch.utils.data.default_collate
    fit(system, rows, collate, steps=2, batch_size=4, progress=False, **options)
    return system.state_dict()


def test_chunks_that_would_change_what_is_learned_are_refused():
    recipe = find_recipe("clip")
    system = recipe.make(recipe.tiny())
    with pytest.raises(RuntimeError, match="on purpose"), save_memory(system, True, 2):
        raise RuntimeError("on purpose")
    assert not any("loss" in vars(part) or "forward" in vars(part) for part in system.modules())
    refused("at least one row, got 0", encode_in_chunks(system, 0).__enter__)
    recipe = find_recipe("clap")
    with encode_in_chunks(recipe.make(recipe.tiny()).eval(), 4):
        pass  # what was counted before is the same for each chunk
    refused("CLAP normalises over the batch", encode_in_chunks(recipe.make(recipe.tiny()).train(), 4).__enter__)
    recipe = find_recipe("vatt")  # drops tokens
    system, batch = recipe.make(recipe.tiny()).eval(), next(recipe.examples(recipe.tiny(), 4))
    heard = batch["waveform"], batch["waveform_mask"]
    with encode_in_chunks(system, 2):
        assert system.encode_audio(*heard, None).shape[0] == 4
        refused("VATT draws within its towers, and chunks would", system.encode_audio, *heard, seeded())


@pytest.mark.parametrize("size", [1, 3, 7, 20])
def test_backward_in_chunks_is_that_of_all_rows(size):
    """Gradients are added to what is there, of the encoder and of what the loss learns, and one chunk is kept."""
    x, target, rows = torch.randn(7, 4, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64), []
    encoder = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    learned = [*encoder.parameters(), scale]

    def loss(embedding):
        return F.cross_entropy(scale * embedding @ target.T, torch.arange(7))

    def encode(chunk):
        rows.append((len(chunk), torch.is_grad_enabled()))
        return encoder(chunk)

    wanted = loss(encoder(x))
    gradients = torch.autograd.grad(wanted, learned)
    for parameter in learned:
        parameter.grad = torch.ones_like(parameter)
    got = backward_in_chunks(encode, loss, x, size)
    torch.testing.assert_close(got, wanted.detach(), atol=1e-12, rtol=1e-12)
    for parameter, gradient in zip(learned, gradients):
        torch.testing.assert_close(parameter.grad, 1 + gradient, atol=1e-12, rtol=1e-12)
    once = [len(chunk) for chunk in x.split(size)]
    assert rows == [(n, False) for n in once] + [(n, True) for n in once]
