"""BLIP: what the roles share, what each may see, three losses, what follows and teaches, captions that come back."""

import copy
import dataclasses
import json
import math
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from testing_tools import (
    END,
    assert_rows_are_independent,
    assert_unit_length,
    close,
    count_parameters,
    other_padding,
    overfit,
    pairs,
)
from torch import nn

from mmlearn.generation.decoding import beam_search, nucleus
from mmlearn.layers import record_attention
from mmlearn.models.align.blip import BLIP, BLIPConfig

TINY = BLIPConfig.tiny()
PLAIN = dataclasses.replace(TINY, queue_size=0, end_token=END)  # no momentum encoder
SMALL = dataclasses.replace(TINY, queue_size=20)


def build(config=TINY, seed=0):
    torch.manual_seed(seed)
    return BLIP(config)


# What is shared.


def changed(model, change, batch):
    """Which outputs change when ``change`` is done to the model."""
    before = model(**batch)
    change(model)
    after = model(**batch)
    return {name for name in before._fields if not torch.equal(getattr(before, name), getattr(after, name))}


@torch.no_grad()
def shift(module):
    """Noise, for a constant could be lost in a norm."""
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn(parameter.shape))


def test_encoder_and_decoder_share_all_but_self_attention():
    def effect(find):
        return changed(build(PLAIN), lambda model: shift(find(model)), pairs())

    block = lambda model: model.online.text.transformer.blocks[1]  # noqa: E731
    text, pictures = {"text_embedding", "tokens", "match_logits"}, {"tokens", "match_logits", "token_logits"}
    everything = text | pictures
    assert effect(lambda model: block(model).attention) == text
    assert effect(lambda model: block(model).attention_norm) == text
    assert effect(lambda model: model.decoder_attention[1]) == {"token_logits"}
    assert effect(lambda model: block(model).cross_attention) == pictures
    assert effect(lambda model: block(model).cross_attention_norm) == pictures
    assert effect(lambda model: block(model).mlp) == everything
    assert effect(lambda model: block(model).mlp_norm) == everything
    assert effect(lambda model: model.online.text.embedding) == everything
    assert effect(lambda model: model.online.image_encoder) == pictures | {"patches", "image_embedding"}


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


def test_a_caption_never_looks_ahead():
    model, batch = build(PLAIN), pairs()
    tokens = batch["tokens"][:1]
    before = model(batch["image"][:1], tokens)
    for position in range(1, 12):
        later = tokens.clone()
        later[0, position:] = 44 + position
        after = model(batch["image"][:1], later)
        assert torch.equal(after.token_logits[:, :position], before.token_logits[:, :position])
        assert (after.token_logits[:, position] - before.token_logits[:, position]).abs().max() > 1e-4
        assert not torch.equal(after.match_logits, before.match_logits)
        assert not torch.equal(after.text_embedding, before.text_embedding)


def test_padding_changes_nothing_that_is_real():
    model, batch = build(), pairs()
    output, other = model(**batch), model(batch["image"], other_padding(batch), batch["mask"])
    for name in ("text_embedding", "match_logits", "image_embedding"):
        assert torch.equal(getattr(output, name), getattr(other, name))
    assert torch.equal(output.token_logits[batch["mask"]], other.token_logits[batch["mask"]])
    for name, loss in model.eval().loss(batch).items():
        assert torch.equal(model.loss(batch | {"tokens": other_padding(batch)})[name], loss)
    longer = {"tokens": F.pad(batch["tokens"], (0, 6)), "mask": F.pad(batch["mask"], (0, 6)), "image": batch["image"]}
    for name, loss in model.loss(batch).items():
        close(model.loss(longer)[name], loss)


def test_rows_do_not_depend_on_each_other():
    model, batch = build(), pairs()
    rows = batch["image"], batch["tokens"], batch["mask"]
    assert_rows_are_independent(lambda *rows: model(*rows).token_logits, *rows)
    assert_rows_are_independent(lambda *rows: 9 * model.match(*rows), *rows)
    assert_rows_are_independent(model.encode_text, *rows[1:])
    assert_rows_are_independent(model.encode_image, rows[0])


