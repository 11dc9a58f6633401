"""UNITER, VL-BERT, VisualBERT: their words are BERT's, regions are read as the papers say, losses and sizes."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from batches import read, scenes
from testing_tools import close, gradient_of_states, overfit, refused

from mmlearn.models.fusion.uniter import UNITER, UNITERConfig
from mmlearn.models.fusion.visual_bert import VisualBERT, VisualBERTConfig
from mmlearn.models.fusion.vl_bert import VLBERT, VLBERTConfig, sinusoidal_boxes
from mmlearn.models.text.bert import BERT, BERTConfig

SYSTEMS = {
    "uniter": (UNITER, UNITERConfig),
    "vl-bert": (VLBERT, VLBERTConfig),
    "visual-bert": (VisualBERT, VisualBERTConfig),
}
WITH_MASKED_REGIONS = ["uniter", "vl-bert"]


def build(name, **changes):
    model, config = SYSTEMS[name]
    return model(dataclasses.replace(config.tiny(), **changes))


# What leaks.


@pytest.mark.parametrize("name", WITH_MASKED_REGIONS)
def test_a_masked_region_is_told_from_an_empty_one(name):
    model, batch = build(name), scenes()
    with torch.no_grad():
        model.masked_region.normal_()  # for VL-BERT 0 before training
    shown = read(model, batch, masked_regions=torch.zeros_like(batch["masked_regions"]))
    assert ((read(model, batch).regions - shown.regions).abs().amax(-1) > 1e-4)[batch["region_mask"]].all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_words_and_regions_all_see_each_other(name):
    model, batch = build(name), {key: rows[3:4] for key, rows in scenes().items()}
    batch["mask"] = torch.ones_like(batch["mask"])
    batch["masked_regions"] = torch.zeros_like(batch["masked_regions"])
    before = read(model, batch)
    regions, tokens = batch["regions"].clone(), batch["tokens"].clone()
    regions[0, 2] += 3
    tokens[0, 5] = 44
    for after in (read(model, batch, regions=regions), read(model, batch, tokens=tokens)):
        assert ((after.tokens - before.tokens).abs().amax(-1) > 1e-4).all()
        assert ((after.regions - before.regions).abs().amax(-1) > 1e-4)[batch["region_mask"]].all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_boxes_are_read_but_by_visual_bert(name):
    model, batch = build(name), scenes()
    moved = read(model, batch, boxes=batch["boxes"] / 2).tokens
    assert torch.equal(moved, read(model, batch).tokens) == (name == "visual-bert")


# What is BERT is BERT.


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_text_that_sees_no_region_is_read_as_by_bert(name):
    """With the same weights, which have the same names; VL-BERT before its visual features grow."""
    changes = dict(visual_scale=0.0) if name == "vl-bert" else {}
    model, batch = build(name, pooler=True, **changes), scenes()
    bert = BERT(dataclasses.replace(BERTConfig.tiny(), language_head=True, token_types=model.config.token_types))
    assert model.load_state_dict(bert.state_dict(), strict=False).unexpected_keys == []
    whole = model.transformer.forward

    def words_among_themselves(x, real):
        is_word = torch.arange(x.shape[1]) < 12
        return whole(x, real[:, None] & (is_word | ~is_word[:, None]))

    model.transformer.forward = words_among_themselves
    token_type = (torch.arange(12) > 4).long().expand(6, 12)
    output, expected = read(model, batch, token_type=token_type), bert(batch["tokens"], batch["mask"], token_type)
    mask = batch["mask"]
    close(output.tokens[mask], expected.tokens[mask])
    close(output.pooled, expected.pooled)
    close(model.token_logits(output.tokens)[mask], expected.token_logits[mask])
    del model.transformer.forward
    assert not torch.allclose(read(model, batch, token_type=token_type).tokens, expected.tokens, atol=1e-2)


@pytest.mark.parametrize("name", SYSTEMS)
def test_sentences_are_told_apart_and_one_is_the_default(name):
    model, batch = build(name), scenes()
    first = torch.zeros_like(batch["tokens"])
    assert torch.equal(read(model, batch).tokens, read(model, batch, token_type=first).tokens)
    assert not torch.allclose(read(model, batch).tokens, read(model, batch, token_type=first + 1).tokens, atol=1e-3)


def test_vl_bert_starts_blind():
    """As published, from BERT's weights: visual features are scaled by 0 before training, and learn to be seen."""
    model, batch = build("vl-bert", visual_scale=0.0), scenes()
    output = read(model, batch, masked_regions=None)
    assert torch.equal(output.tokens, read(model, batch, masked_regions=None, regions=batch["region_target"]).tokens)
    output.tokens.square().sum().backward()
    assert (model.word_visual_norm.weight.grad != 0).any()
    assert (model.region_visual_norm.weight.grad != 0).any()


