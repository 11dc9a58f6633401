r"""Graph-MFN: a graph of all combinations of words, sound and video, whose edges are weighted by the input.

Paper: Zadeh et al. 2018, "Multimodal Language Analysis in the Wild: CMU-MOSEI Dataset and Interpretable Dynamic Fusion
Graph". Official code: https://github.com/A2Zadeh/CMU-MultimodalSDK (mmmodelsdk).

Deviations: ``tiny`` is ours. The paper aligns sound and video with words by their times; here each sequence is cut into
``steps`` parts of equal length, and each part is the mean of its elements. Words are looked up in a table that learns.
The network of a vertex is one layer with tanh, those of the gates too. Scores are learned by their absolute distance,
classes by cross-entropy. Not compared with released code: the code's networks of vertices and gates are deeper.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, real_tokens_first, select_tokens, small_linear
from mmlearn.models.trimodal.sequences import MODALITIES, TINY, Sequences, read_batch, task_loss

Subset = tuple[str, ...]
SUBSETS = tuple(subset for size in (1, 2, 3) for subset in combinations(MODALITIES, size))  # the vertices
EDGES: tuple[tuple[Subset, Subset | str], ...] = (
    *((part, whole) for whole in SUBSETS for part in SUBSETS if set(part) < set(whole)),  # 12 between vertices
    *((part, "fusion") for part in SUBSETS),  # and 7 into the last one
)


@dataclass(frozen=True)
class GraphMFNConfig(Config):
    vocab_size: int = 20_000
    text_width: int = 300  # features of a word, of an audio frame and of a video frame
    audio_width: int = 74
    video_width: int = 35
    lstm_width: int = 128
    width: int = 64  # of a vertex
    memory_width: int = 128
    steps: int = 20
    dropout: float = 0.2
    outputs: int = 1  # classes, or 1: a score

    PRESETS = {"tiny": TINY | dict(text_width=32, lstm_width=32, width=32, memory_width=32, steps=8)}


class GraphMFNOutput(NamedTuple):
    logits: Float[Tensor, "b outputs"]
    efficacies: Float[Tensor, "b steps 19"]  # the weight of each of EDGES, from 0 to 1


def equal_parts(x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"], steps: int) -> Float[Tensor, "b steps d"]:
    r"""The real elements of each row in ``steps`` parts, and the mean of each.

    .. math:: y_s = \mathrm{mean}(x_i : \lfloor s n / S \rfloor \le i < \lceil (s + 1) n / S \rceil)

    Parts share elements where n is no multiple of S. A row without real elements gives zeros.
    """
    x = select_tokens(x, real_tokens_first(mask)) * mask.sum(1).bool()[:, None, None]
    n, step = mask.sum(1).clamp(min=1)[:, None], torch.arange(steps, device=x.device)
    first, end = step * n // steps, ((step + 1) * n + steps - 1) // steps  # (b, steps)
    position = torch.arange(x.shape[1], device=x.device)
    inside = ((position >= first[..., None]) & (position < end[..., None])).to(x)  # (b, steps, n)
    return inside @ x / inside.sum(-1, keepdim=True)


class DynamicFusionGraph(nn.Module):
    r"""Vertices for one, two and three modalities, and one that fuses them; efficacies α weigh the edges.

    .. math:: \alpha = \sigma(D_\alpha([v_l; v_a; v_v])), \quad
       v_S = D_S\big([\alpha_{P \to S}\, v_P]_{P \subsetneq S}\big), \quad
       T = D_T\big([\alpha_{P \to T}\, v_P]_{P}\big)

    Takes the three single vertices, (b, f) each, and returns T (b, d) and α (b, 19), in the order of ``EDGES``.
    Source: section 4.1 and figure 3.
    """

    def __init__(self, features: int, width: int):
        super().__init__()
        sizes = {subset: features if len(subset) == 1 else width for subset in SUBSETS}
        self.efficacy = nn.Sequential(nn.Linear(3 * features, width), nn.ReLU(), nn.Linear(width, len(EDGES)))
        self.vertices = nn.ModuleDict()
        for whole in (*(subset for subset in SUBSETS if len(subset) > 1), "fusion"):
            inputs = sum([sizes[part] for part, target in EDGES if target == whole])
            self.vertices["+".join(whole) if whole != "fusion" else whole] = nn.Linear(inputs, width)

    def forward(self, unimodal: dict[str, Float[Tensor, "b f"]]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b 19"]]:
        vertices: dict[Subset | str, Tensor] = {(name,): unimodal[name] for name in MODALITIES}
        efficacy = torch.sigmoid(self.efficacy(torch.cat(list(vertices.values()), dim=-1)))  # (b, 19)
        weight = dict(zip(EDGES, efficacy.unbind(-1)))
        for name, network in self.vertices.items():  # small subsets first
            whole: Subset | str = name if name == "fusion" else tuple(name.split("+"))
            inputs = [weight[edge][:, None] * vertices[edge[0]] for edge in EDGES if edge[1] == whole]
            vertices[whole] = torch.tanh(network(torch.cat(inputs, dim=-1)))  # (b, d)
        return vertices["fusion"], efficacy


class GraphMFN(nn.Module):
    r"""An LSTM for each modality; at every step the graph fuses their cells, and a gated memory accumulates the result.

    .. math:: T^t = \mathrm{DFG}(c^{[t-1, t]}), \quad u^t = \gamma_1^t \odot u^{t-1} + \gamma_2^t \odot \hat u^t, \quad
       \hat u^t = \tanh(D_u T^t), \; \gamma_{1,2}^t = \sigma(D_{1,2} T^t), \quad \hat y = D([h^S; u^S])

    Inputs and errors are those of :class:`~mmlearn.models.trimodal.sequences.Sequences`. Source: section 4.2.
    """

    def __init__(self, config: GraphMFNConfig):
        super().__init__()
        self.config = config
        widths = {name: getattr(config, f"{name}_width") for name in MODALITIES}
        self.sequences = Sequences(config.vocab_size, widths)
        self.cells = nn.ModuleDict({name: nn.LSTMCell(size, config.lstm_width) for name, size in widths.items()})
        self.graph = DynamicFusionGraph(2 * config.lstm_width, config.width)
        self.update = nn.Linear(config.width, config.memory_width)
        self.retain_gate = nn.Linear(config.width, config.memory_width)
        self.update_gate = nn.Linear(config.width, config.memory_width)
        self.hidden = nn.Linear(3 * config.lstm_width + config.memory_width, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.prediction = small_linear(config.width, config.outputs)

    def forward(
        self,
        video: Float[Tensor, "b f *frame"],
        mel: Float[Tensor, "b mels s"],
        tokens: Int[Tensor, "b t"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> GraphMFNOutput:
        sequences = self.sequences(video, mel, tokens, video_mask, mel_mask, mask)
        steps = self.config.steps
        parts = {name: equal_parts(x, real, steps) for name, (x, real) in sequences.items()}  # (b, steps, …)
        zero = parts["text"].new_zeros(len(tokens), self.config.lstm_width)
        state = dict.fromkeys(MODALITIES, (zero, zero))
        memory, efficacies = zero.new_zeros(len(tokens), self.config.memory_width), []
        for step in range(steps):
            next_state = {name: self.cells[name](parts[name][:, step], state[name]) for name in MODALITIES}
            # The graph sees the cells before and after the step, so that it can react to what changes.
            cells = {name: torch.cat([state[name][1], next_state[name][1]], dim=-1) for name in MODALITIES}
            fused, efficacy = self.graph(cells)  # (b, d), (b, 19)
            retain, update = torch.sigmoid(self.retain_gate(fused)), torch.sigmoid(self.update_gate(fused))
            memory = retain * memory + update * torch.tanh(self.update(fused))
            efficacies.append(efficacy)
            state = next_state
        states = torch.cat([*(state[name][0] for name in MODALITIES), memory], dim=-1)
        logits = self.prediction(self.dropout(torch.relu(self.hidden(states))))
        return GraphMFNOutput(logits, torch.stack(efficacies, dim=1))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``task``: ``label`` (b,) is a class, or a score where there is one output.

        Raises ``ValueError`` without a label, for a class that does not exist, and for an empty batch.
        """
        return {"task": task_loss(self(**read_batch(batch, "GraphMFN")).logits, batch["label"], F.l1_loss)}