def test_the_picture_is_seen_by_two_roles():
    model, batch = build(), pairs()
    output, other = model(**batch), model(**batch | {"image": batch["image"].flip(0)})
    assert torch.equal(output.text_embedding, other.text_embedding)
    assert ((output.match_logits - other.match_logits).abs().amax(-1) > 1e-5).all()
    assert ((output.token_logits - other.token_logits)[batch["mask"]].abs().amax(-1) > 1e-4).all()
    assert_unit_length(output.image_embedding)
    assert_unit_length(output.text_embedding)
    close(output.image_embedding, model.encode_image(batch["image"]))
    close(output.match_logits, model.match(**batch))


def test_each_role_begins_with_its_token():
    model, batch = build(), pairs()
    other = batch | {"tokens": batch["tokens"].clone()}
    other["tokens"][:, 0] = 5
    one, two = model(**batch), model(**other)
    assert torch.equal(one.match_logits, two.match_logits)
    assert torch.equal(one.token_logits, two.token_logits)
    assert not torch.equal(one.text_embedding, two.text_embedding)
    with torch.no_grad():
        model.online.text.embedding.tokens.weight[model.encode_token] += torch.randn(64)
    assert not torch.equal(model(**batch).match_logits, one.match_logits)
    hidden = model(**batch).token_logits[..., :512]
    close(hidden, one.token_logits[..., :512])
    assert (model.decode_token, model.encode_token) == (512, 513)
    assert len(model.online.text.embedding.tokens.weight) == 514


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


# How it starts.


def test_weights_of_texts_spread_as_the_configuration_says():
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = build(dataclasses.replace(TINY, text=dataclasses.replace(TINY.text, initial_std=std))).online.text
        parts = [part.weight for part in model.modules() if isinstance(part, nn.Linear | nn.Embedding)]
        assert len(parts) > 20
        for weight in parts:
            assert weight.std().item() == pytest.approx(0.88 * std, rel=0.2)  # what a cut at two deviations leaves
            assert weight.abs().max() <= 2 * std
    presets = {name: BLIPConfig.preset(name).text.initial_std for name in BLIPConfig.PRESETS}
    assert presets.pop("tiny") == TINY.text.width**-0.5
    assert set(presets.values()) == {0.02}


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


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_captions_against_counting(smoothing):
    model, batch = build(dataclasses.replace(PLAIN, label_smoothing=smoothing)), pairs()
    log_probability = model(**batch).token_logits.log_softmax(-1)
    terms = [
        (1 - smoothing) * log_probability[b, t - 1, batch["tokens"][b, t]]
        + smoothing * log_probability[b, t - 1].mean()
        for b in range(8)
        for t in range(1, 12)
        if batch["mask"][b, t]
    ]
    assert model.loss(batch)["lm"].item() == pytest.approx(-sum(terms).item() / len(terms), abs=1e-5)


@torch.no_grad()
def embeddings(encoders, batch):
    image = F.normalize(encoders.image_projection(encoders.image_encoder(batch["image"])[:, 0]), dim=-1)
    text = F.normalize(encoders.text_projection(encoders.text(batch["tokens"], batch["mask"])[:, 0]), dim=-1)
    return image, text


@pytest.mark.parametrize("repeated", [False, True])
def test_contrast_against_counting(repeated):
    """With half the warm-up done, two captions that are one, and one that waits in the queue."""
    model, batch = build(SMALL), pairs()
    model.steps.fill_(50)
    shift(model.momentum_encoder)
    if repeated:
        batch["caption_id"] = torch.tensor([11, 12, 13, 11, 15, 16, 17, 18])
        model.queue.caption_id[:3] = torch.tensor([12, 99, 12])
    ids = batch.get("caption_id", -10 - torch.arange(8)).tolist()
    waiting = model.queue.caption_id.tolist()
    (u, v), (slow_u, slow_v) = embeddings(model.online, batch), embeddings(model.momentum_encoder, batch)
    alpha, loss = 0.4 * 50 / 100, 0.0
    for query, teacher, candidates in (
        (u, slow_u, torch.cat([slow_v, model.queue.text])),
        (v, slow_v, torch.cat([slow_u, model.queue.image])),
    ):
        for i in range(8):
            positives = torch.tensor([float(other == ids[i]) for other in ids + waiting])
            teaching = (teacher[i] @ candidates.T / 0.07).softmax(0)
            target = alpha * teaching + (1 - alpha) * positives / positives.sum()
            loss -= (target * (query[i] @ candidates.T / 0.07).log_softmax(0)).sum().item() / 16
    assert model.loss(batch)["itc"].item() == pytest.approx(loss, abs=1e-5)


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
    pictures = model.online.image_encoder(batch["image"])

    def which(rows, among):
        return [next(i for i, other in enumerate(among) if torch.allclose(row, other, atol=1e-5)) for row in rows]

    picture, text = which(patches, pictures), which(tokens, batch["tokens"])
    assert picture[:8] == text[8:] == [*range(8)]
    ids = batch["caption_id"].tolist()
    assert all(ids[i] != ids[j] for i, j in zip(picture, text, strict=True))
    assert torch.equal(mask, batch["mask"][text])
    logits = torch.cat([judge(pictures, batch["tokens"], batch["mask"]), judge(pictures[picture], tokens, mask)])
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
    pictures = model.online.image_encoder(batch["image"])
    close(seen["pair"][0][8:], pictures[similarity.argmax(0)])


