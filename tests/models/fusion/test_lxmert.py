"""LXMERT: nothing leaks into either stream, each asks the other, the size is the published one."""

import dataclasses
import json
import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from testing_tools import assert_rows_are_independent, close, count_parameters, mean_loss, other_padding, overfit, pairs
from torch import nn

from mmlearn.layers import record_attention
from mmlearn.models.fusion.heads import VQAHead
from mmlearn.models.fusion.losses import answers
from mmlearn.models.fusion.lxmert import LXMERT, CrossModalityLayer, LXMERTConfig
from mmlearn.models.text.bert import BERT, BERTConfig
from mmlearn.objectives.masked import smooth_region_regression

TINY = LXMERTConfig.tiny()
WHOLE = dataclasses.replace(TINY, region_attributes=12, answers=10)
PUBLISHED_START = dataclasses.replace(WHOLE, initial_std=0.02)
INPUTS = ("tokens", "regions", "boxes", "mask", "region_mask")


def scenes(b=6, p=9, seed=0):
    """Texts with up to nine regions each, every third word and second region hidden."""
    generator = torch.Generator().manual_seed(seed)
    batch = pairs(b, seed=seed)
    corners = torch.rand(b, p, 2, 2, generator=generator).sort(-2).values
    regions = torch.randn(b, p, 216, generator=generator)
    region_mask = torch.arange(p) <= 1 + torch.arange(b)[:, None] % p
    masked = (torch.arange(p) % 2 == 1) & region_mask
    hidden = (torch.arange(12) % 3 == 1) & batch["mask"]
    return {
        "tokens": batch["tokens"].masked_fill(hidden, 2),
        "mask": batch["mask"],
        "regions": regions.masked_fill((masked | ~region_mask)[..., None], 0),
        "boxes": corners.flatten(-2).masked_fill(~region_mask[..., None], 0),
        "region_mask": region_mask,
        "token_label": torch.where(hidden, batch["tokens"], -100),
        "masked_regions": masked,
        "region_target": regions,
        "region_classes": torch.randn(b, p, 144, generator=generator).mul(3).softmax(-1),
        "region_attributes": torch.randn(b, p, 12, generator=generator).softmax(-1),
        "match_label": torch.arange(b) % 2,
        "answer": torch.arange(b) % 10,
    }


def read(model, batch, **changes):
    return model(**{name: (batch | changes)[name] for name in INPUTS})


