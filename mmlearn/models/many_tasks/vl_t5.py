"""VL-T5: T5 reads words and then regions of an image, and solves every task by writing a text.

Paper: Cho et al. 2021, "Unifying Vision-and-Language Tasks via Text Generation". Official code:
https://github.com/j-min/VL-T5.

Deviations: the vocabulary of words is that of the data, and after it comes a token for each region, as in the code,
which counts regions from the last token and has vectors of two images. Tasks are captions, questions, the region that a
phrase refers to, and the name of a region; the paper also fills gaps of captions and finds wrong captions. All weights
start at random, where the paper's come from T5. Boxes are left, top, right, bottom; the code has left, right, top,
bottom. ``tiny`` is ours; ``base`` has the paper's sizes. Not compared with released code: its released weights are
pickled; its embedding of regions agrees with the official class to 5e-7, and T5's blocks, the rest, are compared.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.decoding import greedy
from mmlearn.layers.embeddings import look_up
from mmlearn.models.fusion.regions import box_sizes, check_boxes, read_regions
from mmlearn.models.many_tasks.t5_stacks import T5Config, T5Stack, initialise_as_t5, word_position_bias
from mmlearn.models.many_tasks.unified_vocabulary import (
    Seq2SeqOutput,
    UnifiedVocabulary,
    Vocabulary,
    check_texts,
    check_tokens,
    token_loss,
)


@dataclass(frozen=True)
class VLT5Config(Vocabulary, T5Config):
    vocab_size: int = 32_100  # words
    bins: int = 100  # regions that have a token of their own
    codes: int = 0
    max_length: int = 512  # tokens of a text
    text_start: int = 0
    start_token: int = 0  # of a target
    region_width: int = 2048
    region_classes: int = 1600  # in a batch for each region, and not read here
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int = 3072

    PRESETS = {
        "tiny": dict(vocab_size=512, bins=36, max_length=64, text_start=1, start_token=1, end_token=2)
        | dict(
            region_width=216,
            region_classes=144,
            width=64,
            depth=2,
            num_heads=4,
            head_width=16,
            mlp_width=256,
            max_distance=32,
            dropout=0.0,
        ),
        "base": dict(),
    }


class VLT5(UnifiedVocabulary):
    r"""Words and regions, one sequence, through T5's encoder; T5's decoder writes words and tokens of regions.

    .. math:: v_j = \mathrm{RMSNorm}(W_f f_j + c_f) + \mathrm{RMSNorm}(W_b [b_j; |b_j|] + c_b) + E_\mathrm{region}(j) +
       E_\mathrm{image}

    where ``|b|`` is the area of a box. The scores of words know the distance between them; those of regions know none.
    ``mask`` and ``region_mask`` are True where a token or a region is real. Raises ``ValueError`` for tokens, boxes and
    more regions than have a token.
    Source: sections 3.1 and 3.2; official code, ``VisualEmbedding`` (``individual_vis_layer_norm``), ``JointEncoder``.
    """

    def __init__(self, config: VLT5Config):
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.features = nn.Linear(config.region_width, width)
        self.feature_norm = nn.RMSNorm(width, config.norm_epsilon)
        self.boxes = nn.Linear(5, width)
        self.box_norm = nn.RMSNorm(width, config.norm_epsilon)
        self.image_embedding = nn.Parameter(torch.zeros(width))
        self.encoder = T5Stack(config, config.depth, decoder=False)
        self.decoder = T5Stack(config, config.decoder_depth or config.depth, decoder=True)
        initialise_as_t5(self, config.head_width)
        nn.init.normal_(self.tokens.weight, std=1)

    def embed_regions(
        self, regions: Float[Tensor, "b p f"], boxes: Float[Tensor, "b p 4"], region_mask: Bool[Tensor, "b p"] | None
    ) -> tuple[Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        """Regions as tokens, and their mask."""
        config, sizes = self.config, dict(texts=len(regions), width=self.config.region_width)
        regions, boxes, mask, _ = read_regions(regions, boxes, region_mask, None, **sizes)
        if regions.shape[1] > config.bins:
            raise ValueError(f"{regions.shape[1]} regions are more than the {config.bins} that have a token: set bins.")
        region_tokens = self.tokens.weight[config.vocab_size : config.vocab_size + regions.shape[1]]  # (p, d)
        features = self.feature_norm(self.features(regions))  # (b, p, d)
        location = self.box_norm(self.boxes(torch.cat([boxes, box_sizes(boxes)[..., 2:]], -1)))  # (b, p, 5) → (b, p, d)
        # Features and boxes are normed each alone; a region's number is a token, which no norm precedes.
        return features + location + region_tokens + self.image_embedding, mask

    def encode(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """The states of words, then of regions; and their mask."""
        check_tokens(tokens, self.config, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x, region_mask = self.embed_regions(regions, boxes, region_mask)
        bias = word_position_bias(self.encoder, tokens.shape[1], x.shape[1])
        x = torch.cat([look_up(self.tokens, tokens), x], 1)  # (b, t + p, d)
        mask = torch.cat([mask, region_mask], 1)
        return self.encoder(x, mask, bias=bias), mask

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token of a target, which begins with the start token."""
        x = self.decoder(look_up(self.tokens, target), target_mask, context, mask)
        return F.linear(x * self.config.width**-0.5, self.tokens.weight)

    def forward(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        target: Int[Tensor, "b o"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
    ) -> Seq2SeqOutput:
        context, mask = self.encode(regions, boxes, tokens, mask, region_mask)
        return Seq2SeqOutput(self.decode(self.decoder_input(target), context, mask), context)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The loss of the target's tokens. ``ValueError`` without a text, and for impossible boxes."""
        region_mask = batch.get("region_mask")
        check_boxes(batch["boxes"], region_mask)
        check_texts(batch)
        inputs = (batch[name] for name in ("regions", "boxes", "tokens", "target"))
        return token_loss(self(*inputs, batch.get("mask"), region_mask).token_logits, batch)

    def locate(self, decode: Callable[..., Tensor] = greedy, **inputs: Any) -> Float[Tensor, "b 4"]:
        """The box of the region that each text refers to."""
        first, boxes = self.config.vocab_size, inputs["boxes"]
        token = self.write(decode, allowed=range(first, first + boxes.shape[1]), count=1, **inputs)[:, 0]  # (b,)
        return boxes[torch.arange(len(boxes), device=boxes.device), token - first]