def test_chance_is_a_function_of_the_batch():
    model, batch = build().eval(), pairs()
    before = torch.get_rng_state()
    first, second = model.loss(batch), model.loss(batch)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_losses_of_one_role():
    reader, writer = (BLIP(dataclasses.replace(PLAIN, **{role: False})) for role in ("decoder", "encoder"))
    batch = pairs()
    assert set(reader.loss(batch)) == {"itc", "itm"}
    assert set(writer.loss(batch)) == {"lm"}
    assert reader(**batch).token_logits is None
    output = writer(**batch)
    assert output.image_embedding is output.text_embedding is output.match_logits is None
    for call in (writer.encode_image, lambda image: writer.match(image, batch["tokens"])):
        with pytest.raises(ValueError, match="built without encoder; set encoder=True"):
            call(batch["image"])
    with pytest.raises(ValueError, match="built without encoder"):
        writer.encode_text(batch["tokens"])
    with pytest.raises(ValueError, match="built without decoder; set decoder=True"):
        reader.generate(batch["image"])
    with pytest.raises(ValueError, match="set encoder=True, decoder=True, or both"):
        BLIP(dataclasses.replace(TINY, encoder=False, decoder=False))


def test_what_no_loss_can_be_made_of():
    model, batch = build(), pairs()
    with pytest.raises(ValueError, match="at least one; got 0 and 0"):
        model.loss({name: rows[:0] for name, rows in batch.items()})
    with pytest.raises(ValueError, match="got 3 and 8"):
        model.loss(batch | {"image": batch["image"][:3]})
    with pytest.raises(ValueError, match="no negative exists"):
        model.loss({name: rows[:1] for name, rows in batch.items()})
    with pytest.raises(ValueError, match="no negative exists"):
        model.loss(batch | {"caption_id": torch.full((8,), 3)})
    with pytest.raises(ValueError, match="match_label marks some"):
        model.loss(batch | {"match_label": torch.arange(8) % 2})
    assert set(model.loss(batch | {"match_label": torch.ones(8, dtype=torch.long)})) == {"itc", "itm", "lm"}


