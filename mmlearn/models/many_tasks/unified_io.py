"""Unified-IO: T5 reads words and patches, and writes words, locations and image codes of one vocabulary.

Paper: Lu et al. 2023, "Unified-IO: A Unified Model for Vision, Language, and Multi-Modal Tasks". Official code:
https://github.com/allenai/unified-io-inference.

Deviations: attention has T5's position bias between words, and none between patches or codes; the code has biases for
rows and columns, and attention scores of positions alone. A target is of words and locations, or of codes, each at its
own position; the code writes words first and then an image. A box is left, top, right, bottom; the code has top first.
Codes are those of any function of images, by default of colours of patches, where theirs are of a VQGAN. There are five
tasks; the paper has more than 80 data sets. All weights start at random, where theirs come from T5. ``tiny`` is ours;
``small`` to ``xl`` have the code's widths and depths, with these deviations. Not compared with released code: the
published code is for another library, and its scores know more of positions.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import patchify
from mmlearn.layers.embeddings import check_image, look_up
from mmlearn.models.many_tasks.t5_stacks import T5Config, T5Stack, initialise_as_t5, word_position_bias
from mmlearn.models.many_tasks.unified_vocabulary import ImageTextSeq2Seq, Vocabulary, check_tokens


@dataclass(frozen=True)
class UnifiedIOConfig(Vocabulary, T5Config):
    image_size: int = 384  # pixels
    patch_size: int = 16  # pixels, of a patch that is read and of a code that is written
    vocab_size: int = 32_152  # words
    bins: int = 1000  # locations
    codes: int = 16_384
    max_length: int = 256  # tokens of a text
    target_length: int = 512  # tokens of a target
    text_start: int = 0
    start_token: int = 0  # of a target
    end_token: int = 1
    pad_token: int = 0
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    head_width: int = 64
    mlp_width: int = 2048
    activation: str = "gelu_tanh"
    gated: bool = True
    dropout: float = 0.0

    PRESETS = {
        "tiny": dict(image_size=64, patch_size=8, vocab_size=512, bins=64, codes=64, max_length=64, target_length=64)
        | dict(text_start=1, start_token=1, end_token=2, width=64, depth=2, num_heads=4, head_width=16, mlp_width=128)
        | dict(max_distance=32),
        "small": dict(width=512, depth=8, num_heads=6, mlp_width=1024),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16, mlp_width=2816),
        "xl": dict(width=2048, depth=24, num_heads=32, mlp_width=5120),
    }


class UnifiedIO(ImageTextSeq2Seq):
    r"""Words and patches, each with its position and type, through T5's encoder; T5's decoder writes any token.

    .. math:: x = [\mathrm{RMSNorm}(E(w_i) + p_i + s_w);\; \mathrm{RMSNorm}(W v_j + q_j + s_v)]

    The token table is the last layer as well, of states that are divided by √d. ``mask`` is True where a token is real.
    Without an ``image`` a text is read alone. Raises ``ValueError`` for tokens and pictures that do not fit.
    Source: section 3; official code, ``uio/network.py``.
    """

    def __init__(self, config: UnifiedIOConfig):
        super().__init__()
        self.config = config
        width, grid = config.width, config.image_size // config.patch_size
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.patches = nn.Linear(3 * config.patch_size**2, width)
        self.type_embeddings = nn.Parameter(torch.randn(2, width))  # of words, of patches
        self.text_positions = nn.Parameter(torch.randn(config.max_length, width))
        self.image_positions = nn.Parameter(torch.randn(grid**2, width))
        self.target_positions = nn.Parameter(torch.randn(config.target_length, width))
        norms = (nn.RMSNorm(width, config.norm_epsilon) for _ in range(3))
        self.text_norm, self.image_norm, self.target_norm = norms
        self.encoder = T5Stack(config, config.depth, decoder=False)
        self.decoder = T5Stack(config, config.decoder_depth or config.depth, decoder=True)
        initialise_as_t5(self, config.head_width)
        nn.init.normal_(self.tokens.weight, std=1)

    def embed_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b p d"]:
        """The patches of an image as tokens. ``ValueError`` for an image of another size."""
        check_image(image, self.config.patch_size)
        if image.shape[2:] != (self.config.image_size,) * 2:
            size = self.config.image_size
            raise ValueError(f"Pictures are {size} × {size} pixels here, got {tuple(image.shape[2:])}: resize them.")
        x = self.patches(patchify(image, self.config.patch_size))  # (b, p, d)
        return self.image_norm(x + self.image_positions + self.type_embeddings[1])

    def encode(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """The states of words, then of patches if there is an image; and their mask."""
        check_tokens(tokens, self.config, self.config.max_length)
        t = tokens.shape[1]
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        x = self.text_norm(look_up(self.tokens, tokens) + self.text_positions[:t] + self.type_embeddings[0])
        if image is not None:
            patches = self.embed_image(image)
            x, mask = torch.cat([x, patches], 1), F.pad(mask, (0, patches.shape[1]), value=True)  # (b, t + p, d)
        return self.encoder(x, mask, bias=word_position_bias(self.encoder, t, x.shape[1] - t)), mask

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token of a target, which begins with the start token."""
        x = self.decoder(self.target_norm(self.embed_target(target, position, target_mask)), target_mask, context, mask)
        return F.linear(x * self.config.width**-0.5, self.tokens.weight)
