"""ViLT: words and patches in one transformer, with no detector and no convolution before it.

Paper: Kim et al. 2021, "ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision".
Official code: https://github.com/dandelin/ViLT.

Deviations: ``tiny`` is ours. Weights start at random, where the paper starts from a ViT trained on ImageNet. All losses
whose labels a batch has are computed in one pass; the official code passes twice, once with masked texts and true
pictures, once with whole texts of which half have a false picture. All patches are read; the official code takes 200 of
them at random where a picture has more. The masked language head shares the token table, as in BERT and in
Transformers; in the official code it has its own (``tied=False``). Norms add 1e-12 everywhere, as in Transformers; the
official code adds 1e-6 in the blocks. The data decide whether words are masked whole and how pictures are augmented.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, ImageEmbedding, MaskedLanguageHead, Transformer, patchify
from mmlearn.layers.embeddings import check_image
from mmlearn.layers.language import TINY_BERT, initialise_as_bert, pooler
from mmlearn.models.fusion.heads import VQAHead
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, check_losses, itm_loss, mlm_loss, vqa_loss
from mmlearn.objectives.transport import word_region_alignment
from mmlearn.tensor_checks import values_are_readable


@dataclass(frozen=True)
class ViLTConfig(BERTEncoderConfig):
    max_length: int = 40  # tokens
    norm_first: bool = True
    image_size: int | tuple[int, int] = 384  # pixels; (height, width) where they differ
    channels: int = 3  # more where a frozen tower's features are read in place of pixels
    patch_size: int = 32  # pixels
    language_head: bool = True
    tied: bool = True  # that head and the text embedding share one table
    match_outputs: int = 2  # no and yes; 1: one score, as fine-tuned for retrieval; 0: no head
    answers: int = 0  # 0: no head
    alignment_weight: float = 0.1  # of the word-patch alignment; 0 leaves it out

    PRESETS = {"tiny": TINY_BERT | dict(image_size=64, patch_size=16), "B/32": dict()}


class ViLTOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"]
    patches: Float[Tensor, "b n d"]  # the picture's class token, then its patches
    patch_mask: Bool[Tensor, "b n"]
    pooled: Float[Tensor, "b d"]  # of the first text token
    match_logits: Float[Tensor, "b 2"] | None  # 1: text and picture belong together
    answer_logits: Float[Tensor, "b answers"] | None


class PatchEmbedding(ImageEmbedding):
    r"""Patches of a picture after a class token, each with its learned position.

    .. math:: \bar v = [v_\mathrm{class};\, v_1 V;\, \dots;\, v_N V] + V^\mathrm{pos}

    A picture of another size gets its positions by bilinear interpolation of the learned grid, corner on corner.
    ``pixel_mask`` (b, height, width) is True where a padded batch shows a picture: in a rectangle at its top left.
    Returns (b, 1 + p, d), and (b, 1 + p), True where a patch is real. Raises ``ValueError`` for pictures that are not
    float (b, channels, height, width) or are smaller than a patch, and for a mask of another shape.
    Source: equation 2; the official code for other sizes.
    """

    class_token: nn.Parameter

    def forward(
        self, image: Float[Tensor, "b c height width"], pixel_mask: Bool[Tensor, "b height width"] | None = None
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        grid = check_image(image, self.patch_size, self.channels)
        if pixel_mask is None:
            real = torch.ones(len(image), *grid, dtype=torch.bool, device=image.device)  # (b, row, column)
            positions = self.resized_positions(real[:1])  # (1, p, d): the same for all
        else:
            real = real_patches(image, pixel_mask, grid)
            positions = self.resized_positions(real)  # (b, p, d)
        patches = self.patches(patchify(image, self.patch_size)) + positions  # (b, p, d)
        class_token = repeat(self.class_token + self.positions[0], "d -> b 1 d", b=len(image))
        x = torch.cat([class_token.to(patches), patches], dim=1)  # (b, 1 + p, d)
        return x, F.pad(real.flatten(1), (1, 0), value=True)  # the class token is real

    def resized_positions(self, real: Bool[Tensor, "b row column"]) -> Float[Tensor, "b p d"]:
        """The learned grid, stretched over the real rows and columns of each picture."""
        learned = rearrange(self.positions[1:], "(y x) d -> y x d", y=self.grid[0])
        # Bilinear interpolation is one linear interpolation over rows and one over columns.
        rows = interpolation_matrix(self.grid[0], real.shape[1], real[:, :, 0].sum(1)).to(learned)  # (b, row, y)
        columns = interpolation_matrix(self.grid[1], real.shape[2], real[:, 0].sum(1)).to(learned)  # (b, column, x)
        resized = einsum(rows, learned, columns, "b row y, y x d, b column x -> b row column d")
        return rearrange(resized, "b row column d -> b (row column) d")


def interpolation_matrix(size: int, length: int, real: Int[Tensor, "b"]) -> Float[Tensor, "b length size"]:
    """Linear interpolation from ``size`` values to the first ``real`` of ``length`` positions, ends on ends.

    Each position takes the two values on its sides, and more of the nearer one.
    """
    position = torch.arange(length, device=real.device) * (size - 1) / (real - 1).clamp(min=1)[:, None]  # (b, length)
    return (1 - (position[..., None] - torch.arange(size, device=real.device)).abs()).clamp(min=0)


def real_patches(
    image: Float[Tensor, "b c height width"], pixel_mask: Bool[Tensor, "b height width"], grid: tuple[int, int]
) -> Bool[Tensor, "b row column"]:
    """Which patches show the picture: those whose first pixel does. ``ValueError`` for a mask of another shape."""
    wanted = (len(image), *image.shape[2:])
    if pixel_mask.dtype != torch.bool or pixel_mask.shape != wanted:
        got = f"{pixel_mask.dtype} {tuple(pixel_mask.shape)}"
        raise ValueError(f"pixel_mask is boolean (b, height, width) like the pictures, {wanted}; got {got}.")
    return F.interpolate(pixel_mask[:, None].float(), size=grid)[:, 0].bool()


def check_pixel_mask(pixel_mask: Bool[Tensor, "b height width"]) -> None:
    """``ValueError``, on a CPU, unless each picture fills one rectangle at the top left."""
    if not values_are_readable(pixel_mask):
        return
    rectangle = pixel_mask[:, :, :1] & pixel_mask[:, :1]
    if not (pixel_mask == rectangle).all() or not pixel_mask[:, 0, 0].all():
        raise ValueError("pixel_mask is True in one rectangle from the top left of each picture; pad below and right.")


class ViLTAnswerHead(VQAHead):
    """A :class:`~mmlearn.models.fusion.heads.VQAHead` that normalises before its GELU. Source: the official code."""

    def __init__(self, width: int, answers: int):
        super().__init__(width, answers)
        first, activation, norm, last = self.classifier
        self.classifier = nn.Sequential(first, nn.LayerNorm(norm.normalized_shape, eps=1e-5), activation, last)


class ViLT(nn.Module):
    r"""Text tokens and patches, each with its own type embedding, through one pre-norm transformer.

    .. math:: z^0 = [\bar t + t^\mathrm{type};\, \bar v + v^\mathrm{type}], \quad p = \tanh(z^D_0 W_\mathrm{pool})

    ``mask`` is True where a token is real, ``pixel_mask`` where a picture is; ``token_type`` is by default the first.
    Heads are built where the configuration asks for them. Raises ``ValueError`` where there are not as many texts as
    pictures, and as :class:`PatchEmbedding` and :class:`~mmlearn.layers.TextEmbedding` do.
    Source: section 3.1 and equations 1 to 6.
    """

    def __init__(self, config: ViLTConfig):
        super().__init__()
        if config.match_outputs not in (0, 1, 2):
            raise ValueError(f"match_outputs is 2, 1 or 0, got {config.match_outputs}.")
        self.config = config
        width = config.width
        self.text_embedding = BERTEmbedding(config)
        self.image_embedding = PatchEmbedding(config.image_size, config.patch_size, width, channels=config.channels)
        self.image_dropout = nn.Dropout(config.dropout)
        self.type_embeddings = nn.Embedding(2, width)  # text, image
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.pooler = pooler(width)
        self.language_head = MaskedLanguageHead(config) if config.language_head else None
        untied = config.language_head and not config.tied
        self.token_table = nn.Embedding(config.vocab_size, width) if untied else None
        self.match_head = nn.Linear(width, config.match_outputs) if config.match_outputs else None
        for name, part in self.named_children():
            if name not in ("image_embedding", "transformer"):
                part.apply(partial(initialise_as_bert, std=config.initial_std))
        # Built after the others were initialised, because it starts in its own way: so small that it prefers no answer.
        self.answer_head = ViLTAnswerHead(width, config.answers) if config.answers else None

    @property
    def grid(self) -> tuple[int, int]:
        return self.image_embedding.grid

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
        pixel_mask: Bool[Tensor, "b height width"] | None = None,
    ) -> ViLTOutput:
        patches, patch_mask = self.image_embedding(image, pixel_mask)
        if len(tokens) != len(image):
            raise ValueError(f"Each text has its picture; got {len(image)} images and {len(tokens)} texts.")
        text_type, image_type = self.type_embeddings.weight
        text = self.text_embedding(tokens, token_type, mask) + text_type  # (b, t, d)
        patches = self.image_dropout(patches) + image_type  # (b, n, d)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.transformer(torch.cat([text, patches], dim=1), torch.cat([mask, patch_mask], dim=1))
        text, patches = self.norm(x).split([text.shape[1], patches.shape[1]], dim=1)
        pooled = self.pooler(text[:, 0])  # (b, d)
        match_logits = self.match_head(pooled) if self.match_head is not None else None
        if match_logits is not None and self.config.match_outputs == 1:
            match_logits = F.pad(match_logits, (1, 0))  # (b, 2): the score of a match against 0
        answer_logits = self.answer_head(pooled) if self.answer_head is not None else None
        return ViLTOutput(text, patches, patch_mask, pooled, match_logits, answer_logits)

    def token_logits(self, x: Float[Tensor, "... d"]) -> Float[Tensor, "... v"]:
        if self.language_head is None:
            raise ValueError("This ViLT has no language head: set language_head in its configuration.")
        table = self.text_embedding.tokens if self.token_table is None else self.token_table
        return self.language_head(x, table.weight)

    def loss(self, batch: Batch) -> Losses:
        """``mlm``, ``itm``, ``wra`` (word-patch alignment) and ``vqa``: those with labels and a head to learn.

        Labels are those of :mod:`mmlearn.models.fusion.pretraining_losses`. Raises ``ValueError`` without any of them,
        for an empty batch, and for a ``pixel_mask`` that is not True in one rectangle from the top left.
        """
        output = self(
            batch["image"], batch["tokens"], batch.get("mask"), batch.get("token_type"), batch.get("pixel_mask")
        )
        if "pixel_mask" in batch:
            check_pixel_mask(batch["pixel_mask"])
        losses = mlm_loss(self, output, batch) | itm_loss(self, output, batch) | vqa_loss(self, output, batch)
        if "match_label" in batch and self.config.alignment_weight:
            distance = self.alignment(output, batch.get("mask"))
            # True pairs are pulled together, false ones pushed apart.
            signed = torch.where(batch["match_label"] == 1, distance, -distance)
            losses["wra"] = self.config.alignment_weight * signed.mean()
        return check_losses(self, batch, losses)

    def alignment(self, output: ViLTOutput, mask: Bool[Tensor, "b t"] | None) -> Float[Tensor, "b"]:
        """The transport distance between the words of each text and the patches of its picture.

        The first and the last token of a text and the class token of a picture are left out.
        Source: section 3.2, and the official code for the signs.
        """
        mask = torch.ones_like(output.tokens[..., 0], dtype=torch.bool) if mask is None else mask
        words = mask & F.pad(mask[:, 1:], (0, 1))  # all but the last real token
        patches, real = output.patches[:, 1:], output.patch_mask[:, 1:]  # without the class token
        return word_region_alignment(output.tokens[:, 1:], patches, words[:, 1:], real)
