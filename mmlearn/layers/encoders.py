"""The two towers that dual encoders are made of: a picture as tokens, a text as tokens.

ViT, CLIP, SigLIP, FILIP and LiT differ in what they do with the tokens, not in how they get them.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.embeddings import ImageEmbedding, TextEmbedding
from mmlearn.layers.transformer import Transformer, TransformerConfig


@dataclass(frozen=True)
class ImageEncoderConfig(TransformerConfig):
    image_size: int | tuple[int, int] = 224  # pixels; (height, width) where they differ
    patch_size: int = 16  # pixels
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    class_token: bool = True  # SigLIP has none and pools by attention
    convolutions: bool = False  # read patches by a few convolutions, for little data
    embedding_norm: bool = False  # CLIP normalises before the first block, and so leaves out the patch bias
    channels: int = 3  # more where a frozen tower's features are read in place of pixels


TINY_IMAGE = ImageEncoderConfig(64, 3, 2, image_size=64, patch_size=16, class_token=False, embedding_norm=True)


class ImageEncoder(nn.Module):
    """Patches → class token → positions → (norm) → transformer → norm. Returns (b, n, d), the class token first.

    :meth:`read` returns only the token at a position, 0 for the class token: (b, d).
    Source: Dosovitskiy et al. 2021 (ViT), equations 1 to 4; Radford et al. 2021 (CLIP), section 2.4 for the extra norm.
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.embedding = ImageEmbedding(
            config.image_size,
            config.patch_size,
            config.width,
            class_token=config.class_token,
            bias=not config.embedding_norm,
            convolutions=config.convolutions,
            channels=config.channels,
        )
        width, epsilon = config.width, config.norm_epsilon
        self.embedding_norm = nn.LayerNorm(width, eps=epsilon) if config.embedding_norm else nn.Identity()
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(width, eps=epsilon)

    def forward(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b n d"]:
        return self.norm(self.transformer(self.embedding_norm(self.embedding(image))))

    def skip(self, image: Float[Tensor, "b c height width"], last: int) -> Float[Tensor, "b n d"]:
        """The states before so many ``last`` blocks, and without the last norm, as LLaVA reads them."""
        x = self.embedding_norm(self.embedding(image))  # (b, n, d)
        for block in self.transformer.blocks[: len(self.transformer.blocks) - last]:
            x = block(x)
        return x

    def read(self, image: Float[Tensor, "b c height width"], position: int) -> Float[Tensor, "b d"]:
        return self.norm(self.transformer.read(self.embedding_norm(self.embedding(image)), position))


@dataclass(frozen=True)
class TextEncoderConfig(TransformerConfig):
    vocab_size: int = 49408
    max_length: int = 77  # tokens
    width: int = 512
    depth: int = 12
    num_heads: int = 8
    causal: bool = True  # SigLIP reads both ways


TINY_TEXT = TextEncoderConfig(64, 1, 2, vocab_size=512, max_length=32)


class TextEncoder(nn.Module):
    """Tokens → positions → transformer → norm. Returns (b, t, d).

    :meth:`read` returns only the token at a position, which may be another in every row: (b, d).
    Source: Radford et al. 2021 (CLIP), section 2.4.
    """

    def __init__(self, config: TextEncoderConfig):
        super().__init__()
        self.causal = config.causal
        self.embedding = TextEmbedding(config.vocab_size, config.width, config.max_length)
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        return self.norm(self.transformer(self.embedding(tokens), mask, self.causal))

    def read(
        self, tokens: Int[Tensor, "b t"], position: int | Int[Tensor, "b"], mask: Bool[Tensor, "b t"] | None = None
    ) -> Float[Tensor, "b d"]:
        return self.norm(self.transformer.read(self.embedding(tokens), position, mask, self.causal))
