"""CLIP: an image encoder and a text encoder share one embedding space, in which matching pairs are near.

Paper: Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision".
Official code: https://github.com/openai/CLIP.

Deviations: of the image towers of the paper only the vision transformer is here. ``tiny`` is ours: it has no class
token and takes each feature's maximum over the patches, because a class token needs several times as many steps to
learn where to attend, and because the similarity then divides among the patches (:meth:`CLIP.contributions`).
``tiny-conv``, for small pictures of real things, reads its patches by convolutions (Xiao et al. 2021).
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig, TextEncoder, TextEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE, TINY_TEXT
from mmlearn.objectives import gather, gathered_positives, info_nce, own_rows

TINY: dict[str, Any] = dict(image=TINY_IMAGE, text=TINY_TEXT, embedding_width=128, pooling="max")


@dataclass(frozen=True)
class CLIPConfig(Config):
    image: ImageEncoderConfig = ImageEncoderConfig(embedding_norm=True, activation="quick_gelu", patch_size=32)
    text: TextEncoderConfig = TextEncoderConfig(activation="quick_gelu")
    embedding_width: int = 512
    pooling: str = "class"  # the image embedding is that of the class token, or the "max" over all patches
    temperature: float = 0.07  # at the start; the model learns its own
    end_token: int | None = None  # the id whose state represents the text; None: the highest id in each text

    PRESETS = {
        "tiny": TINY,
        "tiny-conv": TINY | dict(image=replace(TINY_IMAGE, image_size=32, patch_size=8, convolutions=True)),
        "ViT-B/32": dict(),
        "ViT-B/16": dict(image=ImageEncoderConfig(embedding_norm=True, activation="quick_gelu", patch_size=16)),
        "ViT-L/14": dict(
            image=ImageEncoderConfig(1024, 24, 16, embedding_norm=True, activation="quick_gelu", patch_size=14),
            text=TextEncoderConfig(768, 12, 12, activation="quick_gelu"),
            embedding_width=768,
        ),
    }


class CLIPOutput(NamedTuple):
    image_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated


class CLIP(nn.Module):
    """Two encoders, each followed by a linear map into the common space and brought to unit length.

    Image (b, c, height, width) → patches (b, p, width), a class token in front where there is one, plus learned
    positions → transformer → layer norm → class token, or maximum over patches → (b, d).
    Tokens (b, t) → vectors plus learned positions (b, t, width) → causal transformer → layer norm → end token → (b, d).

    ``mask`` is True where a token is real; it may be left out, because in the causal text encoder the end token never
    sees the padding behind it. A text without the ``end_token`` that is set is read at its first token, as
    in the published code. Raises ``ValueError`` for an unknown pooling, or one that does not go with ``class_token``.
    """

    def __init__(self, config: CLIPConfig):
        super().__init__()
        if config.pooling not in ("class", "max") or config.image.class_token != (config.pooling == "class"):
            raise ValueError(f"pooling is 'class' with a class token or 'max' without, not {config.pooling!r}.")
        self.config = config
        self.image_encoder = ImageEncoder(config.image)
        self.text_encoder = TextEncoder(config.text)
        self.image_projection = nn.Linear(config.image.width, config.embedding_width, bias=False)
        self.text_projection = nn.Linear(config.text.width, config.embedding_width, bias=False)
        self.logit_scale = nn.Parameter(
            torch.tensor(math.log(1 / config.temperature))
        )  # ln(1/τ): exp keeps 1/τ positive
        nn.init.normal_(self.image_projection.weight, std=config.image.width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text.width**-0.5)

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b d"]:
        if self.config.pooling == "class":
            class_token = self.image_encoder.read(image, 0)  # (b, width): the encoder's output at position 0
            return F.normalize(self.image_projection(class_token), dim=-1)
        patches = self.image_projection(self.image_encoder(image))  # (b, p, d)
        return F.normalize(patches.amax(1), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        end = self.config.end_token  # in OpenAI's vocabulary the end token has the highest id
        position = tokens.argmax(-1) if end is None else (tokens == end).int().argmax(-1)  # (b,)
        end_state = self.text_encoder.read(tokens, position, mask)  # (b, width): the output at each text's end
        return F.normalize(self.text_projection(end_state), dim=-1)

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> CLIPOutput:
        return CLIPOutput(self.encode_image(image), self.encode_text(tokens, mask), self.logit_scale.exp())

    def contributions(
        self, image: Float[Tensor, "b c height width"], text_embedding: Float[Tensor, "b d"]
    ) -> Float[Tensor, "b p"]:
        r"""What each patch adds to the cosine of image and text, under max pooling.

        Every feature comes from the one patch where it is largest, so the cosine is the sum of these over patches:

        .. math:: u^\top v = \sum_p \sum_{k:\, p = \arg\max_q x_{qk}} \frac{x_{pk} v_k}{\lVert \max_q x_q \rVert}

        Raises ``ValueError`` where the image embedding is of the class token.
        """
        if self.config.pooling != "max":
            raise ValueError("Only max pooling divides the similarity among patches.")
        features = self.image_projection(self.image_encoder(image))  # (b, p, d)
        largest, patch = features.max(1)  # (b, d) each
        products = F.normalize(largest, dim=-1) * text_embedding  # whose sum over d is the cosine
        return torch.zeros_like(features[..., 0]).scatter_add(1, patch, products)  # (b, p)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""ITC, the image–text contrastive loss: InfoNCE over the batch of all processes.

        .. math:: \ell = -\frac{1}{2b} \sum_i \left[\log \mathrm{softmax}_j(s\, u_i^\top v_j)\big|_{j=i}
           + \log \mathrm{softmax}_j(s\, v_i^\top u_j)\big|_{j=i}\right]

        With ``caption_id`` (b,) in the batch, every text that equals a row's own is a positive, with an equal share;
        without it each row has one positive.
        """
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        # Of several processes each computes its own rows of the (all, all) logits; gradients flow through the gather.
        image, text = gather(output.image_embedding), gather(output.text_embedding)  # (all, d) each
        rows = own_rows(output.image_embedding)  # which rows of all are those of this process
        positives = gathered_positives(batch.get("caption_id"))
        return {"itc": info_nce(image, text, output.logit_scale, positives, rows)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Clamp the logit scale to at most 100, for stability; the trainer calls this. Source: section 2.5."""
        self.logit_scale.clamp_(max=math.log(100))
