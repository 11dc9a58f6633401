"""MulT: equal to its equations written out for each row alone, so padding never leaks, and lengths need not agree."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from batches import inputs, talk
from testing_tools import close, overfit, refused

from mmlearn.layers import TransformerConfig, record_attention, sinusoidal_positions
from mmlearn.models.trimodal.mult import CrossmodalTransformer, MulT, MulTConfig, read_others

TINY = dataclasses.replace(
    MulTConfig.tiny(), vocab_size=50, text_width=12, audio_width=10, video_width=3 * 4 * 4, width=16, audio_pool=1
)
POOLED = dataclasses.replace(TINY, audio_pool=4, audio_kernel=1, memory_depth=2)


def attend(layer, x, source):
    """Multi-head attention of one row, head by head."""
    heads = []
    for query, key, value in zip(
        *(
            part(y).chunk(layer.num_heads, 1)
            for part, y in ((layer.query, x), (layer.key, source), (layer.value, source))
        )
    ):
        heads.append(torch.softmax(query @ key.T / math.sqrt(query.shape[1]), 1) @ value)
    return layer.output(torch.cat(heads, 1))


def feed(mlp, x):
    return mlp.contract(torch.relu(mlp.expand(x)))


def reference(model, tokens, mel, video):
    """Section 3 of the paper for one row without padding: (t,), (s, f), (f, f)."""
    pool = model.config.audio_pool
    mel = torch.stack([part.mean(0) for part in mel.split(pool)])
    z = {}
    for name, x in {"text": model.sequences.words.weight[tokens], "audio": mel, "video": video}.items():
        weight = model.convolutions[name].weight  # (d, f, k)
        k = weight.shape[2]
        padded = F.pad(x, (0, 0, (k - 1) // 2, k // 2))
        convolved = sum(padded[j : j + len(x)] @ weight[:, :, j].T for j in range(k))
        z[name] = convolved + sinusoidal_positions(*convolved.shape)
    last = []
    for target, one, two in (("text", "audio", "video"), ("audio", "text", "video"), ("video", "text", "audio")):
        both = []
        for source in (one, two):
            x, crossmodal = z[target], model.crossmodal[f"{source}_to_{target}"]
            for block in crossmodal.blocks:
                x = attend(block.attention, block.attention_norm(x), block.attention_norm(z[source])) + x
                x = feed(block.mlp, block.mlp_norm(x)) + x
            both.append(crossmodal.norm(x))
        x = torch.cat(both, 1)
        for block in model.memories[target].blocks:
            normal = block.attention_norm(x)
            x = attend(block.attention, normal, normal) + x
            x = feed(block.mlp, block.mlp_norm(x)) + x
        last.append(model.memory_norms[target](x)[-1])
    last = torch.cat(last)
    return model.output(model.hidden_output(torch.relu(model.hidden(last))) + last)


@pytest.mark.parametrize("config", [TINY, POOLED, dataclasses.replace(TINY, text_kernel=5, depth=1)])
def test_against_the_equations_row_by_row(config):
    """In double precision, because sums of so many terms differ by a processor's rounding."""
    model, batch = MulT(config).double(), talk(5)
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    logits = model(**inputs(batch)).logits
    expected = []
    for row in range(5):
        words, frames, images = (int(batch[name][row].sum()) for name in ("mask", "mel_mask", "video_mask"))
        mel = batch["mel"][row, :, :frames].T
        expected.append(reference(model, batch["tokens"][row, :words], mel, batch["video"][row, :images].flatten(1)))
    close(logits, torch.stack(expected))
    gradients = [
        torch.autograd.grad(x.square().sum(), list(model.parameters())) for x in (logits, torch.stack(expected))
    ]
    for got, wanted in zip(*gradients):
        close(got, wanted)


def test_each_direction_has_its_transformer():
    model, batch = MulT(TINY), talk(1)
    assert len(model.crossmodal) == 6
    with record_attention(model) as maps:
        model(**inputs(batch))
    lengths = {"text": 6, "audio": 21, "video": 9}
    for source, n in lengths.items():
        for target, q in lengths.items():
            if source != target:
                weights = maps[f"crossmodal.{source}_to_{target}.blocks.0.attention"]
                assert weights.shape == (1, 4, q, n)
                close(weights.sum(-1), torch.ones(1, 4, q))
    assert len(maps) == 6 * 2 + 3


def test_losses():
    model, batch = MulT(dataclasses.replace(TINY, outputs=1)), talk()
    score = torch.randn(4)
    expected = (model(**inputs(batch)).logits[:, 0] - score).abs().mean()
    close(model.loss(batch | {"label": score})["task"], expected)
    classes = MulT(TINY)
    close(classes.loss(batch)["task"], F.cross_entropy(classes(**inputs(batch)).logits, batch["label"]))


def test_scores_are_learned_by_heart():
    batch = talk(6) | {"label": torch.linspace(-1, 1, 6)}
    model = MulT(dataclasses.replace(POOLED, depth=1, memory_depth=1, outputs=1))
    assert overfit(model, batch, steps=25, learning_rate=3e-3) < 0.15


def test_wrong_batches_are_told(unchecked):
    model, batch = MulT(TINY), talk()
    with pytest.raises(ValueError, match="MulT needs mel and label in the batch as well"):
        model.loss({name: batch[name] for name in ("tokens", "video")})
    refused("at least one text", model.loss, {name: rows[:0] for name, rows in batch.items()})
    with pytest.raises(ValueError, match="To 4 texts belong as many sequences of audio with 10 features"):
        model.loss(batch | {"mel": batch["mel"][:, :9]})
    with pytest.raises(ValueError, match=r"sequences of video .* got \(3, 9, 48\)"):
        model.loss(batch | {"video": batch["video"][:3], "video_mask": batch["video_mask"][:3]})
    with pytest.raises(ValueError, match=r"sequences of audio .* got \(4, 21, 10\) and \(4, 20\)"):
        model.loss(batch | {"mel_mask": batch["mel_mask"][:, :20]})
    with pytest.raises(ValueError, match=r"^There is no token 50: the vocabulary of this model has 50, from 0\.$"):
        model.loss(batch | {"tokens": torch.full((4, 6), 50)})
    refused("holds 4; labels are 0 to 3 here", model.loss, batch | {"label": batch["label"] + 1})
    for wrong in (torch.rand(4), torch.zeros(4, 1, dtype=torch.long)):
        refused("a class from 0 to 3, or float, a score, with outputs=1; got", model.loss, batch | {"label": wrong})


def test_one_sequence_reads_each_of_the_others_from_the_start():
    generator = torch.Generator().manual_seed(0)
    target, sources = (
        torch.randn(2, 5, 8, generator=generator),
        [torch.randn(2, n, 8, generator=generator) for n in (3, 7)],
    )
    masks = [torch.tensor([[True, True, False]] * 2), torch.arange(7) < torch.tensor([[4], [7]])]
    looks = [CrossmodalTransformer(TransformerConfig(8, 1, 2)) for _ in sources]
    read = read_others(target, sources, masks, looks)
    assert read.shape == (2, 5, 16)
    for part, source, mask, look in zip(read.split(8, dim=-1), sources, masks, looks):
        close(part, look(target, source, mask))
    changed = [source.masked_fill(~mask[..., None], 9.0) for source, mask in zip(sources, masks)]
    assert torch.equal(read_others(target, changed, masks, looks), read)  # padding is not read
    assert not torch.allclose(read_others(target, sources[::-1], masks[::-1], looks), read)
    assert torch.equal(read_others(target, sources[:1], masks[:1], looks[:1]), read[..., :8])
