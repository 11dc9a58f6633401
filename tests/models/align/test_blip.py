"""BLIP: what the roles share and record, three losses, right and wrong pairs, captions that come back."""

import dataclasses
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from testing_tools import END, close, count_parameters, overfit, pairs, refused, shaken

from mmlearn.generation.cache import pad_left, start_prompts, uncached
from mmlearn.generation.decoding import beam_search, greedy, sample
from mmlearn.layers import record_attention
from mmlearn.models.align.blip import BLIP, BLIPConfig

TINY = BLIPConfig.tiny()
PLAIN = dataclasses.replace(TINY, queue_size=0, end_token=END)  # no momentum encoder
SMALL = dataclasses.replace(TINY, queue_size=20)


def build(config=TINY, seed=0):
    torch.manual_seed(seed)
    return BLIP(config)


# What is shared.


def test_self_attention_starts_alike_and_is_no_other_parameter_twice():
    model = build(PLAIN)
    own = [(block.attention, block.attention_norm) for block in model.online.text.transformer.blocks]
    for (attention, norm), other in zip(own, model.decoder_attention, strict=True):
        for one, two in ((attention, other.attention), (norm, other.attention_norm)):
            for first, second in zip(one.parameters(), two.parameters(), strict=True):
                assert torch.equal(first, second)
                assert first is not second
    assert len(model.state_dict()) == len({value.data_ptr() for value in model.state_dict().values()})


def test_a_decoder_alone_has_one_self_attention():
    both, reader, writer = (
        sum(p.numel() for p in BLIP(dataclasses.replace(PLAIN, **roles)).parameters())
        for roles in ({}, dict(decoder=False), dict(encoder=False))
    )
    attention = 3 * (4 * (64 * 64 + 64) + 2 * 64)
    reading, writing = 2 * (64 * 64 + 64) + 2 * 64 + 2, 64 * 64 + 64 + 2 * 64 + 514
    assert both - reader == attention + writing
    assert both - writer == attention + reading


# What each role may see.


def test_attention_is_recorded_for_each_role():
    model, batch = build(), pairs()
    fused = model(**batch)
    with record_attention(model) as maps:
        recorded = model(**batch)
    for one, two in zip(fused, recorded):
        close(one, two)
    text = "online.text.transformer.blocks.0"
    own = maps["decoder_attention.0.attention"]
    assert own.shape == (8, 2, 12, 12)
    assert (own.triu(1) == 0).all()
    alone, beside = maps[f"{text}.attention"], maps[f"{text}.attention#2"]
    assert (alone.triu(1) > 0).any()
    assert not torch.equal(alone, beside)
    assert maps[f"{text}.cross_attention"].shape == (8, 2, 12, 17)  # matching
    assert maps[f"{text}.cross_attention#2"].shape == (8, 2, 12, 17)  # captioning
    assert f"{text}.cross_attention#3" not in maps


# The losses.


def test_losses_at_the_start():
    """A high temperature makes candidates alike. Logits of a table of spread 0.02 spread by 0.16, which adds 0.013."""
    totals = {"itc": 0, "itm": 0, "lm": 0}
    for seed in range(6):
        model = build(
            dataclasses.replace(TINY, temperature=1e4, text=dataclasses.replace(TINY.text, initial_std=0.02)), seed
        )
        totals = {name: totals[name] + loss.item() / 6 for name, loss in model.loss(pairs(seed=seed)).items()}
    assert totals["itc"] == pytest.approx(math.log(8 + 1024), abs=1e-3)
    assert totals["itm"] == pytest.approx(math.log(2), abs=0.06)
    assert totals["lm"] == pytest.approx(math.log(514), abs=0.05)


@torch.no_grad()
def embeddings(encoders, batch):
    image = F.normalize(encoders.image_projection(encoders.image_encoder(batch["image"])[:, 0]), dim=-1)
    text = F.normalize(encoders.text_projection(encoders.text(batch["tokens"], batch["mask"])[:, 0]), dim=-1)
    return image, text


def test_contrast_without_a_momentum_encoder_is_info_nce():
    model, batch = build(PLAIN), pairs()
    u, v = embeddings(model.online, batch)
    diagonal = torch.arange(8)
    expected = (F.cross_entropy(u @ v.T / 0.07, diagonal) + F.cross_entropy(v @ u.T / 0.07, diagonal)) / 2
    close(model.loss(batch)["itc"], expected)
    batch["caption_id"] = torch.tensor([11, 12, 13, 11, 15, 16, 17, 18])
    positives = (batch["caption_id"][:, None] == batch["caption_id"]).float()
    target = positives / positives.sum(1, keepdim=True)
    expected = (F.cross_entropy(u @ v.T / 0.07, target) + F.cross_entropy(v @ u.T / 0.07, target)) / 2
    close(model.loss(batch)["itc"], expected)


