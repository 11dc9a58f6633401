"""ViLBERT: nothing leaks into either stream, they meet where the paper says and nowhere else, sizes are published."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import assert_rows_are_independent, close, count_parameters, mean_loss, other_padding, overfit, pairs
from torch import nn

from mmlearn.layers import record_attention
from mmlearn.models.fusion.vilbert import CoAttentionLayer, ViLBERT, ViLBERTConfig, VisualEmbedding, VisualStreamConfig
from mmlearn.models.text.bert import BERT, BERTConfig

TINY = ViLBERTConfig.tiny()
PUBLISHED_START = dataclasses.replace(TINY, initial_std=0.02)
APART = dataclasses.replace(TINY, text_connections=(), visual_connections=())
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
        "match_label": torch.arange(b) % 2,
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
    model, batch = some_norms(ViLBERT(TINY)), scenes()
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
    assert torch.equal(output.image, other.image)
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
    """Nor by the IMG token, whose mean could give it away."""
    model, batch = some_norms(ViLBERT(TINY)), scenes()
    seen = batch | {
        "regions": torch.where(batch["masked_regions"][..., None], batch["region_target"], batch["regions"])
    }
    assert not torch.equal(seen["regions"], batch["regions"])
    for name, loss in model.loss(batch).items():
        assert torch.equal(model.loss(seen)[name], loss), name
    assert not torch.allclose(read(model, seen).image, read(model, batch).image, atol=1e-3)


def test_rows_do_not_depend_on_each_other():
    model, batch = some_norms(ViLBERT(TINY)), scenes()
    rows = [batch[name] for name in INPUTS]
    assert_rows_are_independent(lambda *rows: model(*rows).tokens, *rows)
    assert_rows_are_independent(lambda *rows: model(*rows).regions, *rows)
    assert_rows_are_independent(lambda *rows: model(*rows).image, *rows)


def test_regions_have_no_order():
    """Only places: shuffled, each keeps its own state, and all else stays."""
    model, batch = some_norms(ViLBERT(TINY)), scenes()
    order = torch.randperm(9)
    shuffled = {name: batch[name][:, order] for name in ("regions", "boxes", "region_mask")}
    output, before = read(model, batch, **shuffled), read(model, batch)
    close(output.regions, before.regions[:, order])
    close(output.tokens, before.tokens)
    close(output.image, before.image)
    assert not torch.allclose(output.regions, before.regions, atol=1e-2)


# Streams.


@pytest.mark.parametrize("config", [TINY, APART], ids=["tiny", "apart"])
def test_each_stream_reads_the_other_and_only_by_co_attention(config):
    model, batch = some_norms(ViLBERT(config)), scenes()
    before = read(model, batch)
    changes = {
        "tokens": dict(regions=batch["regions"] + batch["region_mask"][..., None]),
        "regions": dict(tokens=batch["tokens"].flip(1), mask=batch["mask"].flip(1)),
    }
    for stream, change in (*changes.items(), ("tokens", dict(boxes=batch["boxes"] / 2))):
        moved = (getattr(read(model, batch, **change), stream) - getattr(before, stream)).abs().amax(-1)
        moved = moved[batch["mask" if stream == "tokens" else "region_mask"]]
        assert (moved > 1e-4).all() if config is TINY else (moved == 0).all()


def test_the_text_stream_alone_is_bert():
    model, batch = some_norms(ViLBERT(APART)), scenes()
    bert = BERT(
        BERTConfig(vocab_size=512, max_length=32, width=64, depth=3, num_heads=4, pooler=False, language_head=True)
    )
    same = {name.replace("text_blocks", "transformer.blocks"): value for name, value in model.state_dict().items()}
    bert.load_state_dict({name: same[name] for name in bert.state_dict()})
    bert.eval()
    real = batch["mask"]
    close(read(model, batch).tokens[real], bert(batch["tokens"], real).tokens[real])
    close(model.loss(batch)["mlm"], bert.loss(batch)["mlm"])


def by_hand(layer, text, visual, mask, visual_mask, *, keys="other", in_turn=False):
    """A co-attention layer of 3 heads from its weights alone; other ``keys`` and ``in_turn`` are people's mistakes."""
    out = []
    for x, other, real, other_real, stream in (
        (text, visual, mask, visual_mask, layer.text),
        (visual, text, visual_mask, mask, layer.visual),
    ):
        if in_turn and out:
            other = out[0]
        keys_from, real = (other, other_real) if keys == "other" else (x, real)
        attention = stream.attention
        values_from = other if keys != "own" else x
        q, k, v = (F.linear(y, part.weight, part.bias).unflatten(-1, (3, -1)) for y, part in
                   ((x, attention.query), (keys_from, attention.key), (values_from, attention.value)))  # fmt: skip
        scores = torch.einsum("bqhk,bnhk->bhqn", q, k) / q.shape[-1] ** 0.5
        weights = scores.masked_fill(~real[:, None, None], -1e9).softmax(-1)
        mixed = torch.einsum("bhqn,bnhk->bqhk", weights, v).flatten(-2)
        x = x + F.linear(mixed, attention.output.weight, attention.output.bias)
        x = F.layer_norm(x, x.shape[-1:], stream.attention_norm.weight, stream.attention_norm.bias, 1e-12)
        hidden = F.gelu(F.linear(x, stream.mlp.expand.weight, stream.mlp.expand.bias))
        x = x + F.linear(hidden, stream.mlp.contract.weight, stream.mlp.contract.bias)
        out.append(F.layer_norm(x, x.shape[-1:], stream.mlp_norm.weight, stream.mlp_norm.bias, 1e-12))
    return out


