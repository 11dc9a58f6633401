"""CLAP: padding never leaks, the square picture keeps time in order, losses start and end where they should."""

import dataclasses
import json
import math

import pytest
import torch
from testing_tools import (
    assert_rows_are_independent,
    assert_unit_length,
    close,
    count_parameters,
    mean_loss,
    other_padding,
    overfit,
    pairs,
)

from mmlearn.data.fields import resize
from mmlearn.layers import record_attention
from mmlearn.models.audio.clap import CLAP, HTSAT, CLAPConfig
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


def other_noise(batch):
    return torch.where(batch["mel_mask"][:, None], batch["mel"], torch.randn(batch["mel"].shape))


@pytest.fixture
def model():
    """With statistics that are not those of a new model."""
    model = CLAP(TINY).eval()
    model.audio_encoder.mel_norm.running_mean.normal_()
    model.audio_encoder.mel_norm.running_var.uniform_(0.5, 2)
    return model


def test_padding_changes_nothing(model):
    batch = sounds()
    audio = model.encode_audio(batch["mel"], batch["mel_mask"])
    assert torch.equal(model.encode_audio(other_noise(batch), batch["mel_mask"]), audio)
    assert not torch.allclose(model.encode_audio(other_noise(batch)), audio, atol=1e-3)
    text = model.encode_text(batch["tokens"], batch["mask"])
    assert torch.equal(model.encode_text(other_padding(batch), batch["mask"]), text)
    assert not torch.allclose(model.encode_text(other_padding(batch)), text, atol=1e-3)


def test_padding_changes_nothing_in_training_either():
    """Where statistics are the batch's: those of its real frames."""
    model, batch = CLAP(TINY), sounds()
    losses = []
    for mel in (batch["mel"], other_noise(batch)):
        losses.append(model.loss(batch | {"mel": mel, "tokens": other_padding(batch)})["atc"])
    assert torch.equal(*losses)


def test_a_padded_pair_is_the_pair_alone(model):
    batch = sounds()
    output = model(**batch)
    for i in range(6):
        alone = model(batch["mel"][i : i + 1, :, batch["mel_mask"][i]], batch["tokens"][i : i + 1, batch["mask"][i]])
        close(alone.audio_embedding, output.audio_embedding[i : i + 1])
        close(alone.text_embedding, output.text_embedding[i : i + 1])


def test_rows_do_not_depend_on_each_other(model):
    batch = sounds()
    assert_rows_are_independent(model.encode_audio, batch["mel"], batch["mel_mask"])
    assert_rows_are_independent(model.encode_text, batch["tokens"], batch["mask"])