# How a region becomes a token.


def norm(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-12).sqrt()


def embedded(model, batch):
    """What goes into the transformer."""
    seen = []
    hook = model.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    read(model, batch)
    hook.remove()
    return seen[0]


def test_uniter_reads_features_and_seven_numbers_of_the_box():
    model, batch = build("uniter"), scenes()
    with torch.no_grad():
        model.masked_region.fill_(0.3)
    x, real = embedded(model, batch)
    assert x.shape == (6, 12 + 9, 64)
    assert torch.equal(real, torch.cat([batch["mask"], batch["region_mask"]], 1))
    close(x[:, :12], model.embedding(batch["tokens"]))
    for row, position in ((2, 0), (2, 1)):  # shown, and masked
        v = torch.full((216,), 0.3) if position == 1 else batch["regions"][row, position]
        x1, y1, x2, y2 = batch["boxes"][row, position].tolist()
        box = torch.tensor([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)])
        expected = norm(model.region_projection.weight @ v) + norm(model.box_projection.weight @ box)
        close(x[row, 12 + position], norm(expected + model.embedding.token_types.weight[1]))


def test_vl_bert_gives_each_element_a_token_and_a_visual_feature():
    model, batch = build("vl-bert", visual_scale=1.0), scenes()
    with torch.no_grad():
        model.masked_region.fill_(0.3)
    x, real = embedded(model, batch)
    assert x.shape == (6, 12 + 9 + 2, 64)
    assert torch.equal(real, torch.cat([batch["mask"], batch["region_mask"], torch.ones(6, 2).bool()], 1))
    table, types = model.embedding.tokens.weight, model.embedding.token_types.weight
    positions, row = model.embedding.positions, 2
    length = int(batch["mask"][row].sum())

    def visual(feature, box):
        return norm((model.visual[1].weight @ torch.cat([sinusoidal_boxes(box[None, None], 64)[0, 0], feature])).relu())

    boxes, features = batch["boxes"][row], batch["regions"][row]
    seen = [i for i in range(9) if batch["region_mask"][row, i] and not batch["masked_regions"][row, i]]
    assert len(seen) == 2
    whole = visual(features[seen].mean(0), torch.tensor([0.0, 0, 1, 1]))
    for i in (0, 3):
        close(x[row, i], norm(table[batch["tokens"][row, i]] + types[0] + positions[i] + whole))
    end = length + 1
    close(x[row, 12], norm(model.image_token + visual(features[0], boxes[0]) + types[2] + positions[length]))
    masked = visual(torch.full((216,), 0.3), boxes[1])
    close(x[row, 13], norm(model.masked_image_token + masked + types[2] + positions[length]))
    close(x[row, 21], norm(model.image_token + whole + types[2] + positions[length]))
    close(x[row, 22], norm(model.end_token + types[2] + positions[end]))


def test_visual_bert_starts_with_the_tables_of_words():
    model = build("visual-bert")
    assert torch.equal(model.region_types.weight, model.embedding.token_types.weight)
    assert torch.equal(model.region_positions, model.embedding.positions)
    assert model.region_positions.data_ptr() != model.embedding.positions.data_ptr()


