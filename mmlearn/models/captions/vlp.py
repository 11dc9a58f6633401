"""VLP: one BERT reads regions and words under two masks, and so learns both to understand and to write.

Paper: Zhou et al. 2020, "Unified Vision-Language Pre-Training for Image Captioning and VQA".
Official code: https://github.com/LuoweiZhou/VLP.

Deviations: weights start at random, where the paper starts from BERT's. Equation 1 is built as it stands; the official
code has one more layer of the detector, ReLUs, and a sixth number of each box, its certainty. [CLS] is a vector of its
own. Words count their places from 0, not from the last region. Of six token types in the code four are read, and here.
A mask is drawn for each batch, as in the paper; for each caption in the code. Question answering is left to others.
``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import Read, Reading
from mmlearn.generation.decoding import greedy
from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.captions.captioner import Captioner, check_pairs, no_words
from mmlearn.models.fusion.regions import TINY, box_sizes, check_boxes, read_regions
from mmlearn.objectives import masked_cross_entropy, prefix_mask


@dataclass(frozen=True)
class VLPConfig(BERTEncoderConfig):
    vocab_size: int = 28_996  # of the cased BERT
    max_length: int = 511  # tokens; there is one more place, for [MASK] behind the longest text
    token_types: int = 4  # pictures and words, each under two masks
    region_width: int = 2048
    region_classes: int = 1601
    start_token: int = 102  # between picture and words, [SEP]
    end_token: int = 102
    pad_token: int = 0
    mask_token: int = 103

    PRESETS = {"tiny": TINY | dict(token_types=4, start_token=1, end_token=2, mask_token=3), "base": dict()}


class VLPOutput(NamedTuple):
    regions: Float[Tensor, "b p d"]
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]  # at place i: what token i is


class VLP(Captioner):
    r"""[CLS], regions and words are one sequence of a post-norm transformer. A region is its features, class and box.

    .. math:: r_i = W_r R_i + W_p\, [\mathrm{LN}(C_i)\,|\,\mathrm{LN}(G_i)], \quad
       G_i = (x_1, y_1, x_2, y_2, w h)

    ``seq2seq`` (b,) says which rows are read under the sequence-to-sequence mask: all see the picture, and each word
    those before it and itself. The others are read both ways, and so are all without it. Token types tell both masks
    apart. ``mask`` and ``region_mask`` are True where something is real. A caption is written by asking what stands
    behind it as [MASK] (:meth:`generate`). Raises ``ValueError`` for fewer than four token types, for regions that do
    not fit, and for texts longer than ``max_length``. Source: section 3, equation 1, and figure 2.
    """

    def __init__(self, config: VLPConfig):
        super().__init__()
        if config.token_types != 4:
            raise ValueError(f"VLP tells four types of tokens apart, not {config.token_types}.")
        self.config, width = config, config.width
        self.embedding = BERTEmbedding(replace(config, max_length=config.max_length + 1))
        self.class_token = nn.Parameter(config.initial_std * torch.randn(width))
        self.region_projection = nn.Linear(config.region_width, width, bias=False)
        self.place_projection = nn.Linear(config.region_classes + 5, width)
        self.transformer = Transformer(config)
        self.language_head = MaskedLanguageHead(config)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def look(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        region_mask: Bool[Tensor, "b p"] | None,
        seq2seq: Bool[Tensor, "b"],
    ) -> tuple[Float[Tensor, "b p+1 d"], Bool[Tensor, "b p+1"]]:
        """[CLS] and the regions as the transformer reads them, and which are real."""
        width = self.config.region_width
        regions, boxes, real, _ = read_regions(regions, boxes, region_mask, None, texts=len(seq2seq), width=width)
        place = torch.cat([boxes, box_sizes(boxes)[..., 2:]], -1)
        classes = region_classes.masked_fill(~real[..., None], 0)
        place = [F.layer_norm(x, x.shape[-1:]) for x in (classes, place)]
        x = self.region_projection(regions) + self.place_projection(torch.cat(place, -1))
        x = torch.cat([repeat(self.class_token, "d -> b 1 d", b=len(x)), x], 1)
        x = x + self.embedding.token_types(2 * seq2seq.long())[:, None]
        return self.embedding.dropout(self.embedding.norm(x)), F.pad(real, (1, 0), value=True)

    def states(
        self,
        picture: Float[Tensor, "b p_or_0 d"],
        shown: Bool[Tensor, "b p"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b all"],
        seq2seq: Bool[Tensor, "b"],
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """States of the picture and of the words. ``picture`` is empty where its keys are in a cache."""
        kind = (1 + 2 * seq2seq.long())[:, None].expand_as(tokens)
        x = torch.cat([picture, self.embedding(tokens, kind, position=position)], 1)
        prefix = torch.cat([torch.ones_like(shown), (~seq2seq)[:, None].expand_as(mask)], 1)  # seen by all
        return self.transformer(x, prefix_mask(prefix, torch.cat([shown, mask], 1))[:, -x.shape[1] :])

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        return self.language_head(x, self.embedding.tokens.weight)

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        seq2seq: Bool[Tensor, "b"] | None = None,
    ) -> VLPOutput:
        if (t := tokens.shape[1]) > self.config.max_length:
            raise ValueError(f"{t} tokens are more than the {self.config.max_length} of a text here; shorten it.")
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seq2seq = torch.zeros_like(mask[:, 0]) if seq2seq is None else seq2seq
        picture, shown = self.look(regions, boxes, region_classes, region_mask, seq2seq)
        x = self.states(picture, shown, tokens, mask, seq2seq)
        return VLPOutput(x[:, 1:-t], x[:, -t:], self.token_logits(x[:, -t:]))

    def reader(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        region_mask: Bool[Tensor, "b p"] | None = None,
    ) -> Read:
        """What reads captions of these pictures, with [MASK] behind them, and scores the word that stands there."""
        always = torch.ones_like(boxes[:, 0, 0], dtype=torch.bool)
        picture, shown = self.look(regions, boxes, region_classes, region_mask, always)
        asked: list[bool] = []  # which keys of words are those of a [MASK]; a cache keeps those of earlier steps

        def read(now: Reading) -> Float[Tensor, "n v"]:
            t = now.tokens.shape[1]
            if t == now.mask.shape[1]:  # all is read anew
                asked.clear()
            asked.extend([False] * t + [True])
            words = torch.tensor(asked, device=now.mask.device).logical_not()
            mask = now.mask.new_zeros(len(now.mask), len(asked))
            mask[:, words], mask[:, -1] = now.mask, True
            tokens = F.pad(now.tokens, (0, 1), value=self.config.mask_token)
            position = F.pad(now.position, (0, 1))
            position[:, -1] = now.position[:, -1] + 1
            x = self.states(now.context(picture), now.rows(shown), tokens, mask, now.rows(always), position)
            return self.token_logits(x[:, -1])

        return read

    @torch.no_grad()
    def generate(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        region_mask: Bool[Tensor, "b p"] | None = None,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Captions that go on from the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        [MASK] stands behind what is written, and gives way to the word that is chosen for it, again and again. Shorter
        prompts are padded at their left, where ``prompt_mask`` is False. Source: section 3, inference.
        """
        prompt = no_words(boxes) if prompt is None else prompt
        read = self.reader(regions, boxes, region_classes, region_mask)
        return self.go_on(read, prompt, prompt_mask, decode, max_length)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``seq2seq`` or ``bidirectional``, as the batch has it: the words that ``token_label`` says were hidden.

        ``ValueError`` without a text, and for boxes that cannot be.
        """
        check_pairs(batch)
        check_boxes(batch["boxes"], batch.get("region_mask"))
        inputs = ("tokens", "regions", "boxes", "region_classes", "mask", "region_mask", "seq2seq")
        logits = self(**{name: batch[name] for name in inputs if name in batch}).token_logits
        name = "seq2seq" if "seq2seq" in batch else "bidirectional"
        return {name: masked_cross_entropy(logits, batch["token_label"])}