@pytest.mark.parametrize("config", [PLAIN, SMALL])
def test_matching_meets_right_and_wrong_pairs(config, monkeypatch):
    model, batch = build(config), pairs() | {"caption_id": torch.tensor([1, 1, 2, 3, 3, 4, 5, 6])}
    seen = {}
    judge = model._match
    monkeypatch.setattr(model, "_match", lambda *pair: seen.update(pair=pair) or judge(*pair))
    loss = model.loss(batch)["itm"]
    patches, tokens, mask = seen["pair"]
    images = model.online.image_encoder(batch["image"])

    def which(rows, among):
        return [next(i for i, other in enumerate(among) if torch.allclose(row, other, atol=1e-5)) for row in rows]

    image, text = which(patches, images), which(tokens, batch["tokens"])
    assert image[:8] == text[8:] == [*range(8)]
    ids = batch["caption_id"].tolist()
    assert all(ids[i] != ids[j] for i, j in zip(image, text, strict=True))
    assert torch.equal(mask, batch["mask"][text])
    logits = torch.cat([judge(images, batch["tokens"], batch["mask"]), judge(images[image], tokens, mask)])
    close(loss, F.cross_entropy(logits, torch.tensor([1] * 8 + [0] * 16)))


def test_wrong_pairs_are_the_likelier_the_more_similar():
    """At a low temperature the most similar of another caption, in both directions."""
    model, batch = build(dataclasses.replace(PLAIN, temperature=1e-5)), pairs()
    u, v = embeddings(model.online, batch)
    similarity = (u @ v.T).fill_diagonal_(-2)
    seen = {}
    judge = model._match
    model._match = lambda *pair: seen.update(pair=pair) or judge(*pair)
    model.loss(batch)
    assert torch.equal(seen["pair"][1][:8], batch["tokens"][similarity.argmax(1)])
    images = model.online.image_encoder(batch["image"])
    close(seen["pair"][0][8:], images[similarity.argmax(0)])


def test_wrong_pairs_go_by_seed_and_step_or_by_a_generator():
    model, batch = build(PLAIN), pairs()
    judge, seen = model._match, []
    model._match = lambda *pair: seen.append(pair[1][:8]) or judge(*pair)

    def drawn(generator=None):
        model.loss(batch, generator)
        return seen.pop().tolist()

    first = drawn()
    torch.manual_seed(99)
    assert drawn() == first
    assert drawn(torch.Generator().manual_seed(5)) == drawn(torch.Generator().manual_seed(5)) != first
    model.after_step()
    assert drawn() != first
    model.steps.zero_()
    model.config = dataclasses.replace(model.config, seed=1)
    assert drawn() != first


def test_losses_of_one_role():
    reader, writer = (BLIP(dataclasses.replace(PLAIN, **{role: False})) for role in ("decoder", "encoder"))
    batch = pairs()
    assert set(reader.loss(batch)) == {"itc", "itm"}
    assert set(writer.loss(batch)) == {"lm"}
    assert not hasattr(reader(**batch), "token_logits")
    output = writer(**batch)
    assert output._fields == ("patches", "token_logits")
    for call in (writer.encode_image, lambda image: writer.match(image, batch["tokens"])):
        refused("built without encoder; set encoder=True", call, batch["image"])
    refused("built without encoder", writer.encode_text, batch["tokens"])
    refused("built without decoder; set decoder=True", reader.generate, batch["image"])
    refused("set encoder=True, decoder=True, or both", BLIP, dataclasses.replace(TINY, encoder=False, decoder=False))


