"""AST: patches overlap as they should, padding never leaks, losses start and end where they should."""

import dataclasses
import json
import math

import pytest
import torch
from einops import rearrange
from testing_tools import assert_rows_are_independent, close, count_parameters, mean_loss, overfit

from mmlearn.layers import record_attention
from mmlearn.models.audio.ast import AST, ASTConfig
from mmlearn.training.speed import speed_up

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


def other_noise(batch):
    return torch.where(batch["mel_mask"][:, None], batch["mel"], torch.randn(batch["mel"].shape))


def test_patches_overlap():
    """A frame and a band are in every patch that covers them: 16 wide, 10 apart."""
    model, mel = AST(TINY), torch.randn(1, 64, 98)
    rows, columns = 5, 9
    assert model.grid == (rows, 19)
    before = model.embedding(mel)[0]
    assert before.shape == (1, 2 + rows * columns, 64)
    for band, frame in [(0, 0), (12, 31), (25, 70), (63, 95)]:
        changed = mel.clone()
        changed[0, band, frame] += 1
        moved = (model.embedding(changed)[0] - before).abs().amax(-1)[0, 2:] > 1e-6
        covers = [
            [10 * r <= band < 10 * r + 16 and 10 * c <= frame < 10 * c + 16 for c in range(columns)]
            for r in range(rows)
        ]
        assert rearrange(moved, "(row column) -> row column", row=rows).tolist() == covers, (band, frame)
    rest = mel.clone()
    rest[:, :, 96:] += 1  # beyond the last whole patch
    assert torch.equal(model.embedding(rest)[0], before)


def test_patches_have_their_place_in_time_and_frequency():
    """Of silence all patches are alike but for their positions, and a shorter clip has the first of them."""
    model = AST(TINY)
    whole, short = (model.embedding(torch.zeros(1, 64, s))[0][0] for s in (200, 98))
    assert whole.unique(dim=0).shape[0] == 2 + 5 * 19
    close(whole[2:] - whole[2], model.embedding.positions[2:] - model.embedding.positions[2])
    grid = [rearrange(x[2:], "(row column) d -> row column d", row=5) for x in (whole, short)]
    close(grid[1], grid[0][:, :9])
    close(short[:2], whole[:2])


def test_padding_changes_nothing():
    model, batch = trained(), sounds()
    output, other = (model(mel, batch["mel_mask"]) for mel in (batch["mel"], other_noise(batch)))
    for name in ("representation", "logits"):
        assert torch.equal(getattr(output, name), getattr(other, name)), name
    (tokens, mask), (others, _) = (model.tokens(mel, batch["mel_mask"]) for mel in (batch["mel"], other_noise(batch)))
    assert torch.equal(tokens[mask], others[mask])
    assert not torch.allclose(model(other_noise(batch)).logits, output.logits, atol=1e-3)


def test_a_padded_clip_is_the_clip_alone():
    model, batch = trained(), sounds()
    logits = model(batch["mel"], batch["mel_mask"]).logits
    for i, mask in enumerate(batch["mel_mask"]):
        close(model(batch["mel"][i : i + 1, :, mask]).logits, logits[i : i + 1])
    longer = torch.nn.functional.pad(batch["mel"], (0, 60), value=3.0)
    close(model(longer, torch.nn.functional.pad(batch["mel_mask"], (0, 60))).logits, logits)


@pytest.mark.parametrize("s", [1, 15, 16, 17, 25, 26])
def test_clips_as_short_as_a_patch_and_shorter(s):
    """They are padded to one patch, and what that is padded with is zeros."""
    model, mel = trained(), torch.randn(2, 64, s)
    assert model.tokens(mel)[0].shape[1] == 2 + 5 * (2 if s == 26 else 1)
    padded = torch.nn.functional.pad(mel, (0, 40), value=9.0)
    close(model(padded, torch.arange(s + 40).expand(2, -1) < s).logits, model(mel).logits)