def test_time_stays_in_order_through_the_square_picture():
    """One window alone and no merging: what a frame and a band change says where the picture has them."""
    config = dataclasses.replace(TINY.audio, depths=(1,), num_heads=(2,), window=1)
    tower, mel = HTSAT(config).eval(), torch.randn(1, 64, config.frames)
    before = tower(mel)
    assert before.shape == (1, 8, 32, 24)
    for band, frame in [(0, 0), (9, 8), (63, 127), (20, 128), (40, 255)]:  # of 64, of 256 in 2 pieces
        other = mel.clone()
        other[0, band, frame] += 1
        moved = ((tower(other) - before).abs().amax(-1) > 1e-6)[0].nonzero().tolist()
        assert moved == [[band // 8, frame // 8]]


def test_the_end_of_one_piece_does_not_meet_the_start_of_another_through_time_alone():
    """Windows of 4 patches stay in 32 frames and 32 bands; half as far on where they are shifted."""
    config = dataclasses.replace(TINY.audio, depths=(1,), num_heads=(2,))
    tower, mel = HTSAT(config).eval(), torch.randn(1, 64, config.frames)
    before = tower(mel)
    other = mel.clone()
    other[0, 40:48, 64:72] = torch.randn(8, 8)
    moved = (tower(other) - before).abs().amax(-1)[0] > 1e-6
    expected = torch.zeros(8, 32, dtype=torch.bool)
    expected[4:8, 8:12] = True
    assert torch.equal(moved, expected)


def test_every_frame_and_word_counts(model):
    batch = sounds(1)
    audio, text = model.encode_audio(batch["mel"]), model.encode_text(batch["tokens"])
    for frame in (0, 60, 119):
        mel = batch["mel"].clone()
        mel[0, :, frame] = torch.randn(64)
        assert not torch.allclose(model.encode_audio(mel), audio, atol=1e-4)
    for place in (0, 5, 11):
        tokens = batch["tokens"].clone()
        tokens[0, place] = 77
        assert not torch.allclose(model.encode_text(tokens), text, atol=1e-4)
    moved = batch["tokens"].roll(1, 1)
    assert not torch.allclose(model.encode_text(moved), text, atol=1e-4)


def test_places_of_words_begin_behind_the_pad_token(model):
    config = resize(TINY, {"pad_token": 3})
    embedding = CLAP(config).text_encoder.embedding.eval()
    assert embedding.positions.shape == (32 + 4, 64)
    tokens = torch.full((1, 32), 7)
    x = embedding(tokens)[0]
    expected = embedding.norm(embedding.tokens.weight[7] + embedding.positions[4:] + embedding.token_types.weight[0])
    close(x, expected)
    embedding(tokens).square().sum().backward()
    assert (embedding.positions.grad[:4] == 0).all()


def test_embeddings_have_unit_length(model):
    output = model(**sounds())
    assert_unit_length(output.audio_embedding)
    assert_unit_length(output.text_embedding)
    assert output.audio_logit_scale.item() == output.text_logit_scale.item() == pytest.approx(1 / 0.07)


def test_the_loss_is_of_both_directions_each_with_its_scale(model):
    batch = sounds()
    with torch.no_grad():
        model.audio_logit_scale.fill_(1.0)
        model.text_logit_scale.fill_(2.0)
    output = model(**batch)
    cosine = output.audio_embedding @ output.text_embedding.T
    terms = []
    for i in range(6):
        terms.append((math.exp(1) * cosine[i]).log_softmax(0)[i] + (math.exp(2) * cosine[:, i]).log_softmax(0)[i])
    close(model.loss(batch)["atc"], -sum(terms) / 12)
    model.loss(batch)["atc"].backward()
    assert model.audio_logit_scale.grad != 0 != model.text_logit_scale.grad


def test_the_loss_starts_at_what_guessing_costs():
    """With a temperature that prefers nothing: the published one makes chance differences large."""
    config = dataclasses.replace(TINY, temperature=100.0)
    assert mean_loss(lambda: CLAP(config), lambda seed: sounds(8, seed=seed), seeds=3) == pytest.approx(
        math.log(8), abs=0.01
    )


def test_repeated_captions_all_count(model):
    batch = sounds() | {"caption_id": torch.tensor([0, 1, 0, 2, 3, 1])}
    output = model(**{name: rows for name, rows in batch.items() if name != "caption_id"})
    cosine = output.audio_logit_scale * output.audio_embedding @ output.text_embedding.T
    same = batch["caption_id"][:, None] == batch["caption_id"]
    close(model.loss(batch)["atc"], pair_cross_entropy(cosine, cosine.T, same))
    assert model.loss(batch)["atc"] != model.loss(sounds())["atc"]


def test_one_batch_is_learned_by_heart():
    assert overfit(CLAP(TINY), sounds(4), steps=40, learning_rate=3e-3) < 0.02


def test_logits_stay_bounded(model):
    with torch.no_grad():
        model.audio_logit_scale.fill_(9.0)
        model.text_logit_scale.fill_(-1.0)
    model.after_step()
    assert model.audio_logit_scale.exp().item() == pytest.approx(100)
    assert model.text_logit_scale.item() == 0


def test_attention_is_recorded_in_both_towers(model):
    batch = sounds(2)
    with record_attention(model) as maps:
        recorded = model(**batch)
    close(recorded.audio_embedding, model(**batch).audio_embedding)
    close(recorded.text_embedding, model(**batch).text_embedding)
    audio = [f"audio_encoder.swin.stages.{stage}.{block}.attention" for stage in range(2) for block in range(2)]
    assert list(maps) == [*audio, "text_encoder.transformer.blocks.0.attention"]
    assert maps[audio[0]].shape == (2 * 16, 2, 16, 16)
    assert maps[audio[3]].shape == (2 * 4, 4, 16, 16)
    read = maps["text_encoder.transformer.blocks.0.attention"]
    assert read.shape == (2, 2, 12, 12)
    assert (read[~batch["mask"][:, None, None].expand_as(read)] == 0).all()


def test_clips_without_real_frames_and_texts_without_real_tokens_are_finite():
    model, batch = CLAP(TINY), sounds(3)
    batch["mel_mask"][1] = batch["mask"][2] = False
    model.loss(batch)["atc"].backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
    batch["mel_mask"][:] = False
    assert model.loss(batch)["atc"].isfinite()


def test_dropout_acts_in_training_only():
    for name, encode in [("audio", "encode_audio"), ("text", "encode_text")]:
        tower = dataclasses.replace(getattr(TINY, name), dropout=0.5)
        model, batch = CLAP(dataclasses.replace(TINY, **{name: tower})), sounds(2)
        given = batch["mel"] if encode == "encode_audio" else batch["tokens"]
        assert not torch.equal(getattr(model, encode)(given), getattr(model, encode)(given))
        model.eval()
        assert torch.equal(getattr(model, encode)(given), getattr(model, encode)(given))


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
        with pytest.raises(ValueError, match=rf"at least one: got {sound_count} sounds and {text_count} texts"):
            model.loss(wrong)
    assert model.encode_audio(batch["mel"][:0], batch["mel_mask"][:0]).shape == (0, 128)
    with pytest.raises(ValueError, match="64 mels are no multiple of the patch size 12"):
        CLAP(resize(TINY, {"patch_size": 12}))
    with pytest.raises(ValueError, match="Stage 0 has 16 × 16 tokens, which windows of 5 × 5 do not fill"):
        CLAP(resize(TINY, {"window": 5}))


def test_published_size():
    """Transformers' model has the same; its RoBERTa is the published one, 124.6M with the pooler."""
    config = CLAPConfig.preset("htsat-unfused")
    assert config.audio.frames == 1024
    with torch.device("meta"):
        model = CLAP(config)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    assert sizes["text_encoder"] == 124_645_632
    assert sizes["audio_encoder"] == 27_534_488
    assert sizes["audio_projection"] == sizes["text_projection"] == 769 * 512 + 513 * 512
    assert count_parameters(CLAP, config) == 153_492_890


@pytest.mark.parametrize("preset", CLAPConfig.PRESETS)
def test_presets_survive_json(preset):
    config = CLAPConfig.preset(preset)
    assert CLAPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
