"""wav2vec 2.0: what is drawn, losses that start and end where they should, heads, sizes are the published."""

import dataclasses
import math

import pytest
import torch
from testing_tools import close, mean_loss, overfit, refused

from mmlearn.models.speech.encoder import SpeechEncoderConfig
from mmlearn.models.speech.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from mmlearn.recipes.wav2vec2 import find_masked_frames

TINY = Wav2Vec2Config.tiny()
# A frame for every 6 samples, so that tests are quick.
SMALL = dataclasses.replace(
    TINY,
    speech=SpeechEncoderConfig(
        channels=(12, 16),
        kernels=(5, 3),
        strides=(3, 2),
        convolution_norm="clip",
        position_kernel=16,  # wider than a gap: frames inside it are told apart by what is around it
        position_groups=2,
        width=32,
        depth=2,
        num_heads=2,
        norm_first=True,
        dropout=0.0,
    ),
    entries=16,
    code_width=16,
    embedding_width=16,
    distractors=8,
)
TEXTS = dataclasses.replace(SMALL, codebooks=0, vocab_size=9)


def clips(b=4, samples=180, seed=0):
    """Noise of which each clip has 13 samples less than the one before."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(samples) < samples - 13 * torch.arange(b)[:, None]
    return {"waveform": torch.randn(b, samples, generator=generator), "waveform_mask": mask}


def with_texts(b=4, seed=0):
    batch = clips(b, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(5) < 2 + torch.arange(b)[:, None] % 4
    return batch | {"tokens": torch.randint(1, 9, (b, 5), generator=generator) * mask, "mask": mask}


def real_frames(model, batch):
    return model.speech.frame_mask(batch["waveform"], batch["waveform_mask"])


def test_losses_are_those_of_what_is_drawn():
    model, batch = Wav2Vec2(SMALL).train(), clips()
    losses, drawn = model.loss(batch), model.draw(real_frames(model, batch))
    assert model.loss(batch | drawn._asdict()) == losses
    assert set(losses) == {"contrastive", "diversity"}


def test_distractors_go_with_the_gaps_that_a_batch_brings():
    model, batch = Wav2Vec2(SMALL), clips()
    masked = real_frames(model, batch) & (torch.arange(29) % 2 == 0)
    drawn = model.draw(real_frames(model, batch), masked)
    assert torch.equal(drawn.masked, masked)
    for i, t in masked.nonzero().tolist():
        assert masked[i][drawn.distractor[i, t]].all()
        assert t not in drawn.distractor[i, t].tolist()
    everywhere = torch.ones_like(masked)  # also in padding, which does not count
    assert torch.equal(model.draw(real_frames(model, batch), everywhere).masked, real_frames(model, batch))


def test_guessing_costs_ln_of_the_candidates_and_the_spread_of_cosines():
    """Cosines of random directions in d dimensions spread by d^-1/2, and at 0.1 that costs more than ln(1 + k)."""

    def start(temperature):
        config = dataclasses.replace(SMALL, entries=320, distractors=20, temperature=temperature, diversity_weight=0.0)
        return mean_loss(lambda: Wav2Vec2(config).train(), lambda seed: clips(seed=seed))

    assert start(10.0) == pytest.approx(math.log(21), abs=0.03)
    assert math.log(21) - 0.1 < start(0.1) < math.log(21) + 1


def test_entries_that_nobody_chooses_cost():
    model, batch = Wav2Vec2(SMALL).train(), clips()
    before = model.loss(batch)["diversity"].item()
    with torch.no_grad():
        model.quantiser.logits.bias.view(2, 16)[:, 3] += 100
    assert model.loss(batch)["diversity"].item() == pytest.approx(0.1 * (32 - 2) / 32, abs=1e-4)
    assert before < 0.05


def test_noise_and_gradients_of_the_choice_in_training_only():
    model, batch = Wav2Vec2(SMALL), clips()
    for train in (True, False):
        model.train(train).zero_grad()
        sum(model.loss(batch).values()).backward()
        assert (model.quantiser.logits.weight.grad is not None) == train
    assert model(**batch).probability.max() == 1
    assert model(**batch, gumbel=model.draw(real_frames(model, batch)).gumbel).probability.max() < 1


def test_the_choice_gets_colder():
    model = Wav2Vec2(dataclasses.replace(SMALL, gumbel_temperature=(2.0, 0.5, 0.9)))
    found = []
    for _ in range(20):
        found.append(model.gumbel_temperature)
        model.after_step()
    assert found[:3] == [2.0, 1.8, pytest.approx(1.62)]
    assert found[13] > found[14] == found[19] == 0.5


def test_what_was_learned_by_heart_is_found_again():
    torch.manual_seed(0)
    model, batch = Wav2Vec2(SMALL).eval(), clips()
    guesses = find_masked_frames(model, [batch, batch])
    overfit(model.train(), batch | {"gumbel": torch.zeros(4, 29, 2, 16)}, steps=60, learning_rate=5e-3)
    found = find_masked_frames(model.eval(), [batch])
    assert found.accuracy > guesses.accuracy
    assert found.accuracy > 2 * found.chance
    assert 0 < found.chance < 1
    assert 1 <= found.perplexity <= 16
    with pytest.raises(ValueError, match="These sounds are too short"):
        find_masked_frames(model, [clips(1, samples=34)])


def test_texts_are_learned_by_heart():
    torch.manual_seed(0)
    assert overfit(Wav2Vec2(TEXTS), with_texts(), steps=200, learning_rate=1e-2) < 0.05


def test_heads_are_built_where_asked_and_losses_follow():
    model, batch = Wav2Vec2(TEXTS), with_texts()
    output = model(batch["waveform"], batch["waveform_mask"])
    assert output.context is output.target is output.codes is output.probability is None
    assert output.logits.shape == (4, 29, 9)
    assert set(model.loss(batch)) == {"ctc"}
    both = Wav2Vec2(dataclasses.replace(SMALL, vocab_size=9))
    assert set(both.loss(batch)) == {"ctc"}
    assert set(both.loss(clips())) == set(Wav2Vec2(SMALL).loss(batch)) == {"contrastive", "diversity"}
    refused("Nothing to learn: this Wav2Vec2 needs tokens in the batch and vocab_size, or", model.loss, clips())
    refused("A batch holds at least one clip", model.loss, {name: rows[:0] for name, rows in batch.items()})
    with pytest.raises(ValueError, match=r"holds waveform \(b, samples\); this one has waveform_mask"):
        model.loss({"waveform_mask": batch["waveform_mask"]})


def test_a_pretrained_encoder_goes_into_a_model_for_texts():
    pretrained, reader = Wav2Vec2(SMALL), Wav2Vec2(TEXTS)
    reader.speech.load_state_dict(pretrained.speech.state_dict())
    batch = with_texts()
    close(reader(batch["waveform"]).tokens, pretrained(batch["waveform"]).tokens)
    masked = real_frames(reader, batch) & (torch.arange(29) < 5)
    assert reader.loss(batch | {"masked": masked}) != reader.loss(batch)


def test_texts_cost_what_guessing_costs_at_first():
    """Every path is as likely, so the cost is ln v a frame, less the logarithm of the number of ways."""
    batch = with_texts()
    batch["tokens"] = (torch.arange(5) + 1) * batch["mask"]
    model, expected = Wav2Vec2(TEXTS), 0
    assert model.ctc_head.output.weight.std().item() == pytest.approx(0.02, rel=0.1)
    torch.nn.init.zeros_(model.ctc_head.output.weight)
    for frames, length in zip([29, 27, 24, 22], [2, 3, 4, 5]):
        ways = math.comb(frames + length, 2 * length)  # where each token and each blank around it begins
        expected += (frames * math.log(9) - math.log(ways)) / 4
    assert model.loss(batch)["ctc"].item() == pytest.approx(expected, rel=1e-5)


def test_a_clip_with_one_gap_of_one_frame_costs_nothing():
    model, batch = Wav2Vec2(SMALL).train(), clips(1)
    masked = torch.zeros(1, 29, dtype=torch.bool)
    masked[0, 3] = True
    assert model.loss(batch | {"masked": masked})["contrastive"] == 0
    losses = model.loss(batch | {"masked": torch.zeros_like(masked)})
    sum(losses.values()).backward()
    assert all(loss.item() == 0 for loss in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_silence_is_finite():
    model = Wav2Vec2(SMALL).train()
    sum(model.loss({"waveform": torch.zeros(2, 180)}).values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_tiny_is_tiny_and_hears_a_second_as_the_published_do():
    model = Wav2Vec2(TINY)
    assert sum(p.numel() for p in model.parameters()) < 250_000
    assert model(torch.randn(1, 16_000)).tokens.shape == (1, 49, 64)
    assert model(torch.randn(1, 400)).tokens.shape == (1, 1, 64)
