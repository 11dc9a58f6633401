"""UNITER, VL-BERT, VisualBERT: their words are BERT's, regions are read as the papers say, nothing hidden leaks."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import assert_rows_are_independent, close, count_parameters, other_padding, overfit, pairs
from torch import nn

from mmlearn.layers import record_attention
from mmlearn.models.fusion.uniter import UNITER, UNITERConfig
from mmlearn.models.fusion.visual_bert import VisualBERT, VisualBERTConfig
from mmlearn.models.fusion.vl_bert import VLBERT, VLBERTConfig, box_waves
from mmlearn.models.text.bert import BERT, BERTConfig

SYSTEMS = {
    "uniter": (UNITER, UNITERConfig),
    "vl-bert": (VLBERT, VLBERTConfig),
    "visual-bert": (VisualBERT, VisualBERTConfig),
}
WITH_MASKED_REGIONS = ["uniter", "vl-bert"]
INPUTS = ("tokens", "regions", "boxes", "mask", "region_mask", "masked_regions", "token_type")


def build(name, **changes):
    model, config = SYSTEMS[name]
    return model(dataclasses.replace(config.tiny(), **changes))


def random_boxes(*shape, generator):
    corner = 0.5 * torch.rand(*shape, 2, generator=generator)
    size = 0.1 + 0.4 * torch.rand(*shape, 2, generator=generator)
    return torch.cat([corner, corner + size], -1)


def fusion(b=8, p=5, seed=0):
    """Random texts and regions with every label; the last two of every four pairs do not belong together."""
    generator = torch.Generator().manual_seed(seed)
    batch = pairs(b, seed=seed)
    del batch["image"]
    guess = (torch.arange(12) % 3 == 1) & batch["mask"]
    region_mask = torch.arange(p) <= torch.arange(b)[:, None] % (p - 1) + 1
    masked = (torch.arange(p) % 2 == 1) & region_mask
    regions = torch.randn(b, p, 216, generator=generator)
    return batch | {
        "tokens": batch["tokens"].masked_fill(guess, 2),
        "token_label": torch.where(guess, batch["tokens"], -100),
        "regions": regions.masked_fill(masked[..., None], 0),
        "region_target": regions,
        "region_classes": (3 * torch.randn(b, p, 144, generator=generator)).softmax(-1),
        "boxes": random_boxes(b, p, generator=generator),
        "region_mask": region_mask,
        "masked_regions": masked,
        "match_label": (torch.arange(b) % 4 < 2).long(),
    }


def run(model, batch, **changes):
    return model(**{name: value for name, value in (batch | changes).items() if name in INPUTS})


def assert_same_where_real(output, other, batch, check=torch.equal):
    mask, region_mask = batch["mask"], batch["region_mask"]
    for got, expected in (
        (output.tokens[mask], other.tokens[mask]),
        (output.regions[region_mask], other.regions[region_mask]),
        (output.pooled, other.pooled),
    ):
        assert check(got, expected) is not False


# What leaks.


@pytest.mark.parametrize("name", SYSTEMS)
def test_padding_changes_nothing_that_is_real(name):
    model, batch = build(name), fusion()
    output = run(model, batch)
    assert_same_where_real(output, run(model, batch, tokens=other_padding(batch)), batch)
    padding = ~batch["region_mask"][..., None]
    for junk in (7.0, float("nan"), float("inf")):
        changes = {key: batch[key].masked_fill(padding, junk) for key in ("regions", "boxes")}
        assert_same_where_real(output, run(model, batch, **changes), batch)
    longer = {key: F.pad(batch[key], (0, 4)) for key in ("tokens", "mask")}
    longer |= {key: F.pad(batch[key], (0, 3)) for key in ("region_mask", "masked_regions")}
    longer |= {key: F.pad(batch[key], (0, 0, 0, 3)) for key in ("regions", "boxes")}
    more = run(model, batch, **longer)
    more = more._replace(tokens=more.tokens[:, :12], regions=more.regions[:, :5])
    assert_same_where_real(output, more, batch, close)


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_masked_region_holds_is_not_seen(name):
    """Not even through the whole picture."""
    model, batch = build(name), fusion()
    for junk in (batch["region_target"], torch.full_like(batch["regions"], float("nan"))):
        regions = torch.where(batch["masked_regions"][..., None], junk, batch["regions"])
        assert_same_where_real(run(model, batch), run(model, batch, regions=regions), batch)


@pytest.mark.parametrize("name", WITH_MASKED_REGIONS)
def test_a_masked_region_is_told_from_an_empty_one(name):
    model, batch = build(name), fusion()
    with torch.no_grad():
        model.masked_region.normal_()  # for VL-BERT 0 before training
    shown = run(model, batch, masked_regions=torch.zeros_like(batch["masked_regions"]))
    assert ((run(model, batch).regions - shown.regions).abs().amax(-1) > 1e-4)[batch["region_mask"]].all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_rows_do_not_depend_on_each_other(name):
    model, batch = build(name), fusion()
    rows = [batch[key] for key in INPUTS if key in batch]
    keys = [key for key in INPUTS if key in batch]
    assert_rows_are_independent(lambda *rows: model(**dict(zip(keys, rows))).pooled, *rows)
    assert_rows_are_independent(lambda *rows: model(**dict(zip(keys, rows))).regions, *rows)


@pytest.mark.parametrize("name", SYSTEMS)
def test_words_and_regions_all_see_each_other(name):
    model, batch = build(name), {key: rows[3:4] for key, rows in fusion().items()}
    batch["mask"] = torch.ones_like(batch["mask"])
    batch["masked_regions"] = torch.zeros_like(batch["masked_regions"])
    before = run(model, batch)
    regions, tokens = batch["regions"].clone(), batch["tokens"].clone()
    regions[0, 2] += 3
    tokens[0, 5] = 44
    for after in (run(model, batch, regions=regions), run(model, batch, tokens=tokens)):
        assert ((after.tokens - before.tokens).abs().amax(-1) > 1e-4).all()
        assert ((after.regions - before.regions).abs().amax(-1) > 1e-4)[batch["region_mask"]].all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_regions_have_no_order(name):
    model, batch = build(name), fusion()
    order = torch.tensor([3, 0, 4, 1, 2])
    keys = ("regions", "boxes", "region_mask", "masked_regions")
    output, other = run(model, batch), run(model, batch, **{key: batch[key][:, order] for key in keys})
    assert_same_where_real(output._replace(regions=output.regions[:, order]), other,
                           batch | {"region_mask": batch["region_mask"][:, order]}, close)  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_boxes_are_read_but_by_visual_bert(name):
    model, batch = build(name), fusion()
    moved = run(model, batch, boxes=batch["boxes"] / 2).tokens
    assert torch.equal(moved, run(model, batch).tokens) == (name == "visual-bert")


# What is BERT is BERT.


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_text_that_sees_no_region_is_read_as_by_bert(name):
    """With the same weights, which have the same names; VL-BERT before its visual features grow."""
    changes = dict(visual_scale=0.0) if name == "vl-bert" else {}
    model, batch = build(name, pooler=True, **changes), fusion()
    bert = BERT(dataclasses.replace(BERTConfig.tiny(), language_head=True, token_types=model.config.token_types))
    assert model.load_state_dict(bert.state_dict(), strict=False).unexpected_keys == []
    whole = model.transformer.forward

    def words_among_themselves(x, real):
        is_word = torch.arange(x.shape[1]) < 12
        return whole(x, real[:, None] & (is_word | ~is_word[:, None]))

    model.transformer.forward = words_among_themselves
    token_type = (torch.arange(12) > 4).long().expand(8, 12)
    output, expected = run(model, batch, token_type=token_type), bert(batch["tokens"], batch["mask"], token_type)
    mask = batch["mask"]
    close(output.tokens[mask], expected.tokens[mask])
    close(output.pooled, expected.pooled)
    close(model.token_logits(output.tokens)[mask], expected.token_logits[mask])
    del model.transformer.forward
    assert not torch.allclose(run(model, batch, token_type=token_type).tokens, expected.tokens, atol=1e-2)


@pytest.mark.parametrize("name", SYSTEMS)
def test_sentences_are_told_apart_and_one_is_the_default(name):
    model, batch = build(name), fusion()
    first = torch.zeros_like(batch["tokens"])
    assert torch.equal(run(model, batch).tokens, run(model, batch, token_type=first).tokens)
    assert not torch.allclose(run(model, batch).tokens, run(model, batch, token_type=first + 1).tokens, atol=1e-3)


def test_vl_bert_starts_blind():
    """As published, from BERT's weights: visual features are scaled by 0 before training, and learn to be seen."""
    model, batch = build("vl-bert", visual_scale=0.0), fusion()
    output = run(model, batch, masked_regions=None)
    assert torch.equal(output.tokens, run(model, batch, masked_regions=None, regions=batch["region_target"]).tokens)
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
    run(model, batch)
    hook.remove()
    return seen[0]