def test_a_clip_without_real_frames_is_finite():
    model, batch = trained(), sounds(3)
    batch["mel_mask"][1] = False
    assert model(batch["mel"], batch["mel_mask"]).logits.isfinite().all()
    model.loss(batch)["classification"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_rows_do_not_depend_on_each_other():
    model, batch = trained(), sounds()
    assert_rows_are_independent(lambda *rows: model(*rows).logits, batch["mel"], batch["mel_mask"])


def test_every_patch_reads_every_other():
    model, mel = trained(), torch.randn(1, 64, 98)
    before = model.tokens(mel)[0]
    mel[0, :10, :10] += 3  # in the first patch alone
    assert ((model.tokens(mel)[0] - before).abs().amax(-1) > 1e-5).all()


def test_a_sound_is_the_mean_of_both_tokens():
    model, batch = trained(), sounds(2)
    output, (tokens, _) = model(batch["mel"]), model.tokens(batch["mel"])
    close(output.representation, (tokens[:, 0] + tokens[:, 1]) / 2)
    close(output.logits, model.classifier(output.representation))
    output.representation.sum().backward()
    for token in (model.embedding.class_token, model.embedding.distillation_token):
        assert token.grad.abs().max() > 0


@pytest.mark.parametrize("masked", [False, True])
def test_reading_two_tokens_alone_is_the_same(masked):
    """As the trainer computes it."""
    model, batch = trained(), sounds()
    mask = batch["mel_mask"] if masked else None
    with speed_up(model):
        short = model(batch["mel"], mask).representation
    whole = model(batch["mel"], mask).representation
    close(short, whole)
    gradients = [torch.autograd.grad(x.square().sum(), model.transformer.parameters()) for x in (short, whole)]
    for got, expected in zip(*gradients):
        close(got, expected, 1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_losses_start_at_what_guessing_costs(several):
    def batch(seed):
        given = sounds(seed=seed)
        return given | {"label": (torch.rand(6, 7) < 0.3).float()} if several else given

    expected = math.log(2) if several else math.log(7)
    assert mean_loss(lambda: AST(TINY), batch, seeds=2) == pytest.approx(expected, abs=1e-4)


def test_the_loss_is_that_of_the_label():
    model, batch = trained(), sounds(5)
    log_probs = model(batch["mel"], batch["mel_mask"]).logits.log_softmax(-1)
    expected = -sum(log_probs[i, i % 7].item() for i in range(5)) / 5
    assert model.loss(batch)["classification"].item() == pytest.approx(expected, rel=1e-5)
    several = torch.rand(5, 7).round()
    logits = model(batch["mel"], batch["mel_mask"]).logits.double()
    expected = -(several * logits.sigmoid().log() + (1 - several) * (-logits).sigmoid().log()).mean().float()
    close(model.loss(batch | {"label": several})["classification"], expected)


def test_padding_costs_nothing():
    model, batch = trained(), sounds()
    assert torch.equal(
        model.loss(batch)["classification"], model.loss(batch | {"mel": other_noise(batch)})["classification"]
    )


@pytest.mark.parametrize("several", [False, True])
def test_one_batch_is_learned_by_heart(several):
    batch = sounds(4)
    if several:
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


def test_dropout_acts_in_training_only():
    model, mel = trained(dataclasses.replace(TINY, dropout=0.5)), torch.randn(2, 64, 98)
    assert not torch.equal(model(mel).logits, model(mel).logits)
    model.eval()
    assert torch.equal(model(mel).logits, model(mel).logits)


def test_wrong_input_is_told(unchecked):
    model, batch = AST(TINY), sounds(2)
    with pytest.raises(ValueError, match="201 frames are more than the 200 of this model"):
        model(torch.zeros(2, 64, 201))
    with pytest.raises(ValueError, match=r"A log-mel is a float tensor \(b, 64, s\); got torch.float32 \(2, 98, 64\)"):
        model(batch["mel"].mT)
    with pytest.raises(ValueError, match=r"mel_mask is boolean \(b, s\) like the log-mel, \(2, 98\)"):
        model(batch["mel"], batch["mel_mask"][:, 1:])
    for name in ("mel", "label"):
        with pytest.raises(
            ValueError, match=f"Nothing to learn: this AST needs mel and label, and the batch has no {name}"
        ):
            model.loss({key: rows for key, rows in batch.items() if key != name})
    with pytest.raises(ValueError, match="at least one sound"):
        model.loss({key: rows[:0] for key, rows in batch.items()})
    assert model(batch["mel"][:0]).logits.shape == (0, 7)
    for label in (torch.zeros(2, 7, dtype=torch.long), torch.zeros(2), torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"A label is int \(b,\) or float \(b, classes\), with \(2, 7\); got"):
            model.loss(batch | {"label": label})
    with pytest.raises(ValueError, match="no classifier: set num_classes"):
        AST(ASTConfig.tiny()).loss(batch)
    with pytest.raises(ValueError, match="64 mels and 12 frames hold no patch of 16 × 16"):
        AST(dataclasses.replace(TINY, frames=12))


def test_published_size():
    """The paper's 1,212 patches of 10 seconds; Transformers counts 86.6M with 527 classes."""
    config = ASTConfig.preset("base")
    with torch.device("meta"):
        assert AST(config).grid == (12, 101)
    blocks = 12 * (12 * 768**2 + 13 * 768)
    embedding = 257 * 768 + (2 + 2 + 1212) * 768
    assert count_parameters(AST, config) == blocks + embedding + 2 * 2 * 768 + 527 * 769 == 86_594_063


@pytest.mark.parametrize("preset", ASTConfig.PRESETS)
def test_presets_survive_json(preset):
    config = ASTConfig.preset(preset)
    assert ASTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