def test_waves_of_a_box():
    boxes = scenes()["boxes"]
    waves = sinusoidal_boxes(boxes, 24)
    x1, y1, x2, y2 = boxes[1, 2].tolist()
    expected = []
    for g in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1):
        angles = [100 * g / 1000 ** (i / 3) for i in range(3)]
        expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    close(waves[1, 2], torch.tensor(expected), 1e-4)
    refused("width must be a multiple of 8, got 20", sinusoidal_boxes, boxes, 20)


def test_vl_bert_reads_a_text_that_fills_all_positions():
    model, batch = build("vl-bert"), scenes()
    batch["tokens"] = F.pad(batch["tokens"], (0, 20), value=9)
    output = read(model, batch, mask=torch.ones_like(batch["tokens"], dtype=torch.bool))
    assert output.tokens.isfinite().all()


# How it starts.


def test_vl_bert_starts_with_visual_features_and_marks_as_large_as_tokens():
    assert VLBERTConfig.tiny().visual_scale == VLBERTConfig.tiny().initial_std
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = build("vl-bert", initial_std=std)
        for token in (model.image_token, model.masked_image_token, model.end_token):
            assert token.std().item() == pytest.approx(std, rel=0.3)  # of 64 numbers


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_narrow_model_with_the_published_start_hardly_listens(name):
    """How far the third token moves in the first block when the first is another; a normalised state has length 1."""

    def moved(std):
        torch.manual_seed(0)
        model, batch = build(name, initial_std=std), scenes()
        states = []
        model.transformer.blocks[0].register_forward_hook(lambda _, inputs, output: states.append(output[:, 2]))
        other = batch["tokens"].clone()
        other[:, 0] = other[:, 0].flip(0)
        read(model, batch)
        read(model, batch, tokens=other)
        return (states[1] - states[0]).square().mean().sqrt().item()

    assert moved(0.02) < 0.005
    assert moved(0.125) > 0.04


# What is learned.


@pytest.mark.parametrize("name", SYSTEMS)
def test_losses_start_at_what_nothing_known_costs(name):
    """A table of spread 0.02 and states of length 8 give logits that spread by 0.16, which adds 0.013 to ln v."""
    objectives = [objective for objective in SYSTEMS[name][0].OBJECTIVES if objective != "wra"]
    losses, divergences = [], []
    for seed in range(10):
        torch.manual_seed(seed)
        batch = scenes(seed=seed)
        losses.append(build(name, objectives=tuple(objectives), initial_std=0.02).loss(batch))
        masked = batch["masked_regions"] & (batch["match_label"] == 1)[:, None]
        classes = batch["region_classes"][masked]
        divergences.append(math.log(144) + (classes * classes.log()).sum(-1).mean().item())
    start = {key: sum(loss[key].item() for loss in losses) / 10 for key in losses[0]}
    expected = {
        "mlm": pytest.approx(math.log(512), abs=0.05),
        "itm": pytest.approx(math.log(2), abs=0.05),
        "mrc": pytest.approx(math.log(144), abs=0.1),
        "mrc_kl": pytest.approx(sum(divergences) / 10, abs=0.05),
        "mrfr": pytest.approx(216 * (1 + 0.16**2), rel=0.05),  # of features that spread by 1
    }
    assert start == {key: expected[key] for key in objectives}


def test_losses_are_means_over_masked_positions_of_matching_pairs():
    model, batch = build("uniter", objectives=("mlm", "mrfr", "mrc", "mrc_kl", "itm", "wra")), scenes()
    output, losses = read(model, batch), model.loss(batch)
    assert set(losses) == {"mlm", "mrfr", "mrc", "mrc_kl", "itm", "wra"}
    match = batch["match_label"] == 1
    masked = batch["masked_regions"] & match[:, None]
    states, truth = output.regions[masked], batch["region_classes"][masked]
    features = model.region_regression(states) @ model.region_projection.weight + model.region_regression_bias
    logits = model.region_classifier(states)
    expected = {
        "mlm": F.cross_entropy(model.token_logits(output.tokens[match]).mT, batch["token_label"][match]),
        "mrfr": (features - batch["region_target"][masked]).square().sum(-1).mean(),
        "mrc": F.cross_entropy(logits, truth.argmax(-1)),
        "mrc_kl": F.kl_div(logits.log_softmax(-1), truth, reduction="batchmean"),
        "itm": F.cross_entropy(output.match_logits, batch["match_label"]),
    }
    for key, value in expected.items():
        close(losses[key], value)


