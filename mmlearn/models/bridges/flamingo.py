"""Flamingo: gated cross-attention to images between the blocks of a frozen language model; gates start closed.

Paper: Alayrac et al. 2022, "Flamingo: a Visual Language Model for Few-Shot Learning". No code was published;
https://github.com/mlfoundations/open_flamingo builds it again, and so does Idefics in Transformers.

Deviations: the language model is GPT-2, where the paper has Chinchilla, and the image encoder a vision transformer,
where it has an NFNet. There are no videos, so latents have no time embeddings. An image always comes before its text,
without a tag, and a token always sees the image before it; in training the paper lets some see the next one. Every text
has a start and an end token. ``tiny`` and the presets named after GPT-2 are ours.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext
from mmlearn.layers import Attention, Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.activations import activation_called
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models.bridges.bridge import (
    TINY_LANGUAGE,
    Bridge,
    GPT2Config,
    Shots,
    check_positions,
    check_special_tokens,
    text_loss,
)
from mmlearn.objectives.bridging import last_image_mask


@dataclass(frozen=True)
class FlamingoConfig(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    language_model: GPT2Config = GPT2Config()
    num_latents: int = 64  # embeddings of an image
    resampler_depth: int = 6
    resampler_heads: int = 12
    gated_every: int = 1  # a gated block comes before the first and each so many blocks of the language model
    activation: str = "squared_relu"
    turns: int = 1  # pairs that are interleaved into one text in training, each of which sees those before

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, language_model=TINY_LANGUAGE)
        | dict(num_latents=8, resampler_depth=2, resampler_heads=2),
        "gpt2": dict(),
        "gpt2-xl": dict(language_model=GPT2Config(**GPT2Config.PRESETS["xl"]), gated_every=4),
    }


class FlamingoOutput(NamedTuple):
    latents: Float[Tensor, "b n image_width"]  # of the image
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i


class FeedForward(nn.Module):
    """A norm and two layers without biases, four times as wide inside. Source: figure 4."""

    def __init__(self, width: int, activation: str):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width, bias=False)
        self.activation = activation_called(activation)
        self.contract = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return self.contract(self.activation(self.expand(self.norm(x))))


class ResamplerBlock(nn.Module):
    """Latents attend to the image and to each other. Source: section 2.1 and appendix A.1.1."""

    def __init__(self, width: int, num_heads: int, activation: str):
        super().__init__()
        self.latents_norm, self.image_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, bias=False)
        self.mlp = FeedForward(width, activation)

    def forward(self, latents: Float[Tensor, "b n d"], patches: Float[Tensor, "b p d"]) -> Float[Tensor, "b n d"]:
        queries = self.latents_norm(latents)
        context = torch.cat([self.image_norm(patches), queries], dim=1)  # (b, p + n, d)
        latents = latents + self.attention(queries, context)
        return latents + self.mlp(latents)


class PerceiverResampler(nn.Module):
    r"""A fixed number of learned latents summarise an image of any size.

    .. math:: x \leftarrow x + \mathrm{Attention}(x, [x_f; x], [x_f; x]), \quad x \leftarrow x + \mathrm{FFW}(x)

    A norm follows, as in the reimplementations. Source: section 2.1 and appendix A.1.1.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        width = config.image_encoder.width
        self.latents = nn.Parameter(torch.randn(config.num_latents, width))
        self.blocks = nn.ModuleList(
            ResamplerBlock(width, config.resampler_heads, config.activation) for _ in range(config.resampler_depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: Float[Tensor, "b p d"]) -> Float[Tensor, "b n d"]:
        latents = repeat(self.latents, "n d -> b n d", b=len(patches))
        for block in self.blocks:
            latents = block(latents, patches)
        return self.norm(latents)


def gated(x: Float[Tensor, "b t d"], branch: Float[Tensor, "b t d"], gate: Float[Tensor, ""]) -> Float[Tensor, "b t d"]:
    r"""A residual branch that is scaled by a gate: :math:`x + \tanh(\alpha)\, f`.

    With α = 0 the branch adds nothing, and only α has a gradient. Source: section 2.2 and figure 4.
    """
    return x + gate.tanh() * branch


class GatedCrossAttention(nn.Module):
    r"""Words attend to latents, and an MLP follows; each branch has a gate that is closed at the start.

    .. math:: y \leftarrow y + \tanh(\alpha_x)\, \mathrm{Attention}(y, x, x), \quad
       y \leftarrow y + \tanh(\alpha_d)\, \mathrm{FFW}(y), \quad \alpha_x = \alpha_d = 0

    So the language model at first predicts what it did without images. A word that sees no latent gets nothing.
    Source: section 2.2 and figure 4.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        width, image_width = config.language_model.width, config.image_encoder.width
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, config.language_model.num_heads, context_width=image_width, bias=False)
        self.attention_gate = nn.Parameter(torch.zeros(()))
        self.mlp = FeedForward(width, config.activation)
        self.mlp_gate = nn.Parameter(torch.zeros(()))

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        latents: Float[Tensor, "b n image_width"],
        latent_mask: Bool[Tensor, "b t n"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        x = gated(x, self.attention(self.attention_norm(x), latents, latent_mask), self.attention_gate)
        return gated(x, self.mlp(x), self.mlp_gate)


class Flamingo(Bridge):
    r"""A frozen picture encoder, the resampler, and a frozen language model with gated blocks between its own.

    .. math:: p(y \mid x) = \prod_l p(y_l \mid y_{<l}, x_{\le l})

    Each word sees the last image before it; it knows earlier ones through the words about them. Raises
    ``ValueError`` for ``gated_every`` or ``turns`` below 1. Source: section 2.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        check_special_tokens(config)
        if config.gated_every < 1 or config.turns < 1:
            raise ValueError(f"gated_every and turns are at least 1, not {config.gated_every} and {config.turns}.")
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.resampler = PerceiverResampler(config)
        depth = len(range(0, config.language_model.depth, config.gated_every))
        self.gated = nn.ModuleList(GatedCrossAttention(config) for _ in range(depth))
        self.language_model = config.language_model.build().requires_grad_(False)

    def encode_image(self, image: Float[Tensor, "*b c height width"]) -> Float[Tensor, "b n image_width"]:
        """The latents of each image; of several images of a row, (b, s, …), all of them, one after the other."""
        latents = self.resampler(self.image_encoder(image.reshape(-1, *image.shape[-3:])))  # (b s, n, image_width)
        return latents.reshape(len(image), -1, latents.shape[-1])  # (b, s n, image_width)

    def logits(
        self,
        x: Float[Tensor, "b q d"],
        latents: Float[Tensor, "b n image_width"],
        latent_mask: Bool[Tensor, "b q n"] | None = None,
        mask: Bool[Tensor, "b all"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token; ``x`` are the embeddings of tokens, with positions."""
        model = self.language_model
        x = model.dropout(x)
        for i, block in enumerate(model.transformer.blocks):
            if i % self.config.gated_every == 0:  # then a gated block comes first
                x = self.gated[i // self.config.gated_every](x, latents, latent_mask)
            x = block(x, mask, causal=True)
        return model.logits(model.norm(x))

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> FlamingoOutput:
        latents = self.encode_image(image)
        return FlamingoOutput(latents, self.logits(self.language_model.embedding(tokens), latents, None, mask))

    def read_shots(
        self, image: Float[Tensor, "b s c height width"], tokens: Int[Tensor, "b s t"], mask: Bool[Tensor, "b s t"]
    ) -> Float[Tensor, "b s t v"]:
        """Logits after each token of interleaved images and texts. ``ValueError`` for more tokens than positions."""
        x, latent_mask, mask = self._interleave(tokens, mask)
        return self.logits(x, self.encode_image(image), latent_mask, mask).unflatten(
            1, tokens.shape[1:]
        )  # (b, s, t, v)

    def _interleave(
        self, tokens: Int[Tensor, "b s t"], mask: Bool[Tensor, "b s t"]
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n seen"], Bool[Tensor, "b n"]]:
        """Texts one after the other: their embeddings, which latents each token latent_mask, and their mask."""
        (b, s, t), mask = tokens.shape, mask.flatten(1)  # (b, s t)
        check_positions(self.language_model, int(mask.sum(1).max()), f"{s} texts")
        position = (mask.cumsum(1) - 1).clamp(min=0)
        images_before = 1 + torch.arange(s * t, device=tokens.device).expand(b, -1) // t  # (b, s t)
        latent_mask = last_image_mask(images_before, s, self.config.num_latents)  # (b, s t, s latents)
        return self.language_model.embedding(tokens.flatten(1), position), latent_mask, mask

    def step_function(self, image: Float[Tensor, "b c height width"], shots: Shots | None = None) -> ScoreNext:
        latents, model, n = self.encode_image(image), self.language_model, self.config.num_latents
        if shots is not None:
            shot_words, shot_latent_mask, shot_mask = self._interleave(*shots[1:])
            latents = torch.cat([self.encode_image(shots[0]), latents], dim=1)  # (b, (s + 1) n, image_width)

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            if shots is None:
                x = model.embedding(step.tokens, step.position)
                return self.logits(x, step.rows(latents), None, step.mask)[:, -1]
            x = model.embedding(step.tokens, step.position + step.rows(shot_mask.sum(1))[:, None])
            in_last = torch.arange(latents.shape[1], device=x.device) >= latents.shape[1] - n  # the last image alone
            latent_mask = in_last.expand(*x.shape[:2], -1)
            words = step.context(shot_words)  # empty once its keys are in the cache
            before = F.pad(shot_latent_mask, (0, n))  # no shot sees the last image
            before = step.rows(before)[:, : words.shape[1]]
            mask = torch.cat([step.rows(shot_mask), step.mask], dim=1)
            x, latent_mask = torch.cat([words, x], dim=1), torch.cat([before, latent_mask], dim=1)
            return self.logits(x, step.rows(latents), latent_mask, mask)[:, -1]

        return read

    def patch_attention(
        self, maps: dict[str, Float[Tensor, "_b _h _q _n"]], gate: int = 0
    ) -> Float[Tensor, "b h q s p"]:
        r"""How much each word attends to each patch of s images, through the latents.

        .. math:: a_{qsp} = \sum_l g_{q,sl} \, \bar r_{slp}

        ``maps`` are those that :func:`~mmlearn.layers.record_attention` kept of this model: g of the gated block
        number ``gate``, and r of the last block of the resampler, as a mean over its heads. The attention of latents to
        each other is left out, so the weights of a word sum to less than 1. After Abnar & Zuidema 2020, "Quantifying
        Attention Flow in Transformers", who multiply the maps of layers in this way.
        """
        to_latents = maps[f"gated.{gate}.attention"]  # (b, h, q, s l)
        to_patches = maps[f"resampler.blocks.{self.config.resampler_depth - 1}.attention"].mean(1)  # (b s, l, p + l)
        to_patches = to_patches[..., : -self.config.num_latents].unflatten(0, (len(to_latents), -1))  # (b, s, l, p)
        to_latents = to_latents.unflatten(-1, to_patches.shape[1:3])  # (b, h, q, s, l)
        return torch.einsum("bhqsl,bslp->bhqsp", to_latents, to_patches)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The next token of each text after its image, and after earlier pairs where ``turns`` is above 1.

        ``turns`` rows of a batch are one text; fewer where the batch does not divide by it.
        """
        self.freeze_modes()
        image, tokens, mask = batch["image"], batch["tokens"], batch.get("mask")
        s = max((s for s in range(1, self.config.turns + 1) if len(tokens) % s == 0), default=1)
        if s == 1:
            return text_loss(self(image, tokens, mask).token_logits, batch)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        rows = (part.unflatten(0, (-1, s)) for part in (image, tokens, mask))
        return text_loss(self.read_shots(*rows).flatten(0, 1), batch)
