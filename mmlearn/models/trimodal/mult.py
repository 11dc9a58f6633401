r"""MulT: each of three unaligned sequences attends to each of the others.

Paper: Tsai et al. 2019, "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL.
Official code: https://github.com/yaohungt/Multimodal-Transformer.

Deviations: ``tiny`` is ours. Words have learned embeddings, where the paper has fixed GloVe vectors. Sequences have
masks: a convolution reads zeros where there is padding, padding is never attended to, and a sequence is summarised by
its last real element. Residual paths carry unnormalised features, as in the official code; equation 4 of the paper
writes LN there as well. As in equation 2, and not in the code, features are not multiplied by √d before their positions
are added, and memories get no positions a second time. Positions are those of Vaswani et al. 2017; the code counts from
1, and has all sines before all cosines and another longest period. ``MOSEI`` has the sizes of the official code, which
are its defaults; the paper's table has others, and ranges of kernel sizes. Every element attends to all others; the
code masks later ones by default. There is one ``dropout``; the paper has one for each layer. Labels that are classes
are learned by cross-entropy, as in the paper, and scores by their absolute distance, as in the official code. Not
compared with released code: the code scales features and hides what comes later, and ours follows the paper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerBlock, TransformerConfig, sinusoidal_positions, small_linear
from mmlearn.models.trimodal.sequences import MODALITIES, TINY, Sequences, read_batch, task_loss


@dataclass(frozen=True)
class MulTConfig(TransformerConfig):
    width: int = 30
    depth: int = 5  # of each cross-modal transformer
    num_heads: int = 5
    activation: str = "relu"
    dropout: float = 0.1
    memory_depth: int = 5
    vocab_size: int = 20_000
    text_width: int = 300  # features of a word, of an audio frame and of a video frame
    audio_width: int = 74
    video_width: int = 35
    audio_pool: int = 1  # frames of sound that are averaged
    text_kernel: int = 1  # of the first convolution
    audio_kernel: int = 1
    video_kernel: int = 1
    outputs: int = 1  # classes, or 1: a score

    PRESETS = {
        "tiny": TINY
        | dict(text_width=64, audio_pool=4, text_kernel=3, audio_kernel=3, video_kernel=3)
        | dict(width=32, depth=2, memory_depth=1, num_heads=4),
        "MOSEI": dict(),
    }


class MulTOutput(NamedTuple):
    logits: Float[Tensor, "b outputs"]
    summary: Float[Tensor, "b d"]  # the last elements of all three memories, concatenated


CrossAttend = Callable[[Tensor, Tensor, Tensor], Tensor]  # (queries, context, context_mask) → queries


class CrossmodalBlock(TransformerBlock):
    r"""The target attends to the source, which stays the same, instead of to itself. Then comes the MLP.

    .. math:: \hat Z^{[i]} = \mathrm{CM}^{[i]}(\mathrm{LN}(Z^{[i-1]}), \mathrm{LN}(Z^{[0]}_\beta)) + Z^{[i-1]}, \quad
       Z^{[i]} = f(\mathrm{LN}(\hat Z^{[i]})) + \hat Z^{[i]}

    One norm serves target and source, as in the official code. Source: section 3.2 and equations 3 and 4.
    """

    def forward(
        self, x: Float[Tensor, "b q d"], source: Float[Tensor, "b n d"], source_mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b q d"]:
        source = self.attention_norm(source)
        x = self.residual(x, self.attention_norm, lambda x: self.attention(x, source, source_mask))
        return self.residual(x, self.mlp_norm, self.mlp)


class CrossmodalTransformer(nn.Module):
    """Blocks in which one sequence attends to another, which stays the same in all of them, and a norm.

    Source: section 3.2 and figure 3b; the last norm is the official code's.
    """

    def __init__(self, config: TransformerConfig):
        super().__init__()
        self.blocks = nn.ModuleList(CrossmodalBlock(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width)

    def forward(
        self, x: Float[Tensor, "b q d"], source: Float[Tensor, "b n d"], source_mask: Bool[Tensor, "b n"]
    ) -> Float[Tensor, "b q d"]:
        for block in self.blocks:
            x = block(x, source, source_mask)
        return self.norm(x)


def read_others(
    target: Float[Tensor, "b q d"],
    sources: Sequence[Float[Tensor, "b _ d"]],
    masks: Sequence[Bool[Tensor, "b _"]],
    layers: Sequence[CrossAttend],
) -> Float[Tensor, "b q features"]:
    r"""One sequence attends to each of the others: the queries are its own, keys, values and the mask the other's.

    .. math:: Z_\alpha = [\mathrm{CM}_{\beta \to \alpha}(X_\alpha; X_\beta, m_\beta);
       \mathrm{CM}_{\gamma \to \alpha}(X_\alpha; X_\gamma, m_\gamma)]

    Every one of the ``layers`` starts from the same target. Their outputs are concatenated, as long as the target.
    Source: section 3.3.
    """
    return torch.cat([layer(target, source, mask) for source, mask, layer in zip(sources, masks, layers)], dim=-1)


class MulT(nn.Module):
    r"""Convolutions and positions, six cross-modal transformers, three memories, a prediction from their last states.

    .. math:: \hat X_\alpha = \mathrm{Conv1D}(X_\alpha, k_\alpha) + \mathrm{PE}, \quad
       Z_\alpha = [Z_{\beta \to \alpha}^{[D]}; Z_{\gamma \to \alpha}^{[D]}]

    Inputs and errors are those of :class:`~mmlearn.models.trimodal.sequences.Sequences`; the three may have any
    lengths, and one without a real element adds nothing. In :func:`~mmlearn.layers.record_attention` the map of
    ``crossmodal.audio_to_text.blocks.i.attention`` shows which frames of sound each word attends to.
    Source: section 3 and figure 2.
    """

    def __init__(self, config: MulTConfig):
        super().__init__()
        self.config = config
        width, memory = config.width, replace(config, width=2 * config.width, depth=config.memory_depth)
        widths = {name: getattr(config, f"{name}_width") for name in MODALITIES}
        kernels = {name: getattr(config, f"{name}_kernel") for name in MODALITIES}
        self.sequences = Sequences(config.vocab_size, widths, config.audio_pool)
        self.convolutions = nn.ModuleDict(
            {name: nn.Conv1d(widths[name], width, kernels[name], padding="same", bias=False) for name in MODALITIES}
        )
        self.crossmodal = nn.ModuleDict(
            {f"{source}_to_{target}": CrossmodalTransformer(config) for target, source in permutations(MODALITIES, 2)}
        )
        self.memories = nn.ModuleDict({name: Transformer(memory) for name in MODALITIES})
        self.memory_norms = nn.ModuleDict({name: nn.LayerNorm(2 * width) for name in MODALITIES})
        self.hidden = nn.Linear(6 * width, 6 * width)
        self.hidden_output = nn.Linear(6 * width, 6 * width)
        self.dropout = nn.Dropout(config.dropout)
        self.output = small_linear(6 * width, config.outputs)

    def forward(
        self,
        video: Float[Tensor, "b f *frame"],
        mel: Float[Tensor, "b mels s"],
        tokens: Int[Tensor, "b t"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> MulTOutput:
        x, real = {}, {}
        sequences = self.sequences(video, mel, tokens, video_mask, mel_mask, mask)
        for name, (sequence, real[name]) in sequences.items():
            convolved = self.convolutions[name](sequence.mT).mT  # (b, n, d)
            n, d = convolved.shape[1:]
            positions = sinusoidal_positions(n, d, convolved.device).to(convolved)
            x[name] = self.dropout(convolved + positions)
        last = []
        for target in MODALITIES:
            others = [source for source in MODALITIES if source != target]
            layers = [self.crossmodal[f"{source}_to_{target}"] for source in others]
            sources, masks = [x[name] for name in others], [real[name] for name in others]
            y = read_others(x[target], sources, masks, layers)  # (b, n, 2 d)
            end = real[target].int().cumsum(1).argmax(1)  # (b,): the last real element
            last.append(self.memory_norms[target](self.memories[target].read(y, end, real[target])))  # (b, 2 d)
        summary = torch.cat(last, dim=-1)  # (b, 6 d)
        residual = self.hidden_output(self.dropout(F.relu(self.hidden(summary))))
        return MulTOutput(self.output(summary + residual), summary)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``task``: cross-entropy where ``label`` (b,) is a class, the mean absolute error where it is a score.

        Raises ``ValueError`` without a label, for a class that does not exist, for scores where there are several
        outputs, and for an empty batch.
        """
        return {"task": task_loss(self(**read_batch(batch, "MulT")).logits, batch["label"], F.l1_loss)}
