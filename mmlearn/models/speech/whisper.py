r"""Whisper: an encoder hears 30 seconds of sound, and a decoder writes the text that was found beside them.

Paper: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision".
Official code: https://github.com/openai/whisper.

wav2vec 2.0 and HuBERT learn from sounds alone, and then read letters off their frames by CTC, from a few hours of texts
that were written down with care. Whisper is what came after: 680,000 hours of sounds whose texts stood beside them on
the web, and nothing but the next token to be learned.

=================  ==========================================  =================================================
\                  wav2vec 2.0 with CTC                        Whisper
=================  ==========================================  =================================================
supervision        none, then little and exact                 much and weak: texts as they are found
sound              a waveform of any length, 50 frames a       a log-mel of exactly 30 s, silence behind the end,
                   second                                      50 frames a second after its convolutions
text given sound   :math:`\sum_\pi \prod_s p(\pi_s \mid x)`:   :math:`\prod_i p(y_i \mid y_{<i}, x)`: each token
                   over all paths π that read y; frames        sees those before it, so the decoder is a language
                   say their letter independently              model too, and may write what nobody said
order              what is said first is written first         any: a translation is written in its own order
tasks              one model for each                          tokens of a prompt: language, translate, times
=================  ==========================================  =================================================

A text begins with a prompt (:mod:`mmlearn.models.speech.whisper_prompt`), which is learned as the rest is:
``<|startoftranscript|> <|fr|> <|transcribe|> <|notimestamps|> Le chat dort. <|endoftext|>``.

Deviations: the text before the window (``<|startofprev|>``) is no part of a prompt here, and nothing of a sound is
hidden in training (large-v2 does that). Writing leaves out what the official code adds for sounds of more than 30 s: to
go on at the last time written, and to try again at a higher temperature. Where times are written they follow its
grammar (:func:`mmlearn.generation.constrained.timestamped`), but not its rule that a time is written wherever all times
together are likelier than each word. Weights start as :class:`~mmlearn.layers.Transformer` starts them. There is one
``dropout``, and none between the two layers of an MLP. ``tiny`` is ours; published models keep their whole name.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, cached
from mmlearn.generation.constrained import timestamped
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Attention, TextEmbedding, Transformer, TransformerConfig
from mmlearn.models.audio.checks import real_frames
from mmlearn.models.speech.whisper_prompt import LANGUAGES, SpecialTokens
from mmlearn.objectives import causal_language_modelling

BEFORE_V3 = tuple(LANGUAGES)[:99]
ENGLISH = dict(vocab_size=51_864, pad_token=50_256, start_token=50_257, end_token=50_256, multilingual=False)
LARGE = dict(width=1280, depth=32, num_heads=20)


@dataclass(frozen=True)
class WhisperConfig(TransformerConfig):
    mels: int = 80  # bands of the log-mel
    frames: int = 3000  # of the log-mel, 100 a second: 30 s
    vocab_size: int = 51_865  # texts, and behind them the special tokens
    max_length: int = 448  # tokens of a text with its prompt
    pad_token: int = 50_257  # the end token; its vector does not learn by being looked up
    start_token: int = 50_258
    end_token: int = 50_257
    languages: tuple[str, ...] = BEFORE_V3
    multilingual: bool = True  # False: English alone; it has tokens of languages, and no prompt with them
    width: int = 512
    depth: int = 6
    decoder_depth: int | None = None  # as many
    num_heads: int = 8

    PRESETS = {
        "tiny": dict(mels=40, frames=1024, vocab_size=1024, max_length=40, pad_token=0, start_token=1, end_token=2)
        | dict(languages=("en", "bg", "ca", "es", "fr", "ro", "ru"), width=64, depth=2, num_heads=2),
        "whisper-tiny": dict(width=384, depth=4, num_heads=6),
        "whisper-tiny.en": dict(width=384, depth=4, num_heads=6) | ENGLISH,
        "whisper-base": dict(),
        "whisper-base.en": ENGLISH,
        "whisper-small": dict(width=768, depth=12, num_heads=12),
        "whisper-small.en": dict(width=768, depth=12, num_heads=12) | ENGLISH,
        "whisper-medium": dict(width=1024, depth=24, num_heads=16),
        "whisper-medium.en": dict(width=1024, depth=24, num_heads=16) | ENGLISH,
        "whisper-large-v2": LARGE,
        "whisper-large-v3": LARGE | dict(mels=128, vocab_size=51_866, languages=tuple(LANGUAGES)),
    }

    @property
    def special(self) -> SpecialTokens:
        """The tokens of languages, tasks and times: one time for each frame of the encoder, and one for the end."""
        return SpecialTokens(self.vocab_size, self.languages, self.frames // 2 + 1, self.multilingual)


class WhisperOutput(NamedTuple):
    frames: Float[Tensor, "b s d"]  # of the encoder, 50 a second
    token_logits: Float[Tensor, "b t v"]  # at position i: what follows token i


def encoder_positions(length: int, width: int) -> Float[Tensor, "length width"]:
    r"""The positions of the encoder's frames, which do not learn: sines in the first half, cosines in the second.

    .. math:: PE_{s,i} = \sin(s\, \omega_i), \quad PE_{s,\, i + d/2} = \cos(s\, \omega_i), \quad
       \omega_i = 10000^{-i / (d/2 - 1)}, \; i < d/2

    From 1 to 1/10,000 exactly, where :func:`~mmlearn.layers.sinusoidal_positions` divides by d/2. Raises ``ValueError``
    for a width that is odd or below 4. Source: official code, ``sinusoids``.
    """
    if width % 2 or width < 4:
        raise ValueError(f"Sines and cosines come in pairs, from two of them on: width is even, not {width}.")
    rate = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    angle = torch.arange(length)[:, None] * rate  # (length, d/2)
    return torch.cat([angle.sin(), angle.cos()], 1)


def drop_key_biases(module: nn.Module) -> None:
    r"""Take the bias out of each layer of keys, because it does nothing.

    It adds :math:`q^\top b / \sqrt k` to all scores of a query alike, which softmax does not see.
    Source: official code.
    """
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.key.register_parameter("bias", None)


class WhisperEncoder(nn.Module):
    r"""Two convolutions, of which the second halves the number of frames, positions, and pre-norm blocks.

    .. math:: z_0 = \phi(W_2 *_2 \phi(W_1 * m)) + PE, \quad h = \mathrm{LN}(\mathrm{blocks}(z_0))

    with φ = GELU, kernels of three frames, and a stride of 1 and of 2. There is no mask: silence is heard as well.
    Source: section 2.2 and figure 1.
    """

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.convolution_1 = nn.Conv1d(config.mels, config.width, kernel_size=3, padding=1)
        self.convolution_2 = nn.Conv1d(config.width, config.width, kernel_size=3, stride=2, padding=1)
        # Kept in files, because published ones have it, rounded.
        self.register_buffer("positions", encoder_positions(config.frames // 2, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, mel: Float[Tensor, "b mels frames"]) -> Float[Tensor, "b s d"]:
        x = F.gelu(self.convolution_1(mel))  # (b, d, frames)
        x = F.gelu(self.convolution_2(x)).mT  # (b, s, d), of half as many frames
        return self.norm(self.transformer(self.dropout(x + self.positions)))


class WhisperDecoder(nn.Module):
    r"""Tokens with learned positions go through causal blocks, each of which attends to all frames as well.

    .. math:: p(y_{i+1} \mid y_{\le i}, x) = \mathrm{softmax}(E\, \mathrm{LN}(\mathrm{blocks}(E_{y} + P,\, h))_i)

    The token table E is the language head, too. Source: section 2.2 and figure 1.
    """

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.embedding = TextEmbedding(config.vocab_size, config.width, config.max_length)
        self.embedding.tokens.padding_idx = config.pad_token
        self.dropout = nn.Dropout(config.dropout)
        depth = config.depth if config.decoder_depth is None else config.decoder_depth
        self.transformer = Transformer(replace(config, depth=depth), context_width=config.width)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(
        self,
        tokens: Int[Tensor, "b q"],
        context: Float[Tensor, "b s_or_0 d"],
        position: Int[Tensor, "b q"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of what follows each token. While a cache is on, ``context`` is empty after the first step."""
        x = self.dropout(self.embedding(tokens, position))  # (b, q, d)
        x = self.norm(self.transformer(x, mask, causal=True, context=context))
        return F.linear(x, self.embedding.tokens.weight)  # (b, q, v)