def some_norms(model):
    """Norms and biases start at 1 and 0, where they would prove nothing; and larger weights, for larger effects."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


# Nothing leaks.


def test_padding_changes_nothing_that_is_real():
    model, batch = some_norms(LXMERT(WHOLE)), scenes()
    mask, real = batch["mask"], batch["region_mask"]
    noise = torch.randn(batch["regions"].shape)
    changes = {
        "tokens": other_padding(batch),
        "regions": torch.where(real[..., None], batch["regions"], noise),
        "boxes": torch.where(real[..., None], batch["boxes"], torch.tensor([0.1, 0.2, 0.5, 0.9])),
    }
    output, other = read(model, batch), read(model, batch, **changes)
    assert torch.equal(output.tokens[mask], other.tokens[mask])
    assert torch.equal(output.regions[real], other.regions[real])
    assert torch.equal(output.pooled, other.pooled)
    assert torch.equal(output.match_logits, other.match_logits)
    # The change is one that would show: it does where all is said to be real.
    everything = {"mask": mask | True, "region_mask": real | True, "boxes": changes["boxes"]}
    whole = read(model, batch, **everything).pooled
    for name in ("tokens", "regions"):
        changed = read(model, batch, **everything | {name: changes[name]}).pooled
        assert not torch.allclose(changed, whole, atol=1e-3), name
    more = {name: F.pad(batch[name], (0, 0, 0, 4), value=0.3) for name in ("regions", "boxes")}
    more |= {"region_mask": F.pad(real, (0, 4)), "tokens": F.pad(batch["tokens"], (0, 9), value=44)}
    longer = read(model, batch, **more, mask=F.pad(mask, (0, 9)))
    close(longer.pooled, output.pooled)
    close(longer.regions[:, :9][real], output.regions[real])


def test_what_is_masked_is_not_seen():
    model, batch = some_norms(LXMERT(WHOLE)), scenes()
    seen = batch | {
        "regions": torch.where(batch["masked_regions"][..., None], batch["region_target"], batch["regions"])
    }
    assert not torch.equal(seen["regions"], batch["regions"])
    for name, loss in model.loss(batch).items():
        assert torch.equal(model.loss(seen)[name], loss), name
    assert not torch.allclose(read(model, seen).pooled, read(model, batch).pooled, atol=1e-3)


def test_rows_do_not_depend_on_each_other():
    model, batch = some_norms(LXMERT(TINY)), scenes()
    for name in ("tokens", "regions", "pooled"):
        assert_rows_are_independent(lambda *rows: getattr(model(*rows), name), *(batch[key] for key in INPUTS))  # noqa: B023


def test_regions_have_no_order():
    """Only places: shuffled, each keeps its own state, and all else stays."""
    model, batch = some_norms(LXMERT(TINY)), scenes()
    order = torch.randperm(9)
    shuffled = {name: batch[name][:, order] for name in ("regions", "boxes", "region_mask")}
    output, before = read(model, batch, **shuffled), read(model, batch)
    close(output.regions, before.regions[:, order])
    close(output.tokens, before.tokens)
    assert not torch.allclose(output.regions, before.regions, atol=1e-2)


# Streams.


def test_each_stream_reads_the_other_and_only_by_cross_layers():
    for depth, reads in ((0, False), (1, True), (2, True)):
        model, batch = some_norms(LXMERT(dataclasses.replace(TINY, cross_depth=depth))), scenes()
        before = read(model, batch)
        other_text = read(model, batch, tokens=batch["tokens"].flip(1), mask=batch["mask"].flip(1))
        other_picture = read(model, batch, regions=batch["regions"] + batch["region_mask"][..., None])
        elsewhere = read(model, batch, boxes=batch["boxes"] / 2)
        for changed, place in ((other_picture, "tokens"), (elsewhere, "tokens"), (other_text, "regions")):
            real = batch["mask" if place == "tokens" else "region_mask"]
            moved = (getattr(changed, place) - getattr(before, place))[real].abs().amax(-1)
            assert (moved > 1e-4).all() if reads else (moved == 0).all()


def test_the_language_encoder_is_bert():
    """Same weights, no cross layers."""
    model, batch = some_norms(LXMERT(dataclasses.replace(TINY, cross_depth=0))), scenes()
    bert = BERT(BERTConfig(vocab_size=512, max_length=32, width=64, depth=2, num_heads=4, language_head=True))
    same = {name.replace("language_encoder", "transformer"): value for name, value in model.state_dict().items()}
    bert.load_state_dict({name: same[name] for name in bert.state_dict()})
    bert.eval()
    expected, output = bert(batch["tokens"], batch["mask"]), read(model, batch)
    close(output.tokens[batch["mask"]], expected.tokens[batch["mask"]])
    close(output.pooled, expected.pooled)
    close(model.loss(batch)["mlm"], bert.loss(batch)["mlm"])


def by_hand(layer, words, regions, mask, region_mask, *, swapped=False, in_turn=False):
    """A cross-modality layer from its weights alone; ``swapped`` and ``in_turn`` are mistakes that people make."""

    def attend(x, context, real, weights):
        head = lambda y: y.unflatten(-1, (4, 4)).transpose(1, 2)  # noqa: E731
        q, k, v = (head(F.linear(y, part.weight, part.bias)) for y, part in
                   ((x, weights.query), (context, weights.key), (context, weights.value)))  # fmt: skip
        scores = (torch.einsum("bhqk,bhnk->bhqn", q, k) / 2).masked_fill(~real[:, None, None], -1e9)
        mixed = torch.einsum("bhqn,bhnk->bqhk", scores.softmax(-1), v).flatten(-2)
        return F.linear(mixed, weights.output.weight, weights.output.bias)

    def add(x, branch, norm):
        return F.layer_norm(x + branch, x.shape[-1:], norm.weight, norm.bias, 1e-12)

    streams = ((words, mask), (regions, region_mask))
    out = []
    for (x, real), (context, context_real), block in ((*streams, layer.language), (*streams[::-1], layer.regions)):
        context, context_real = (x, real) if swapped else (context, context_real)
        if in_turn and out:
            context = out[0]
        x = add(x, attend(x, context, context_real, layer.cross_attention), layer.cross_norm)
        x = add(x, attend(x, x, real, block.attention), block.attention_norm)
        hidden = F.gelu(F.linear(x, block.mlp.expand.weight, block.mlp.expand.bias))
        out.append(add(x, F.linear(hidden, block.mlp.contract.weight, block.mlp.contract.bias), block.mlp_norm))
    return out


def test_the_cross_layer_asks_the_other_stream_and_both_at_once():
    layer = some_norms(CrossModalityLayer(dataclasses.replace(TINY, width=16, num_heads=4, mlp_width=24)))
    words, regions = torch.randn(3, 7, 16), torch.randn(3, 7, 16)  # as many, so that swapped keys fit
    mask, region_mask = torch.arange(7) < torch.tensor([[7], [4], [2]]), torch.arange(7) < torch.tensor([[3], [7], [5]])
    given = words, regions, mask, region_mask
    got, expected, swapped, in_turn = (
        [x[real] for real, x in zip((mask, region_mask), pair, strict=True)]
        for pair in (
            layer(*given),
            *(by_hand(layer, *given, **it) for it in ({}, dict(swapped=True), dict(in_turn=True))),
        )
    )
    for one, other, wrong in zip(got, expected, swapped, strict=True):
        close(one, other)
        assert (one - wrong).abs().max() > 0.05
    assert (got[1] - in_turn[1]).abs().max() > 0.01


def test_both_directions_share_one_attention():
    width, mlp = 64, 256
    attention, norm = 4 * (width**2 + width), 2 * width
    block = attention + 2 * norm + 2 * width * mlp + width + mlp
    layer = CrossModalityLayer(TINY)
    assert sum(parameter.numel() for parameter in layer.parameters()) == attention + norm + 2 * block


def test_attention_is_recorded_in_both_directions():
    model, batch = LXMERT(TINY), scenes()
    with record_attention(model) as maps:
        recorded = read(model, batch)
    close(recorded.pooled, read(model, batch).pooled)
    to_regions, to_words = maps["cross_layers.0.cross_attention"], maps["cross_layers.0.cross_attention#2"]
    assert to_regions.shape == (6, 4, 12, 9)
    assert to_words.shape == (6, 4, 9, 12)
    for weights, mask in ((to_regions, batch["region_mask"]), (to_words, batch["mask"])):
        close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights.masked_select(~mask[:, None, None]) == 0).all()
        assert (weights.masked_select(mask[:, None, None]) > 0).all()
    assert len(maps) == 2 + 1 + 2 + 2


# How it starts.


def test_weights_spread_as_the_configuration_says():
    """All but those for answers, at 0.02 always."""
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = LXMERT(dataclasses.replace(WHOLE, initial_std=std))
        parts = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear | nn.Embedding)]
        assert len(parts) > 20
        for name, part in parts:
            expected = 0.02 if name.startswith("answer_head") else std
            assert part.weight.std().item() == pytest.approx(0.88 * expected, rel=0.2)  # a cut at two deviations
            assert part.weight.abs().max() <= 2 * expected
    assert TINY.initial_std == TINY.width**-0.5
    assert LXMERTConfig.preset("base").initial_std == 0.02


# Losses.


@pytest.mark.parametrize(
    ("label", "start"), [("token_label", math.log(512)), ("match_label", math.log(2)), ("answer", math.log(10))]
)
def test_losses_start_where_nothing_is_known(label, start):
    def only(seed):
        batch = scenes(seed=seed)
        return {name: batch[name] for name in (*INPUTS, label)}

    assert mean_loss(lambda: LXMERT(PUBLISHED_START), only) == pytest.approx(start, abs=0.05)


def test_region_losses_start_where_nothing_is_known():
    model, batch = LXMERT(PUBLISHED_START), scenes()
    losses, masked = model.loss(batch), batch["masked_regions"]
    assert losses["mrc"].item() == pytest.approx(math.log(144), abs=0.15)
    assert losses["mrc_attributes"].item() == pytest.approx(math.log(12), abs=0.15)
    target = batch["region_target"][masked]
    assert losses["mrfr"].item() == pytest.approx(F.smooth_l1_loss(target * 0, target).item(), abs=0.03)


def test_losses_are_means_over_what_is_masked():
    model, batch = some_norms(LXMERT(WHOLE)), scenes()
    losses, output = model.loss(batch), read(model, batch)
    words = model.language_head(output.tokens, model.embedding.tokens.weight).log_softmax(-1)
    predicted = model.region_head(output.regions)
    terms = {name: [] for name in ("mlm", "mrfr", "mrc", "mrc_attributes", "itm", "vqa")}
    for b in range(6):
        for t in range(12):
            if (label := batch["token_label"][b, t].item()) != -100:
                terms["mlm"].append(-words[b, t, label])
        for p in batch["masked_regions"][b].nonzero().flatten().tolist():
            distance = (predicted["features"][b, p] - batch["region_target"][b, p]).abs()
            terms["mrfr"].append(torch.where(distance < 1, distance**2 / 2, distance - 0.5).mean())
            for name, loss in (("classes", "mrc"), ("attributes", "mrc_attributes")):
                best = batch[f"region_{name}"][b, p].argmax()
                terms[loss].append(-predicted[name][b, p].log_softmax(-1)[best])
        terms["itm"].append(-output.match_logits[b].log_softmax(-1)[b % 2])
        if b % 2:
            terms["vqa"].append(-output.answer_logits[b].log_softmax(-1)[batch["answer"][b]])
    assert set(losses) == set(terms)
    for name, values in terms.items():
        close(losses[name], torch.stack(values).mean(), 1e-4)


def answer_loss(logits, answer, match_label=None):
    batch = {"tokens": torch.zeros(len(logits), 1).long(), "answer": answer}
    batch |= {} if match_label is None else {"match_label": match_label}
    system = nn.Module()
    system.answer_head = VQAHead(8, logits.shape[-1])
    return answers(system, SimpleNamespace(answer_logits=logits), batch)["vqa"]


def test_questions_count_where_the_picture_is_the_one_asked_about():
    logits, answer = torch.randn(4, 5), torch.tensor([1, -100, 4, 0])
    close(answer_loss(logits, answer), F.cross_entropy(logits[[0, 2, 3]], answer[[0, 2, 3]]))
    matched = torch.tensor([1, 1, 0, 1])
    close(answer_loss(logits, answer, matched), F.cross_entropy(logits[[0, 3]], answer[[0, 3]]))
    soft = torch.rand(4, 5)
    each = F.binary_cross_entropy_with_logits(logits, soft, reduction="none").sum(-1)
    close(answer_loss(logits, soft), each.mean())
    close(answer_loss(logits, soft, matched), each[[0, 1, 3]].mean())
    assert answer_loss(logits, soft, matched * 0) == answer_loss(logits, answer, matched * 0) == 0


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    "answer",
    [torch.tensor([1, 5, 0, 0]), torch.tensor([1, -3, 0, 0]), torch.rand(4, 5) + 1, torch.rand(4, 5) - 1]
    + [torch.rand(4, 6), torch.full((4, 5), torch.nan)],
)
def test_answers_and_scores_that_do_not_exist_are_refused(answer):
    with pytest.raises(ValueError, match=r"Labels are 0 to 4|soft score is from 0 to 1|Soft answers are"):
        answer_loss(torch.randn(4, 5), answer, torch.tensor([1, 1, 0, 1]))


def test_nothing_masked_costs_nothing():
    model, batch = LXMERT(TINY), scenes()
    batch |= {"token_label": batch["tokens"] * 0 - 100, "masked_regions": batch["region_mask"] & False}
    losses = model.loss(batch)
    sum(losses.values()).backward()
    assert losses["mlm"] == losses["mrfr"] == losses["mrc"] == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
    assert smooth_region_regression(torch.ones(2, 3, 4), torch.zeros(2, 3, 4), torch.zeros(2, 3).bool()) == 0


def test_a_padded_region_is_never_a_masked_one():
    model, batch = LXMERT(TINY), scenes()
    more = batch | {"masked_regions": batch["masked_regions"] | ~batch["region_mask"]}
    for name, loss in model.loss(batch).items():
        close(model.loss(more)[name], loss)


def test_one_batch_is_learned_by_heart():
    """All but the features, which are noise of 216 numbers for each of 13 regions, and take longer."""
    model, batch = LXMERT(dataclasses.replace(WHOLE, feature_head=False)), scenes()
    assert overfit(model, batch, steps=120, learning_rate=3e-3) < 0.05
    assert torch.equal(read(model, batch).match_logits.argmax(-1), batch["match_label"])


def test_features_are_learned_by_heart():
    model, batch = LXMERT(TINY), scenes(b=3)
    batch = {name: batch[name] for name in (*INPUTS, "masked_regions", "region_target")}
    before = model.loss(batch)["mrfr"].item()
    assert overfit(model, batch, steps=80, learning_rate=3e-3) < 0.05 * before


# What is asked for, and what is refused.


def test_heads_are_built_where_asked():
    bare = dict(pretraining_heads=False, feature_head=False, region_classes=0)
    model, batch = LXMERT(dataclasses.replace(TINY, **bare)), scenes()
    output = read(model, batch)
    assert output.match_logits is output.answer_logits is model.region_head is model.language_head is None
    with pytest.raises(ValueError, match="Nothing to learn: this LXMERT has no head"):
        model.loss(batch)
    with pytest.raises(ValueError, match="Nothing to learn"):
        LXMERT(TINY).loss({name: batch[name] for name in INPUTS})
    assert set(LXMERT(TINY).loss(batch)) == {"mlm", "mrfr", "mrc", "itm"}


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused():
    model, batch = LXMERT(TINY), scenes()
    with pytest.raises(ValueError, match="at least one"):
        model.loss({name: rows[:0] for name, rows in batch.items()})
    with pytest.raises(
        ValueError, match=r"^regions must be torch.float32 \(5, 9, 216\), .* got torch.float32 \(6, 9, 216\)"
    ):
        read(model, batch, tokens=batch["tokens"][:5], mask=batch["mask"][:5])
    with pytest.raises(ValueError, match=r"region_width is 216; got torch.float32 \(6, 9, 12\)"):
        read(model, batch, regions=batch["regions"][..., :12])
    with pytest.raises(ValueError, match="has no region"):
        model.loss(batch | {"region_mask": batch["region_mask"] & False})
    with pytest.raises(ValueError, match="left < right"):
        model.loss(batch | {"boxes": 1 - batch["boxes"]})
    assert len(read(model, {name: rows[:0] for name, rows in batch.items()}).pooled) == 0


# Sizes.


def test_base_has_the_published_size():
    assert count_parameters(LXMERT, LXMERTConfig.preset("base")) == 228_051_752


@pytest.mark.parametrize("name", LXMERTConfig.PRESETS)
def test_presets_survive_json(name):
    preset = LXMERTConfig.preset(name)
    assert LXMERTConfig.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