def test_uniter_reads_features_and_seven_numbers_of_the_box():
    model, batch = build("uniter"), fusion()
    with torch.no_grad():
        model.masked_region.fill_(0.3)
    x, real = embedded(model, batch)
    assert x.shape == (8, 12 + 5, 64)
    assert torch.equal(real, torch.cat([batch["mask"], batch["region_mask"]], 1))
    close(x[:, :12], model.embedding(batch["tokens"]))
    for row, place in ((2, 0), (2, 1)):  # shown, and masked
        v = torch.full((216,), 0.3) if place == 1 else batch["regions"][row, place]
        x1, y1, x2, y2 = batch["boxes"][row, place].tolist()
        box = torch.tensor([x1, y1, x2, y2, x2 - x1, y2 - y1, (x2 - x1) * (y2 - y1)])
        expected = norm(model.region_projection.weight @ v) + norm(model.box_projection.weight @ box)
        close(x[row, 12 + place], norm(expected + model.embedding.token_types.weight[1]))


def test_vl_bert_gives_each_element_a_token_and_a_visual_feature():
    model, batch = build("vl-bert", visual_scale=1.0), fusion()
    with torch.no_grad():
        model.masked_region.fill_(0.3)
    x, real = embedded(model, batch)
    assert x.shape == (8, 12 + 5 + 2, 64)
    assert torch.equal(real, torch.cat([batch["mask"], batch["region_mask"], torch.ones(8, 2).bool()], 1))
    table, types = model.embedding.tokens.weight, model.embedding.token_types.weight
    places, row = model.embedding.positions, 2
    length = int(batch["mask"][row].sum())

    def visual(feature, box):
        return norm((model.visual[1].weight @ torch.cat([box_waves(box[None, None], 64)[0, 0], feature])).relu())

    boxes, features = batch["boxes"][row], batch["regions"][row]
    seen = [i for i in range(5) if batch["region_mask"][row, i] and not batch["masked_regions"][row, i]]
    assert len(seen) == 2
    whole = visual(features[seen].mean(0), torch.tensor([0.0, 0, 1, 1]))
    for i in (0, 3):
        close(x[row, i], norm(table[batch["tokens"][row, i]] + types[0] + places[i] + whole))
    end = length + 1
    close(x[row, 12], norm(model.image_token + visual(features[0], boxes[0]) + types[2] + places[length]))
    masked = visual(torch.full((216,), 0.3), boxes[1])
    close(x[row, 13], norm(model.masked_image_token + masked + types[2] + places[length]))
    close(x[row, 17], norm(model.image_token + whole + types[2] + places[length]))
    close(x[row, 18], norm(model.end_token + types[2] + places[end]))


