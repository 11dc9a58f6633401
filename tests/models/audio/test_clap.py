"""CLAP: losses that start and end where they should, captions that repeat, bounded logits, what is wrong."""

import pytest
import torch
from testing_tools import close, pairs, refused

from mmlearn.data.fields import resize
from mmlearn.models.audio.clap import CLAP, CLAPConfig
from mmlearn.objectives import pair_cross_entropy

TINY = CLAPConfig.tiny()


def sounds(b=6, s=120, seed=0):
    """Log-mels of different lengths, padded with noise, and a text for each."""
    batch = pairs(b, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    return {
        "mel": torch.randn(b, 64, s, generator=generator),
        "mel_mask": torch.arange(s) < s - 17 * (torch.arange(b)[:, None] % 5),
        "tokens": batch["tokens"],
        "mask": batch["mask"],
    }


@pytest.fixture
def model():
    """With statistics that are not those of a new model."""
    model = CLAP(TINY).eval()
    model.audio_encoder.mel_norm.running_mean.normal_()
    model.audio_encoder.mel_norm.running_var.uniform_(0.5, 2)
    return model


def test_repeated_captions_all_count(model):
    batch = sounds() | {"caption_id": torch.tensor([0, 1, 0, 2, 3, 1])}
    output = model(**{name: rows for name, rows in batch.items() if name != "caption_id"})
    cosine = output.audio_logit_scale * output.audio_embedding @ output.text_embedding.T
    same = batch["caption_id"][:, None] == batch["caption_id"]
    close(model.loss(batch)["atc"], pair_cross_entropy(cosine, cosine.T, same))
    assert model.loss(batch)["atc"] != model.loss(sounds())["atc"]


def test_logits_stay_bounded(model):
    with torch.no_grad():
        model.audio_logit_scale.fill_(9.0)
        model.text_logit_scale.fill_(-1.0)
    model.after_step()
    assert model.audio_logit_scale.exp().item() == pytest.approx(100)
    assert model.text_logit_scale.item() == 0


def test_wrong_input_is_told(unchecked):
    model, batch = CLAP(TINY), sounds(2)
    with pytest.raises(ValueError, match="257 frames are more than the 256 of this model; cut the sound into pieces"):
        model.encode_audio(torch.zeros(2, 64, 257))
    with pytest.raises(ValueError, match=r"A log-mel is a float tensor \(b, 64, s\); got torch.float32 \(2, 120, 64\)"):
        model.encode_audio(batch["mel"].mT)
    with pytest.raises(ValueError, match="33 tokens are more than the 32 positions of this model; shorten the text"):
        model.encode_text(torch.ones(2, 33, dtype=torch.long))
    with pytest.raises(ValueError, match=r"There is no token 512: the vocabulary of this model has 512, from 0"):
        model.encode_text(torch.tensor([[1, 512]]))
    for name in ("mel", "tokens"):
        with pytest.raises(ValueError, match=f"CLAP needs mel and tokens, and the batch has no {name}"):
            model.loss({key: rows for key, rows in batch.items() if key != name})
    for sound_count, text_count in [(2, 1), (0, 0)]:
        wrong = {key: rows[: sound_count if "mel" in key else text_count] for key, rows in batch.items()}
        refused(rf"at least one: got {sound_count} sounds and {text_count} texts", model.loss, wrong)
    assert model.encode_audio(batch["mel"][:0], batch["mel_mask"][:0]).shape == (0, 128)
    refused("64 mels are no multiple of the patch size 12", CLAP, resize(TINY, {"patch_size": 12}))
    refused("Stage 0 has 16 × 16 tokens, which windows of 5 × 5 do not fill", CLAP, resize(TINY, {"window": 5}))