def test_co_attention_has_queries_of_one_stream_and_keys_and_values_of_the_other():
    config = ViLBERTConfig(
        width=16,
        mlp_width=20,
        visual=VisualStreamConfig(width=10, mlp_width=14),
        co_attention_width=18,
        co_attention_heads=3,
    )
    layer = some_norms(CoAttentionLayer(config)).eval()
    mask, visual_mask = torch.arange(7) < torch.tensor([[7], [4], [2]]), torch.arange(5) < torch.tensor([[3], [5], [1]])
    given = torch.randn(3, 7, 16), torch.randn(3, 5, 10), mask, visual_mask
    for one, expected, real in zip(layer(*given), by_hand(layer, *given), given[2:], strict=True):
        close(one[real], expected[real])


@pytest.mark.parametrize("mistake", [dict(keys="own"), dict(keys="own keys, other values"), dict(in_turn=True)])
def test_swapped_keys_would_show(mistake):
    """Where both streams are as wide and as long, so that swapped keys fit."""
    config = ViLBERTConfig(
        width=12,
        mlp_width=20,
        visual=VisualStreamConfig(width=12, mlp_width=14),
        co_attention_width=18,
        co_attention_heads=3,
    )
    layer = some_norms(CoAttentionLayer(config)).eval()
    mask, visual_mask = torch.arange(7) < torch.tensor([[7], [4], [2]]), torch.arange(7) < torch.tensor([[3], [7], [5]])
    given = torch.randn(3, 7, 12), torch.randn(3, 7, 12), mask, visual_mask
    got, wrong = layer(*given), by_hand(layer, *given, **mistake)
    for one, expected, real in zip(got, by_hand(layer, *given), given[2:], strict=True):
        close(one[real], expected[real])
    assert (got[1] - wrong[1])[visual_mask].abs().max() > 0.02
    if "keys" in mistake:
        assert (got[0] - wrong[0])[mask].abs().max() > 0.02


def test_streams_meet_where_the_official_configuration_says():
    """Six blocks of text come first; then a meeting before each of the other six, and before each of the visual six."""
    visual = VisualStreamConfig(width=16, mlp_width=8)
    narrow = dict(vocab_size=512, width=12, mlp_width=8, visual=visual, co_attention_width=16)
    model = ViLBERT(dataclasses.replace(ViLBERTConfig.preset("base"), region_width=216, **narrow)).eval()
    with record_attention(model) as maps:
        read(model, scenes())
    expected = [f"text_blocks.{i}" for i in range(6)]
    for i in range(6):
        expected += [f"co_attention.{i}.text", f"co_attention.{i}.visual", f"text_blocks.{6 + i}", f"visual_blocks.{i}"]
    assert list(maps) == [f"{name}.attention" for name in expected]