def test_visual_bert_reads_features_and_a_type():
    model, batch = build("visual-bert"), fusion()
    with torch.no_grad():
        model.region_types.weight.normal_()
        model.region_positions.normal_()
    x, real = embedded(model, batch | {"masked_regions": torch.zeros_like(batch["masked_regions"])})
    assert torch.equal(real, torch.cat([batch["mask"], batch["region_mask"]], 1))
    close(x[:, :12], model.embedding(batch["tokens"]))
    region = batch["regions"][2, 0] @ model.region_projection.weight.T
    close(x[2, 12], norm(region + model.region_types.weight[1] + model.region_positions[0]))


def test_visual_bert_starts_with_the_tables_of_words():
    model = build("visual-bert")
    assert torch.equal(model.region_types.weight, model.embedding.token_types.weight)
    assert torch.equal(model.region_positions, model.embedding.positions)
    assert model.region_positions.data_ptr() != model.embedding.positions.data_ptr()


def test_waves_of_a_box():
    boxes = random_boxes(2, 3, generator=torch.Generator().manual_seed(0))
    waves = box_waves(boxes, 24)
    x1, y1, x2, y2 = boxes[1, 2].tolist()
    expected = []
    for g in ((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1):
        angles = [100 * g / 1000 ** (i / 3) for i in range(3)]
        expected += [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]
    close(waves[1, 2], torch.tensor(expected), 1e-4)
    with pytest.raises(ValueError, match="width must be a multiple of 8, got 20"):
        box_waves(boxes, 20)


def test_vl_bert_reads_a_text_that_fills_all_positions():
    model, batch = build("vl-bert"), fusion()
    batch["tokens"] = F.pad(batch["tokens"], (0, 20), value=9)
    output = run(model, batch, mask=torch.ones_like(batch["tokens"], dtype=torch.bool))
    assert output.tokens.isfinite().all()


# How it starts.


@pytest.mark.parametrize("name", SYSTEMS)
def test_weights_spread_as_the_configuration_says(name):
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = build(name, initial_std=std)
        parts = [part.weight for part in model.modules() if isinstance(part, nn.Linear | nn.Embedding)]
        assert len(parts) > 20
        for weight in parts:
            assert weight.std().item() == pytest.approx(0.88 * std, rel=0.2)  # what a cut at two deviations leaves
            assert weight.abs().max() <= 2 * std


def test_vl_bert_starts_with_visual_features_and_marks_as_large_as_tokens():
    assert VLBERTConfig.tiny().visual_scale == VLBERTConfig.tiny().initial_std
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = build("vl-bert", initial_std=std)
        for token in (model.image_token, model.masked_image_token, model.end_token):
            assert token.std().item() == pytest.approx(std, rel=0.3)  # of 64 numbers


@pytest.mark.parametrize("name", SYSTEMS)
def test_only_presets_of_the_published_width_start_as_published(name):
    config = SYSTEMS[name][1]
    assert config.tiny().initial_std == config.tiny().width ** -0.5
    assert {config.preset(one).initial_std for one in config.PRESETS if one != "tiny"} == {0.02}


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_narrow_model_with_the_published_start_hardly_listens(name):
    """How far the third token moves in the first block when the first is another; a normalised state has length 1."""

    def moved(std):
        torch.manual_seed(0)
        model, batch = build(name, initial_std=std), fusion()
        states = []
        model.transformer.blocks[0].register_forward_hook(lambda _, inputs, output: states.append(output[:, 2]))
        other = batch["tokens"].clone()
        other[:, 0] = other[:, 0].flip(0)
        run(model, batch)
        run(model, batch, tokens=other)
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
        batch = fusion(seed=seed)
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


def test_losses_are_means_over_masked_places_of_matching_pairs():
    model, batch = build("uniter", objectives=("mlm", "mrfr", "mrc", "mrc_kl", "itm", "wra")), fusion()
    output, losses = run(model, batch), model.loss(batch)
    assert set(losses) == {"mlm", "mrfr", "mrc", "mrc_kl", "itm", "wra"}
    words, features, classes, divergences = [], [], [], []
    for b in (0, 1, 4, 5):  # which match
        for t in range(12):
            if (label := int(batch["token_label"][b, t])) != -100:
                words.append(-model.token_logits(output.tokens[b, t]).log_softmax(-1)[label].item())
        for p in range(5):
            if not batch["masked_regions"][b, p]:
                continue
            state, truth = output.regions[b, p], batch["region_classes"][b, p]
            prediction = model.region_regression(state) @ model.region_projection.weight + model.region_regression_bias
            features.append((prediction - batch["region_target"][b, p]).square().sum().item())
            log_probability = model.region_classifier(state).log_softmax(-1)
            classes.append(-log_probability[truth.argmax()].item())
            divergences.append((truth * (truth.log() - log_probability)).sum().item())
    for name, terms in zip(("mlm", "mrfr", "mrc", "mrc_kl"), (words, features, classes, divergences)):
        assert losses[name].item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    verdict = output.match_logits.log_softmax(-1)
    expected = -sum(verdict[b, label].item() for b, label in enumerate(batch["match_label"])) / 8
    assert losses["itm"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("name", "learns"), [("uniter", False), ("vl-bert", False), ("visual-bert", True)])
def test_words_of_pairs_that_do_not_match(name, learns):
    model, batch = build(name, objectives=("mlm",)), fusion()
    before = model.loss(batch)["mlm"].item()
    label = batch["token_label"].clone()
    label[2] = torch.where(label[2] == -100, -100, 7)
    assert (model.loss(batch | {"token_label": label})["mlm"].item() != before) == learns
    del batch["match_label"]  # all match
    assert model.loss(batch | {"token_label": label})["mlm"].item() != model.loss(batch)["mlm"].item()


def test_alignment_pulls_matching_pairs_together_and_pushes_others_apart():
    model, batch = build("uniter", objectives=("wra",)), fusion()
    match = torch.ones(8, dtype=torch.long)
    near = model.loss(batch | {"match_label": match})["wra"]
    far = model.loss(batch | {"match_label": 1 - match})["wra"]
    mixed = model.loss(batch)["wra"]
    assert near.item() > 0.01
    close(far, -near)
    assert -near < mixed < near
    louder = build("uniter", objectives=("wra",), alignment_weight=0.2)
    louder.load_state_dict(model.state_dict())
    close(louder.loss(batch)["wra"], 2 * mixed)
    before = run(model, batch, masked_regions=None)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model.loss(batch | {"match_label": match})["wra"].backward()
    optimizer.step()
    assert model.loss(batch | {"match_label": match})["wra"] < near
    assert not torch.equal(run(model, batch, masked_regions=None).tokens, before.tokens)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_batch_trains_what_it_has_labels_for(name):
    model, batch = build(name), fusion()
    assert set(model.loss(batch)) == set(model.config.objectives)
    inputs = {key: batch[key] for key in ("tokens", "regions", "boxes")}
    words = inputs | {"token_label": batch["token_label"]}
    assert list(model.loss(words)) == ["mlm"]
    with pytest.raises(
        ValueError, match=r"Nothing to learn: this \w+ has no head for any label of a batch with tokens, regions, boxes"
    ) as error:
        model.loss(inputs)
    assert "\n" not in str(error.value)
    if name == "uniter":
        masked = words | {"masked_regions": batch["masked_regions"], "region_target": batch["region_target"]}
        assert list(model.loss(masked)) == ["mlm", "mrfr"]
        assert list(model.loss(inputs | {"match_label": batch["match_label"]})) == ["itm", "wra"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_nothing_masked_costs_nothing(name):
    model, batch = build(name), fusion()
    batch["token_label"] = torch.full_like(batch["token_label"], -100)
    batch["masked_regions"] = torch.zeros_like(batch["masked_regions"])
    losses = model.loss(batch)
    nothing = sum(loss for key, loss in losses.items() if key not in ("itm", "wra"))
    nothing.backward()
    assert nothing.item() == 0
    assert (model.language_head.bias.grad == 0).all()


def test_padding_is_never_a_masked_region():
    model, batch = build("uniter"), fusion()
    everywhere = batch | {"masked_regions": torch.ones_like(batch["masked_regions"])}
    real = batch | {"masked_regions": batch["region_mask"]}
    for key, loss in model.loss(everywhere).items():
        close(loss, model.loss(real)[key])


@pytest.mark.parametrize("name", SYSTEMS)
def test_one_batch_is_learned_by_heart(name):
    """Without WRA, which has no lowest value to reach, and MRFR, for which see below."""
    objectives = [objective for objective in build(name).config.objectives if objective not in ("mrfr", "wra")]
    objectives = tuple("mrc" if objective == "mrc_kl" else objective for objective in objectives)
    model, batch = build(name, objectives=objectives, depth=2), fusion(4)
    assert overfit(model, batch, steps=80, learning_rate=3e-3) < 0.05


def test_features_of_one_batch_are_learned_by_heart():
    model, batch = build("uniter", objectives=("mrfr", "mrc_kl"), depth=1), fusion(4, p=3)
    before = model.loss(batch)
    overfit(model, batch, steps=120, learning_rate=5e-3)
    after = model.loss(batch)
    assert after["mrfr"] < 0.1 * before["mrfr"]
    assert after["mrc_kl"] < 0.1 * before["mrc_kl"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_parameter_learns(name):
    batch = fusion()
    model = build(name)
    sum(model.loss(batch).values()).backward()
    without = {key for key, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    # A key's bias shifts all scores of a query alike.
    assert {key for key in without if not key.endswith("attention.key.bias")} == set()


@pytest.mark.parametrize("name", SYSTEMS)
def test_heads_are_built_for_objectives(name):
    model, batch = build(name, objectives=()), fusion()
    assert model.language_head is model.match_head is run(model, batch).match_logits is None
    assert not any("region_classifier" in key or "region_regression" in key for key, _ in model.named_parameters())
    unknown = "wra" if name != "uniter" else "lm"
    with pytest.raises(ValueError, match=f"^{type(model).__name__} learns mlm, .*itm.*, not {unknown}"):
        build(name, objectives=("mlm", unknown))


# Wrong input.


@pytest.mark.parametrize("name", SYSTEMS)
def test_wrong_input_is_told_in_one_line(name, unchecked):
    model, batch = build(name), fusion()

    def refused(says, **changes):
        with pytest.raises(ValueError, match=says) as error:
            model.loss(batch | changes)
        assert "\n" not in str(error.value)

    refused(r"region_width is 216; got torch.float32 \(8, 5, 191\)", regions=batch["regions"][..., :191])
    shorter = {key: batch[key][:3] for key in ("regions", "boxes", "region_mask", "masked_regions")}
    refused(r"^regions must be torch.float32 \(8, 5, 216\), .* 8 texts .* got torch.float32 \(3, 5, 216\)", **shorter)
    refused("no region; give at least one", region_mask=torch.zeros_like(batch["region_mask"]))
    refused("left < right", boxes=batch["boxes"].flip(-1))
    refused("at least one", **{key: rows[:0] for key, rows in batch.items()})
    refused("A mask is boolean", mask=batch["mask"].long())
    with pytest.raises(ValueError, match="token_types must be more; got 1"):
        build(name, token_types=1)


@pytest.mark.parametrize("name", SYSTEMS)
def test_unusual_batches_give_finite_numbers(name):
    model, batch = build(name), fusion()
    no_word = batch | {"mask": torch.zeros_like(batch["mask"])}
    all_masked = batch | {"masked_regions": batch["region_mask"]}
    one = {key: rows[:1] for key, rows in batch.items()}
    for unusual in (no_word, all_masked, one):
        model.zero_grad()
        loss = sum(model.loss(unusual).values())
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    none = run(model, {key: rows[:0] for key, rows in batch.items()})
    assert none.tokens.shape == (0, 12, 64)
    assert none.regions.shape == (0, 5, 64)


# The rest.


@pytest.mark.parametrize("name", SYSTEMS)
def test_recorded_attention_is_over_words_and_regions(name):
    model, batch = build(name), fusion()
    expected = run(model, batch)
    with record_attention(model) as maps:
        close(run(model, batch).tokens, expected.tokens)
    n = 12 + 5 + (2 if name == "vl-bert" else 0)
    assert [weights.shape for weights in maps.values()] == 3 * [(8, 4, n, n)]
    for weights in maps.values():
        assert (weights[:, :, :, 12:17].transpose(1, 3)[~batch["region_mask"]] == 0).all()


@pytest.mark.parametrize("name", SYSTEMS)
def test_dropout_acts_in_training_only(name):
    model, batch = build(name, dropout=0.5), fusion()
    assert not torch.equal(run(model, batch).regions, run(model, batch).regions)
    dropped = (embedded(model, batch)[0] == 0).float().mean((0, 2))  # of each word, region and what is behind them
    assert ((dropped > 0.4) & (dropped < 0.6)).all()
    model.eval()
    assert torch.equal(run(model, batch).regions, run(model, batch).regions)


@pytest.mark.parametrize("name", SYSTEMS)
def test_presets_survive_json(name):
    _, config = SYSTEMS[name]
    for preset in config.PRESETS:
        whole = config.preset(preset)
        assert config.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole


def blocks(width, depth):
    return depth * (12 * width**2 + 13 * width)


def bert_parts(width, vocabulary, types):
    """Token, position and type tables and a norm; the head of MLM, which shares the token table."""
    return (vocabulary + 512 + types + 2) * width + (width**2 + 3 * width + vocabulary)


@pytest.mark.parametrize(("preset", "width", "depth", "millions"), [("base", 768, 12, 86), ("large", 1024, 24, 303)])
def test_uniter_has_the_published_size(preset, width, depth, millions):
    """The paper's 86 and 303 million are those of the blocks and the pooler alone."""
    pooler = width**2 + width
    assert round((blocks(width, depth) + pooler) / 1e6) == millions
    # By the modules of the official code, whose mask table has one more row, which stays 0.
    image = (2048 + 1) * width + (7 + 1) * width + 3 * 2 * width + 2048
    heads = 2 * (width**2 + 3 * width) + 2048 + (width + 1) * 1601 + 2 * (width + 1)
    whole = bert_parts(width, 28_996, 2) + blocks(width, depth) + pooler + image + heads
    assert count_parameters(UNITER, UNITERConfig.preset(preset)) == whole


@pytest.mark.parametrize(("preset", "width", "depth"), [("base", 768, 12), ("large", 1024, 24)])
def test_vl_bert_has_the_size_of_the_official_code(preset, width, depth):
    """By its modules; the paper gives no count."""
    visual = (4096 + 1) * width + 2 * 2 * width + 2048 + 3 * width  # projection, norms, masked feature, three tokens
    head = width**2 + width + (width + 1) * 1601
    whole = bert_parts(width, 30_522, 3) + blocks(width, depth) + visual + head
    assert count_parameters(VLBERT, VLBERTConfig.preset(preset)) == whole