class Whisper(nn.Module):
    """An encoder of log-mels, and a decoder that writes texts of them, each of which begins with a prompt.

    ``mel`` (b, mels, frames) has exactly ``frames`` of the configuration
    (:func:`mmlearn.data.mel.whisper_log_mel` makes it, silence behind the end of the sound); ``mask`` is True where a
    token is real, and texts are padded at their right. Raises ``ValueError`` for a log-mel of another size, and for
    more tokens than ``max_length``. Source: section 2.
    """

    def __init__(self, config: WhisperConfig):
        super().__init__()
        self.config = config
        self.encoder = WhisperEncoder(config)
        self.decoder = WhisperDecoder(config)
        drop_key_biases(self)

    def encode_audio(self, mel: Float[Tensor, "b mels frames"]) -> Float[Tensor, "b s d"]:
        config = self.config
        real_frames(mel, None, config.mels, config.frames)
        if mel.shape[2] < config.frames:
            raise ValueError(
                f"{mel.shape[2]} frames are fewer than the {config.frames} that this model hears: put silence behind "
                "the sound before its log-mel is made, as whisper_log_mel(…, frames) does."
            )
        return self.encoder(mel)

    def forward(
        self, mel: Float[Tensor, "b mels frames"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> WhisperOutput:
        frames = self.encode_audio(mel)  # (b, s, d)
        return WhisperOutput(frames, self.decoder(tokens, frames, mask=mask))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""Cross-entropy of every real token but the first, those of the prompt among them.

        .. math:: \ell = -\frac{1}{|m|} \sum_{i > 1} \log p(y_i \mid y_{<i}, x)

        ``batch["tokens"]`` (b, t) begins with the start token and the prompt. ``ValueError`` without a sound.
        Source: section 2.3.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one sound with its text.")
        tokens, mask = batch["tokens"], batch.get("mask")
        logits = self(batch["mel"], tokens, mask).token_logits
        return {"transcription": causal_language_modelling(logits, tokens, mask)}

    @torch.no_grad()
    def detect_language(self, frames: Float[Tensor, "b s d"]) -> Float[Tensor, "b languages"]:
        """How likely each language of the configuration is, given the encoder's frames: what follows the start token.

        ``ValueError`` for a model of English alone. Source: section 2.3.
        """
        special = self.config.special
        if not special.multilingual:
            raise ValueError("This Whisper hears English alone, so it cannot tell languages apart.")
        start = torch.full((len(frames), 1), self.config.start_token, device=frames.device)
        logits = self.decoder(start, frames)[:, 0]  # (b, v)
        return logits[:, special.first : special.first + len(special.languages)].softmax(-1)

    def prompts(
        self, frames: Float[Tensor, "b s d"], language: str | Sequence[str] | None, task: str, times: bool
    ) -> Int[Tensor, "b prompt"]:
        """The start token and the prompt of each sound, whose language is given, or found where it is not."""
        special, b = self.config.special, len(frames)
        if language is None and special.multilingual:
            language = [special.languages[i] for i in self.detect_language(frames).argmax(-1).tolist()]
        spoken = [language] * b if language is None or isinstance(language, str) else list(language)
        if len(spoken) != b:
            raise ValueError(f"There is one language for all sounds, or one for each of {b}; got {len(spoken)}.")
        rows = [[self.config.start_token, *special.prompt(one, task, times)] for one in spoken]
        return torch.tensor(rows, dtype=torch.long, device=frames.device).view(b, -1 if b else 1)

    @torch.no_grad()
    def generate(
        self,
        mel: Float[Tensor, "b mels frames"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        language: str | Sequence[str] | None = None,
        task: str = "transcribe",
        times: bool = False,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """What is said, as up to ``max_length`` tokens with the end token, and without the prompt.

        ``language`` is a code or a name, one for all sounds or one for each; without it the likeliest is taken. With
        the ``task`` "translate" the text is English. With ``times`` tokens of times stand before and behind each phrase
        (:class:`~mmlearn.models.speech.whisper_prompt.SpecialTokens`). Raises ``ValueError`` for a language or a task
        that there is not, or that is asked of a model of English alone.
        """
        config = self.config
        frames = self.encode_audio(mel)  # once, for all steps
        start = self.prompts(frames, language, task, times)
        if times:
            special = (config.pad_token, config.start_token, config.end_token)
            text = [token for token in range(config.special.first) if token not in special]
            times_of_clip = range(config.special.first_time, config.vocab_size)
            decode = partial(decode, allowed=timestamped(text, times_of_clip, config.end_token))

        def read(step: DecodingStep) -> Float[Tensor, "n v"]:
            # Keys and values of the frames are made in the first step alone.
            return self.decoder(step.tokens, step.context(frames), step.position)[:, -1]

        ids = dict(end_token=config.end_token, pad_token=config.pad_token)
        longest = min(max_length + start.shape[1], config.max_length)
        with cached(self, read, torch.ones_like(start, dtype=torch.bool)) as next_logits:
            return decode(next_logits, start, max_length=longest, **ids)[:, start.shape[1] :]