def test_attention_is_recorded_in_both_directions():
    model, batch = ViLBERT(TINY), scenes()
    with record_attention(model) as maps:
        recorded = read(model, batch)
    close(recorded.pooled, read(model, batch).pooled)
    to_regions, to_words = maps["co_attention.1.text.attention"], maps["co_attention.1.visual.attention"]
    assert to_regions.shape == (6, 4, 12, 10)
    assert to_words.shape == (6, 4, 10, 12)
    real = F.pad(batch["region_mask"], (1, 0), value=True)  # the IMG token comes first, and is always real
    for weights, mask in ((to_regions, real), (to_words, batch["mask"])):
        close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert (weights.masked_select(~mask[:, None, None]) == 0).all()
        assert (weights.masked_select(mask[:, None, None]) > 0).all()


def test_the_image_token_is_the_mean_of_the_real_regions_and_sees_the_whole():
    layer, batch = some_norms(VisualEmbedding(TINY)), scenes()
    boxes, real = batch["boxes"], batch["region_mask"]
    regions = (batch["regions"] + 1) * real[..., None]
    got = layer(regions, boxes, real)
    for b in range(6):
        mean = torch.stack([regions[b, p] for p in range(9) if real[b, p]]).mean(0)
        rows = [(mean, [0, 0, 1, 1, 1])]
        for feature, (left, top, right, bottom) in zip(regions[b], boxes[b].tolist()):
            rows.append((feature, [left, top, right, bottom, (right - left) * (bottom - top)]))
        for one, (feature, place) in zip(got[b], rows, strict=True):
            total = layer.features.weight @ feature + layer.features.bias
            total = total + layer.places.weight @ torch.tensor(place).float() + layer.places.bias
            close(one, F.layer_norm(total, (48,), layer.norm.weight, layer.norm.bias, 1e-12), 1e-4)


def test_pair_is_judged_by_the_product_of_both_first_tokens():
    model, batch = some_norms(ViLBERT(TINY)), scenes()
    output = read(model, batch)
    text = model.text_pooler(output.tokens[:, 0]).clamp(min=0)
    visual = model.visual_pooler(output.image).clamp(min=0)
    close(output.pooled, text * visual)
    close(output.match_logits, model.match_head(text * visual))
    assert (output.pooled > 0).any()
    assert not torch.allclose(output.pooled, text, atol=1e-2)


# How it starts.


def test_weights_spread_as_the_configuration_says():
    for std in (0.02, 0.125):
        torch.manual_seed(0)
        model = ViLBERT(dataclasses.replace(TINY, initial_std=std))
        parts = [part.weight for part in model.modules() if isinstance(part, nn.Linear | nn.Embedding)]
        assert len(parts) > 20
        for weight in parts:
            assert weight.std().item() == pytest.approx(0.88 * std, rel=0.2)  # what a cut at two deviations leaves
            assert weight.abs().max() <= 2 * std
    presets = {name: ViLBERTConfig.preset(name).initial_std for name in ViLBERTConfig.PRESETS}
    assert presets.pop("tiny") == TINY.width**-0.5
    assert set(presets.values()) == {0.02}


# Losses.


@pytest.mark.parametrize(("label", "start"), [("token_label", math.log(512)), ("match_label", math.log(2))])
def test_losses_start_where_nothing_is_known(label, start):
    def only(seed):
        batch = scenes(seed=seed)
        return {name: batch[name] for name in (*INPUTS, label)}

    assert mean_loss(lambda: ViLBERT(PUBLISHED_START), only) == pytest.approx(start, abs=0.05)


def test_the_region_loss_starts_at_what_an_even_guess_costs():
    model, batch = ViLBERT(PUBLISHED_START), scenes()
    classes = batch["region_classes"][batch["masked_regions"]]
    even = math.log(144) + (classes * classes.log()).sum(-1).mean()
    assert model.loss(batch)["mrc_kl"].item() == pytest.approx(even.item(), abs=0.1)


def test_losses_are_means_over_what_is_masked():
    """Of all pairs, also those that do not match, as in the paper."""
    model, batch = some_norms(ViLBERT(TINY)), scenes()
    losses, output = model.loss(batch), read(model, batch)
    words = model.language_head(output.tokens, model.embedding.tokens.weight).log_softmax(-1)
    classes = model.region_head(output.regions).log_softmax(-1)
    terms = {"mlm": [], "mrc_kl": [], "itm": []}
    for b in range(6):
        for t in range(12):
            if (label := batch["token_label"][b, t].item()) != -100:
                terms["mlm"].append(-words[b, t, label])
        for p in batch["masked_regions"][b].nonzero().flatten().tolist():
            seen = batch["region_classes"][b, p]
            terms["mrc_kl"].append((seen * (seen.log() - classes[b, p])).sum())
        terms["itm"].append(-output.match_logits[b].log_softmax(-1)[b % 2])
    assert set(losses) == set(terms)
    for name, values in terms.items():
        close(losses[name], torch.stack(values).mean(), 1e-4)


