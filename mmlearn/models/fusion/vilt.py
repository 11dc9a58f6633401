"""ViLT: words and patches in one transformer, with no detector and no convolution before it.

Paper: Kim et al. 2021, "ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision".
Official code: https://github.com/dandelin/ViLT.

Deviations: ``tiny`` is ours. Weights start at random, where the paper starts from a ViT trained on ImageNet. All losses
whose labels a batch has are computed in one pass; the official code passes twice, once with masked texts and true
pictures, once with whole texts of which half have a false picture. All patches are read; the official code takes 200 of
them at random where a picture has more. The head that fills gaps shares the token table, as in BERT and in
Transformers; in the official code it has its own (``tied=False``). Norms add 1e-12 everywhere, as in Transformers; the
official code adds 1e-6 in the blocks. Whole words are masked where the data say so; augmentation is the data's as well.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.data.fields import Image, Tokens
from mmlearn.layers import Config, ImageEmbedding, patchify
from mmlearn.layers.embeddings import check_image
from mmlearn.layers.language import initialise_as_bert, pooler
from mmlearn.layers.padded import BERTEmbedding, MaskedLanguageHead, Transformer
from mmlearn.models.fusion.heads import VQAHead
from mmlearn.models.fusion.pair_losses import pair_losses
from mmlearn.objectives.transport import word_region_alignment
from mmlearn.recipes import ITM, MLM, VQA, Recipe


@dataclass(frozen=True)
class ViLTConfig(Config):
    vocab_size: int = 30_522
    max_length: int = 40  # tokens
    token_types: int = 2
    pad_token: int = 0  # its vector does not learn by being looked up
    image_size: int | tuple[int, int] = 384  # pixels; (height, width) where they differ
    patch_size: int = 32  # pixels
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    mlp_width: int | None = None  # 4 · width
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    dropout: float = 0.1
    initial_std: float = 0.02  # of tables and heads
    masked_language_head: bool = True
    tied: bool = True  # that head and the text embedding share one token table
    match_outputs: int = 2  # no and yes; 1: one score, as fine-tuned for retrieval; 0: no head
    answers: int = 0  # 0: no head
    alignment_weight: float = 0.1  # of the word-patch alignment; 0 leaves it out

    PRESETS = {
        "tiny": dict(
            vocab_size=512,
            max_length=32,
            image_size=64,
            patch_size=16,
            width=64,
            depth=3,
            num_heads=4,
            dropout=0.0,
            initial_std=0.125,
        ),
        "B/32": dict(),
    }


class ViLTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    patches: Float[Tensor, "b n d"]  # the picture's class token, then its patches
    patch_mask: Bool[Tensor, "b n"]
    pooled: Float[Tensor, "b d"]  # of the first text token
    match_logits: Float[Tensor, "b 2"] | None  # 0: do not belong together, 1: do
    answer_logits: Float[Tensor, "b answers"] | None


class PatchEmbedding(ImageEmbedding):
    r"""Patches of a picture after a class token, each with its learned position.

    .. math:: \bar v = [v_\mathrm{class};\, v_1 V;\, \dots;\, v_N V] + V^\mathrm{pos}

    A picture of another size gets its positions by bilinear interpolation of the learned grid, corner on corner.
    ``pixel_mask`` (b, height, width) says where in a padded batch a picture is: True in its top left part. Returns
    (b, 1 + p, d), and (b, 1 + p), True where a patch is real.

    Raises ``ValueError`` for pictures that are not float (b, 3, height, width) or are smaller than a patch, and for a
    mask of another shape, or that is not True in one rectangle from the top left.
    Source: equation 2; the official code for other sizes.
    """

    def forward(
        self, image: Float[Tensor, "b 3 height width"], pixel_mask: Bool[Tensor, "b height width"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        grid = check_image(image, self.patch_size)
        x = self.patches(patchify(image, self.patch_size))
        if pixel_mask is None:
            real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            x = x + self._positions(grid, grid)
        else:
            real, sizes = self._real_patches(image, pixel_mask, grid)
            x = x + torch.stack([self._positions(size, grid) for size in sizes])
        first = repeat(self.class_token + self.positions[0], "d -> b 1 d", b=len(x))
        return torch.cat([first.to(x), x], dim=1), F.pad(real, (1, 0), value=True)

    def _positions(self, size: tuple[int, int], grid: tuple[int, int]) -> Float[Tensor, "p d"]:
        """The learned grid at this many rows and columns, in the top left of a grid that may be larger."""
        learned = rearrange(self.positions[1:], "(row column) d -> 1 d row column", row=self.grid[0])
        if size != self.grid:
            learned = F.interpolate(learned, size=size, mode="bilinear", align_corners=True)
        padded = F.pad(learned, (0, grid[1] - size[1], 0, grid[0] - size[0]))
        return rearrange(padded, "1 d row column -> (row column) d")

    def _real_patches(
        self, image: Tensor, pixel_mask: Tensor, grid: tuple[int, int]
    ) -> tuple[Bool[Tensor, "b p"], list[tuple[int, int]]]:
        """Which patches are real, and how many rows and columns of them each picture has."""
        if pixel_mask.dtype != torch.bool or pixel_mask.shape != (len(image), *image.shape[2:]):
            raise ValueError(
                f"pixel_mask is boolean (b, height, width) like the pictures, {(len(image), *image.shape[2:])}; got "
                f"{pixel_mask.dtype} {tuple(pixel_mask.shape)}."
            )
        real = F.interpolate(pixel_mask[:, None].float(), size=grid)[:, 0].bool()  # (b, row, column), by top left pixel
        rows, columns = real[:, :, 0].sum(1), real[:, 0].sum(1)
        whole = rows * columns  # of a rectangle from the top left
        if not whole.all() or not torch.equal(real.sum((1, 2)), whole):
            raise ValueError(
                "pixel_mask is True in one rectangle from the top left of each picture; pad below and right."
            )
        return real.flatten(1), list(zip(rows.tolist(), columns.tolist()))


class ViLTAnswerHead(VQAHead):
    """A :class:`~mmlearn.models.fusion.heads.VQAHead` that normalises before its GELU. Source: the official code."""

    def __init__(self, width: int, answers: int):
        super().__init__(width, answers)
        first, activation, norm, last = self.classifier
        norm.eps = 1e-5
        self.classifier = nn.Sequential(first, norm, activation, last)


class ViLT(nn.Module):
    r"""Text tokens and patches, told apart by what is added to each, through one pre-norm transformer.

    .. math:: z^0 = [\bar t + t^\mathrm{type};\, \bar v + v^\mathrm{type}], \quad p = \tanh(z^D_0 W_\mathrm{pool})

    ``mask`` is True where a token is real, ``pixel_mask`` where a picture is; ``token_type`` is by default the first.
    Heads are built where the configuration asks for them. Raises ``ValueError`` where texts and pictures are not as
    many, and as :class:`PatchEmbedding` and :class:`~mmlearn.layers.TextEmbedding` do. With ``first`` only so many
    tokens are computed to the end; the pooled one is the very first.
    Source: section 3.1 and equations 1 to 6.
    """

    def __init__(self, config: ViLTConfig):
        super().__init__()
        if config.match_outputs not in (0, 1, 2):
            raise ValueError(f"match_outputs is 2, 1 or 0, got {config.match_outputs}.")
        self.config = config
        width, epsilon = config.width, config.norm_epsilon
        self.text_embedding = BERTEmbedding(
            config.vocab_size,
            width,
            config.max_length,
            token_types=config.token_types,
            pad_token=config.pad_token,
            norm_epsilon=epsilon,
            dropout=config.dropout,
        )
        self.image_embedding = PatchEmbedding(config.image_size, config.patch_size, width)
        self.image_dropout = nn.Dropout(config.dropout)
        self.modalities = nn.Embedding(2, width)  # text, picture
        self.transformer = Transformer(
            width,
            config.depth,
            config.num_heads,
            mlp_width=config.mlp_width,
            activation=config.activation,
            norm_epsilon=epsilon,
            dropout=config.dropout,
        )
        self.norm = nn.LayerNorm(width, eps=epsilon)
        self.pooler = pooler(width)
        self.masked_language_head = self.token_table = None
        if config.masked_language_head:
            self.masked_language_head = MaskedLanguageHead(
                width, config.vocab_size, activation=config.activation, norm_epsilon=epsilon
            )
            self.token_table = None if config.tied else nn.Embedding(config.vocab_size, width)
        self.matching_head = nn.Linear(width, config.match_outputs) if config.match_outputs else None
        for name, part in self.named_children():
            if name not in ("image_embedding", "transformer"):
                part.apply(partial(initialise_as_bert, std=config.initial_std))
        # Afterwards, for it starts itself: so small that no answer is preferred.
        self.answer_head = ViLTAnswerHead(width, config.answers) if config.answers else None

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_embedding.grid

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        image: Float[Tensor, "b 3 height width"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
        pixel_mask: Bool[Tensor, "b height width"] | None = None,
        first: int | None = None,
    ) -> ViLTOutput:
        patches, patch_mask = self.image_embedding(image, pixel_mask)
        if len(tokens) != len(image):
            raise ValueError(f"Each text has its picture; got {len(image)} images and {len(tokens)} texts.")
        text_type, image_type = self.modalities.weight
        text = self.text_embedding(tokens, token_type) + text_type
        patches = self.image_dropout(patches) + image_type
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        t, x = text.shape[1], torch.cat([text, patches], dim=1)
        read = None if first is None else torch.arange(first, device=x.device).expand(len(x), first)
        x = self.norm(self.transformer(x, torch.cat([mask, patch_mask], dim=1), read=read))
        text, patches = x[:, :t], x[:, t:]
        pooled = self.pooler(text[:, 0])
        match_logits = self.matching_head(pooled) if self.matching_head is not None else None
        if self.config.match_outputs == 1:
            match_logits = F.pad(match_logits, (1, 0))  # a score against 0
        answer_logits = self.answer_head(pooled) if self.answer_head is not None else None
        return ViLTOutput(text, patches, patch_mask, pooled, match_logits, answer_logits)

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        table = self.text_embedding.tokens if self.token_table is None else self.token_table
        return self.masked_language_head(x, table.weight)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``mlm``, ``itm``, ``wra`` and ``vqa``: those with labels in the batch and a head to learn.

        ``token_label`` (b, t) is the true token where one was masked and -100 elsewhere; it counts in pairs that match.
        ``match_label`` (b,) is 1 where text and picture belong together; the paper calls ``wra`` word-patch alignment.
        ``answer`` is one (b,), or a score for each (b, answers). Raises ``ValueError`` without any of these labels, or
        for an empty batch.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text and picture.")
        inputs = (batch.get(name) for name in ("mask", "token_type", "pixel_mask"))
        align = "match_label" in batch and self.config.alignment_weight
        fill = "token_label" in batch and self.masked_language_head is not None
        first = None if align else batch["tokens"].shape[1] if fill else 1
        output, more = self(batch["tokens"], batch["image"], *inputs, first=first), {}
        if align:
            distance = self._alignment(output, batch.get("mask"), batch["match_label"])
            more["wra"] = self.config.alignment_weight * distance
        return pair_losses(self, output, batch, **more)

    def _alignment(self, output: ViLTOutput, mask: Tensor | None, match: Tensor) -> Float[Tensor, ""]:
        """Words of true pairs should be near their picture's patches, those of false pairs far from them.

        The first and the last token of a text and the class token of a picture take no part.
        Source: section 3.2, and the official code for the signs.
        """
        mask = torch.ones_like(output.tokens[..., 0], dtype=torch.bool) if mask is None else mask
        words = mask & F.pad(mask[:, 1:], (0, 1))  # all but the last real token
        distance = word_region_alignment(
            output.tokens[:, 1:], output.patches[:, 1:], words[:, 1:], output.patch_mask[:, 1:]
        )
        return (distance * (2 * match - 1)).mean()


RECIPE = Recipe(
    ViLT,
    ViLTConfig,
    reads=(Image(), Tokens(words=True)),
    learns=(ITM, MLM, VQA),
)
