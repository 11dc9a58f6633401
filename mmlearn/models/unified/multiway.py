"""Multiway transformer: all modalities meet in attention, and each has an MLP of its own. VLMo, and BEiT-3.

Papers: Bao et al. 2022, "VLMo: Unified Vision-Language Pre-Training with Mixture-of-Modality-Experts"; with
``decoupled``, Wang et al. 2023, "Image as a Foreign Language: BEiT Pretraining for All Vision and Vision-Language
Tasks" (BEiT-3). Official code: https://github.com/microsoft/unilm/tree/master/vlmo and
https://github.com/microsoft/torchscale.

Deviations: ``tiny`` and ``tiny-beit3`` are ours. Codes of patches are data: the recipe takes k-means of colours
(:class:`~mmlearn.data.fields.PatchCodes`). Of VLMo: blocks have neither its scales nor its relative positions, but a
bias of keys, and start scaled by width and depth; no block is dropped. Half of the pairs are wrong and drawn evenly; in
its code each pair has a wrong picture and a wrong text, and those that look right are likelier. Words are masked token
by token, there whole, and all losses weigh the same, there MLM of pairs a quarter. In the contrast each modality passes
its own experts in all blocks; its code adds a second contrast after the experts of pairs. Of BEiT-3: its masked data
modelling is a stage of its own, in place of the other three; it masks as many words of pairs as of texts. Its released
sizes have no experts of pairs, which its paper has in the last three blocks. The code's two rows of the position table
that nothing reads are left out for pictures. Not compared with released code: VLMo's blocks have scales and relative
positions as well; BEiT-3's encoder was run beside torchscale's with the same weights, and states agree to 6e-6.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.embeddings import TextEmbedding
from mmlearn.layers.language import TINY_BERT, check_text_mask, initialise_as_bert, pooler
from mmlearn.models.unified.multiway_blocks import (
    ModalityExpert,
    MultiwayAttention,
    PerModality,
    by_modality,
    initialise_as_magneto,
)
from mmlearn.models.vision.masked_embedding import MaskedImageEmbedding
from mmlearn.objectives import gather, image_text_matching, masked_cross_entropy
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.masked_image import masked_codes
from mmlearn.objectives.matched import matched_info_nce, matched_rows

TINY: dict[str, Any] = TINY_BERT | dict(image_size=64, patch_size=16, codes=64)
BEIT3: dict[str, Any] = dict(decoupled=True, pair_blocks=0, embedding_width=None, norm_epsilon=1e-5, pad_token=None)
BEIT3_WORDS: dict[str, Any] = dict(vocab_size=64_010, max_length=1022, first_position=2)


@dataclass(frozen=True)
class MultiwayConfig(BERTEncoderConfig):
    norm_first: bool = True
    dropout: float = 0.0
    image_size: int | tuple[int, int] = 224  # pixels
    patch_size: int = 16  # pixels
    decoupled: bool = False  # BEiT-3: each modality also has its own attention layers and norms; False: VLMo
    pair_blocks: int = 2  # the last blocks, in which pairs have an expert of their own
    embedding_width: int | None = 768  # where pictures and texts are compared; None: nowhere
    logit_scale: float = 2.6592  # ln(1/τ) at the start
    codes: int = 8192  # of the codebook of patches
    mask_share: float = 0.4  # of patches that are masked, at most

    PRESETS = {
        "tiny": TINY | dict(pair_blocks=1, embedding_width=64),
        "tiny-beit3": TINY | BEIT3,
        "vlmo-base": dict(),
        "vlmo-large": dict(width=1024, depth=24, num_heads=16, pair_blocks=3, embedding_width=1024),
        "beit3-base": BEIT3 | BEIT3_WORDS,
        "beit3-large": BEIT3 | BEIT3_WORDS | dict(width=1024, depth=24, num_heads=16),
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
    match_logits: Float[Tensor, "b 2"] | None  # 1: picture and text belong together; None without the head


class Multiway(nn.Module):
    """A picture, a text, or both in one sequence: words first, then the class token and the patches.

    ``mask`` is True where a token is real, ``masked_patches`` (b, p) where a patch is masked. BEiT-3, ``decoupled``,
    learns from masked words and patches alone: it has no match head, and compares pictures and texts only where
    ``embedding_width`` is set, as for retrieval. Raises ``ValueError`` where nothing is given, for post-norm
    blocks, and for more blocks with an expert for pairs than there are. Source: Bao et al. 2022 (VLMo), official code,
    ``vlmo_module.py``; Wang et al. 2023 (BEiT-3), official code, ``torchscale/model/BEiT3.py``.
    """

    def __init__(self, config: MultiwayConfig):
        super().__init__()
        if not config.norm_first or config.pair_blocks > config.depth:
            raise ValueError(f"Blocks are pre-norm, and pair_blocks at most {config.depth}, not {config.pair_blocks}.")
        self.config = config
        width, words, epsilon = config.width, config.vocab_size, config.norm_epsilon
        self.image_embedding = MaskedImageEmbedding(config.image_size, config.patch_size, width)
        self.attention = nn.ModuleList(MultiwayAttention(config) for _ in range(config.depth))
        depths = {"text": config.depth, "image": config.depth, "pair": config.pair_blocks}
        self.experts = nn.ModuleDict(
            {name: nn.ModuleList(ModalityExpert(config) for _ in range(depth)) for name, depth in depths.items()}
        )
        self.code_head = nn.Linear(width, config.codes)
        self.text_embedding: TextEmbedding
        self.norm: nn.Module
        self.language_head: nn.Module
        if config.decoupled:
            self.text_embedding = TextEmbedding(words, width, config.max_length, config.first_position)
            self.norm = PerModality(lambda: nn.LayerNorm(width, eps=epsilon))
            self.language_head = nn.Linear(width, words)
            self.type_embeddings = self.match_head = None
        else:
            self.text_embedding = BERTEmbedding(config)
            self.type_embeddings = nn.Embedding(2, width)  # text, image
            self.norm = nn.LayerNorm(width, eps=epsilon)
            self.language_head = MaskedLanguageHead(config)
            self.match_head = nn.Sequential(*pooler(width), nn.Linear(width, 2))
        self.image_projection = self.text_projection = self.logit_scale = None
        if config.embedding_width is not None:
            self.image_projection = nn.Linear(width, config.embedding_width, bias=False)
            self.text_projection = nn.Linear(width, config.embedding_width, bias=False)
            self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Blocks start as in every transformer here, decoupled ones as Magneto's; all else as BERT's."""
        for name, part in self.named_children():
            if name in ("attention", "experts"):
                if self.config.decoupled:
                    initialise_as_magneto(part, self.config.depth)
                else:
                    Transformer.reset_parameters(part, self.config.width, self.config.depth)
            elif name != "image_embedding":
                part.apply(partial(initialise_as_bert, std=self.config.initial_std))

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
        check_text_mask(mask)
        types = (0.0, 0.0) if self.type_embeddings is None else self.type_embeddings.weight  # of text and image
        parts = []
        if tokens is not None:
            parts.append(self.text_embedding(tokens) + types[0])  # (b, t, d)
        if image is not None:
            parts.append(self.image_embedding(image, masked_patches) + types[1])  # (b, n, d)
        if mask is not None and image is not None:
            mask = torch.cat([mask, mask.new_ones(len(image), parts[-1].shape[1])], 1)  # (b, t + n)
        t = 0 if tokens is None else tokens.shape[1]
        x = self.blocks(torch.cat(parts, 1), mask, t)  # (b, t + n, d)
        x = self.norm(x, t) if self.config.decoupled else self.norm(x)
        return x[:, t:], x[:, :t]

    def blocks(self, x: Float[Tensor, "b n d"], mask: Tensor | None, words: int) -> Float[Tensor, "b n d"]:
        """In each block attention over all tokens, then the modality experts; that of pairs in the last blocks only."""
        first, experts = self.config.depth - self.config.pair_blocks, self.experts
        for i, attention in enumerate(self.attention):
            pair = experts["pair"][i - first] if i >= first else None
            x = by_modality(attention(x, mask, words), words, experts["text"][i], experts["image"][i], pair)
        return x

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b e"]:
        return self.compared(self.image_projection, self.read(image, None)[0])

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b e"]:
        return self.compared(self.text_projection, self.read(None, tokens, mask)[1])

    def compared(self, projection: nn.Module | None, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b e"]:
        """The first token, projected to unit length. ``ValueError`` without a projection."""
        if projection is None:
            raise ValueError("This configuration compares no pictures and texts: set embedding_width.")
        return F.normalize(projection(x[:, 0]), dim=-1)

    def match(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether picture and text belong together, which they do at index 1. ``ValueError`` for BEiT-3."""
        if self.match_head is None:
            raise ValueError("BEiT-3 does not learn what belongs together; it learns in the stage masked-data.")
        return self.match_head(self.read(image, tokens, mask)[1][:, 0])

    def token_logits(self, words: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        if self.config.decoupled:
            return self.language_head(words)
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
        match_logits = None if self.match_head is None else self.match_head(words[:, 0])
        return MultiwayPairOutput(patches, words, code_logits, self.token_logits(words), match_logits)

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
        """Contrast and matching of unmasked pairs; masked words of matching pairs only. ``ValueError`` for BEiT-3."""
        if self.match_head is None or self.logit_scale is None:
            raise ValueError("BEiT-3 learns from masked words and patches alone: leave out match_label.")
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
        if self.logit_scale is not None:
            self.logit_scale.clamp_(max=4.6052)
