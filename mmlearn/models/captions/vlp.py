"""VLP: one BERT reads regions and words under two attention masks, and so learns both to understand and to write.

Paper: Zhou et al. 2020, "Unified Vision-Language Pre-Training for Image Captioning and VQA".
Official code: https://github.com/LuoweiZhou/VLP.

Deviations: weights start at random, where the paper starts from BERT's. Equation 1 is built as printed; the official
code has one more layer of the detector, ReLUs, and a sixth number of each box, its confidence. [CLS] is a learned
vector of its own. Positions of words count from 0, not from the last region. There are four token types, which are
those that the code reads of its six. A mask is drawn for each batch, as in the paper; for each caption in the code.
There is no question answering. ``tiny`` is ours. Not compared with released code: the published code has layers and a
number of each box that the paper has not.
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

from mmlearn.generation.cache import DecodingStep, ScoreNext
from mmlearn.generation.decoding import greedy
from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.captions.captioner import Captioner, check_pairs, empty_prompt
from mmlearn.models.fusion.regions import TINY, box_sizes, check_boxes, read_regions
from mmlearn.objectives import masked_cross_entropy, prefix_mask


@dataclass(frozen=True)
class VLPConfig(BERTEncoderConfig):
    vocab_size: int = 28_996  # of the cased BERT
    max_length: int = 511  # tokens; there is one more position, for [MASK] after the longest text
    token_types: int = 4  # images and words, each under two masks
    region_width: int = 2048
    region_classes: int = 1601
    start_token: int = 102  # between image and words, [SEP]
    end_token: int = 102
    pad_token: int = 0
    mask_token: int = 103

    PRESETS = {"tiny": TINY | dict(token_types=4, start_token=1, end_token=2, mask_token=3), "base": dict()}


class VLPOutput(NamedTuple):
    regions: Float[Tensor, "b p d"]
    tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]  # at position i: of token i


class VLP(Captioner):
    r"""[CLS], regions and words are one sequence of a post-norm transformer. A region is its features, class and box.

    .. math:: r_i = W_r R_i + W_p\, [\mathrm{LN}(C_i)\,|\,\mathrm{LN}(G_i)], \quad
       G_i = (x_1, y_1, x_2, y_2, w h)

    ``seq2seq`` (b,) is True for rows under the sequence-to-sequence mask: all see the image, and each word
    also earlier words and itself. Attention is bidirectional in other rows, and in all without it. Token types differ
    for both masks. ``mask`` and ``region_mask`` are True where something is real. A caption is written by predicting a
    [MASK] after it (:meth:`generate`). Raises ``ValueError`` for fewer than four token types, for regions that do
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
        self.position_projection = nn.Linear(config.region_classes + 5, width)
        self.transformer = Transformer(config)
        self.language_head = MaskedLanguageHead(config)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def embed_regions(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        region_mask: Bool[Tensor, "b p"] | None,
        seq2seq: Bool[Tensor, "b"],
    ) -> tuple[Float[Tensor, "b p+1 d"], Bool[Tensor, "b p+1"]]:
        """[CLS] and the regions as the transformer reads them, and their mask."""
        width = self.config.region_width
        regions, boxes, mask, _ = read_regions(regions, boxes, region_mask, None, texts=len(seq2seq), width=width)
        geometry = torch.cat([boxes, box_sizes(boxes)[..., 2:]], -1)  # (b, p, 5)
        classes = region_classes.masked_fill(~mask[..., None], 0)
        normed = [F.layer_norm(x, x.shape[-1:]) for x in (classes, geometry)]
        x = self.region_projection(regions) + self.position_projection(torch.cat(normed, -1))  # (b, p, d)
        x = torch.cat([repeat(self.class_token, "d -> b 1 d", b=len(x)), x], 1)  # (b, p + 1, d)
        x = x + self.embedding.get_submodule("token_types")(2 * seq2seq.long())[:, None]  # type 0 or 2
        return self.embedding.dropout(self.embedding.norm(x)), F.pad(mask, (1, 0), value=True)

    def states(
        self,
        regions: Float[Tensor, "b p_or_0 d"],
        region_mask: Bool[Tensor, "b p"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b all"],
        seq2seq: Bool[Tensor, "b"],
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b n d"]:
        """States of regions and words. ``regions`` is empty where its keys are in a cache."""
        token_type = (1 + 2 * seq2seq.long())[:, None].expand_as(tokens)  # type 1 or 3
        x = torch.cat([regions, self.embedding(tokens, token_type, position=position)], 1)  # (b, p + t, d)
        prefix = torch.cat([torch.ones_like(region_mask), (~seq2seq)[:, None].expand_as(mask)], 1)  # seen by all
        return self.transformer(x, prefix_mask(prefix, torch.cat([region_mask, mask], 1))[:, -x.shape[1] :])

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        return self.language_head(x, self.embedding.tokens.weight)

    def forward(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        region_mask: Bool[Tensor, "b p"] | None = None,
        seq2seq: Bool[Tensor, "b"] | None = None,
    ) -> VLPOutput:
        if (t := tokens.shape[1]) > self.config.max_length:
            raise ValueError(f"{t} tokens are more than the {self.config.max_length} of a text here; shorten it.")
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        seq2seq = torch.zeros_like(mask[:, 0]) if seq2seq is None else seq2seq
        regions, region_mask = self.embed_regions(regions, boxes, region_classes, region_mask, seq2seq)
        x = self.states(regions, region_mask, tokens, mask, seq2seq)  # (b, 1 + p + t, d)
        return VLPOutput(x[:, 1:-t], x[:, -t:], self.token_logits(x[:, -t:]))

    def step_function(
        self,
        regions: Float[Tensor, "b p f"],
        boxes: Float[Tensor, "b p 4"],
        region_classes: Float[Tensor, "b p classes"],
        region_mask: Bool[Tensor, "b p"] | None = None,
    ) -> ScoreNext:
        """The function that decoding calls: it appends [MASK] to captions, and scores the word at its position."""
        seq2seq = torch.ones_like(boxes[:, 0, 0], dtype=torch.bool)
        x_regions, mask_regions = self.embed_regions(regions, boxes, region_classes, region_mask, seq2seq)
        is_mask: list[bool] = []  # which keys of words are of a [MASK]; a cache keeps those of earlier steps

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            t = step.tokens.shape[1]
            if t == step.mask.shape[1]:  # all is read anew
                is_mask.clear()
            is_mask.extend([False] * t + [True])
            words = torch.tensor(is_mask, device=step.mask.device).logical_not()
            mask = step.mask.new_zeros(len(step.mask), len(is_mask))
            mask[:, words], mask[:, -1] = step.mask, True  # no word sees the [MASK] of an earlier step
            tokens = F.pad(step.tokens, (0, 1), value=self.config.mask_token)
            position = F.pad(step.position, (0, 1))
            position[:, -1] = step.position[:, -1] + 1
            embedded = step.context(x_regions), step.rows(mask_regions)
            x = self.states(*embedded, tokens, mask, step.rows(seq2seq), position)
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
        """Captions that continue the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        [MASK] follows what is written, and is replaced by the word that is chosen for it, again and again. Shorter
        prompts are padded at their left, where ``prompt_mask`` is False. Source: section 3, inference.
        """
        prompt = empty_prompt(boxes) if prompt is None else prompt
        read = self.step_function(regions, boxes, region_classes, region_mask)
        return self.continue_prompts(read, prompt, prompt_mask, decode, max_length)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``seq2seq`` or ``bidirectional``, as the batch has it: the masked words of ``token_label``.

        ``ValueError`` without a text, and for impossible boxes.
        """
        check_pairs(batch)
        check_boxes(batch["boxes"], batch.get("region_mask"))
        inputs = ("regions", "boxes", "region_classes", "tokens", "mask", "region_mask", "seq2seq")
        logits = self(*(batch.get(name) for name in inputs)).token_logits
        name = "seq2seq" if "seq2seq" in batch else "bidirectional"
        return {name: masked_cross_entropy(logits, batch["token_label"])}
