"""CLAP: a sound and a text in one space, trained by contrast.

Paper: Wu et al. 2023, "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and Keyword-to-Caption
Augmentation"; the audio tower is HTS-AT (Chen et al. 2022). Official code: https://github.com/LAION-AI/CLAP.

Deviations: ``tiny`` is ours. Feature fusion, for clips that are longer than the tower, is not built: such clips and
fused checkpoints are refused. A clip of any length is stretched to the length of the tower; the official data first
repeat a short waveform up to ten seconds. HTS-AT's classifier and stochastic depth are left out. Each direction of the
loss has its own scale, as in published weights; the official code has one for both, unless it trains more projections.
The loss is the paper's, of both directions. Transformers' ``return_loss`` transposes the logits of sounds once more, so
it retrieves the sound of each text twice, and the text of no sound. Weights start at random, where the paper starts
from RoBERTa. Positions of tokens count from the beginning of the row, so texts must be padded at their end.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Config, Transformer, patchify
from mmlearn.layers.language import TINY_BERT, initialise_as_bert, pooler
from mmlearn.models.audio.checks import real_frames
from mmlearn.models.audio.mel import MelNorm
from mmlearn.models.audio.swin import Swin, SwinConfig
from mmlearn.objectives import gather, gathered_positives, logits_both_ways, own_rows, pair_cross_entropy


@dataclass(frozen=True)
class HTSATConfig(SwinConfig):
    width: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (4, 8, 16, 32)
    window: int = 8
    dropout: float = 0.1
    mels: int = 64
    pieces: int = 4  # segments of time, stacked along frequency to make the log-mel a square image
    patch_size: int = 4  # mels, and frames

    @property
    def frames(self) -> int:
        """The most frames that a clip may have; a shorter one is stretched to this number."""
        return self.mels * self.pieces**2


TINY_AUDIO = HTSATConfig(24, (2, 2), (2, 4), window=4, dropout=0.0, pieces=2, patch_size=8)
TINY_TEXT = BERTEncoderConfig(**TINY_BERT | dict(depth=1, num_heads=2, token_types=1, first_position=1))


@dataclass(frozen=True)
class CLAPConfig(Config):
    audio: HTSATConfig = HTSATConfig()
    # RoBERTa's
    text: BERTEncoderConfig = BERTEncoderConfig(vocab_size=50_265, first_position=2, token_types=1, pad_token=1)
    embedding_width: int = 512
    temperature: float = 0.07  # at the start; the model learns its own

    PRESETS = {"tiny": dict(audio=TINY_AUDIO, text=TINY_TEXT, embedding_width=128), "htsat-unfused": dict()}


class CLAPOutput(NamedTuple):
    audio_embedding: Float[Tensor, "b d"]  # unit length
    text_embedding: Float[Tensor, "b d"]  # unit length
    audio_logit_scale: Float[Tensor, ""]  # 1/τ of sounds against texts, already exponentiated
    text_logit_scale: Float[Tensor, ""]  # 1/τ of texts against sounds


class HTSAT(nn.Module):
    r"""HTS-AT: log-mel → a square image → patches → Swin → norm.

    Bands are normalised over the batch, and each clip is stretched to ``frames``. Its ``pieces`` of time, one below the
    other, are the image, so that a window holds neighbours in time and frequency. Returns (b, bands, times, d), both
    axes in order. ``mel_mask`` (b, s) is True from the first frame of a sound to its last. Raises
    ``ValueError`` as :func:`~mmlearn.models.audio.checks.real_frames` and :class:`~mmlearn.models.audio.swin.Swin` do.
    Source: Chen et al. 2022, section 2.1 and figure 1, and the official code.
    """

    def __init__(self, config: HTSATConfig):
        super().__init__()
        self.config = config
        size = config.patch_size
        if config.mels % size:
            raise ValueError(f"{config.mels} mels are no multiple of the patch size {size}; change one of them.")
        self.mel_norm = MelNorm(config.mels, config.frames)
        self.patches = nn.Linear(size**2, config.width)
        self.patch_norm = nn.LayerNorm(config.width)
        self.side = config.mels * config.pieces // size  # patches on each side of the image
        self.swin = Swin(config, (self.side, self.side))
        self.width = config.width * 2 ** (len(config.depths) - 1)
        self.norm = nn.LayerNorm(self.width)

    def forward(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b bands times d"]:
        x = self.mel_norm(mel, real_frames(mel, mel_mask, self.config.mels, self.config.frames))  # (b, mels, frames)
        image = rearrange(x, "b mel (piece s) -> b 1 (piece mel) s", piece=self.config.pieces)
        x = self.patch_norm(self.patches(patchify(image, self.config.patch_size)))  # (b, row column, d)
        x = self.norm(self.swin(rearrange(x, "b (row column) d -> b row column d", row=self.side)))
        # Undo the stacking, so that time is one axis again.
        return rearrange(x, "b (piece band) s d -> b band (piece s) d", piece=self.config.pieces)


class RoBERTa(nn.Module):
    """RoBERTa, read at its first token: embedding → post-norm transformer → tanh of a linear layer. Returns (b, d).

    Source: Liu et al. 2019 (RoBERTa), section 2; Devlin et al. 2019 (BERT) for the pooler.
    """

    def __init__(self, config: BERTEncoderConfig):
        super().__init__()
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config)
        self.pooler = pooler(config.width)
        for part in (self.embedding, self.pooler):
            part.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return self.pooler(self.transformer.read(self.embedding(tokens, mask=mask), 0, mask))


def projection(width: int, embedding_width: int) -> nn.Sequential:
    """Two linear layers with a ReLU between them, into the shared space. Source: section 3.1."""
    return nn.Sequential(nn.Linear(width, embedding_width), nn.ReLU(), nn.Linear(embedding_width, embedding_width))


class CLAP(nn.Module):
    r"""A Swin over the log-mel and a RoBERTa, each projected by two layers and normalised.

    .. math:: E^a = \mathrm{MLP}_\mathrm{audio}(f_\mathrm{audio}(X^a)), \quad
       E^t = \mathrm{MLP}_\mathrm{text}(f_\mathrm{text}(X^t))

    ``mel_mask`` is True where a frame is real, ``mask`` where a token is. Errors are those of :class:`HTSAT` and of
    :class:`~mmlearn.layers.TextEmbedding`. Source: section 3.1, equations 1 and 2.
    """

    def __init__(self, config: CLAPConfig):
        super().__init__()
        self.config = config
        self.audio_encoder = HTSAT(config.audio)
        self.text_encoder = RoBERTa(config.text)
        self.audio_projection = projection(self.audio_encoder.width, config.embedding_width)
        self.text_projection = projection(config.text.width, config.embedding_width)
        self.audio_logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))  # ln(1/τ)
        self.text_logit_scale = nn.Parameter(torch.tensor(math.log(1 / config.temperature)))

    def encode_audio(
        self, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"] | None = None
    ) -> Float[Tensor, "b d"]:
        pooled = self.audio_encoder(mel, mel_mask).mean((1, 2))  # (b, d)
        return F.normalize(self.audio_projection(pooled), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        return F.normalize(self.text_projection(self.text_encoder(tokens, mask)), dim=-1)

    def forward(
        self,
        mel: Float[Tensor, "b mels s"],
        tokens: Int[Tensor, "b t"],
        mel_mask: Bool[Tensor, "b s"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> CLAPOutput:
        audio, text = self.encode_audio(mel, mel_mask), self.encode_text(tokens, mask)
        return CLAPOutput(audio, text, self.audio_logit_scale.exp(), self.text_logit_scale.exp())

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""``atc``: each sound is matched with its text over the batch of all processes, and each text with its sound.

        .. math:: L = -\frac{1}{2N} \sum_i \left[\log \mathrm{softmax}_j (s_a\, E^a_i \cdot E^t_j)\big|_{j=i}
           + \log \mathrm{softmax}_j (s_t\, E^t_i \cdot E^a_j)\big|_{j=i}\right]

        With ``caption_id`` in the batch, repeated captions all count. Raises ``ValueError`` without ``mel`` or
        ``tokens``, and where they are not as many, or none. Source: section 2.1, equation 3.
        """
        if missing := [name for name in ("mel", "tokens") if name not in batch]:
            raise ValueError(f"Nothing to learn: CLAP needs mel and tokens, and the batch has no {missing[0]}.")
        sounds, texts = len(batch["mel"]), len(batch["tokens"])
        if not 1 <= sounds == texts:
            raise ValueError(f"Pairs are of a sound and a text, at least one: got {sounds} sounds and {texts} texts.")
        output = self(batch["mel"], batch["tokens"], batch.get("mel_mask"), batch.get("mask"))
        audio, text = gather(output.audio_embedding), gather(output.text_embedding)
        rows = own_rows(output.audio_embedding)
        audio_to_text, text_to_audio = logits_both_ways(audio, text, rows)
        logits = output.audio_logit_scale * audio_to_text, output.text_logit_scale * text_to_audio
        return {"atc": pair_cross_entropy(*logits, gathered_positives(batch.get("caption_id")), rows)}

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep logits at most a hundredfold cosine, and at least the cosine, as the official code does."""
        self.audio_logit_scale.clamp_(0, math.log(100))
        self.text_logit_scale.clamp_(0, math.log(100))
