"""DeCoAR 2.0: hidden frames are rebuilt from codes, never from themselves; sizes are published."""

import dataclasses

import pytest
import torch
from testing_tools import close, refused

from mmlearn.models.speech.decoar2 import DeCoAR2, DeCoAR2Config

TINY = dataclasses.replace(DeCoAR2Config.tiny(), mels=12, depth=2, mask_length=5)


def clips(b=4, frames=40, seed=0, mels=12):
    """Vowels of ten frames as bumps at four positions, each band at about mean 0 and variance 1; clips end apart."""
    generator = torch.Generator().manual_seed(seed)
    vowel = torch.randint(4, (b, frames // 10), generator=generator).repeat_interleave(10, 1)
    mel = 2.2 * torch.exp(-(((torch.arange(mels)[:, None] - 3 * vowel[:, None]) / 2) ** 2)) - 0.8
    mel = mel + 0.05 * torch.randn(mel.shape, generator=generator)
    return {"mel": mel, "mel_mask": torch.arange(frames) < frames - 6 * torch.arange(b)[:, None]}


def test_what_is_hidden_is_not_heard():
    model, batch = DeCoAR2(TINY), clips()
    masked = model.draw(batch["mel_mask"]).masked
    assert masked.any()
    assert not (masked & ~batch["mel_mask"]).any()
    changed = torch.where(masked[:, None], torch.randn_like(batch["mel"]), batch["mel"])
    for got, expected in zip(model(changed, batch["mel_mask"], masked), model(batch["mel"], batch["mel_mask"], masked)):
        assert torch.equal(got, expected)
    assert not torch.allclose(model(changed, batch["mel_mask"]).tokens, model(**batch).tokens, atol=1e-3)


def test_the_loss_counts_hidden_frames_only():
    model, batch = DeCoAR2(TINY), clips()
    masked = model.draw(batch["mel_mask"]).masked
    model.eval()
    output = model(batch["mel"], batch["mel_mask"], masked)
    terms = [(output.mel[i, :, t] - batch["mel"][i, :, t]).abs().mean().item() for i, t in masked.nonzero().tolist()]
    losses = model.loss(batch)
    assert losses["reconstruction"].item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)
    none = model.loss(batch | {"masked": torch.zeros_like(masked)})
    sum(none.values()).backward()
    assert none["reconstruction"].item() == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_longer_padding_hides_the_same_and_costs_the_same():
    model, batch = DeCoAR2(TINY), clips()
    mel, mask = batch["mel"], batch["mel_mask"]
    longer = {
        "mel": torch.cat([mel, torch.randn_like(mel)], dim=2),
        "mel_mask": torch.nn.functional.pad(mask, (0, mask.shape[1])),
    }
    masked = model.draw(mask).masked
    assert torch.equal(model.draw(longer["mel_mask"]).masked[:, : mask.shape[1]], masked)
    for name, loss in model.loss(batch).items():
        close(model.loss(longer)[name], loss)


def test_the_loss_starts_at_the_size_of_what_is_to_be_said():
    """A model whose last layer says 0 is wrong by each frame's mean absolute value."""
    model, batch = DeCoAR2(TINY), clips()
    torch.nn.init.zeros_(model.reconstruction[-1].weight)
    torch.nn.init.zeros_(model.reconstruction[-1].bias)
    masked = model.draw(batch["mel_mask"]).masked
    close(model.loss(batch)["reconstruction"], batch["mel"].mT[masked].abs().mean())


def test_diversity_is_the_share_of_entries_not_in_use():
    model, batch = DeCoAR2(TINY), clips()
    torch.nn.init.zeros_(model.quantiser.logits.weight)
    assert model.loss(batch)["diversity"].item() == pytest.approx(0, abs=1e-6)  # every entry is as likely
    model.eval()
    assert model.loss(batch)["diversity"].item() == pytest.approx(0.1 * (1 - 2 / 64), abs=1e-6)  # always the first


def test_what_is_said_goes_through_codes():
    model, batch = DeCoAR2(TINY).eval(), clips()
    output = model(batch["mel"])
    assert output.codes.shape == (4, 40, 2)
    alike = (output.codes[:, :, None] == output.codes[:, None]).all(-1)
    assert alike.sum() > 4 * 40  # some frames share their codes
    same = (output.mel.mT[:, :, None] - output.mel.mT[:, None]).abs().amax(-1) < 1e-6
    assert same[alike].all()
    assert not same.all()


def test_noise_acts_in_training_only():
    model, batch = DeCoAR2(TINY), clips()
    seen = []
    model.quantiser.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    model.loss(batch)
    model.eval()
    model.loss(batch)
    assert seen[0] is not None
    assert seen[1] is None


def test_wrong_input_is_told(unchecked):
    model, batch = DeCoAR2(TINY), clips()
    refused(r"learns from mel .* this batch has mel_mask", model.loss, {"mel_mask": batch["mel_mask"]})
    refused("at least one clip", model.loss, {name: rows[:0] for name, rows in batch.items()})
    for run in (model.loss, lambda batch: model(batch["mel"])):
        refused("A log-mel has at least one frame; this one has none", run, {"mel": batch["mel"][..., :0]})
    refused(r"A log-mel is a float tensor \(b, 12, s\); got torch.float32 \(4, 11, 40\)", model, batch["mel"][:, 1:])
    for wrong in (batch["mel_mask"].long(), batch["mel_mask"][:, 1:]):
        refused(r"mel_mask is boolean \(b, s\) like the log-mel, \(4, 40\)", model, batch["mel"], wrong)
        refused(r"masked is boolean \(b, s\) = \(4, 40\)", model, batch["mel"], batch["mel_mask"], wrong)


def test_choices_become_surer_with_each_step():
    model = DeCoAR2(DeCoAR2Config.tiny())
    before = model.gumbel_temperature
    model.after_step()
    assert model.gumbel_temperature.item() == pytest.approx(0.99 * before.item())
    model.steps += 10_000
    assert model.gumbel_temperature.item() == 0.5
