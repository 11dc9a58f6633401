"""DALL·E: a transformer that continues a caption by the codes of an image, as if both were one text.

Paper: Ramesh et al. 2021, "Zero-Shot Text-to-Image Generation". Official code, of the first stage alone:
https://github.com/openai/DALL-E.

Deviations: every code sees all tokens before it; in the paper most layers see a row, a column or a neighbourhood. Words
and codes start and learn alike, without the paper's scaling of gradients for 16-bit floats. Padding is not predicted.
Any codec fits that has ``encode``, ``decode`` and a grid of as many codes. ``tiny`` and ``base`` are ours. Not compared
with released code: no code of the transformer was published.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.decoding import greedy
from mmlearn.layers import TransformerConfig
from mmlearn.models.image_tokens.autoencoder import check_codes
from mmlearn.models.image_tokens.codecs import DiscreteVAE, DiscreteVAEConfig
from mmlearn.models.image_tokens.token_model import CodecLanguageModel, check_words
from mmlearn.objectives.masked import IGNORED, masked_cross_entropy


@dataclass(frozen=True)
class DALLEConfig(TransformerConfig):
    codec: DiscreteVAEConfig = DiscreteVAEConfig.preset("base")
    vocab_size: int = 16_384  # of words
    max_length: int = 256  # of a text
    width: int = 512
    depth: int = 12
    num_heads: int = 8
    dropout: float = 0.1
    word_weight: float = 1 / 8
    code_weight: float = 7 / 8

    PRESETS = {
        "tiny": dict(codec=DiscreteVAEConfig.tiny(), vocab_size=512, max_length=32)
        | dict(width=64, depth=3, num_heads=4, dropout=0.0),
        "base": dict(),
    }

    @property
    def first_code(self) -> int:
        """The number of code 0: after the words, and the padding token of each position of a text."""
        return self.vocab_size + self.max_length

    @property
    def all_tokens(self) -> int:
        """Words, padding and codes."""
        return self.first_code + self.codec.num_codes


class DALLEOutput(NamedTuple):
    token_logits: Float[Tensor, "b n-1 v"]  # at position i: of the token after token i
    sequence: Int[Tensor, "b n"]  # a whole text, then a whole image


class DALLE(CodecLanguageModel):
    r"""The words of a caption, padded by a token of each position, and the codes of an image, row by row.

    .. math:: p(x, y) = \prod_i p(s_i \mid s_{<i}), \quad s = [y_1, \dots, y_T, k_1, \dots, k_P]

    Words have a position in the text; codes have a row and a column. Raises ``ValueError`` for words, codes and images
    that do not fit. Source: section 2.2, appendix B.
    """

    def __init__(self, config: DALLEConfig, codec: nn.Module | None = None):
        super().__init__(config, DiscreteVAE(config.codec) if codec is None else codec)
        self.text_positions = nn.Parameter(torch.randn(config.max_length, config.width) * 0.02)
        self.rows = nn.Parameter(torch.randn(config.codec.side, config.width) * 0.02)
        self.columns = nn.Parameter(torch.randn(config.codec.side, config.width) * 0.02)

    def positions(self) -> Float[Tensor, "n d"]:
        """The embedding of each position of the text, then of the image."""
        image_positions = self.rows[:, None] + self.columns  # (row, column, d)
        return torch.cat([self.text_positions, image_positions.flatten(0, 1)])

    def pad_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None) -> Int[Tensor, "b all"]:
        """Texts of one length, padded by the token of each position. Source: section 2.2."""
        check_words(tokens, self.config.vocab_size, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        padding = self.config.vocab_size + torch.arange(self.config.max_length, device=tokens.device)
        missing = (0, self.config.max_length - tokens.shape[1])
        return torch.where(F.pad(mask, missing), F.pad(tokens, missing), padding)  # (b, max_length)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> DALLEOutput:
        return self.read(self.codec.encode(image), tokens, mask)

    def read(
        self, codes: Int[Tensor, "b p"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> DALLEOutput:
        """As :meth:`forward`, where codes are known."""
        check_codes(codes, self.codec.config)
        sequence = torch.cat([self.pad_text(tokens, mask), self.config.first_code + codes], 1)  # (b, n)
        return DALLEOutput(self.decoder(sequence[:, :-1], self.positions()[:-1]), sequence)

    @torch.no_grad()
    def draw(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        first_codes: Int[Tensor, "b some"] | None = None,
    ) -> Int[Tensor, "b p"]:
        """The codes of an image for each caption, for ``codec.decode``. ``first_codes`` of it may be given."""
        start, p = self.pad_text(tokens, mask), self.config.codec.side**2
        if first_codes is not None:
            check_codes(F.pad(first_codes, (0, max(p - first_codes.shape[1], 0))), self.codec.config)
            start = torch.cat([start, self.config.first_code + first_codes], 1)
        codes = range(self.config.first_code, self.config.all_tokens)
        count = p + self.config.max_length - start.shape[1]  # codes that are missing
        real = torch.ones_like(start, dtype=torch.bool)
        written = (
            self.decoder.continue_sequence(start, real, self.positions(), codes, count, decode)
            if count
            else start[:, :0]
        )
        return torch.cat([start[:, self.config.max_length :], written], 1) - self.config.first_code

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The cross-entropy of ``words`` and of ``codes``, each a mean, and weighted. Source: section 2.2."""
        return self.losses(self(batch["image"], batch["tokens"], batch.get("mask")))

    def losses(self, output: DALLEOutput) -> dict[str, Float[Tensor, ""]]:
        """Of whole texts and images. Padding and the first word are not predicted."""
        logits, sequence, t = output.token_logits, output.sequence, self.config.max_length
        padding = (sequence >= self.config.vocab_size) & (sequence < self.config.first_code)
        target = sequence.masked_fill(padding, IGNORED)
        return {
            "words": self.config.word_weight * masked_cross_entropy(logits[:, : t - 1], target[:, 1:t]),
            "codes": self.config.code_weight * masked_cross_entropy(logits[:, t - 1 :], target[:, t:]),
        }
