"""CM3: a causal model of words and codes that fills gaps as well, because spans move to the end of what it reads.

Paper: Aghajanyan et al. 2022, "CM3: A Causal Masked Multimodal Model of the Internet". Official code:
https://github.com/facebookresearch/metaseq, ``cm3_dataset``.

Deviations: a document is a caption and one image, not a page of the web with its markup. Spans are at most three and
may be none, as in the official code; in the paper they are one to sixteen. An end follows each span, as in the official
code. The codec is our VQ-VAE, in the paper a VQGAN that makes 256 codes of an image. ``tiny`` and ``base`` are ours.
Not compared with released code: its codec and its texts are others; what it moves is compared with the published rule.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import pad_left
from mmlearn.generation.decoding import greedy
from mmlearn.layers import TransformerConfig, real_tokens_first
from mmlearn.models.image_tokens.autoencoder import check_codes
from mmlearn.models.image_tokens.codecs import VQVAE, VQVAEConfig
from mmlearn.models.image_tokens.token_model import CodecLanguageModel, check_words
from mmlearn.objectives.causal_masked import causal_masked_modelling, move_spans, token_spans

SPANS = 3  # of a document, at most


@dataclass(frozen=True)
class CM3Config(TransformerConfig):
    codec: VQVAEConfig = VQVAEConfig(image_size=256, halvings=3, num_codes=1024)
    vocab_size: int = 50_261  # of words
    max_length: int = 256  # of a text
    start_token: int = 0  # of a text
    end_token: int = 2
    spans: int = SPANS  # of a document, at most
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(codec=VQVAEConfig.tiny(), vocab_size=512, max_length=32, start_token=1, end_token=2)
        | dict(width=64, depth=3, num_heads=4, dropout=0.0),
        "base": dict(),
    }

    @property
    def sentinels(self) -> range:
        """The tokens that stand for spans: after words and codes."""
        first = self.vocab_size + self.codec.num_codes
        return range(first, first + self.spans)

    @property
    def span_end(self) -> int:
        """The token after a span that was moved."""
        return self.sentinels.stop

    @property
    def all_tokens(self) -> int:
        """Words, codes, sentinels and the end of a span."""
        return self.span_end + 1

    @property
    def max_document(self) -> int:
        """Tokens of a document with all its spans."""
        return self.max_length + self.codec.side**2 + 3 * self.spans


class CM3Output(NamedTuple):
    token_logits: Float[Tensor, "b n v"]  # at position i: of the token after token i
    moved: Int[Tensor, "b n"]  # documents with their spans at the end
    moved_mask: Bool[Tensor, "b n"]


class CM3(CodecLanguageModel):
    r"""A caption and the codes of its image are one document, some spans of which move to its end.

    .. math:: \prod_i p(s_i \mid s_{<i}), \quad s = \mathrm{move}([y_1, \dots, y_t, k_1, \dots, k_P])

    It :meth:`draw`\ s an image for a caption, :meth:`infill`\ s part of one, and writes its :meth:`caption`, each as
    the next tokens of a document. Texts begin with the start token; padding may be anywhere. Raises ``ValueError``
    for words, codes, images and spans that do not fit. Source: sections 2 and 3.
    """

    def __init__(self, config: CM3Config, codec: nn.Module | None = None):
        super().__init__(config, VQVAE(config.codec) if codec is None else codec)
        self.positions = nn.Parameter(torch.randn(config.max_document, config.width) * 0.02)

    def document(
        self, codes: Int[Tensor, "b p"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None
    ) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b"]]:
        """The words of each row and, right after them, its codes; and their number. Padded at the right."""
        check_words(tokens, self.config.vocab_size, self.config.max_length)
        check_codes(codes, self.codec.config)
        document = torch.cat([tokens, self.config.vocab_size + codes], 1)  # (b, t + p)
        real = torch.ones_like(document, dtype=torch.bool)
        if mask is not None:
            real[:, : tokens.shape[1]] = mask
        return document.gather(1, real_tokens_first(real)), real.sum(1)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        shares: Float[Tensor, "b m 2"] | None = None,
    ) -> CM3Output:
        return self.read(self.codec.encode(image), tokens, mask, shares)

    def read(
        self,
        codes: Int[Tensor, "b p"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        shares: Float[Tensor, "b m 2"] | None = None,
    ) -> CM3Output:
        """As :meth:`forward`, where codes are known."""
        document, length = self.document(codes, tokens, mask)
        shares = torch.zeros(len(tokens), 0, 2, device=tokens.device) if shares is None else shares
        if shares.shape[1] > self.config.spans:
            raise ValueError(f"{shares.shape[1]} spans are more than the {self.config.spans} sentinels: set spans.")
        sentinel, end = self.config.sentinels.start, self.config.span_end
        moved, real = move_spans(document, length, token_spans(shares, length), sentinel, end)
        return CM3Output(self.decoder(moved, self.positions[: moved.shape[1]], real), moved, real)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The cross-entropy of every token but the first and the sentinels. Source: section 2."""
        return self.losses(self(batch["image"], batch["tokens"], batch.get("mask"), batch.get("shares")))

    def losses(self, output: CM3Output) -> dict[str, Float[Tensor, ""]]:
        """Of these documents."""
        return {"cm": causal_masked_modelling(*output, self.config.sentinels)}

    @torch.no_grad()
    def draw(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
    ) -> Int[Tensor, "b p"]:
        """The codes of an image for each caption, as the continuation of the document."""
        return self._codes(self._texts(tokens, mask), self.config.codec.side**2, decode)

    @torch.no_grad()
    def infill(
        self,
        codes: Int[Tensor, "b p"],
        hidden: range,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        decode: Callable[..., Tensor] = greedy,
    ) -> Int[Tensor, "b p"]:
        """The codes with the ``hidden`` positions written anew, given the caption and all others.

        Raises ``ValueError`` for positions that an image does not have.
        """
        check_codes(codes, self.codec.config)
        if not 0 <= hidden.start < hidden.stop <= codes.shape[1] or hidden.step != 1:
            raise ValueError(f"hidden is a range of positions within {codes.shape[1]}, not {hidden}.")
        gap = codes.new_tensor([self.config.sentinels.start])  # in the document, and again before its span
        before, after = (self.config.vocab_size + part for part in (codes[:, : hidden.start], codes[:, hidden.stop :]))
        texts = self._texts(tokens, mask)
        starts = [torch.cat([text, left, gap, right, gap]) for text, left, right in zip(texts, before, after)]
        written = self._codes(starts, len(hidden), decode)
        return torch.cat([codes[:, : hidden.start], written, codes[:, hidden.stop :]], 1)

    @torch.no_grad()
    def caption(
        self, codes: Int[Tensor, "b p"], decode: Callable[..., Tensor] = greedy, *, max_length: int = 20
    ) -> Int[Tensor, "b t"]:
        """The caption of images, from the start token to the end token: the gap before the codes, filled.

        They are at most ``max_length``, and no more than a text may have here.
        """
        check_codes(codes, self.codec.config)
        gap, first = (codes.new_tensor([token]) for token in (self.config.sentinels.start, self.config.start_token))
        starts = [torch.cat([first, gap, self.config.vocab_size + row, gap]) for row in codes]
        count = min(max_length, self.config.max_length) - 1
        written = self._write(starts, range(self.config.vocab_size), count, decode, self.config.end_token)
        return torch.cat([first.expand(len(codes), 1), written], 1)

    def _texts(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None) -> list[Int[Tensor, "_"]]:
        check_words(tokens, self.config.vocab_size, self.config.max_length)
        return list(tokens) if mask is None else [text[real] for text, real in zip(tokens, mask)]

    def _codes(
        self, starts: list[Int[Tensor, "_"]], count: int, decode: Callable[..., Tensor]
    ) -> Int[Tensor, "b count"]:
        first = self.config.vocab_size
        return self._write(starts, range(first, self.config.sentinels.start), count, decode) - first

    def _write(
        self,
        starts: list[Int[Tensor, "_"]],
        allowed: range,
        count: int,
        decode: Callable[..., Tensor],
        end_token: int | None = None,
    ) -> Int[Tensor, "b written"]:
        tokens, mask = (part.to(self.positions.device) for part in pad_left(starts))
        return self.decoder.continue_sequence(tokens, mask, self.positions, allowed, count, decode, end_token)


def predicted_tokens(config: CM3Config, output: CM3Output) -> tuple[Float[Tensor, "n v"], Int[Tensor, "n"]]:
    """Logits of every real token but the first, and the token itself."""
    predicted = output.moved_mask[:, 1:]  # (b, n - 1)
    return output.token_logits[:, :-1][predicted], output.moved[:, 1:][predicted]
