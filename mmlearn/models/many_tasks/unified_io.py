"""Unified-IO: T5 reads words and patches, and writes words, locations and image codes of one vocabulary.

Paper: Lu et al. 2023, "Unified-IO: A Unified Model for Vision, Language, and Multi-Modal Tasks". Official code:
https://github.com/allenai/unified-io-inference.

Deviations: the code also computes scores of positions from target to source, which its attention then leaves out; they
are not here. A target is of words and locations, or of codes; the code writes words first and then an image. An image
that is written is the middle of the one that is read, and its codes are those of any function of images, by default of
colours of patches; theirs are a whole image of 256 pixels and the codes of a VQGAN. A box is left, top, right, bottom;
the code has top first. There are five tasks; the paper has more than 80 data sets. All weights start at random, where
theirs come from T5. ``tiny`` is ours; ``small`` to ``xl`` are the code's. Not compared with released code: the
published code is for another library; it was run beside ours with the same weights, and logits agree to 2e-5.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import patchify
from mmlearn.layers.embeddings import check_image, look_up
from mmlearn.layers.positions import logarithmic_bucket
from mmlearn.models.many_tasks.t5_stacks import T5Config, T5Stack, initialise_as_t5, word_position_bias
from mmlearn.models.many_tasks.unified_vocabulary import (
    ImageTextSeq2Seq,
    Vocabulary,
    check_texts,
    check_tokens,
    token_loss,
)
from mmlearn.tensor_checks import values_are_readable

GRID_BUCKETS, GRID_DISTANCE = 8, 20  # of an axis; from that distance on all share the last bucket


@dataclass(frozen=True)
class UnifiedIOConfig(Vocabulary, T5Config):
    image_size: int = 384  # pixels
    patch_size: int = 16  # pixels of a patch that is read
    code_size: int = 12  # pixels of a code that is written
    vocab_size: int = 32_152  # words
    bins: int = 1000  # locations
    codes: int = 16_384
    max_length: int = 256  # tokens of a text
    target_length: int = 256  # words and locations of a target
    text_start: int = 0
    start_token: int = 0  # of a target of words
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
        "tiny": dict(image_size=64, patch_size=8, code_size=8, vocab_size=512, bins=64, codes=64)
        | dict(max_length=64, target_length=64, text_start=1, start_token=1, end_token=2)
        | dict(width=64, depth=2, num_heads=4, head_width=16, mlp_width=128, max_distance=32),
        "small": dict(width=512, depth=8, num_heads=6, mlp_width=1024),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16, mlp_width=2816),
        "xl": dict(width=2048, depth=24, num_heads=32, mlp_width=5120),
    }

    @property
    def code_grid(self) -> int:
        """Codes in a row, and in a column, of an image that is written: the middle half of the image that is read."""
        side = self.image_size // self.code_size
        return side - 2 * (side // 4)

    @property
    def image_start(self) -> int:
        """The token with which a target of codes starts: the last one before the codes."""
        return self.first_code - 1


def grid_buckets(columns: int, count: int) -> Int[Tensor, "count count"]:
    r"""The bucket of the offset between positions of a grid, row by row: 8 × 8 for each of four directions.

    .. math:: 64\, \mathrm{direction} + \mathrm{bucket}(|x|) + 8\, \mathrm{bucket}(|y|)

    for queries in rows and keys in columns; x and y are above 0 where the key is left of the query, and above it.
    Source: official code, ``_img_relative_position_bucket``.
    """
    position = torch.arange(count)
    x, y = (axis[:, None] - axis for axis in (position % columns, position // columns))  # each (count, count)
    direction = 3 * ((x <= 0) & (y < 0)) + 2 * ((x < 0) & (y >= 0)) + 1 * ((x > 0) & (y <= 0))
    across, down = (logarithmic_bucket(offset.abs(), GRID_BUCKETS, GRID_DISTANCE) for offset in (x, y))
    return direction * GRID_BUCKETS**2 + across + GRID_BUCKETS * down


class PositionScores(nn.Module):
    r"""What attention adds for positions: of an absolute pair, and of the offset of two positions of a grid.

    .. math:: B_{ij} = \frac{(W_Q \bar p_i)^\top W_K \bar p_j}{\sqrt{d / h}} + b_{\mathrm{bucket}(i, j)}, \quad
       \bar p = \mathrm{RMSNorm}(p)

    for each head. All blocks of a stack share them. Source: official code, ``Encoder`` and ``RelativePositionBiases``.
    """

    def __init__(self, config: UnifiedIOConfig):
        super().__init__()
        inner = config.num_heads * config.head_width
        self.num_heads, self.scale = config.num_heads, (config.width / config.num_heads) ** -0.5
        self.norm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.query_projection = nn.Linear(config.width, inner, bias=False)
        self.key_projection = nn.Linear(config.width, inner, bias=False)
        self.grid_bias = nn.Embedding(4 * GRID_BUCKETS**2, config.num_heads)

    def absolute(self, positions: Float[Tensor, "n d"]) -> Float[Tensor, "1 h n n"]:
        normed, projections = self.norm(positions), (self.query_projection, self.key_projection)
        query, key = (project(normed).unflatten(-1, (self.num_heads, -1)).transpose(0, 1) for project in projections)
        return (self.scale * query @ key.mT)[None]  # of (h, n, k) each

    def relative(self, columns: int, count: int) -> Float[Tensor, "1 h n n"]:
        buckets = grid_buckets(columns, count).to(self.grid_bias.weight.device)  # (n, n)
        return rearrange(self.grid_bias(buckets), "q n h -> 1 h q n")


class UnifiedIO(ImageTextSeq2Seq):
    r"""Words and patches, each with its position and type, through T5's encoder; T5's decoder writes words or codes.

    .. math:: x = [\mathrm{RMSNorm}(E(w_i) + p_i + s_w);\; \mathrm{RMSNorm}(W v_j + q_j + s_v)]

    Scores know how far apart two words are, and in which direction two patches or codes; and the absolute positions of
    any two tokens. The token table is the last layer as well, of states that are divided by √d. Words and locations
    have a softmax of their own, and so have codes: a target is of one type, that of its first token. ``mask`` is True
    where a token is real. Without an ``image`` a text is read alone. Raises ``ValueError`` for tokens and pictures that
    do not fit. Source: section 3; official code, ``uio/network.py``.
    """

    def __init__(self, config: UnifiedIOConfig):
        super().__init__()
        if not 1 <= config.code_size <= config.image_size:
            raise ValueError(f"code_size is 1 to {config.image_size} pixels, the image's; got {config.code_size}.")
        self.config = config
        width, self.grid = config.width, config.image_size // config.patch_size
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.patches = nn.Linear(3 * config.patch_size**2, width, bias=False)
        self.type_embeddings = nn.Parameter(torch.randn(2, width))  # of words, of patches
        self.text_positions = nn.Parameter(torch.randn(config.max_length, width))
        self.image_positions = nn.Parameter(torch.randn(self.grid**2, width))
        self.target_type_embeddings = nn.Parameter(torch.randn(2, width))  # of words, of codes
        self.target_positions = nn.Parameter(torch.randn(config.target_length, width))
        self.code_positions = nn.Parameter(torch.randn(config.code_grid**2, width))
        norms = (nn.RMSNorm(width, config.norm_epsilon) for _ in range(3))
        self.text_norm, self.image_norm, self.target_norm = norms
        self.source_scores, self.target_scores = PositionScores(config), PositionScores(config)
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
        positions = self.text_positions[:t]
        x = self.text_norm(look_up(self.tokens, tokens) + positions + self.type_embeddings[0])  # (b, t, d)
        p = 0 if image is None else self.grid**2
        bias = word_position_bias(self.encoder, t, p)  # (1, h, t + p, t + p)
        if image is not None:
            x, mask = torch.cat([x, self.embed_image(image)], 1), F.pad(mask, (0, p), value=True)  # (b, t + p, d)
            positions = torch.cat([positions, self.image_positions])  # (t + p, d)
            bias = bias + F.pad(self.source_scores.relative(self.grid, p), (t, 0, t, 0))
        return self.encoder(x, mask, bias=bias + self.source_scores.absolute(positions)), mask

    def decoder_input(self, target: Int[Tensor, "b o"]) -> Int[Tensor, "b o"]:
        """What the decoder reads to write this target: the start token of its type, then all of it but the last."""
        start = torch.where(self.is_code(target[:, :1]), self.config.image_start, self.config.start_token)
        return torch.cat([start, target[:, :-1]], 1)

    def is_code(self, tokens: Int[Tensor, "b n"]) -> Bool[Tensor, "b n"]:
        return tokens >= self.config.first_code

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token of a target, which begins with the start token of its type.

        Those of tokens of the other type are as low as can be. ``position`` is not needed: no padding is at the left.
        """
        q, o = target.shape[1], (target if target_mask is None else target_mask).shape[1]  # o: with earlier steps
        begins = (target[:, :1] == self.config.image_start) & (q == o)
        is_image = (begins | self.is_code(target[:, -1:]))[..., None]  # (b, 1, 1): rows that write an image
        words, codes = self.positions_of_targets(o, is_image)  # (o, d) each
        of_words, of_codes = (x[-q:] + kind for x, kind in zip((words, codes), self.target_type_embeddings))  # (q, d)
        x = look_up(self.tokens, target) + torch.where(is_image, of_codes, of_words)  # (b, q, d)
        word_bias = self.decoder.position_bias(o, o) + self.target_scores.absolute(words)  # (1, h, o, o)
        code_bias = self.target_scores.relative(self.config.code_grid, o) + self.target_scores.absolute(codes)
        bias = torch.where(is_image[..., None], code_bias, word_bias)[:, :, -q:]  # (b, h, q, o)
        x = self.decoder(self.target_norm(x), target_mask, context, mask, bias)
        logits = F.linear(x * self.config.width**-0.5, self.tokens.weight)  # (b, q, v)
        other_type = self.is_code(torch.arange(self.config.all_tokens, device=x.device)[None]) != is_image  # (b, 1, v)
        return logits.masked_fill(other_type, torch.finfo(logits.dtype).min)

    def positions_of_targets(self, o: int, is_image: Bool[Tensor, "b 1 1"]) -> list[Float[Tensor, "o d"]]:
        """The positions of so many words, and of so many codes; ``ValueError`` for a row that has not so many.

        Positions that only the other type has are copies of the last one. Behind its last code a target may have an end
        token, which is not learned.
        """
        most, codes = len(self.target_positions), len(self.code_positions)
        if values_are_readable(is_image):
            if o > most and not is_image.all():
                raise ValueError(f"{o} tokens are more than the {most} of a target: write fewer.")
            if o > codes + 1 and is_image.any():
                raise ValueError(f"{o} codes are more than the {codes} of an image: write fewer.")
        index = torch.arange(o, device=is_image.device)
        tables = (self.target_positions, self.code_positions)
        return [table[index.clamp(max=len(table) - 1)] for table in tables]

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The cross-entropy of the target; an image ends by itself, so its end token is not learned.

        ``ValueError`` without a text.
        """
        check_texts(batch)
        target = batch["target"]
        output = self(batch.get("image"), batch["tokens"], target, batch.get("mask"))
        learned = self.is_code(target) == self.is_code(target[:, :1])  # (b, o): of the type of the first token
        real = batch.get("target_mask")
        return token_loss(output.token_logits, batch | {"target_mask": learned if real is None else learned & real})
