"""AST: clips of any length, losses that start and end where they should, maps on the grid, what is wrong."""

import dataclasses
import math

import pytest
import torch
from einops import rearrange
from testing_tools import close, mean_loss, overfit, refused

from mmlearn.layers import record_attention
from mmlearn.models.audio.ast import AST, ASTConfig

TINY = dataclasses.replace(ASTConfig.tiny(), num_classes=7)


def sounds(b=6, s=98, seed=0):
    """Log-mels of different lengths, padded with noise, and a class for each."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(s) < s - 15 * (torch.arange(b)[:, None] % 5)
    return {"mel": torch.randn(b, 64, s, generator=generator), "mel_mask": mask, "label": torch.arange(b) % 7}


def trained(config=TINY):
    """A model whose classifier prefers something."""
    model = AST(config)
    torch.nn.init.normal_(model.classifier[1].weight)
    return model


def test_patches_have_their_position_in_time_and_frequency():
    """Of silence all patches are alike but for their positions, and a shorter clip has the first of them."""
    model = AST(TINY)
    whole, short = (model.embedding(torch.zeros(1, 64, s))[0][0] for s in (200, 98))
    assert whole.unique(dim=0).shape[0] == 2 + 5 * 19
    close(whole[2:] - whole[2], model.embedding.positions[2:] - model.embedding.positions[2])
    grid = [rearrange(x[2:], "(row column) d -> row column d", row=5) for x in (whole, short)]
    close(grid[1], grid[0][:, :9])
    close(short[:2], whole[:2])


@pytest.mark.parametrize("s", [1, 15, 16, 17, 25, 26])
def test_clips_as_short_as_a_patch_and_shorter(s):
    """They are padded to one patch, and what that is padded with is zeros."""
    model, mel = trained(), torch.randn(2, 64, s)
    assert model.tokens(mel)[0].shape[1] == 2 + 5 * (2 if s == 26 else 1)
    padded = torch.nn.functional.pad(mel, (0, 40), value=9.0)
    close(model(padded, torch.arange(s + 40).expand(2, -1) < s).logits, model(mel).logits)


@pytest.mark.parametrize("masked", [False, True])
def test_reading_two_tokens_alone_is_the_same(masked):
    """With recorded attention all tokens of the last block are computed."""
    model, batch = trained(), sounds()
    mask = batch["mel_mask"] if masked else None
    short = model(batch["mel"], mask).representation
    with record_attention(model):
        whole = model(batch["mel"], mask).representation
    close(short, whole)
    gradients = [torch.autograd.grad(x.square().sum(), model.transformer.parameters()) for x in (short, whole)]
    for got, expected in zip(*gradients):
        close(got, expected, 1e-4)


def test_several_labels_start_at_what_guessing_costs():
    def batch(seed):
        return sounds(seed=seed) | {"label": (torch.rand(6, 7) < 0.3).float()}

    assert mean_loss(lambda: AST(TINY), batch, seeds=2) == pytest.approx(math.log(2), abs=1e-4)


def test_several_labels_of_a_sound_are_learned_by_heart():
    batch = sounds(4)
    batch["label"] = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)).round()
    assert overfit(AST(TINY), batch, steps=70, learning_rate=3e-3) < 0.02


def test_attention_is_recorded_on_the_grid():
    model, batch = trained().eval(), sounds(2)
    with record_attention(model) as maps:
        recorded = model(batch["mel"], batch["mel_mask"]).logits
    close(recorded, model(batch["mel"], batch["mel_mask"]).logits)
    assert list(maps) == [f"transformer.blocks.{i}.attention" for i in range(3)]
    weights = maps["transformer.blocks.2.attention"]
    assert weights.shape == (2, 4, 47, 47)
    close(weights.sum(-1), torch.ones(2, 4, 47))
    columns = rearrange(weights[1, ..., 2:], "h n (row column) -> h n row column", row=5)
    assert (columns[..., 7:] == 0).all()  # 83 real frames are 7 whole columns
    assert (columns[..., :7] > 0).all()


def test_wrong_input_is_told(unchecked):
    model, batch = AST(TINY), sounds(2)
    refused("201 frames are more than the 200 of this model", model, torch.zeros(2, 64, 201))
    refused(r"A log-mel is a float tensor \(b, 64, s\); got torch.float32 \(2, 98, 64\)", model, batch["mel"].mT)
    refused(r"mel_mask is boolean \(b, s\) like the log-mel, \(2, 98\)", model, batch["mel"], batch["mel_mask"][:, 1:])
    for name in ("mel", "label"):
        with pytest.raises(
            ValueError, match=f"Nothing to learn: this AST needs mel and label, and the batch has no {name}"
        ):
            model.loss({key: rows for key, rows in batch.items() if key != name})
    refused("at least one sound", model.loss, {key: rows[:0] for key, rows in batch.items()})
    assert model(batch["mel"][:0]).logits.shape == (0, 7)
    for label in (torch.zeros(2, 7, dtype=torch.long), torch.zeros(2), torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"A label is int \(b,\) or float \(b, classes\), with \(2, 7\); got"):
            model.loss(batch | {"label": label})
    refused("no classifier: set num_classes", AST(ASTConfig.tiny()).loss, batch)
    refused("64 mels and 12 frames hold no patch of 16 × 16", AST, dataclasses.replace(TINY, frames=12))