def test_nothing_masked_costs_nothing():
    model, batch = ViLBERT(TINY), scenes()
    batch |= {"token_label": batch["tokens"] * 0 - 100, "masked_regions": batch["region_mask"] & False}
    losses = model.loss(batch)
    sum(losses.values()).backward()
    assert losses["mlm"] == losses["mrc_kl"] == 0
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)


def test_a_padded_region_is_never_a_masked_one():
    model, batch = ViLBERT(TINY), scenes()
    more = batch | {"masked_regions": batch["masked_regions"] | ~batch["region_mask"]}
    for name, loss in model.loss(batch).items():
        close(model.loss(more)[name], loss)


def test_one_batch_is_learned_by_heart():
    model, batch = ViLBERT(TINY), scenes()
    assert overfit(model, batch, steps=130, learning_rate=3e-3) < 0.05
    assert torch.equal(read(model, batch).match_logits.argmax(-1), batch["match_label"])


def test_dropout_acts_in_training_only():
    model, batch = ViLBERT(dataclasses.replace(TINY, dropout=0.5)), scenes()
    assert not torch.equal(read(model, batch).match_logits, read(model, batch).match_logits)
    model.eval()
    assert torch.equal(read(model, batch).match_logits, read(model, batch).match_logits)


# What is refused.


@pytest.mark.usefixtures("unchecked")
def test_what_does_not_fit_is_refused():
    model, batch = ViLBERT(TINY), scenes()
    with pytest.raises(ValueError, match="at least one"):
        model.loss({name: rows[:0] for name, rows in batch.items()})
    with pytest.raises(ValueError, match="Nothing to learn: this ViLBERT has no head"):
        model.loss({name: batch[name] for name in INPUTS})
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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(text_connections=(1,)), r"got text \(1,\) and visual \(0, 1\)"),
        (dict(text_connections=(2, 1)), r"text_connections rise, from 0 to 3 blocks; got \(2, 1\)"),
        (dict(visual_connections=(0, 3)), r"visual_connections rise, from 0 to 2 blocks; got \(0, 3\)"),
        (dict(visual_connections=(-1, 1)), "visual_connections rise"),
        (dict(co_attention_heads=5), "co_attention_width 64 is no multiple of co_attention_heads 5"),
    ],
)
def test_configurations_that_do_not_fit(changes, says):
    with pytest.raises(ValueError, match=says):
        ViLBERT(dataclasses.replace(TINY, **changes))


def test_connections_may_stand_at_both_ends():
    model = ViLBERT(dataclasses.replace(TINY, text_connections=(0, 3), visual_connections=(2, 2)))
    assert read(model, scenes()).tokens.isfinite().all()


# Sizes.


def linear(before, after):
    return before * after + after


def test_base_has_the_published_size():
    """The layers of the official configuration of six connections, two of them unused: about 250 million."""
    text, visual, co = 768, 1024, 1024
    bert = 109_482_240 - linear(768, 768)  # base, without its pooler
    embedding = linear(2048, visual) + linear(5, visual) + 2 * visual
    block = 4 * linear(visual, visual) + 2 * linear(visual, 1024) + 4 * visual
    meeting = sum(3 * linear(width, co) + 2 * linear(co, width) + 4 * width for width in (text, visual))  # two unused
    meeting += linear(text, 3072) + linear(3072, text) + 2 * linear(visual, 1024)
    poolers = linear(text, co) + linear(visual, co)
    heads = linear(text, text) + 2 * text + 30_522 + linear(visual, visual) + 2 * visual + linear(visual, 1601)
    official = bert + embedding + 6 * block + 6 * meeting + poolers + heads + linear(co, 2)
    unused = 6 * (linear(co, text) + linear(co, visual))
    assert official == 250_044_029
    assert count_parameters(ViLBERT, ViLBERTConfig.preset("base")) == official - unused == 239_023_229


@pytest.mark.parametrize("name", ViLBERTConfig.PRESETS)
def test_presets_survive_json(name):
    preset = ViLBERTConfig.preset(name)
    assert ViLBERTConfig.from_dict(json.loads(json.dumps(preset.to_dict()))) == preset
