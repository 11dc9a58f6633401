"""VL-T5: T5 reads regions of a picture behind its words, and answers every task with a text.

Paper: Cho et al. 2021, "Unifying Vision-and-Language Tasks via Text Generation". Official code:
https://github.com/j-min/VL-T5.

Deviations: the vocabulary of words is that of the data, and behind it stands a token for each region, as in the code.
Tasks are captions, questions, the region that a phrase means, and the name of a region; the paper also fills gaps of
captions and tells wrong captions. All weights start at random, where the paper's come from T5. Boxes are told as left,
top, right, bottom; the code has left, right, top, bottom. ``tiny`` is ours; ``base`` has the paper's sizes.
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
from mmlearn.models.many_tasks.unified_vocabulary import UnifiedVocabulary, Vocabulary, Written, check_tokens


@dataclass(frozen=True)
class VLT5Config(Vocabulary, T5Config):
    vocab_size: int = 32_100  # words
    bins: int = 100  # regions that have a token of their own
    codes: int = 0
    max_length: int = 512  # tokens of a text
    text_start: int = 0
    start_token: int = 0  # of a target
    region_width: int = 2048
    region_classes: int = 1600  # that a batch tells of each region, and nothing reads
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
    r"""Words and regions side by side through T5's encoder, and T5's decoder, which writes words and regions' tokens.

    .. math:: v_j = \mathrm{RMSNorm}(W_f f_j + W_b [b_j; |b_j|] + E_\mathrm{region}(j) + E_\mathrm{picture})

    The scores of words know the distance between them; those of regions know none. ``mask`` and ``region_mask`` are
    True where a token or a region is real. Raises ``ValueError`` for tokens, boxes and more regions than have a token.
    Source: sections 3.1 and 3.2; official code, ``VisualEmbedding`` and ``JointEncoder``.
    """

    def __init__(self, config: VLT5Config):
        super().__init__()
        self.config = config
        width = config.width
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.features = nn.Linear(config.region_width, width)
        self.boxes = nn.Linear(5, width)
        self.picture = nn.Parameter(torch.zeros(width))
        self.region_norm = nn.RMSNorm(width, config.norm_epsilon)
        self.encoder = T5Stack(config, config.depth, decoder=False)
        self.decoder = T5Stack(config, config.decoder_depth or config.depth, decoder=True)
        initialise_as_t5(self, config.head_width)
        nn.init.normal_(self.tokens.weight, std=1)

    def see(
        self, regions: Float[Tensor, "b p f"], boxes: Float[Tensor, "b p 4"], region_mask: Bool[Tensor, "b p"] | None
    ) -> tuple[Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        """Regions as tokens, and which are real."""
        config, sizes = self.config, dict(texts=len(regions), width=self.config.region_width)
        shown, boxes, real, _ = read_regions(regions, boxes, region_mask, None, **sizes)
        if shown.shape[1] > config.bins:
            raise ValueError(f"{shown.shape[1]} regions are more than the {config.bins} that have a token: set bins.")
        own = self.tokens.weight[config.vocab_size : config.vocab_size + shown.shape[1]]
        place = self.boxes(torch.cat([boxes, box_sizes(boxes)[..., 2:]], -1))
        return self.region_norm(self.features(shown) + place + own + self.picture), real

    def encode(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """Words, then regions, and which of them are real."""
        check_tokens(tokens, self.config, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seen, real = self.see(regions, boxes, region_mask)
        bias = word_position_bias(self.encoder, tokens.shape[1], seen.shape[1])
        mask = torch.cat([mask, real], 1)
        return self.encoder(torch.cat([look_up(self.tokens, tokens), seen], 1), mask, bias=bias), mask

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of what follows each token of a target, which begins with the start token."""
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
    ) -> Written:
        inputs = dict(regions=regions, boxes=boxes, tokens=tokens, mask=mask, region_mask=region_mask)
        return self.written(target, **inputs)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``tokens``, as of all such systems. ``ValueError`` also for boxes that cannot be."""
        check_boxes(batch["boxes"], batch.get("region_mask"))
        return super().loss(batch)

    def locate(self, decode: Callable[..., Tensor] = greedy, **inputs: Any) -> Float[Tensor, "b 4"]:
        """The box of the region that answers each text."""
        places, boxes = self.config.places, inputs["boxes"]
        there = range(places.start, places.start + boxes.shape[1])
        number = self.write(decode, allowed=there, count=1, **inputs)[:, 0] - places.start
        return boxes[torch.arange(len(boxes), device=boxes.device), number]