def test_texts_without_a_word_cost_nothing():
    model, batch = build(PLAIN), pairs()
    batch["mask"][:, 1:] = False
    losses = model.loss(batch)
    assert losses["lm"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_temperature_stays_within_its_bounds():
    model = build(SMALL)
    for start, end in ((9.0, 0.5), (-1.0, 0.001), (0.07, 0.07)):
        model.temperature.data.fill_(start)
        model.after_step()
        assert model.temperature.item() == pytest.approx(end)


# Learning, and writing.


@pytest.fixture(scope="module")
def trained():
    """One batch learned by heart, with its loss."""
    model, batch = build(dataclasses.replace(PLAIN, label_smoothing=0.0)), pairs()
    loss = overfit(model, batch, steps=100, learning_rate=2e-3)
    return model.eval(), batch, loss


def test_one_batch_is_learned_by_heart(trained):
    model, batch, loss = trained
    assert loss < 0.1
    similarity = model.encode_image(batch["image"]) @ model.encode_text(batch["tokens"], batch["mask"]).T
    assert torch.equal(similarity.argmax(1), torch.arange(8))
    assert (model.match(**batch).argmax(-1) == 1).all()


def test_with_momentum_encoder_and_smoothing_losses_fall_to_their_floor():
    """The floor is the entropy of the smoothed target."""
    config = dataclasses.replace(TINY, queue_size=64, alpha_ramp=10_000)
    model, batch = build(config), pairs() | {"caption_id": torch.arange(8)}
    first = {name: loss.item() for name, loss in model.loss(batch).items()}
    overfit(model, batch, steps=40, learning_rate=3e-3)
    last = {name: loss.item() for name, loss in model.eval().loss(batch).items()}
    rare = 0.1 / 514
    floor = -(0.9 + rare) * math.log(0.9 + rare) - 513 * rare * math.log(rare)
    assert floor < last["lm"] < floor + 0.5 < first["lm"]
    assert last["itm"] < first["itm"]
    assert last["itc"] > 0


@pytest.mark.parametrize(
    "decode",
    [None, partial(beam_search, beams=3), partial(sample, top_p=0.5, generator=torch.Generator().manual_seed(0))],
)
def test_captions_come_back(trained, decode):
    model, batch, _ = trained
    written = model.generate(batch["image"], *([decode] if decode else []), max_length=11)
    expected = batch["tokens"][:, 1:]
    assert torch.equal(written, expected[:, : written.shape[1]])
    assert (expected[:, written.shape[1] :] == 0).all()


def test_a_prompt_goes_on(trained):
    model, batch, _ = trained
    long = batch["mask"].sum(1) > 4
    written = model.generate(batch["image"][long], prompt=batch["tokens"][long, 1:3], max_length=11)
    assert torch.equal(written, batch["tokens"][long, 1 : written.shape[1] + 1])
    with pytest.raises(ValueError, match="max_length 3 counts the 3 tokens"):
        model.generate(batch["image"], prompt=batch["tokens"][:, 1:3], max_length=2)
    with pytest.raises(ValueError, match="33 tokens are more than the 32 positions"):
        BLIP(dataclasses.replace(PLAIN, end_token=0)).generate(batch["image"][:1], max_length=40)
    assert len(model.generate(batch["image"][:0])) == 0


@pytest.mark.parametrize("decode", [greedy, partial(beam_search, beams=4)])
def test_captions_are_equal_with_and_without_the_cache(decode):
    """Of models that were shaken, so that each picture has a caption of its own."""
    for config in (PLAIN, dataclasses.replace(PLAIN, encoder=False)):
        model, batch = shaken(build(config), 0.2).eval(), pairs()
        prompt, mask = pad_left([batch["tokens"][i, 1 : 2 + i % 3] for i in range(8)])
        start, real = start_prompts(model.decode_token, prompt, mask)
        with torch.no_grad():
            next_logits = uncached(model.step_function(batch["image"]), real)
            expected = decode(next_logits, start, end_token=END, max_length=12)[:, 1:]
        got = model.generate(batch["image"], decode, prompt=prompt, prompt_mask=mask, max_length=11)
        assert torch.equal(got[:, 3:], expected[:, 3:])
        assert torch.equal(got[:, :3], prompt)
        assert len(got[:, 3:].unique(dim=0)) > 6
        for i in range(8):  # each alone, without padding
            own = prompt[i : i + 1, mask[i]]
            short = int((~mask[i]).sum())
            alone = model.generate(batch["image"][i : i + 1], decode, prompt=own, max_length=11 - short)[0]
            assert torch.equal(got[i, short:][: len(alone)], alone)


# Sizes.


def test_large_has_the_larger_image_encoder():
    base, large = (
        count_parameters(BLIP, dataclasses.replace(BLIPConfig.preset(name), queue_size=0)) for name in ("base", "large")
    )
    vision = 303_301_632 - 85_798_656  # ViT-L/16 less ViT-B/16, without their classifiers
    wider = 12 * 2 * 256 * 768 + 256 * 256  # keys and values of cross-attention, and the projection
    assert large - base == vision + wider
