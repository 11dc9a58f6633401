"""FLAVA: an image encoder, a text encoder and a multimodal encoder, which learn from pictures, texts and pairs.

Paper: Singh et al. 2022, "FLAVA: A Foundational Language And Vision Alignment Model".
Official code: https://github.com/facebookresearch/multimodal (examples/flava).

Deviations: ``tiny`` is ours. Blocks start scaled by width and depth, heads and tables as BERT's. Codes of patches are
data: the recipe takes those of :class:`~mmlearn.data.fields.PatchCodes`, k-means of colours, and not DALL·E's; a
released checkpoint brings its frozen codebook, which makes them of ``codebook_image``. The recipe takes the pictures
and the texts that stand alone from the same pairs, and tasks come with equal odds. Half of the pairs are wrong, in the
official code a tenth, and words of pairs are masked token by token, there whole. Where the batch says which captions
are equal, all of them are positives in the contrast. The encoders do not start from pictures or texts alone.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.language import initialise_as_bert, pooler
from mmlearn.layers.transformer import Transformer, TransformerConfig
from mmlearn.models.unified.image_codebook import ImageCodebook
from mmlearn.models.vision.masked_embedding import MaskedImageEmbedding
from mmlearn.objectives import gather, image_text_matching, masked_cross_entropy
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.masked_image import masked_codes
from mmlearn.objectives.matched import matched_info_nce, matched_rows


@dataclass(frozen=True)
class FLAVAConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(norm_epsilon=1e-12)
    text: BERTEncoderConfig = BERTEncoderConfig(norm_first=True, dropout=0.0)
    fusion: TransformerConfig = TransformerConfig(768, 6, 12, norm_epsilon=1e-12)
    embedding_width: int = 768  # where pictures and texts are compared
    logit_scale: float = 2.6592  # ln(1/τ) at the start
    codes: int = 8192  # of the codebook of patches
    codebook_width: int | None = None  # channels of the frozen network that makes codes; None: they are data
    mask_share: float = 0.4  # of patches that are masked, at most
    pretraining_heads: bool = True
    poolers: bool = False  # of each encoder: released files have them, no objective reads them

    PRESETS = {
        "tiny": dict(image=ImageEncoderConfig(64, 2, 4, image_size=64, patch_size=16))
        | dict(
            text=BERTEncoderConfig(
                64, 2, 4, norm_first=True, dropout=0.0, vocab_size=512, max_length=32, initial_std=0.125
            )
        )
        | dict(fusion=TransformerConfig(64, 2, 4), embedding_width=64, codes=64),
        "full": dict(),
    }


class FLAVAImageOutput(NamedTuple):
    """Of a picture alone."""

    image_tokens: Float[Tensor, "b n d"]  # class token, then patches
    code_logits: Float[Tensor, "b p codes"] | None  # None without pretraining heads, here and below


class FLAVATextOutput(NamedTuple):
    """Of a text alone."""

    text_tokens: Float[Tensor, "b t width"]
    token_logits: Float[Tensor, "b t v"] | None


class FLAVAPairOutput(NamedTuple):
    """Of a picture with a text. Logits are of the multimodal encoder."""

    image_tokens: Float[Tensor, "b n d"]
    text_tokens: Float[Tensor, "b t width"]
    tokens: Float[Tensor, "b all fusion_width"]  # of the multimodal encoder: class token, picture, text
    code_logits: Float[Tensor, "b p codes"] | None
    token_logits: Float[Tensor, "b t v"] | None
    match_logits: Float[Tensor, "b 2"] | None  # 1: picture and text belong together


class PredictionHead(nn.Module):
    """Predicts the code of a patch, or the token of a word: one layer, and a linear layer with ``choices`` outputs."""

    def __init__(self, config: TransformerConfig, choices: int):
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)
        self.output = nn.Linear(config.width, choices)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n choices"]:
        return self.output(self.norm(self.activation(self.dense(x))))


class FLAVA(nn.Module):
    """Three transformers: one for each modality, and one that reads the states of both after a class token of its own.

    ``forward`` reads a picture, a text or both, and returns the output of that; ``mask`` is True where a token is real,
    ``masked_patches`` (b, p) where a patch is masked. Raises ``ValueError`` where nothing is given, and for encoders
    without a class token or with post-norm blocks. Source: official code.
    """

    def __init__(self, config: FLAVAConfig):
        super().__init__()
        image, text, fusion = config.image, config.text, config.fusion
        if not (image.class_token and text.norm_first and fusion.norm_first) or image.convolutions:
            raise ValueError("FLAVA's encoders are pre-norm, and that of pictures has a class token and plain patches.")
        self.config = config
        self.image_encoder = ImageEncoder(image)
        self.image_encoder.embedding = MaskedImageEmbedding(image.image_size, image.patch_size, image.width)
        self.embedding = BERTEmbedding(text)
        self.text_encoder = Transformer(text)
        self.text_norm = nn.LayerNorm(text.width, eps=text.norm_epsilon)
        self.image_to_fusion = nn.Linear(image.width, fusion.width)
        self.text_to_fusion = nn.Linear(text.width, fusion.width)
        self.fusion_token = nn.Parameter(0.02 * torch.randn(fusion.width))
        self.fusion = Transformer(fusion)
        self.fusion_norm = nn.LayerNorm(fusion.width, eps=fusion.norm_epsilon)
        self.image_projection = nn.Linear(image.width, config.embedding_width)
        self.text_projection = nn.Linear(text.width, config.embedding_width)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))
        if config.poolers:
            self.image_pooler, self.text_pooler = pooler(image.width), pooler(text.width)
            self.fusion_pooler = pooler(fusion.width)
        if config.pretraining_heads:
            # Of one modality alone (MIM, MLM), and of pairs (MMM).
            self.mim_head = PredictionHead(image, config.codes)
            self.mmm_image_head = PredictionHead(image, config.codes)
            self.mlm_head = PredictionHead(text, text.vocab_size)
            self.mmm_text_head = PredictionHead(text, text.vocab_size)
            self.match_head = nn.Sequential(*pooler(fusion.width), nn.Linear(fusion.width, 2))
        for name, part in self.named_children():
            if name.endswith(("head", "embedding", "projection", "to_fusion", "pooler")):
                part.apply(partial(initialise_as_bert, std=text.initial_std))
        self.codebook = ImageCodebook(config.codebook_width, config.codes) if config.codebook_width else None

    def image_states(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> Float[Tensor, "b n d"]:
        """The picture's tokens before the last norm, which the multimodal encoder reads."""
        return self.image_encoder.transformer(self.image_encoder.embedding(image, masked_patches))

    def text_states(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b t d"]:
        """The text's tokens before the last norm."""
        return self.text_encoder(self.embedding(tokens, mask=mask), mask)

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b e"]:
        class_token = self.image_encoder.transformer.read(self.image_encoder.embedding(image), 0)  # (b, d)
        return F.normalize(self.image_projection(self.image_encoder.norm(class_token)), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b e"]:
        class_token = self.text_encoder.read(self.embedding(tokens, mask=mask), 0, mask)  # (b, width)
        return F.normalize(self.text_projection(self.text_norm(class_token)), dim=-1)

    def match(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether picture and text belong together, which they do at index 1."""
        return self(image, tokens, mask).match_logits

    def fuse(
        self, image: Float[Tensor, "b n d"], text: Float[Tensor, "b t width"], mask: Bool[Tensor, "b t"] | None
    ) -> Float[Tensor, "b all fusion_width"]:
        """The states of both modalities, after a class token, through the multimodal encoder."""
        class_token = self.fusion_token.to(image).expand(len(image), 1, -1)
        x = torch.cat([class_token, self.image_to_fusion(image), self.text_to_fusion(text)], 1)  # (b, 1 + n + t, d)
        if mask is not None:
            mask = torch.cat([mask.new_ones(len(image), 1 + image.shape[1]), mask], 1)
        return self.fusion_norm(self.fusion(x, mask))

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None = None,
        tokens: Int[Tensor, "b t"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
        masked_patches: Bool[Tensor, "b p"] | None = None,
    ) -> FLAVAImageOutput | FLAVATextOutput | FLAVAPairOutput:
        if image is not None and tokens is not None:
            return self.read_pair(image, tokens, mask, masked_patches)
        if image is not None:
            return self.read_image(image, masked_patches)
        if tokens is not None:
            return self.read_text(tokens, mask)
        raise ValueError("Nothing to read: give tokens, an image, or both.")

    def read_image(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> FLAVAImageOutput:
        x = self.image_encoder.norm(self.image_states(image, masked_patches))  # (b, n, d)
        return FLAVAImageOutput(x, self.mim_head(x[:, 1:]) if self.config.pretraining_heads else None)

    def read_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> FLAVATextOutput:
        x = self.text_norm(self.text_states(tokens, mask))  # (b, t, width)
        return FLAVATextOutput(x, self.mlm_head(x) if self.config.pretraining_heads else None)

    def read_pair(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        masked_patches: Bool[Tensor, "b p"] | None = None,
    ) -> FLAVAPairOutput:
        image_states = self.image_states(image, masked_patches)  # (b, n, d)
        text_states = self.text_states(tokens, mask)  # (b, t, width)
        x, n = self.fuse(image_states, text_states, mask), image_states.shape[1]
        code_logits = token_logits = match_logits = None
        if self.config.pretraining_heads:
            code_logits = self.mmm_image_head(x[:, 2 : n + 1])  # (b, p, codes): patches stand behind two class tokens
            token_logits = self.mmm_text_head(x[:, n + 1 :])  # (b, t, v)
            match_logits = self.match_head(x[:, 0])  # (b, 2)
        image_tokens, text_tokens = self.image_encoder.norm(image_states), self.text_norm(text_states)
        return FLAVAPairOutput(image_tokens, text_tokens, x, code_logits, token_logits, match_logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The labels of a batch determine its losses.

        With ``token_label`` (b, t) alone it is ``mlm`` of texts, with ``masked_patches`` (b, p) alone ``mim`` of
        pictures, and with both the four losses of pairs, of which those with ``match_label`` 0 do not match. ``code``
        (b, p) is the number of each patch, or made of ``codebook_image``. ``ValueError`` without heads, without a row
        or a label, for a pair that lacks a modality, and for a code outside the codebook.
        """
        if not self.config.pretraining_heads:
            raise ValueError("This FLAVA has no heads to train: set pretraining_heads in its configuration.")
        inputs = {"token_label": "tokens", "masked_patches": "image"}  # label → the modality that it needs
        labels = [name for name in inputs if name in batch]
        if not labels:
            raise ValueError("Nothing to learn: the batch has neither token_label nor masked_patches.")
        for name in labels:
            if inputs[name] not in batch:
                raise ValueError(f"The batch has {name}, but no {inputs[name]}: this modality is missing.")
            if not len(batch[inputs[name]]):
                raise ValueError("A batch holds at least one row.")
        if labels == ["token_label"]:
            output = self(tokens=batch["tokens"], mask=batch.get("mask"))
            return {"mlm": masked_cross_entropy(output.token_logits, batch["token_label"])}
        code = batch["code"] if self.codebook is None or "code" in batch else self.codebook(batch["codebook_image"])
        if labels == ["masked_patches"]:
            output = self(image=batch["image"], masked_patches=batch["masked_patches"])
            return {"mim": masked_codes(output.code_logits, code, batch["masked_patches"])}
        return self.pair_losses(batch, code)

    def pair_losses(self, batch: dict[str, Tensor], code: Int[Tensor, "b p"]) -> dict[str, Float[Tensor, ""]]:
        """Contrast of unmasked pairs; matching, and masked modelling of matching pairs only, of masked ones."""
        image, tokens, mask, label = batch["image"], batch["tokens"], batch.get("mask"), batch["token_label"]
        match_label = batch.get("match_label", torch.ones_like(tokens[:, 0]))
        matched = matched_rows(match_label == 1)  # (b,)
        output = self(image, tokens, mask, batch["masked_patches"])
        unmasked = torch.where(label == IGNORED, tokens, label)  # (b, t)
        embeddings = gather(self.encode_image(image)), gather(self.encode_text(unmasked, mask))  # each (b, e)
        caption_id = gather(batch["caption_id"]) if "caption_id" in batch else None
        scale = self.logit_scale.exp()
        masked_patches = batch["masked_patches"] & matched[:, None]  # (b, p)
        return {
            "itc": matched_info_nce(*embeddings, scale, gather(match_label == 1), caption_id),
            "itm": image_text_matching(output.match_logits, match_label),
            "mmm_image": masked_codes(output.code_logits, code, masked_patches),
            "mmm_text": masked_cross_entropy(output.token_logits, label.masked_fill(~matched[:, None], IGNORED)),
        }

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature within the official code's bounds: a scale of 1 to 100."""
        self.logit_scale.clamp_(0, 4.6052)
