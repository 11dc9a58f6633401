r"""An end-to-end memory network: a question reads a memory in several hops; each slot of it has two embeddings.

Paper: Sukhbaatar et al. 2015, "End-To-End Memory Networks".
Official code: https://github.com/facebook/MemNN (MemN2N).

Deviations: ``tiny`` is ours. The memory holds the cells of an image, or with ``memory="facts"`` sentences, as in the
paper. Answers have a layer of their own, where adjacent tying would share the last embedding of words. What a hop reads
drops out, by half unless the configuration says otherwise; the paper has no dropout. There is no "linear start", so
that softmaxes are used from the first step, and no random noise in the order of facts. Not compared with released code:
the published code is for another library, and answers have a layer of their own here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import small_linear
from mmlearn.layers.embeddings import look_up
from mmlearn.models.question_answering.vqa_blocks import TINY, GridEncoder, VQAConfig, VQASystem, check_questions
from mmlearn.suggestions import suggest

MEMORIES, TYINGS = ("patches", "facts"), ("adjacent", "layer-wise")


@dataclass(frozen=True)
class MemoryNetworkConfig(VQAConfig):
    hops: int = 3
    memory: str = "patches"  # or "facts": sentences
    tying: str = "adjacent"  # the second embedding of a hop is the first of the next; or "layer-wise": all hops alike
    position_encoding: bool = True  # of words in a sentence; else a sentence is the sum of its words
    slots: int = 50  # facts that fit into the memory

    PRESETS = {"tiny": TINY}


class MemoryNetworkOutput(NamedTuple):
    answer_logits: Float[Tensor, "b answers"]
    maps: Float[Tensor, "b hops n"]  # which slots of the memory each hop reads; a hop sums to 1


def position_encoding(mask: Bool[Tensor, "*b t"], width: int) -> Float[Tensor, "*b t d"]:
    r"""The weight of each feature of a word at each position of a sentence; 0 at padding.

    .. math:: l_{kj} = (1 - j/J) - (k/d)(1 - 2j/J)

    for word j of J and number k of d, both from 1. Source: section 4.1, "Position Encoding".
    """
    position = mask.cumsum(-1)[..., None] / mask.sum(-1).clamp(min=1)[..., None, None]  # j/J, (*b, t, 1)
    k = torch.arange(1, width + 1, device=mask.device) / width  # k/d, (d,)
    return ((1 - position) - k * (1 - 2 * position)) * mask[..., None]


class MemoryNetwork(VQASystem):
    r"""Each hop compares the question with the first embedding of every slot and sums up the second.

    .. math:: p_i = \mathrm{softmax}(u^\top m_i), \quad o = \sum_i p_i c_i, \quad u' = u + o \ (\text{or } H u + o),
       \quad m_i = \sum_j l_j \cdot A x_{ij} + T_A(i), \quad c_i = \sum_j l_j \cdot C x_{ij} + T_C(i)

    In a memory of patches x_i is a cell's features, and T its position; in one of facts T counts from the last fact
    (temporal encoding). Facts are tokens (b, n, t), 0 at padding; a fact without words is padding too. No
    data set here has facts, so ``loss`` is of patches.
    Raises ``ValueError`` for an unknown setting, for empty questions, without the memory's input, and for more
    facts than ``slots``. Source: sections 2.1, 2.2 and 4.1.
    """

    def __init__(self, config: MemoryNetworkConfig):
        super().__init__()
        for name, known in (("memory", MEMORIES), ("tying", TYINGS)):
            if (value := getattr(config, name)) not in known:
                raise ValueError(f"There is no {name} {value!r}; {suggest(value, known)}.")
        if config.hops < 1:
            raise ValueError(f"hops is at least 1, got {config.hops}.")
        self.config = config
        tables = config.hops + 1 if config.tying == "adjacent" else 2
        patches = config.memory == "patches"
        self.image_encoder, slots = None, config.slots
        embeddings: list[nn.Module]
        if patches:
            self.image_encoder = encoder = GridEncoder(config)
            encoder.positions.requires_grad_(False).zero_()  # T has the positions
            slots = len(encoder.positions)
            embeddings = [nn.Linear(config.width, config.width, bias=False) for _ in range(tables)]
        else:
            embeddings = [nn.Embedding(config.vocab_size, config.width) for _ in range(tables)]
        self.embeddings = nn.ModuleList(embeddings)  # A of hop k is number k, C the next one
        self.memory_positions = nn.ParameterList(torch.randn(slots, config.width) * 0.1 for _ in range(tables))  # T
        self.words = nn.Embedding(config.vocab_size, config.width) if patches else self.embeddings[0]  # B
        self.hop_projection = (
            nn.Linear(config.width, config.width, bias=False) if config.tying == "layer-wise" else None
        )  # H
        self.dropout = nn.Dropout(config.dropout)
        self.answer_head = small_linear(config.width, config.answers)
        for table in {self.words, *self.embeddings}:
            if isinstance(table, nn.Embedding):
                nn.init.normal_(table.weight, std=0.1)

    def encode_sentence(
        self, tokens: Int[Tensor, "*b t"], mask: Bool[Tensor, "*b t"], table: nn.Embedding
    ) -> Float[Tensor, "*b d"]:
        """The sum of the words' vectors, weighted by their positions."""
        d = self.config.width
        weight = position_encoding(mask, d) if self.config.position_encoding else mask[..., None]
        vectors = look_up(table, tokens.flatten(0, -2)).view(*tokens.shape, d)  # (*b, t, d)
        return (vectors * weight).sum(-2)

    def build_memory(self, image: Tensor | None, facts: Tensor | None) -> tuple[list[Tensor], Bool[Tensor, "b n"]]:
        """The memory by each embedding, (b, n, d), and which of its slots are real."""
        if self.image_encoder is not None:
            if image is None:
                raise ValueError("This memory holds patches: give it image.")
            x = self.image_encoder(image)
            real, slot = torch.ones_like(x[..., 0], dtype=torch.bool), torch.arange(x.shape[1], device=x.device)[None]
            embedded = [table(x) for table in self.embeddings]
        else:
            if facts is None:
                raise ValueError("This memory holds facts: give it facts.")
            words = facts != 0
            real = words.any(-1)
            slot = (real.sum(1, keepdim=True) - real.cumsum(1)).clamp(min=0)  # 0: the last
            embedded = [self.encode_sentence(facts, words, table) for table in self.embeddings]
        if real.shape[1] > len(self.memory_positions[0]):
            raise ValueError(
                f"This memory has {len(self.memory_positions[0])} slots; got {real.shape[1]} things to build_memory."
            )
        return [x + table[slot] for x, table in zip(embedded, self.memory_positions)], real

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        facts: Int[Tensor, "b n words"] | None = None,
    ) -> MemoryNetworkOutput:
        mask = check_questions(tokens, mask, self.config.start_token, self.config.end_token)
        memory, real = self.build_memory(image, facts)
        u, maps = self.encode_sentence(tokens, mask, self.words), []  # u (b, d)
        for hop in range(self.config.hops):
            m, c = memory[hop : hop + 2] if self.hop_projection is None else memory  # (b, n, d) each
            scores = einsum(u, m, "b d, b n d -> b n")  # p
            maps.append(scores.masked_fill(~real, torch.finfo(scores.dtype).min).softmax(-1))
            o = einsum(maps[-1], c, "b n, b n d -> b d")  # (b, d)
            u = (u if self.hop_projection is None else self.hop_projection(u)) + self.dropout(o)
        return MemoryNetworkOutput(self.answer_head(u), torch.stack(maps, dim=1))
