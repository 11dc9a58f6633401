"""MISA equals its official code, https://github.com/declare-lab/MISA: src/models.py, solver.py and utils/functions.py.

That is the variant whose words are looked up. LSTMs and the layer of the fusion are PyTorch's own modules, as there.
"""

import pytest
import torch
import torch.nn.functional as F
from released import renamed
from testing_tools import close, shaken
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from mmlearn.models.trimodal.misa import MISA, MISAConfig
from mmlearn.objectives import central_moment_discrepancy, difference_loss

CASES = {  # features of a word, of sound and of video; width, outputs, rows
    "a score": ((6, 5, 7), 8, 1, 5),
    "classes": ((4, 9, 3), 12, 3, 4),
}
LETTERS = {"t": "text", "v": "video", "a": "audio"}


def discrepancy(x, y, moments=5):
    """The distance of the means, and of each central moment from the second on."""
    means = x.mean(0), y.mean(0)
    found = [means[0] - means[1]]
    for k in range(2, moments + 1):
        found.append(((x - means[0]) ** k).mean(0) - ((y - means[1]) ** k).mean(0))
    return sum((apart**2).sum() ** 0.5 for apart in found)


def difference(x, y):
    """Rows around their mean, divided by their length, which counts as a number."""
    x, y = (view - view.mean(0, keepdim=True) for view in (x, y))
    x, y = (view / (view.norm(dim=1, keepdim=True).detach() + 1e-6) for view in (x, y))
    return ((x.T @ y) ** 2).mean()


class Official(nn.Module):
    """The layers under the official names."""

    def __init__(self, features, width, outputs):
        super().__init__()
        self.embed = nn.Embedding(20, features[0])
        for letter, size in zip("tav", features):
            for i, inputs in ((1, size), (2, 2 * size)):
                self.add_module(f"{letter}rnn{i}", nn.LSTM(inputs, size, bidirectional=True))
            self.add_module(f"{letter}layer_norm", nn.LayerNorm(2 * size))
            self.add_module(
                f"project_{letter}", nn.Sequential(nn.Linear(4 * size, width), nn.ReLU(), nn.LayerNorm(width))
            )
            self.add_module(f"private_{letter}", nn.Sequential(nn.Linear(width, width), nn.Sigmoid()))
            self.add_module(f"recon_{letter}", nn.Sequential(nn.Linear(width, width)))
        self.shared = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        deeper = nn.Linear(6 * width, 3 * width), nn.Dropout(0.0), nn.ReLU(), nn.Linear(3 * width, outputs)
        self.fusion = nn.Sequential(*deeper)
        layer = nn.TransformerEncoderLayer(width, nhead=2, dropout=0.0)
        self.transformer_encoder = nn.TransformerEncoder(layer, num_layers=1, enable_nested_tensor=False)

    def utterance(self, letter, x, length):
        """Both layers' last states of both directions: first all that read forward, then all that read backward."""
        part = {name: getattr(self, f"{letter}{name}") for name in ("rnn1", "rnn2", "layer_norm")}
        packed = dict(lengths=length, enforce_sorted=False)
        states, (first, _) = part["rnn1"](pack_padded_sequence(x.transpose(0, 1), **packed))
        states = part["layer_norm"](pad_packed_sequence(states)[0])
        _, (second, _) = part["rnn2"](pack_padded_sequence(states, **packed))
        return torch.cat([first, second], dim=2).transpose(0, 1).flatten(1)

    def forward(self, tokens, sound, video, length):
        sequences = {"t": self.embed(tokens), "v": video, "a": sound}
        own, private, shared, back = {}, {}, {}, {}
        for letter, x in sequences.items():
            own[letter] = getattr(self, f"project_{letter}")(self.utterance(letter, x, length))
            private[letter] = getattr(self, f"private_{letter}")(own[letter])
            shared[letter] = self.shared(own[letter])
            back[letter] = getattr(self, f"recon_{letter}")(private[letter] + shared[letter])
        all_six = torch.stack([*private.values(), *shared.values()])
        return self.fusion(torch.cat(list(self.transformer_encoder(all_six)), dim=1)), own, private, shared, back


def losses(logits, label, own, private, shared, back):
    task = F.mse_loss(logits[:, 0], label) if label.is_floating_point() else F.cross_entropy(logits, label)
    pairs = [("t", "v"), ("t", "a"), ("a", "v")]
    apart = sum(difference(private[x], shared[x]) for x in "tva")
    return {
        "task": task,
        "similarity": sum(discrepancy(shared[x], shared[y]) for x, y in pairs) / 3,
        "difference": 0.3 * (apart + sum(difference(private[x], private[y]) for x, y in pairs)),
        "reconstruction": sum(((back[x] - own[x]) ** 2).mean() for x in "tva") / 3,
    }


