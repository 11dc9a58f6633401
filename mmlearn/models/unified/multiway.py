"""Multiway transformer: all modalities share attention, and each has an MLP of its own, as in VLMo and BEiT-3.

Papers: Bao et al. 2022, "VLMo: Unified Vision-Language Pre-Training with Mixture-of-Modality-Experts"; and, as BEiT-3,
Wang et al. 2023, "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language Tasks".
Official code: https://github.com/microsoft/unilm/tree/master/vlmo and https://github.com/microsoft/torchscale.

Deviations: ``tiny`` is ours. Blocks have neither the scales nor the relative positions of VLMo's, but a bias of keys,
and start scaled by width and depth; no block is dropped. Norms are of one modality where MLPs are, as in VLMo; in
BEiT-3 those of attention are, too. Codes of patches are data: the recipe takes k-means of colours
(:class:`~mmlearn.data.fields.PatchCodes`). Half of the pairs are wrong and drawn evenly; in VLMo's code each pair has a
wrong picture and a wrong text, and those that look right are likelier. Words are masked token by token, there whole,
and all losses weigh the same, there MLM of pairs a quarter. In the contrast each modality passes its own experts in all
blocks; VLMo's code adds a second contrast after the experts of pairs. BEiT-3's masked data modelling is a stage of its
own, to be taken in place of the third; it masks as many words of pairs as of texts. Not compared with released code:
the papers' blocks have scales and relative positions as well.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import MLP, Attention, BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import TINY_BERT, initialise_as_bert, pooler
from mmlearn.models.vision.masked_embedding import MaskedImageEmbedding
from mmlearn.objectives import gather, image_text_matching, masked_cross_entropy
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.masked_image import masked_codes
from mmlearn.objectives.matched import matched_info_nce, matched_rows


@dataclass(frozen=True)
class MultiwayConfig(BERTEncoderConfig):
    norm_first: bool = True
    dropout: float = 0.0
    image_size: int | tuple[int, int] = 224  # pixels
    patch_size: int = 16  # pixels
    pair_blocks: int = 2  # the last blocks, in which pairs have an expert of their own
    embedding_width: int = 768  # where pictures and texts are compared
    logit_scale: float = 2.6592  # ln(1/τ) at the start
    codes: int = 8192  # of the codebook of patches
    mask_share: float = 0.4  # of patches that are masked, at most

    PRESETS = {
        "tiny": TINY_BERT | dict(image_size=64, patch_size=16, pair_blocks=1, embedding_width=64, codes=64),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16, pair_blocks=3, embedding_width=1024),
    }


class MultiwayImageOutput(NamedTuple):
    """Of a picture alone."""

    image_tokens: Float[Tensor, "b n d"]  # the class token, then the patches
    code_logits: Float[Tensor, "b p codes"]


class MultiwayTextOutput(NamedTuple):
    """Of a text alone."""

    text_tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]


class MultiwayPairOutput(NamedTuple):
    """Of a picture with a text."""

    image_tokens: Float[Tensor, "b n d"]
    text_tokens: Float[Tensor, "b t d"]
    code_logits: Float[Tensor, "b p codes"]
    token_logits: Float[Tensor, "b t v"]
    match_logits: Float[Tensor, "b 2"]  # 1: picture and text belong together


class SharedAttention(nn.Module):
    """The half of a block that all modalities share: a norm and attention on a residual path."""

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        of_weights = config.dropout if config.attention_dropout is None else config.attention_dropout
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.attention = Attention(config.width, config.num_heads, dropout=of_weights)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        return x + self.dropout(self.attention(self.norm(x), None, mask))


class ModalityExpert(nn.Module):
    """The half of a block that one modality has for itself: a norm and an MLP on a residual path."""

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.mlp = MLP(config.width, config.mlp_width, config.activation)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return x + self.dropout(self.mlp(self.norm(x)))


def by_modality(
    x: Float[Tensor, "b n d"], words: int, text: Callable, image: Callable, pair: Callable | None = None
) -> Float[Tensor, "b n d"]:
    """The expert of texts for the first ``words`` tokens, that of images for the patches after them; or that of pairs.

    The ``pair`` expert, if given, takes all tokens, but only where there are both words and patches. Source: Bao et al.
    2022 (VLMo), official code, ``multiway_transformer.py``.
    """
    if pair is not None and 0 < words < x.shape[1]:
        return pair(x)
    return torch.cat([text(x[:, :words]), image(x[:, words:])], 1)


class Multiway(nn.Module):
    """A picture, a text, or both in one sequence: words first, then the class token and the patches.

    ``mask`` is True where a token is real, ``masked_patches`` (b, p) where a patch is masked. Raises ``ValueError``
    where nothing is given, for post-norm blocks, and for more blocks with an expert for pairs than there are.
    Source: Bao et al. 2022 (VLMo), official code, ``vlmo_module.py``.
    """

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        if not config.norm_first or config.pair_blocks > config.depth:
            raise ValueError(f"Blocks are pre-norm, and pair_blocks at most {config.depth}, not {config.pair_blocks}.")
        self.config = config
        width = config.width
        self.image_embedding = MaskedImageEmbedding(config.image_size, config.patch_size, width)
        self.text_embedding = BERTEmbedding(config)
        self.type_embeddings = nn.Embedding(2, width)  # text, image
        self.attention = nn.ModuleList(SharedAttention(config) for _ in range(config.depth))
        depths = {"text": config.depth, "image": config.depth, "pair": config.pair_blocks}
        self.experts = nn.ModuleDict(
            {name: nn.ModuleList(ModalityExpert(config) for _ in range(depth)) for name, depth in depths.items()}
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.code_head = nn.Linear(width, config.codes)
        self.language_head = MaskedLanguageHead(config)
        self.match_head = nn.Sequential(*pooler(width), nn.Linear(width, 2))
        self.image_projection = nn.Linear(width, config.embedding_width, bias=False)
        self.text_projection = nn.Linear(width, config.embedding_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))
        for name, part in self.named_children():
            if name in ("attention", "experts"):
                Transformer.reset_parameters(part, width, config.depth)  # as in every transformer here
            elif name != "image_embedding":
                part.apply(partial(initialise_as_bert, std=config.initial_std))

    def read(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"] | None,
        mask: Bool[Tensor, "b t"] | None = None,
        masked_patches: Bool[Tensor, "b p"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b t d"]]:
        """The states of patches and of words; those of a modality that is not given are empty."""
        if tokens is None and image is None:
            raise ValueError("Nothing to read: give tokens, an image, or both.")
        parts = []
        if tokens is not None:
            parts.append(self.text_embedding(tokens, mask=mask) + self.type_embeddings.weight[0])
        if image is not None:
            parts.append(self.image_embedding(image, masked_patches) + self.type_embeddings.weight[1])
        if mask is not None and image is not None:
            mask = torch.cat([mask, mask.new_ones(len(image), parts[-1].shape[1])], 1)  # (b, t + n)
        t = 0 if tokens is None else tokens.shape[1]
        x = self.norm(self.blocks(torch.cat(parts, 1), mask, t))  # (b, t + n, d)
        return x[:, t:], x[:, :t]

    def blocks(self, x: Float[Tensor, "b n d"], mask: Tensor | None, words: int) -> Float[Tensor, "b n d"]:
        """In each block attention over all tokens, then the modality experts; that of pairs in the last blocks only."""
        first, experts = self.config.depth - self.config.pair_blocks, self.experts
        for i, attention in enumerate(self.attention):
            pair = experts["pair"][i - first] if i >= first else None
            x = by_modality(attention(x, mask), words, experts["text"][i], experts["image"][i], pair)
        return x

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b e"]:
        patches, _ = self.read(image, None)
        return F.normalize(self.image_projection(patches[:, 0]), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b e"]:
        _, words = self.read(None, tokens, mask)
        return F.normalize(self.text_projection(words[:, 0]), dim=-1)

    def match(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether picture and text belong together, which they do at index 1."""
        _, words = self.read(image, tokens, mask)
        return self.match_head(words[:, 0])

    def token_logits(self, words: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        return self.language_head(words, self.text_embedding.tokens.weight)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        masked_patches: Bool[Tensor, "b p"] | None = None,
    ) -> MultiwayImageOutput | MultiwayTextOutput | MultiwayPairOutput:
        patches, words = self.read(image, tokens, mask, masked_patches)  # (b, n, d), (b, t, d)
        if image is None:
            return MultiwayTextOutput(words, self.token_logits(words))
        code_logits = self.code_head(patches[:, 1:])  # (b, p, codes)
        if tokens is None:
            return MultiwayImageOutput(patches, code_logits)
        token_logits = self.token_logits(words)
        return MultiwayPairOutput(patches, words, code_logits, token_logits, self.match_head(words[:, 0]))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The labels of a batch determine its losses.

        ``masked_patches`` (b, p) alone: ``mim`` of pictures. ``token_label`` (b, t) alone: ``mlm`` of texts. Both:
        BEiT-3's ``mmm_text`` and ``mmm_image``. With ``match_label`` (b,), VLMo's ``itc``, ``itm`` and ``mlm`` of
        pairs, of which those with 0 do not match. ``ValueError`` without a label or a row, for a modality that is
        missing, and for a code outside the codebook.
        """
        inputs = {"token_label": "tokens", "masked_patches": "image", "match_label": "image"}  # label → what it needs
        labels = {name for name in inputs if name in batch}
        if not labels:
            raise ValueError("Nothing to learn: the batch has none of token_label, masked_patches and match_label.")
        for name in sorted(labels):
            if inputs[name] not in batch or not len(batch[inputs[name]]):
                raise ValueError(f"The batch has {name}, but no {inputs[name]}: this modality is missing.")
        if "match_label" in labels:
            return self.pair_losses(batch)
        mask = batch.get("mask")
        if labels == {"masked_patches"}:
            output = self(image=batch["image"], masked_patches=batch["masked_patches"])
            return {"mim": masked_codes(output.code_logits, batch["code"], batch["masked_patches"])}
        if labels == {"token_label"}:
            output = self(tokens=batch["tokens"], mask=mask)
            return {"mlm": masked_cross_entropy(output.token_logits, batch["token_label"])}
        output = self(batch["image"], batch["tokens"], mask, batch["masked_patches"])
        return {
            "mmm_text": masked_cross_entropy(output.token_logits, batch["token_label"]),
            "mmm_image": masked_codes(output.code_logits, batch["code"], batch["masked_patches"]),
        }

    def pair_losses(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Contrast and matching of unmasked pairs; masked words of matching pairs only."""
        image, tokens, mask, label = batch["image"], batch["tokens"], batch.get("mask"), batch["token_label"]
        match_label, caption_id = batch["match_label"], batch.get("caption_id")
        unmasked = torch.where(label == IGNORED, tokens, label)  # (b, t)
        embeddings = gather(self.encode_image(image)), gather(self.encode_text(unmasked, mask))  # each (b, e)
        caption_id = None if caption_id is None else gather(caption_id)
        contrast = matched_info_nce(*embeddings, self.logit_scale.exp(), gather(match_label == 1), caption_id)
        matched = matched_rows(match_label == 1)  # (b,)
        token_logits = self(image, tokens, mask).token_logits
        return {
            "itc": contrast,
            "itm": image_text_matching(self.match(image, unmasked, mask), match_label),
            "mlm": masked_cross_entropy(token_logits, label.masked_fill(~matched[:, None], IGNORED)),
        }

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature at 0.01 or more, as CLIP's."""
        self.logit_scale.clamp_(max=4.6052)
