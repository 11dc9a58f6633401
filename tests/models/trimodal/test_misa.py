"""MISA: equal to PyTorch's own LSTMs and blocks run on each row alone, and each of its four losses to its equation."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from batches import inputs, talk
from testing_tools import close, overfit, refused
from torch import nn

from mmlearn.models.trimodal.misa import MISA, MISAConfig
from mmlearn.objectives import central_moment_discrepancy, difference_loss

TINY = dataclasses.replace(
    MISAConfig.tiny(), vocab_size=50, text_width=12, audio_width=10, video_width=3 * 4 * 4, lstm_width=8, width=16
)
WIDE = dataclasses.replace(TINY, lstm_width=None, audio_pool=1, num_heads=4)
TASK = dataclasses.replace(TINY, similarity_weight=0.0, difference_weight=0.0, reconstruction_weight=0.0)
NAMES = ("text", "audio", "video")


def torch_block(model):
    """PyTorch's encoder layer with the weights of the fusion."""
    block, width = model.fusion.blocks[0], model.config.width
    theirs = nn.TransformerEncoderLayer(
        width, model.config.num_heads, model.config.mlp_width, dropout=0.0, batch_first=True
    )
    attention = block.attention
    parts = attention.query, attention.key, attention.value
    theirs.self_attn.in_proj_weight.data = torch.cat([part.weight for part in parts])
    theirs.self_attn.in_proj_bias.data = torch.cat([part.bias for part in parts])
    for ours, other in (
        (attention.output, theirs.self_attn.out_proj),
        (block.mlp.expand, theirs.linear1),
        (block.mlp.contract, theirs.linear2),
        (block.attention_norm, theirs.norm1),
        (block.mlp_norm, theirs.norm2),
    ):
        other.load_state_dict(ours.state_dict())
    return theirs


def torch_lstm(both):
    """PyTorch's LSTM that reads both ways, with the weights of our two."""
    theirs = nn.LSTM(both.forward_lstm.input_size, both.forward_lstm.hidden_size, batch_first=True, bidirectional=True)
    back = {f"{name}_reverse": weight for name, weight in both.backward_lstm.state_dict().items()}
    theirs.load_state_dict(both.forward_lstm.state_dict() | back)
    return theirs


def reference(model, tokens, mel, video):
    """Section 3 of the paper for one row without padding: (1, t, f), (1, s, f), (1, f, f)."""
    pool = model.config.audio_pool
    mel = torch.stack([part.mean(1) for part in mel.split(pool, dim=1)], dim=1)
    u, shared, private, back = [], [], [], []
    for name, x in zip(NAMES, (model.sequences.words(tokens), mel, video)):
        encoder = model.utterance[name]
        states, (first, _) = torch_lstm(encoder.first)(x)
        normal = F.layer_norm(states, states.shape[-1:], encoder.norm.weight, encoder.norm.bias)
        _, (second, _) = torch_lstm(encoder.second)(normal)
        ends = torch.cat([first[0], first[1], second[0], second[1]], -1)
        linear, _, norm = encoder.projection
        u.append(norm(torch.relu(linear(ends))))
        shared.append(torch.sigmoid(model.shared[0](u[-1])))
        private.append(torch.sigmoid(model.private[name][0](u[-1])))
        back.append(model.decoders[name](shared[-1] + private[-1]))
    fused = torch_block(model)(torch.stack([*shared, *private], dim=1))
    first, _, _, last = model.prediction
    logits = last(torch.relu(first(torch.cat(list(fused[0]))[None])))
    return [logits, *(torch.stack(part, dim=1) for part in (u, shared, private, back))]