NAMES = [
    (r"^embed\.", "sequences.words."),
    (r"^(.)rnn1\.(.*)_l0_reverse", r"utterance.\1.first.backward_lstm.\2_l0"),
    (r"^(.)rnn1\.", r"utterance.\1.first.forward_lstm."),
    (r"^(.)rnn2\.(.*)_l0_reverse", r"utterance.\1.second.backward_lstm.\2_l0"),
    (r"^(.)rnn2\.", r"utterance.\1.second.forward_lstm."),
    (r"^(.)layer_norm", r"utterance.\1.norm"),
    (r"^project_(.)", r"utterance.\1.projection"),
    (r"^private_(.)", r"private.\1"),
    (r"^recon_(.)\.0", r"decoders.\1"),
    *((rf"^(utterance|private|decoders)\.{letter}\.", rf"\1.{name}.") for letter, name in LETTERS.items()),
    (r"^fusion\.", "prediction."),
    (r"^transformer_encoder\.layers\.0\.self_attn\.out_proj", "fusion.blocks.0.attention.output"),
    (r"^transformer_encoder\.layers\.0\.self_attn\.in_proj_", "in_proj."),
    (r"^transformer_encoder\.layers\.0\.linear1", "fusion.blocks.0.mlp.expand"),
    (r"^transformer_encoder\.layers\.0\.linear2", "fusion.blocks.0.mlp.contract"),
    (r"^transformer_encoder\.layers\.0\.norm1", "fusion.blocks.0.attention_norm"),
    (r"^transformer_encoder\.layers\.0\.norm2", "fusion.blocks.0.mlp_norm"),
]


def as_ours(tensors, width):
    """Official weights, or gradients, under our names.

    Where parts stand in another order, so do the columns that read them: forward and backward of the second LSTM, and
    private and shared vectors of words, sound and video.
    """
    found = renamed(tensors, NAMES, {"in_proj": [f"fusion.blocks.0.attention.{x}" for x in ("query", "key", "value")]})
    for x in LETTERS.values():
        there1, there2, back1, back2 = found[f"utterance.{x}.projection.0.weight"].chunk(4, dim=1)
        found[f"utterance.{x}.projection.0.weight"] = torch.cat([there1, back1, there2, back2], dim=1)
    t, v, a, *shared = found["prediction.0.weight"].split(width, dim=1)
    return found | {"prediction.0.weight": torch.cat([shared[0], shared[2], shared[1], t, a, v], dim=1)}


@pytest.fixture(params=CASES)
def pair(request):
    """The official layers, our system of their weights, and a batch with padding, all three sequences equally long."""
    features, width, outputs, b = CASES[request.param]
    torch.manual_seed(0)
    official = shaken(Official(features, width, outputs))
    sizes = dict(zip(("text_width", "audio_width", "video_width"), features))
    config = MISAConfig(**sizes, width=width, outputs=outputs, vocab_size=20, dropout=0.0, prediction_dropout=0.0)
    model = MISA(config)
    model.load_state_dict(as_ours(official.state_dict(), width))
    length = torch.tensor([9, 1, 6, 9, 4])[:b]
    mask = torch.arange(9) < length[:, None]
    batch = {"tokens": torch.randint(20, (b, 9)), "mel": torch.randn(b, features[1], 9), "mask": mask}
    batch |= {"video": torch.randn(b, 9, features[2]), "mel_mask": mask, "video_mask": mask}
    return official, model, batch | {"label": torch.randn(b) if outputs == 1 else torch.arange(b) % outputs}, length


def both_losses(pair):
    """Ours and theirs, after their parts were found equal."""
    official, model, batch, length = pair
    logits, *parts = official(batch["tokens"], batch["mel"].transpose(1, 2), batch["video"], length)
    output = model(**{name: x for name, x in batch.items() if name != "label"})
    close(output.logits, logits)
    for name, part in zip(("utterance", "private", "shared", "reconstruction"), parts):
        close(getattr(output, name), torch.stack([part[letter] for letter in "tav"], dim=1))
    return model.loss(batch), losses(logits, batch["label"], *parts)


def test_parts_and_losses(pair):
    ours, theirs = both_losses(pair)
    assert set(ours) == set(theirs)
    for name in theirs:
        close(ours[name], theirs[name])


def test_gradients(pair):
    """In double precision, because roots of small distances amplify what is rounded.

    Of the difference ours has another gradient, which also goes through lengths; our file says so.
    """
    official, model, batch, length = pair
    batch = {name: x.double() if x.is_floating_point() else x for name, x in batch.items()}
    for each in both_losses((official.double(), model.double(), batch, length)):
        sum(loss for name, loss in each.items() if name != "difference").backward()
    expected = as_ours({name: x.grad for name, x in official.named_parameters()}, model.config.width)
    for name, parameter in model.named_parameters():
        close(parameter.grad, expected.pop(name))
    assert not expected


@pytest.mark.parametrize(("rows", "others", "width"), [(7, 7, 5), (3, 12, 1), (64, 33, 128)])
@pytest.mark.parametrize("moments", [1, 2, 5])
def test_cmd_and_its_gradient(rows, others, width, moments):
    x, y = torch.rand(rows, width, requires_grad=True), torch.rand(others, width).pow(1.5).requires_grad_()
    ours, theirs = central_moment_discrepancy(x, y, moments), discrepancy(x, y, moments)
    close(ours, theirs)
    for got, expected in zip(torch.autograd.grad(ours, (x, y)), torch.autograd.grad(theirs, (x, y))):
        close(got, expected)


@pytest.mark.parametrize(("rows", "width", "other"), [(7, 5, 5), (33, 16, 4), (2, 3, 9)])
def test_difference(rows, width, other):
    x, y = torch.rand(rows, width), torch.randn(rows, other)
    close(difference_loss(x, y), difference(x, y))