def test_texts_without_a_word_cost_nothing():
    model, batch = build(PLAIN), pairs()
    batch["mask"][:, 1:] = False
    losses = model.loss(batch)
    assert losses["lm"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_all_that_learns_gets_a_gradient():
    model = build()
    sum(model.loss(pairs()).values()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("momentum_encoder."):
            assert not parameter.requires_grad
            assert parameter.grad is None
        elif not name.endswith("attention.key.bias"):  # which softmax takes out
            assert parameter.grad.abs().max() > 0, name


def test_the_pad_token_learns_nothing_by_being_looked_up():
    """Only the decoder's output, which has the same table, may move it."""
    batch = pairs()
    for roles, learns in ((dict(decoder=False), False), (dict(encoder=False), True)):
        model = build(dataclasses.replace(PLAIN, **roles))
        sum(model.loss(batch).values()).backward()
        gradient = model.online.text.embedding.tokens.weight.grad
        assert (gradient[0] != 0).any() == learns
        assert (gradient[batch["tokens"][batch["mask"]].unique()] != 0).any(-1).sum() > 20


# The momentum encoder and the queue.


def test_the_momentum_encoder_follows_after_a_step():
    model = build(dataclasses.replace(SMALL, momentum=0.9))
    first = copy.deepcopy(model.online)
    for one, two in zip(model.online.parameters(), model.momentum_encoder.parameters(), strict=True):
        assert torch.equal(one, two)
        assert one is not two
    shift(model)
    model.momentum_encoder.load_state_dict(first.state_dict())
    model.after_step()
    for slow, start, now in zip(
        model.momentum_encoder.parameters(), first.parameters(), model.online.parameters(), strict=True
    ):
        close(slow, 0.9 * start + 0.1 * now)
    assert model.steps == 1
    for bad, kept in ((9.0, 0.5), (-1.0, 0.001), (0.07, 0.07)):
        model.temperature.data.fill_(bad)
        model.after_step()
        assert model.temperature.item() == pytest.approx(kept)
    assert model.loss(pairs())["itc"].isfinite()


def test_the_momentum_encoder_teaches_more_with_time():
    model, batch = build(SMALL).eval(), pairs()
    shift(model.momentum_encoder)
    losses = []
    for steps in (0, 50, 100, 1000):
        model.steps.fill_(steps)
        losses.append(model.loss(batch)["itc"].item())
    assert len(set(losses[:3])) == 3
    assert losses[2] == losses[3]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, abs=1e-4)


def test_the_queue_takes_batches_in_while_training_only():
    model, batch = build(SMALL), pairs() | {"caption_id": torch.arange(8) + 40}
    image, text = embeddings(model.momentum_encoder, batch)
    start = copy.deepcopy(model.queue)
    model.eval().loss(batch)
    assert all(torch.equal(one, two) for one, two in zip(model.queue.buffers(), start.buffers(), strict=True))
    model.train().loss(batch)
    close(model.queue.image[:8], image)
    close(model.queue.text[:8], text)
    assert torch.equal(model.queue.image[8:], start.image[8:])
    assert model.queue.caption_id.tolist() == [*range(40, 48), *[-1] * 12]
    del batch["caption_id"]
    for _ in range(2):
        model.loss(batch)
    assert model.queue.pointer == 24 % 20
    assert (model.queue.caption_id[8:] < 0).all()


def test_captions_without_a_number_are_like_no_other():
    """Those of the second batch are not those of the first, though both are rows 0 to 7."""
    model = build(SMALL)
    model.loss(pairs())
    batch = pairs(seed=1)
    assert not model.queue.positives(-1 - torch.arange(8)).any()
    assert model.loss(batch)["itc"].isfinite()


@pytest.mark.parametrize("config", [SMALL, dataclasses.replace(SMALL, decoder=False), PLAIN])
def test_training_goes_on_from_its_state(config):
    def train(model, optimizer, steps):
        for step in steps:
            optimizer.zero_grad()
            sum(model.loss(pairs(seed=step)).values()).backward()
            optimizer.step()
            model.after_step()

    def sgd(model):
        return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)

    whole = build(config)
    train(whole, sgd(whole), range(2))
    resumed = build(config, seed=5)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    train(whole, sgd(whole), range(2, 4))
    train(resumed, sgd(resumed), range(2, 4))
    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert ("queue.image" in whole.state_dict()) == (config.queue_size > 0)
    assert any(name.startswith("momentum_encoder.") for name in whole.state_dict()) == (config.queue_size > 0)


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
    [None, partial(beam_search, beams=3), partial(nucleus, mass=0.5, generator=torch.Generator().manual_seed(0))],
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


# Sizes.


@pytest.mark.parametrize(
    ("changes", "count"), [(dict(encoder=False), 223_679_804), (dict(decoder=False, queue_size=0), 223_452_418)]
)
def test_base_has_the_published_size(changes, count):
    assert count_parameters(BLIP, dataclasses.replace(BLIPConfig.preset("base"), **changes)) == count


@pytest.mark.parametrize("preset", BLIPConfig.PRESETS)
def test_presets_survive_json(preset):
    config = BLIPConfig.preset(preset)
    assert BLIPConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_large_has_the_larger_picture_encoder():
    base, large = (
        count_parameters(BLIP, dataclasses.replace(BLIPConfig.preset(name), queue_size=0)) for name in ("base", "large")
    )
    vision = 303_301_632 - 85_798_656  # ViT-L/16 less ViT-B/16, without their classifiers
    wider = 12 * 2 * 256 * 768 + 256 * 256  # keys and values of cross-attention, and the projection
    assert large - base == vision + wider
