"""AV-HuBERT: what is hidden or dropped is not perceived, either modality may be missing, losses and sizes."""

import dataclasses
import math

import pytest
import torch
from testing_tools import close, overfit, refused

from mmlearn.models.audiovisual.av_hubert import AVHuBERT, AVHuBERTConfig, Draws, imposters

TINY = dataclasses.replace(
    AVHuBERTConfig.tiny(), mels=8, video_widths=(8, 8), width=32, depth=2, embedding_width=256, audio_mask_length=4
)
TEXT = dataclasses.replace(TINY, clusters=0, vocab_size=7)


def speech(b=4, frames=12, seed=0, size=16):
    """Noise to be seen and heard, with a cluster for each frame and a text for each clip; clips end apart."""
    generator = torch.Generator().manual_seed(seed)
    video_mask = torch.arange(frames) < frames - torch.arange(b)[:, None]
    return {
        "video": torch.rand(b, frames, 3, size, size, generator=generator),
        "mel": torch.randn(b, 8, 4 * frames, generator=generator),
        "video_mask": video_mask,
        "mel_mask": video_mask.repeat_interleave(4, 1),
        "cluster": torch.randint(50, (b, frames), generator=generator).masked_fill(~video_mask, -100),
        "tokens": torch.randint(1, 7, (b, 3), generator=generator),
    }


def streams(batch):
    return [batch[name] for name in ("video", "mel", "video_mask", "mel_mask")]


def settled(config=TINY):
    """A model in evaluation mode whose batch norms have seen pictures."""
    model = AVHuBERT(config)
    for seed in range(20):
        model(*streams(speech(seed=seed)))
    return model.eval()


def other(batch, video, mel):
    """A batch with other numbers in these frames (b, f) of each modality."""
    changed = torch.rand_like(batch["video"]) * 9
    heard = mel.repeat_interleave(4, 1)[:, None]
    return batch | {
        "video": torch.where(video[..., None, None, None], changed, batch["video"]),
        "mel": torch.where(heard, torch.randn_like(batch["mel"]) * 9, batch["mel"]),
    }


def test_sound_that_ends_within_a_frame_of_the_video():
    """The frame is real, and the rest of its sound is not heard."""
    model, batch = settled(), speech()
    batch["mel_mask"] = torch.arange(48) < torch.tensor([[46], [41], [35], [1]])
    changed = torch.where(batch["mel_mask"][:, None], batch["mel"], torch.randn_like(batch["mel"]))
    output = model(None, batch["mel"], None, batch["mel_mask"])
    assert output.mask.sum(1).tolist() == [12, 11, 9, 1]
    assert torch.equal(model(None, changed, None, batch["mel_mask"]).tokens[output.mask], output.tokens[output.mask])


@pytest.mark.parametrize("modality", ["video", "mel"])
def test_what_is_hidden_is_not_perceived(modality):
    """Of pictures: unless it stands in for another that is hidden."""
    model, batch = settled(), speech()
    draws = model.draw(batch["video_mask"])._replace(
        audio_kept=torch.ones(4, dtype=torch.bool), video_kept=torch.ones(4, dtype=torch.bool)
    )
    none = torch.zeros_like(batch["video_mask"])
    shown = none.scatter(1, draws.imposter, True)
    hidden = draws.audio_masked if modality == "mel" else ~shown
    assert hidden.any()
    changed = other(batch, *((hidden, none) if modality == "video" else (none, hidden)))
    real = batch["video_mask"]
    output = model(*streams(batch), draws).tokens[real]
    assert torch.equal(model(*streams(changed), draws).tokens[real], output)
    assert not torch.allclose(model(*streams(changed)).tokens[real], model(*streams(batch)).tokens[real], atol=1e-3)


