"""SimVLM: an encoder reads an image and the prefix of its text, a decoder writes the rest. There is no other loss.

Paper: Wang et al. 2022, "SimVLM: Simple Visual Language Model Pretraining with Weak Supervision".
Official code: none was published.

Deviations: there are no texts without images, of which the paper adds some to each batch. The paper does not say where
norms are, nor whether the token table is also the output layer; here blocks are pre-norm, and it is. The decoder begins
with the last token of the prefix. Patches have learned positions and relative ones. ``tiny`` is ours, with two small
stages of convolutions. Not compared with released code: no code was published.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, ScoreNext, start_prompts
from mmlearn.generation.decoding import greedy
from mmlearn.layers import TextEmbedding, Transformer, TransformerConfig
from mmlearn.layers.embeddings import check_image
from mmlearn.models.captions.captioner import Captioner, check_pairs, empty_prompt
from mmlearn.models.vision.relative_encoder import RelativeBias
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig, resnet
from mmlearn.objectives import prefix_language_modelling


@dataclass(frozen=True)
class SimVLMConfig(TransformerConfig):
    """The encoder's transformer and the decoder's are alike."""

    stem: ResNetConfig = RESNETS["resnet-101"].without_last()
    image_size: int = 224  # pixels
    vocab_size: int = 32_000
    max_length: int = 256  # tokens
    start_token: int = 1
    end_token: int = 2
    pad_token: int = 0
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(stem=RESNETS["tiny"], image_size=64, vocab_size=512, max_length=32)
        | dict(width=64, depth=2, num_heads=2, dropout=0.0),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16),
        "huge": dict(stem=RESNETS["resnet-152"].without_last(), width=1280, depth=32, num_heads=16),
    }


class SimVLMOutput(NamedTuple):
    context: Float[Tensor, "b n d"]  # states of patches and words; those of words outside the prefix mean nothing
    token_logits: Float[Tensor, "b t v"]  # at position i: of the token after token i, from the end of the prefix on


class SimVLM(Captioner):
    r"""An encoder of patches and of the prefix, and a decoder that writes the words that follow.

    .. math:: \ell = -\log p(x_{\ge T_p} \mid x_{< T_p}) = -\sum_{i \ge T_p} \log p(x_i \mid x_{[T_p, i]}, x_{< T_p})

    Patches are the output of a few stages of a residual network. In the encoder patches and the prefix see each other;
    a bias of attention encodes relative positions of patches. ``prefix`` is True for words of the prefix, by default
    the first word; ``mask`` is True where a word is real. Raises ``ValueError`` for pictures that are not float (b, 3,
    height, width) or of another size than ``image_size``, and for texts longer than ``max_length``. Source: sections
    3.1 and 3.2, equation 3, and figure 1.
    """

    def __init__(self, config: SimVLMConfig):
        super().__init__()
        self.config, side = config, config.image_size // config.stem.stride
        self.stem = resnet(config.stem, nn.BatchNorm2d)
        self.image_projection = nn.Linear(config.stem.widths[-1], config.width)
        self.image_positions = nn.Parameter(torch.randn(side**2, config.width) * config.width**-0.5)
        self.relative = RelativeBias((side, side), config.num_heads)
        self.embedding = TextEmbedding(config.vocab_size, config.width, config.max_length)
        self.encoder, self.decoder = Transformer(config), Transformer(config, context_width=config.width)
        self.encoder_norm, self.norm = (nn.LayerNorm(config.width, eps=config.norm_epsilon) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def embed_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p d"]:
        """The patches of each image as the encoder reads them."""
        side, stride = self.config.image_size, self.config.stem.stride
        check_image(image, stride)
        if image.shape[2:] != (side, side):
            raise ValueError(f"Pictures are of {side} pixels here, got {tuple(image.shape[2:])}: resize them.")
        patches = rearrange(self.stem(image), "b f row column -> b (row column) f")
        return self.image_projection(patches) + self.image_positions  # (b, p, d)

    def encode(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        prefix: Bool[Tensor, "b t"],
        position: Int[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """States of patches and words, and which of them may be attended to: patches, and words of the prefix."""
        patches, t = self.embed_image(image), tokens.shape[1]
        x = torch.cat([patches, self.embedding(tokens, position)], 1)  # (b, p + t, d)
        mask = F.pad(prefix, (patches.shape[1], 0), value=True)
        bias = self.relative(self.relative.grid)[..., 1:, 1:]  # (1, h, p, p), without a class token
        return self.encoder_norm(self.encoder(self.dropout(x), mask, bias=F.pad(bias, (0, t, 0, t)))), mask

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b d"]:
        """The mean of the patches after the encoder, without words. Source: section 4.2.2, for the probe."""
        prompt = empty_prompt(image)
        return self.encode(image, prompt, prompt.bool())[0].mean(1)

    def decode(
        self,
        context: Float[Tensor, "b n_or_0 d"],
        context_mask: Bool[Tensor, "b n"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b all"],
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t v"]:
        """Logits of the next token after each token. ``mask`` is True where later tokens may attend to one."""
        x = self.dropout(self.embedding(tokens, position))  # (b, t, d)
        return F.linear(self.norm(self.decoder(x, mask, True, context, context_mask)), self.embedding.tokens.weight)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        prefix: Bool[Tensor, "b t"] | None = None,
    ) -> SimVLMOutput:
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        prefix = (torch.arange(tokens.shape[1], device=tokens.device) < 1).expand_as(mask) if prefix is None else prefix
        context, context_mask = self.encode(image, tokens, mask & prefix)
        before = F.pad(prefix[:, 1:], (0, 1))  # words of the prefix but the last: the decoder begins with that one
        return SimVLMOutput(context, self.decode(context, context_mask, tokens, mask & ~before))

    def step_function(
        self, image: Float[Tensor, "b 3 height width"], start: Int[Tensor, "b start"], mask: Bool[Tensor, "b start"]
    ) -> ScoreNext:
        """The function that decoding calls: it scores the next word of captions that begin with ``start``."""
        context, context_mask = self.encode(image, start, mask, (mask.cumsum(1) - 1).clamp(min=0))
        before = start.shape[1] - 1

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            after = torch.arange(step.mask.shape[1], device=step.mask.device) >= before
            encoded = step.context(context), step.rows(context_mask)
            return self.decode(*encoded, step.tokens, step.mask & after, step.position)[:, -1]

        return read

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b 3 height width"],
        decode: Callable[..., Tensor] = greedy,
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """As of :class:`Captioner`; the encoder reads the ``prompt`` both ways, such as "a picture of".

        Source: section 4.2.1.
        """
        prompt = empty_prompt(image) if prompt is None else prompt
        read = self.step_function(image, *start_prompts(self.config.start_token, prompt, prompt_mask))
        return self.continue_prompts(read, prompt, prompt_mask, decode, max_length)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Each token after the prefix, from the image, the prefix and the tokens between. ``ValueError`` without a
        text."""
        check_pairs(batch)
        tokens, mask, prefix = batch["tokens"], batch.get("mask"), batch["prefix"]
        logits = self(batch["image"], tokens, mask, prefix).token_logits
        return {"lm": prefix_language_modelling(logits, tokens, prefix, mask)}
