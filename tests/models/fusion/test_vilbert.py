"""ViLBERT: its streams meet where the paper says and nowhere else; its losses; sizes are the published ones."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from batches import read, scenes
from testing_tools import close, count_parameters, refused, shaken

from mmlearn.layers import record_attention
from mmlearn.models.fusion.vilbert import CoAttentionLayer, ViLBERT, ViLBERTConfig, VisualEmbedding, VisualStreamConfig
from mmlearn.models.text.bert import BERT, BERTConfig

TINY = ViLBERTConfig.tiny()
PUBLISHED_START = dataclasses.replace(TINY, initial_std=0.02)
APART = dataclasses.replace(TINY, text_connections=(), visual_connections=())


# Streams.


@pytest.mark.parametrize("config", [TINY, APART], ids=["tiny", "apart"])
def test_each_stream_reads_the_other_and_only_by_co_attention(config):
    model, batch = shaken(ViLBERT(config)), scenes()
    before = read(model, batch)
    changes = {
        "tokens": dict(regions=batch["regions"] + batch["region_mask"][..., None]),
        "regions": dict(tokens=batch["tokens"].flip(1), mask=torch.ones_like(batch["mask"])),
    }
    for stream, change in (*changes.items(), ("tokens", dict(boxes=batch["boxes"] / 2))):
        moved = (getattr(read(model, batch, **change), stream) - getattr(before, stream)).abs().amax(-1)
        moved = moved[batch["mask" if stream == "tokens" else "region_mask"]]
        assert (moved > 1e-4).all() if config is TINY else (moved == 0).all()


def test_the_text_stream_alone_is_bert():
    model, batch = shaken(ViLBERT(APART)), scenes()
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


def co_attention(width, visual_width):
    visual = VisualStreamConfig(width=visual_width, mlp_width=14)
    config = ViLBERTConfig(width=width, mlp_width=20, visual=visual, co_attention_width=18, co_attention_heads=3)
    return shaken(CoAttentionLayer(config)).eval()


def test_co_attention_has_queries_of_one_stream_and_keys_and_values_of_the_other():
    layer = co_attention(width=16, visual_width=10)
    mask, visual_mask = torch.arange(7) < torch.tensor([[7], [4], [2]]), torch.arange(5) < torch.tensor([[3], [5], [1]])
    given = torch.randn(3, 7, 16), torch.randn(3, 5, 10), mask, visual_mask
    for one, expected, real in zip(layer(*given), by_hand(layer, *given), given[2:], strict=True):
        close(one[real], expected[real])


@pytest.mark.parametrize("mistake", [dict(keys="own"), dict(keys="own keys, other values"), dict(in_turn=True)])
def test_swapped_keys_would_show(mistake):
    """Where both streams are as wide and as long, so that swapped keys fit."""
    layer = co_attention(width=12, visual_width=12)
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
        read(model, batch)
    to_regions, to_words = maps["co_attention.1.text.attention"], maps["co_attention.1.visual.attention"]
    assert to_regions.shape == (6, 4, 12, 10)
    assert to_words.shape == (6, 4, 10, 12)
    real = F.pad(batch["region_mask"], (1, 0), value=True)  # the IMG token comes first, and is always real
    for weights, mask in ((to_regions, real), (to_words, batch["mask"])):
        assert (weights.masked_select(~mask[:, None, None]) == 0).all()
        assert (weights.masked_select(mask[:, None, None]) > 0).all()


def test_the_image_token_is_the_mean_of_the_real_regions_and_sees_the_whole():
    layer, batch = shaken(VisualEmbedding(TINY)), scenes()
    boxes, real = batch["boxes"], batch["region_mask"]
    regions = (batch["regions"] + 1) * real[..., None]
    got = layer(regions, boxes, real)
    for b in range(6):
        mean = torch.stack([regions[b, p] for p in range(9) if real[b, p]]).mean(0)
        rows = [(mean, [0, 0, 1, 1, 1])]
        for feature, (left, top, right, bottom) in zip(regions[b], boxes[b].tolist()):
            rows.append((feature, [left, top, right, bottom, (right - left) * (bottom - top)]))
        for one, (feature, position) in zip(got[b], rows, strict=True):
            total = layer.features.weight @ feature + layer.features.bias
            total = total + layer.boxes.weight @ torch.tensor(position).float() + layer.boxes.bias
            close(one, F.layer_norm(total, (48,), layer.norm.weight, layer.norm.bias, 1e-12), 1e-4)


def test_pair_is_judged_by_the_product_of_both_first_tokens():
    model, batch = shaken(ViLBERT(TINY)), scenes()
    output = read(model, batch)
    text = model.text_pooler(output.tokens[:, 0]).clamp(min=0)
    visual = model.visual_pooler(output.image).clamp(min=0)
    close(output.pooled, text * visual)
    close(output.match_logits, model.match_head(text * visual))
    assert (output.pooled > 0).any()
    assert not torch.allclose(output.pooled, text, atol=1e-2)


# Losses.


def test_the_region_loss_starts_at_what_an_even_guess_costs():
    model, batch = ViLBERT(PUBLISHED_START), scenes()
    classes = batch["region_classes"][batch["masked_regions"]]
    even = math.log(144) + (classes * classes.log()).sum(-1).mean()
    assert model.loss(batch)["mrc_kl"].item() == pytest.approx(even.item(), abs=0.1)


def test_losses_are_means_over_what_is_masked():
    """Of all pairs, also those that do not match, as in the paper."""
    model, batch = shaken(ViLBERT(TINY)), scenes()
    losses, output, masked = model.loss(batch), read(model, batch), batch["masked_regions"]
    words = model.language_head(output.tokens, model.embedding.tokens.weight)
    classes = model.region_head(output.regions)[masked].log_softmax(-1)
    expected = {
        "mlm": F.cross_entropy(words.mT, batch["token_label"]),
        "mrc_kl": F.kl_div(classes, batch["region_classes"][masked], reduction="batchmean"),
        "itm": F.cross_entropy(output.match_logits, batch["match_label"]),
    }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        close(losses[name], value, 1e-4)


# What is refused.


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
    refused(says, ViLBERT, dataclasses.replace(TINY, **changes))


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