def test_imposters_come_from_the_same_clip_and_are_never_what_is_hidden():
    generator = torch.Generator().manual_seed(0)
    for frames, share in ((12, 0.2), (30, 0.1), (30, 0.8), (5, 0.9), (1, 0.5)):
        real = torch.arange(frames) < (frames - torch.arange(4)[:, None]).clamp(min=1)
        for _ in range(50):
            masked = (torch.rand(4, frames, generator=generator) < share) & real
            position = torch.arange(frames).expand(4, -1)
            imposter = imposters(masked, real, generator=generator)
            assert torch.equal(imposter[~masked], position[~masked])
            assert real.gather(1, imposter)[masked].all()
            alone = real.sum(1, keepdim=True) == 1
            assert ((imposter != position) | alone)[masked].all()
            for row, hidden, length in zip(imposter, masked, real.sum(1).tolist()):
                # Frames that follow each other stay together, but for the end of the clip.
                both = hidden[1:] & hidden[:-1]
                assert ((row[1:] - row[:-1]) % length == 1 % length)[both].all()


def test_a_short_run_shows_nothing_of_itself_and_every_other_position_in_turn():
    real = torch.ones(500, 10, dtype=torch.bool)
    masked = torch.zeros_like(real)
    masked[:, 3:6] = True
    imposter = imposters(masked, real, generator=torch.Generator().manual_seed(0))[:, 3:6]
    assert ((imposter < 3) | (imposter > 5)).all()
    first, count = imposter[:, 0].unique(return_counts=True)
    assert first.tolist() == [0, 6, 7, 8, 9]
    assert (count > 70).all()


def test_probability_0_of_dropping_is_the_identity():
    config = dataclasses.replace(TINY, both_probability=1.0)
    model, batch = AVHuBERT(config), speech()
    draws = model.draw(batch["video_mask"])
    assert draws.audio_kept.all()
    assert draws.video_kept.all()
    nothing = draws._replace(audio_masked=torch.zeros_like(draws.audio_masked), imposter=torch.arange(12).expand(4, -1))
    model.eval()
    assert torch.equal(model(*streams(batch), nothing).tokens, model(*streams(batch)).tokens)


def test_modalities_are_dropped_as_often_as_the_paper_says():
    real = torch.ones(4000, 3, dtype=torch.bool)
    for both, audio in ((0.5, 0.5), (0.25, 0.8)):
        config = dataclasses.replace(TINY, both_probability=both, audio_probability=audio)
        draws = AVHuBERT(config).draw(real)
        assert (draws.audio_kept | draws.video_kept).all()
        assert (draws.audio_kept & draws.video_kept).float().mean().item() == pytest.approx(both, abs=0.03)
        assert (~draws.video_kept).float().mean().item() == pytest.approx((1 - both) * audio, abs=0.03)


def test_a_dropped_modality_is_a_missing_one():
    model, batch = settled(), speech()
    video, mel, video_mask, mel_mask = streams(batch)
    yes, no, none = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool), torch.zeros(4, 12).bool()
    position = torch.arange(12).expand(4, -1)
    deaf = model(video, mel, video_mask, mel_mask, Draws(none, none, position, no, yes)).tokens
    blind = model(video, mel, video_mask, mel_mask, Draws(none, none, position, yes, no)).tokens
    close(deaf, model(video, None, video_mask).tokens)
    close(blind, model(None, mel, video_mask).tokens)
    close(blind[video_mask], model(None, mel, None, mel_mask).tokens[video_mask])
    both = model(video, mel, video_mask).tokens
    assert not torch.allclose(deaf, both, atol=1e-3)
    assert not torch.allclose(blind, both, atol=1e-3)
    assert not torch.allclose(blind, deaf, atol=1e-3)


def test_modalities_are_dropped_in_training_only():
    config = dataclasses.replace(TINY, both_probability=0.0, audio_probability=1.0)
    batch = speech()
    for training in (True, False):
        model = AVHuBERT(config).train(training)
        model.loss(batch)["cluster"].backward()
        gradient = model.video_projection.weight.grad
        assert bool((gradient != 0).any()) is not training


