r"""ViLBERT: a BERT of words and a BERT of regions, each with its own width, joined by co-attention layers.

Paper: Lu et al. 2019, "ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for Vision-and-Language
Tasks", NeurIPS. Official code: https://github.com/jiasenlu/vilbert_beta and, for its successor "12-in-1",
https://github.com/facebookresearch/vilbert-multi-task.

Deviations: ``tiny`` is ours. The official co-attention layer holds two linear layers that nothing reads (``q_dense1``,
``q_dense2``, 11 million weights in base); they are left out. Masked words and regions are predicted for every pair, as
in the paper, also where picture and text do not match; 12-in-1 leaves those out. All masked regions become zeros, where
the paper keeps one in ten as it is. The IMG token has the mean over all real regions, as in the code for tasks; the
code for pretraining divides by the number of rows, padding among them, that no masked region overlaps.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, Attention, BERTEmbedding, BERTEncoderConfig, TransformerBlock, TransformerConfig
from mmlearn.layers.language import MaskedLanguageHead, initialise_as_bert
from mmlearn.models.fusion.heads import classifier
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, check_losses, itm_loss, mlm_loss, regions_to_predict
from mmlearn.models.fusion.regions import REGION_INPUTS, TINY, box_sizes, check_boxes, read_regions
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import masked_region_kl


@dataclass(frozen=True)
class VisualStreamConfig(TransformerConfig):
    width: int = 1024
    depth: int = 6
    num_heads: int = 8
    mlp_width: int | None = 1024
    norm_first: bool = False
    norm_epsilon: float = 1e-12
    dropout: float = 0.1


@dataclass(frozen=True)
class ViLBERTConfig(BERTEncoderConfig):
    """The text stream's settings are BERT's."""

    visual: VisualStreamConfig = VisualStreamConfig()
    region_width: int = 2048  # features of a region
    region_classes: int = 1601  # of the detector, with background
    co_attention_width: int = 1024  # of all heads of a co-attention together, and of what is pooled
    co_attention_heads: int = 8
    text_connections: tuple[int, ...] = (6, 7, 8, 9, 10, 11)  # blocks of a stream before each co-attention layer
    visual_connections: tuple[int, ...] = (0, 1, 2, 3, 4, 5)

    PRESETS = {
        "tiny": TINY
        | dict(visual=VisualStreamConfig(48, 2, 4, mlp_width=48, dropout=0.0))
        | dict(co_attention_width=64, co_attention_heads=4, text_connections=(1, 2), visual_connections=(0, 1)),
        "base": dict(),
    }


class ViLBERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    image: Float[Tensor, "b visual_width"]  # the IMG token
    regions: Float[Tensor, "b p visual_width"]
    pooled: Float[Tensor, "b c"]  # the product of both streams' first tokens
    match_logits: Float[Tensor, "b 2"]  # index 1: picture and text belong together


class VisualEmbedding(nn.Module):
    r"""An IMG token and the regions, each as its features plus its box, normalised. Returns (b, 1 + p, d).

    .. math:: v_j = \mathrm{LN}\big(W_F f_j + b_F + W_S s_j + b_S\big), \quad
       s_j = (x_1, y_1, x_2, y_2, \text{area})

    with the box as shares of the picture. The IMG token represents the whole picture: the mean of its real regions'
    features, those masked to zero included, in a box around everything. Padding of ``regions`` must be 0.
    Source: section 2.2.
    """

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        self.features = nn.Linear(config.region_width, config.visual.width)
        self.boxes = nn.Linear(5, config.visual.width)
        self.norm = nn.LayerNorm(config.visual.width, eps=config.visual.norm_epsilon)
        self.dropout = nn.Dropout(config.visual.dropout)

    def forward(
        self, regions: Float[Tensor, "b p f"], boxes: Float[Tensor, "b p 4"], region_mask: Bool[Tensor, "b p"]
    ) -> Float[Tensor, "b n d"]:
        image = regions.sum(1, keepdim=True) / region_mask.sum(1).clamp(min=1)[:, None, None]  # (b, 1, f)
        regions = torch.cat([image, regions], dim=1)  # (b, 1 + p, f)
        whole_image = F.pad(boxes.new_ones(len(boxes), 1, 2), (2, 0))  # (b, 1, 4): 0 0 1 1
        boxes = torch.cat([whole_image, boxes], dim=1)  # (b, 1 + p, 4)
        geometry = torch.cat([boxes, box_sizes(boxes)[..., 2:]], dim=-1)  # (b, 1 + p, 5): corners and area
        return self.dropout(self.norm(self.features(regions) + self.boxes(geometry)))  # (b, 1 + p, d)


class CoAttentionStream(nn.Module):
    r"""One stream's half of a co-attention layer: its queries, the other stream's keys and values, then its own MLP.

    .. math:: \hat x = \mathrm{LN}\big(x + \mathrm{MultiHead}(x W^Q, y W^K, y W^V)\big), \quad
       x' = \mathrm{LN}\big(\hat x + \mathrm{MLP}(\hat x)\big)

    ``config`` is the stream's own, ``inner_width`` the width of all heads together.
    Source: section 2.1 and figure 2b.
    """

    def __init__(self, config: TransformerConfig, context_width: int, inner_width: int, num_heads: int):
        super().__init__()
        if inner_width % num_heads:
            raise ValueError(f"co_attention_width {inner_width} is no multiple of co_attention_heads {num_heads}.")
        width, head_width = config.width, inner_width // num_heads
        of_weights = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.attention = Attention(
            width, num_heads, head_width=head_width, context_width=context_width, dropout=of_weights
        )
        self.attention_norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.mlp = MLP(width, config.mlp_width, config.activation)
        self.mlp_norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b n context_width"],
        context_mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        x = self.attention_norm(x + self.dropout(self.attention(x, context, context_mask)))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class CoAttentionLayer(nn.Module):
    """Words attend to regions while regions attend to words. Source: section 2.1, figure 2b."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        inner, heads = config.co_attention_width, config.co_attention_heads
        self.text = CoAttentionStream(config, config.visual.width, inner, heads)
        self.visual = CoAttentionStream(config.visual, config.width, inner, heads)

    def forward(
        self,
        text: Float[Tensor, "b t d"],
        visual: Float[Tensor, "b n visual_width"],
        mask: Bool[Tensor, "b t"] | None = None,
        visual_mask: Bool[Tensor, "b n"] | None = None,
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n visual_width"]]:
        return co_attention(text, visual, mask, visual_mask, self.text, self.visual)


class ViLBERT(nn.Module):
    """Two streams of post-norm blocks, with co-attention layers before the blocks that the configuration names.

    Inputs are those of :func:`~mmlearn.models.fusion.regions.read_regions`, as are errors. Raises ``ValueError`` also
    for connections that do not fit the streams. Source: section 2 and figure 1; the official configuration of six
    blocks and six connections.
    """

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        _check_connections(config)
        self.config = config
        width, visual_width, pooled_width = config.width, config.visual.width, config.co_attention_width
        self.embedding = BERTEmbedding(config)
        self.visual_embedding = VisualEmbedding(config)
        self.text_blocks = nn.ModuleList(TransformerBlock(config) for _ in range(config.depth))
        self.visual_blocks = nn.ModuleList(TransformerBlock(config.visual) for _ in range(config.visual.depth))
        self.co_attention = nn.ModuleList(CoAttentionLayer(config) for _ in config.text_connections)
        self.text_pooler = nn.Linear(width, pooled_width)
        self.visual_pooler = nn.Linear(visual_width, pooled_width)
        self.dropout = nn.Dropout(config.dropout)
        self.language_head = MaskedLanguageHead(config)
        self.match_head = nn.Linear(pooled_width, 2)
        self.region_head = classifier(visual_width, visual_width, config.region_classes)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        masked_regions: Bool[Tensor, "b p"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> ViLBERTOutput:
        config = self.config
        regions, boxes, region_mask, _ = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=config.region_width
        )
        text = self.embedding(tokens, token_type, mask)  # (b, t, d)
        visual = self.visual_embedding(regions, boxes, region_mask)  # (b, 1 + p, visual_width)
        visual_mask = F.pad(region_mask, (1, 0), value=True)  # the IMG token is real
        t = v = 0  # blocks of each stream that are done
        for layer, next_t, next_v in zip(self.co_attention, config.text_connections, config.visual_connections):
            text = run_blocks(self.text_blocks[t:next_t], text, mask)
            visual = run_blocks(self.visual_blocks[v:next_v], visual, visual_mask)
            text, visual = layer(text, visual, mask, visual_mask)
            t, v = next_t, next_v
        text = run_blocks(self.text_blocks[t:], text, mask)
        visual = run_blocks(self.visual_blocks[v:], visual, visual_mask)
        # Pooled by ReLU, as in the official code; BERT's own pooler has tanh.
        pooled = self.text_pooler(text[:, 0]).relu() * self.visual_pooler(visual[:, 0]).relu()  # (b, c)
        return ViLBERTOutput(text, visual[:, 0], visual[:, 1:], pooled, self.match_head(self.dropout(pooled)))

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        return self.language_head(x, self.embedding.tokens.weight)

    def loss(self, batch: Batch) -> Losses:
        """``mlm``, ``itm`` and ``mrc_kl``: those whose labels the batch holds.

        Labels are those of :mod:`mmlearn.models.fusion.pretraining_losses`. Raises ``ValueError`` without any of them,
        for an empty batch, and for boxes that cannot be. Source: section 2.2, training tasks.
        """
        output = self(**{name: batch[name] for name in REGION_INPUTS if name in batch})
        check_boxes(batch["boxes"], batch.get("region_mask"))
        losses = self.word_losses(output, batch) | itm_loss(self, output, batch)
        if {"masked_regions", "region_classes"} <= batch.keys():
            masked = regions_to_predict(batch, matched_only=False)  # (b, p)
            logits = self.region_head(output.regions)  # (b, p, classes)
            losses["mrc_kl"] = masked_region_kl(logits, batch["region_classes"], masked)
        return check_losses(self, batch, losses)

    def word_losses(self, output: ViLBERTOutput, batch: Batch) -> Losses:
        """``mlm``: the masked words."""
        return mlm_loss(self, output, batch, matched_only=False)


def run_blocks(
    blocks: Iterable[TransformerBlock], x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
) -> Float[Tensor, "b n d"]:
    """The blocks, one after the other."""
    for block in blocks:
        x = block(x, mask)
    return x


def _check_connections(config: ViLBERTConfig) -> None:
    text, visual = config.text_connections, config.visual_connections
    if len(text) != len(visual):
        raise ValueError(f"Both streams need as many connections; got text {text} and visual {visual}.")
    for name, positions, depth in (("text", text, config.depth), ("visual", visual, config.visual.depth)):
        if list(positions) != sorted(positions) or any(not 0 <= position <= depth for position in positions):
            raise ValueError(f"{name}_connections rise, from 0 to {depth} blocks; got {positions}.")