@pytest.mark.parametrize(("name", "learns"), [("uniter", False), ("vl-bert", False), ("visual-bert", True)])
def test_words_of_pairs_that_do_not_match(name, learns):
    model, batch = build(name, objectives=("mlm",)), scenes()
    before = model.loss(batch)["mlm"].item()
    label = batch["token_label"].clone()
    label[2] = torch.where(label[2] == -100, -100, 7)
    assert (model.loss(batch | {"token_label": label})["mlm"].item() != before) == learns
    del batch["match_label"]  # all match
    assert model.loss(batch | {"token_label": label})["mlm"].item() != model.loss(batch)["mlm"].item()


def test_alignment_pulls_matching_pairs_together_and_pushes_others_apart():
    model, batch = build("uniter", objectives=("wra",)), scenes()
    match = torch.ones(6, dtype=torch.long)
    near = model.loss(batch | {"match_label": match})["wra"]
    far = model.loss(batch | {"match_label": 1 - match})["wra"]
    mixed = model.loss(batch)["wra"]
    assert near.item() > 0.01
    close(far, -near)
    assert -near < mixed < near
    louder = build("uniter", objectives=("wra",), alignment_weight=0.2)
    louder.load_state_dict(model.state_dict())
    close(louder.loss(batch)["wra"], 2 * mixed)
    assert all(one.any() for one in gradient_of_states(model, batch, "wra", "tokens", "regions"))
    before = read(model, batch, masked_regions=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.loss(batch | {"match_label": match})["wra"].backward()
    optimizer.step()
    assert model.loss(batch | {"match_label": match})["wra"] < near
    assert not torch.equal(read(model, batch, masked_regions=None).tokens, before.tokens)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_trains_what_it_has_labels_for(name):
    model, batch = build(name), scenes()
    assert set(model.loss(batch)) == set(model.config.objectives)
    inputs = {key: batch[key] for key in ("tokens", "regions", "boxes", "region_mask")}
    words = inputs | {"token_label": batch["token_label"]}
    assert list(model.loss(words)) == ["mlm"]
    if name == "uniter":
        masked = words | {"masked_regions": batch["masked_regions"], "region_target": batch["region_target"]}
        assert list(model.loss(masked)) == ["mlm", "mrfr"]
        assert list(model.loss(inputs | {"match_label": batch["match_label"]})) == ["itm", "wra"]


def test_features_of_one_batch_are_learned_by_heart():
    model, batch = build("uniter", objectives=("mrfr", "mrc_kl"), depth=1), scenes(4, p=3)
    before = model.loss(batch)
    overfit(model, batch, steps=120, learning_rate=5e-3)
    after = model.loss(batch)
    assert after["mrfr"] < 0.1 * before["mrfr"]
    assert after["mrc_kl"] < 0.1 * before["mrc_kl"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_heads_are_built_for_objectives(name):
    model, batch = build(name, objectives=()), scenes()
    assert model.language_head is model.match_head is read(model, batch).match_logits is None
    assert not any("region_classifier" in key or "region_regression" in key for key, _ in model.named_parameters())
    unknown = "wra" if name != "uniter" else "lm"
    refused(f"^{type(model).__name__} learns mlm, .*itm.*, not {unknown}", build, name, objectives=("mlm", unknown))
    if name != "vl-bert":
        refused("token_types must be more; got 1", build, name, token_types=1)


# The rest.


@pytest.mark.parametrize("name", SYSTEMS)
def test_words_and_regions_are_dropped_alike(name):
    model, batch = build(name, dropout=0.5), scenes()
    dropped = (embedded(model, batch)[0] == 0).float().mean((0, 2))  # of each word, region and what is behind them
    assert ((dropped > 0.4) & (dropped < 0.6)).all()
