r"""ViLBERT: a BERT of words and a BERT of regions, each with its own width, that meet in co-attention layers.

Paper: Lu et al. 2019, "ViLBERT: Pretraining Task-Agnostic Visiolinguistic Representations for Vision-and-Language
Tasks", NeurIPS. Official code: https://github.com/jiasenlu/vilbert_beta and, for its successor "12-in-1",
https://github.com/facebookresearch/vilbert-multi-task.

Deviations: ``tiny`` is ours. The official co-attention layer holds two linear layers that nothing reads
(``q_dense1``, ``q_dense2``, 11 million weights in base); they are left out. Masked words and regions are predicted for
every pair, as in the paper, also where picture and text do not match; 12-in-1 leaves those out. Which regions are
masked is for whoever makes the batch; all of them become zeros here, where the paper keeps one in ten as it is.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Regions, Tokens
from mmlearn.layers import MLP, Config
from mmlearn.layers.language import initialise_as_bert
from mmlearn.layers.padded import NO_PADDING, Attention, BERTEmbedding, MaskedLanguageHead, Padding, TransformerBlock
from mmlearn.models.fusion.heads import classifier
from mmlearn.models.fusion.regions import box_sizes, masked_only, read_regions
from mmlearn.models.fusion.streams import co_attention
from mmlearn.objectives.masked import IGNORED, masked_cross_entropy, masked_region_kl
from mmlearn.objectives.matching import image_text_matching
from mmlearn.recipes import ITM, MLM, MRM, Recipe

NORM_EPSILON = 1e-12  # as in BERT


@dataclass(frozen=True)
class ViLBERTConfig(Config):
    vocab_size: int = 30_522
    max_length: int = 512  # tokens
    token_types: int = 2
    width: int = 768  # of the text stream
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    region_width: int = 2048  # features of a region
    region_classes: int = 1601  # of the detector, with background
    visual_width: int = 1024  # of the visual stream
    visual_depth: int = 6
    visual_heads: int = 8
    visual_mlp_width: int = 1024
    co_attention_width: int = 1024  # of all heads of a co-attention together, and of what is pooled
    co_attention_heads: int = 8
    text_connections: tuple[int, ...] = (6, 7, 8, 9, 10, 11)  # so many blocks of a stream come before each meeting
    visual_connections: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    dropout: float = 0.1
    initial_std: float = 0.02  # of weights

    PRESETS = {
        "tiny": dict(
            vocab_size=512,
            max_length=32,
            width=64,
            depth=3,
            num_heads=4,
            region_width=216,
            region_classes=144,
            visual_width=48,
            visual_depth=2,
            visual_heads=4,
            visual_mlp_width=48,
            co_attention_width=64,
            co_attention_heads=4,
            text_connections=(1, 2),
            visual_connections=(0, 1),
            dropout=0.0,
            initial_std=0.125,
        ),
        "base": dict(),
    }


class ViLBERTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    image: Float[Tensor, "b visual_width"]  # the IMG token
    regions: Float[Tensor, "b p visual_width"]
    pooled: Float[Tensor, "b c"]  # the product of both streams' first tokens
    match_logits: Float[Tensor, "b 2"]  # index 1: picture and text belong together


class VisualEmbedding(nn.Module):
    r"""An IMG token and the regions, each as its features plus its place, normalised. Returns (b, 1 + p, d).

    .. math:: v_j = \mathrm{LN}\big(W_F f_j + b_F + W_S s_j + b_S\big), \quad
       s_j = (x_1, y_1, x_2, y_2, \text{area})

    with the box as shares of the picture. The IMG token stands for the whole picture: the mean of its real regions'
    features, those masked to zero included, in a box around everything. Source: section 2.2.
    """

    def __init__(self, region_width: int, width: int, dropout: float):
        super().__init__()
        self.features = nn.Linear(region_width, width)
        self.places = nn.Linear(5, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, regions: Float[Tensor, "b p f"], boxes: Float[Tensor, "b p 4"], region_mask: Bool[Tensor, "b p"]
    ) -> Float[Tensor, "b n d"]:
        real = regions.masked_fill(~region_mask[..., None], 0)
        image = real.sum(1, keepdim=True) / region_mask.sum(1)[:, None, None]
        whole = repeat(boxes.new_tensor([0, 0, 1, 1]), "corner -> b 1 corner", b=len(boxes))
        boxes = torch.cat([whole, boxes], dim=1)
        places = torch.cat([boxes, box_sizes(boxes)[..., 2:]], dim=-1)
        return self.dropout(self.norm(self.features(torch.cat([image, regions], dim=1)) + self.places(places)))


class CoAttentionStream(nn.Module):
    r"""One stream's half of a co-attention layer: its queries, the other stream's keys and values, then its own MLP.

    .. math:: \hat x = \mathrm{LN}\big(x + \mathrm{MultiHead}(x W^Q, y W^K, y W^V)\big), \quad
       x' = \mathrm{LN}\big(\hat x + \mathrm{MLP}(\hat x)\big)

    Source: section 2.1 and figure 2b.
    """

    def __init__(
        self, width: int, context_width: int, inner_width: int, num_heads: int, *, mlp_width: int | None, dropout: float
    ):
        super().__init__()
        if inner_width % num_heads:
            raise ValueError(f"co_attention_width {inner_width} is no multiple of co_attention_heads {num_heads}.")
        self.attention = Attention(
            width, num_heads, head_width=inner_width // num_heads, context_width=context_width, dropout=dropout
        )
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.mlp = MLP(width, mlp_width)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "*bq d"],
        context: Float[Tensor, "*bn context_width"],
        context_mask: Bool[Tensor, "b n"] | None,
        padding: Padding = NO_PADDING,
        context_padding: Padding = NO_PADDING,
    ) -> Float[Tensor, "*bq d"]:
        attended = self.attention(x, context, context_mask, False, padding, context_padding)
        x = self.attention_norm(x + self.dropout(attended))
        return self.mlp_norm(x + self.dropout(self.mlp(x)))


class CoAttentionLayer(nn.Module):
    """Where the streams meet: words look at regions while regions look at words. Source: section 2.1, figure 2b.

    A stream whose padding was removed comes with that, and is handed back without it.
    """

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        inner, heads = config.co_attention_width, config.co_attention_heads
        text, visual = config.width, config.visual_width
        self.text = CoAttentionStream(text, visual, inner, heads, mlp_width=config.mlp_width, dropout=config.dropout)
        self.visual = CoAttentionStream(
            visual, text, inner, heads, mlp_width=config.visual_mlp_width, dropout=config.dropout
        )

    def forward(
        self,
        text: Float[Tensor, "*bt d"],
        visual: Float[Tensor, "*bn visual_width"],
        mask: Bool[Tensor, "b t"] | None = None,
        visual_mask: Bool[Tensor, "b n"] | None = None,
        padding: Padding = NO_PADDING,
        visual_padding: Padding = NO_PADDING,
    ) -> tuple[Float[Tensor, "*bt d"], Float[Tensor, "*bn visual_width"]]:
        text_looks = partial(self.text, padding=padding, context_padding=visual_padding)
        visual_looks = partial(self.visual, padding=visual_padding, context_padding=padding)
        return co_attention(text, visual, mask, visual_mask, text_looks, visual_looks)


class ViLBERT(nn.Module):
    """Two streams of post-norm blocks; before the blocks that the configuration names, both pass a co-attention layer.

    ``regions`` are a detector's features and ``boxes`` their places, as shares of the picture; ``mask`` and
    ``region_mask`` are True where a word or a region is real. ``masked_regions`` are to be guessed, so whatever they
    hold becomes zeros. Raises ``ValueError`` for connections that do not fit the streams, regions and boxes that do
    not fit the texts or ``region_width``.
    Source: section 2 and figure 1; the official configuration of six blocks and six connections.
    """

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        _check_connections(config)
        self.config = config
        rest = dict(norm_first=False, norm_epsilon=NORM_EPSILON, dropout=config.dropout)
        self.embedding = BERTEmbedding(
            config.vocab_size, config.width, config.max_length, token_types=config.token_types, dropout=config.dropout
        )
        self.visual_embedding = VisualEmbedding(config.region_width, config.visual_width, config.dropout)
        self.text_blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, mlp_width=config.mlp_width, **rest)
            for _ in range(config.depth)
        )
        self.visual_blocks = nn.ModuleList(
            TransformerBlock(config.visual_width, config.visual_heads, mlp_width=config.visual_mlp_width, **rest)
            for _ in range(config.visual_depth)
        )
        self.co_attention = nn.ModuleList(CoAttentionLayer(config) for _ in config.text_connections)
        self.text_pooler = nn.Linear(config.width, config.co_attention_width)
        self.visual_pooler = nn.Linear(config.visual_width, config.co_attention_width)
        self.dropout = nn.Dropout(config.dropout)
        self.masked_language_head = MaskedLanguageHead(config.width, config.vocab_size)
        self.region_head = classifier(config.visual_width, config.visual_width, config.region_classes)
        self.matching_head = nn.Linear(config.co_attention_width, 2)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        regions: Float[Tensor, "..."],
        boxes: Float[Tensor, "..."],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "..."] | None = None,
        masked_regions: Bool[Tensor, "..."] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
    ) -> ViLBERTOutput:
        regions, region_mask = read_regions(
            regions, boxes, region_mask, masked_regions, texts=len(tokens), width=self.config.region_width
        )
        text = self.embedding(tokens, token_type)
        visual = self.visual_embedding(regions, boxes, region_mask)
        visual_mask = torch.cat([region_mask.new_ones(len(region_mask), 1), region_mask], dim=1)
        text, visual = self._streams(text, visual, mask, visual_mask)
        # Pooled by ReLU, as in the official code; BERT's own pooler has tanh.
        pooled = self.text_pooler(text[:, 0]).relu() * self.visual_pooler(visual[:, 0]).relu()
        return ViLBERTOutput(
            tokens=text,
            image=visual[:, 0],
            regions=visual[:, 1:],
            pooled=pooled,
            match_logits=self.matching_head(self.dropout(pooled)),
        )

    def _streams(
        self, text: Tensor, visual: Tensor, mask: Tensor | None, visual_mask: Tensor
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n visual_width"]]:
        stops = zip(
            pairwise((0, *self.config.text_connections, self.config.depth)),
            pairwise((0, *self.config.visual_connections, self.config.visual_depth)),
        )
        padding, visual_padding = Padding(mask), Padding(visual_mask)
        text, visual = padding.remove(text), visual_padding.remove(visual)
        for meeting, ((t, next_t), (v, next_v)) in enumerate(stops):
            if meeting:
                text, visual = self.co_attention[meeting - 1](text, visual, mask, visual_mask, padding, visual_padding)
            for block in self.text_blocks[t:next_t]:
                text = block(text, mask, padding=padding)
            for block in self.visual_blocks[v:next_v]:
                visual = block(visual, visual_mask, padding=visual_padding)
        return padding.restore(text), visual_padding.restore(visual)

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        return self.masked_language_head(x, self.embedding.tokens.weight)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``mlm``, ``mrc_kl`` and ``itm``: those whose labels the batch holds.

        ``batch["region_classes"]`` (b, p, classes) is what a detector saw where ``masked_regions`` is True. Raises
        ``ValueError`` without any label, or for an empty batch. Source: section 2.2, training tasks.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text and picture.")
        inputs = ("tokens", "regions", "boxes", "mask", "region_mask", "masked_regions", "token_type")
        output = self(**{name: batch[name] for name in inputs if name in batch})
        losses = {}
        if "token_label" in batch:
            masked = batch["token_label"] != IGNORED
            losses["mlm"] = masked_cross_entropy(self.token_logits(output.tokens[masked]), batch["token_label"][masked])
        if "masked_regions" in batch and "region_classes" in batch:
            masked = batch["masked_regions"] & batch.get("region_mask", batch["masked_regions"])
            states, classes, masked = masked_only(masked, output.regions, batch["region_classes"])
            losses["mrc_kl"] = masked_region_kl(self.region_head(states), classes, masked)
        if "match_label" in batch:
            losses["itm"] = image_text_matching(output.match_logits, batch["match_label"])
        if not losses:
            raise ValueError(
                "Nothing to learn: ViLBERT needs token_label, masked_regions with region_classes, or match_label in "
                "the batch."
            )
        return losses


def _check_connections(config: ViLBERTConfig) -> None:
    text, visual = config.text_connections, config.visual_connections
    if len(text) != len(visual):
        raise ValueError(f"The streams meet as often as each other: got text {text} and visual {visual} connections.")
    for name, places, depth in (("text", text, config.depth), ("visual", visual, config.visual_depth)):
        if list(places) != sorted(places) or any(not 0 <= place <= depth for place in places):
            raise ValueError(f"{name}_connections rise, from 0 to {depth} blocks; got {places}.")


RECIPE = Recipe(
    ViLBERT,
    ViLBERTConfig,
    reads=(Tokens(), Regions()),
    learns=(ITM, MLM, MRM),
)