def test_the_loss_counts_frames_hidden_in_either_stream_and_no_other():
    model, batch = settled(), speech()
    draws = model.draw(batch["video_mask"])
    masked = draws.audio_masked | draws.video_masked
    assert (draws.audio_masked & ~draws.video_masked).any()
    assert (draws.video_masked & ~draws.audio_masked).any()
    given = batch | {name: torch.ones(4, dtype=torch.bool) for name in ("audio_kept", "video_kept")}
    output = model(*streams(batch), draws._replace(audio_kept=given["audio_kept"], video_kept=given["video_kept"]))
    log_probability = output.cluster_logits.log_softmax(-1)
    terms = [-log_probability[i, t, batch["cluster"][i, t]].item() for i, t in masked.nonzero().tolist()]
    assert model.loss(batch)["cluster"].item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)
    elsewhere = batch["cluster"].masked_fill(~masked, 7)
    assert model.loss(batch | {"cluster": elsewhere}) == model.loss(batch)
    none = torch.zeros_like(masked)
    loss = model.loss(batch | {"audio_masked": none, "video_masked": none})["cluster"]
    loss.backward()
    assert loss.item() == 0


def test_losses_start_at_what_guessing_costs():
    model, batch = AVHuBERT(TEXT), speech()
    torch.nn.init.zeros_(model.ctc_head.output.weight)
    spelled = [
        # The odds of naming n frames at random so that they spell this text.
        torch.nn.functional.ctc_loss(torch.full((n, 1, 7), -math.log(7)), text[None], [n], [3], reduction="sum").item()
        for text, n in zip(batch["tokens"], batch["video_mask"].sum(1).tolist())
    ]
    assert model.loss(batch)["ctc"].item() == pytest.approx(sum(spelled) / 4, abs=1e-3)


def test_texts_are_learned_by_heart():
    model, batch = AVHuBERT(dataclasses.replace(TEXT, both_probability=1.0)), speech()
    assert set(model.loss(batch)) == {"ctc"}
    assert overfit(model, batch, steps=60, learning_rate=5e-3) < 0.1


def test_sound_and_image_of_a_frame_go_together():
    """The four frames of a spectrogram that fall into one of the video's change its position, in either stream."""
    model, batch = settled(), speech(1)
    video, mel = batch["video"], batch["mel"]
    real = torch.ones(1, 12, dtype=torch.bool)
    for frame in (0, 5, 11):
        heard = mel.clone()
        heard[:, :, 4 * frame : 4 * frame + 4] += 3
        change = model.audio_features(heard, None, real, None) - model.audio_features(mel, None, real, None)
        assert change.abs().amax((0, 2)).nonzero().flatten().tolist() == [frame]
        seen = video.clone()
        seen[:, frame] = torch.rand(3, 16, 16)
        change = (model.video_features(seen, real, None) - model.video_features(video, real, None)).abs().amax((0, 2))
        # The first convolution sees one frame before and one behind.
        assert change.nonzero().flatten().tolist() == [k for k in range(frame - 1, frame + 2) if 0 <= k < 12]


def test_a_pretrained_model_goes_on_to_texts():
    pretrained, model = AVHuBERT(TINY), AVHuBERT(dataclasses.replace(TINY, vocab_size=7))
    missing, unexpected = model.load_state_dict(pretrained.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith("ctc_head") for name in missing)
    assert set(model.loss(speech())) == {"ctc"}
    assert set(model.loss({name: rows for name, rows in speech().items() if name != "tokens"})) == {"cluster"}


def test_wrong_input_is_told(unchecked):
    model, batch = AVHuBERT(TINY), speech()
    video, mel = batch["video"], batch["mel"]
    refused("both are missing", model, None, None)
    refused("both are missing", model.loss, {"cluster": batch["cluster"]})
    refused("at least one clip", model.loss, {name: rows[:0] for name, rows in batch.items()})
    refused("at least one frame", model, None, mel[:, :, :3])
    refused("has 8 bands here, not 7", model, video, mel[:, 1:])
    for wrong in (mel[:, :, :47], torch.randn(4, 8, 53), mel[:3]):
        refused("4 videos of 12 frames go with 4 spectrograms of 48 to 52 frames; got", model, video, wrong)
    model(video, torch.randn(4, 8, 49))  # centred windows make one more
    refused("Nothing to learn: this AV-HuBERT needs cluster", model.loss, {"video": video, "mel": mel})
    refused("Nothing to learn", AVHuBERT(TEXT).loss, {name: rows for name, rows in batch.items() if name != "tokens"})
    with pytest.raises(ValueError, match=r"have \(4, 12\) frames, and cluster numbers \(4, 11\)"):
        model.loss(batch | {"cluster": batch["cluster"][:, 1:]})