@pytest.mark.parametrize("config", [TINY, WIDE, dataclasses.replace(TINY, outputs=1, audio_pool=5)])
def test_against_pytorch_row_by_row(config):
    model, batch = MISA(config), talk(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    output = model(**inputs(batch))
    for row in range(5):
        words, frames, images = (int(batch[name][row].sum()) for name in ("mask", "mel_mask", "video_mask"))
        expected = reference(
            model,
            batch["tokens"][row : row + 1, :words],
            batch["mel"][row : row + 1, :, :frames].mT,
            batch["video"][row : row + 1, :images].flatten(2),
        )
        for got, wanted in zip(output, expected):
            close(got[row], wanted[0])


def test_losses_are_those_of_the_equations():
    config = dataclasses.replace(
        TINY, similarity_weight=2.0, difference_weight=3.0, reconstruction_weight=5.0, moments=3
    )
    model, batch = MISA(config), talk(6)
    output, losses = model(**inputs(batch)), model.loss(batch)
    shared, private = output.shared.unbind(1), output.private.unbind(1)
    close(losses["task"], F.cross_entropy(output.logits, batch["label"]))
    similarity = [central_moment_discrepancy(shared[i], shared[j], 3) for i, j in ((0, 1), (0, 2), (1, 2))]
    close(losses["similarity"], 2 * sum(similarity) / 3)
    own = [difference_loss(shared[i], private[i]) for i in range(3)]
    each_other = [difference_loss(private[i], private[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    close(losses["difference"], 3 * (sum(own) + sum(each_other)))
    distances = [(output.reconstruction[:, i] - output.utterance[:, i]).square().sum(1).mean() / 16 for i in range(3)]
    close(losses["reconstruction"], 5 * sum(distances) / 3)
    score = torch.randn(6)
    model = MISA(dataclasses.replace(TINY, outputs=1))
    expected = (model(**inputs(batch)).logits[:, 0] - score).square().mean()
    close(model.loss(batch | {"label": score})["task"], expected)


def test_padding_may_stand_anywhere():
    model, batch = MISA(TINY), inputs(talk())
    holes = torch.arange(6) % 3 != 1
    output = model(**batch | {"mask": holes.expand(4, -1)})
    close(model(**batch | {"tokens": batch["tokens"][:, holes], "mask": None}).utterance, output.utterance)


def test_a_batch_of_one():
    losses = MISA(TINY).loss({name: rows[:1] for name, rows in talk().items()})
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert losses["difference"] == 0  # one row does not vary


def test_scores_are_learned_by_heart():
    batch = talk(6) | {"label": torch.linspace(-1, 1, 6)}
    model = MISA(dataclasses.replace(TASK, outputs=1))
    assert overfit(model, batch, steps=20, learning_rate=1e-2) < 0.1


@pytest.mark.parametrize("name", ["similarity", "difference", "reconstruction"])
def test_each_loss_can_be_brought_down(name):
    model, batch = MISA(dataclasses.replace(TASK, **{f"{name}_weight": 10.0})), talk(8)
    before = model.loss(batch)[name].item()
    overfit(model, batch, steps=20, learning_rate=5e-3)
    assert model.loss(batch)[name].item() < 0.6 * before


def test_the_shared_encoder_is_one_and_private_ones_are_three():
    model, batch = MISA(TINY), talk()
    model(**inputs(batch)).private[:, 1].sum().backward()
    assert {name for name, part in model.private.items() if part[0].weight.grad.any()} == {"audio"}
    assert model.shared[0].weight.grad is None
    for name in NAMES:
        model.zero_grad()
        model(**inputs(batch)).shared[:, NAMES.index(name)].sum().backward()
        assert model.shared[0].weight.grad.any()


def test_wrong_batches_are_told(unchecked):
    model, batch = MISA(TINY), talk()
    with pytest.raises(ValueError, match="MISA needs tokens and label in the batch as well"):
        model.loss({name: batch[name] for name in ("mel", "video")})
    refused("at least one text", model.loss, {name: rows[:0] for name, rows in batch.items()})
    refused("holds -1; labels are 0 to 3 here", model.loss, batch | {"label": batch["label"] - 1})
