r"""MISA: words, voice and face are projected to one shared space, and each to a private space of its own.

Paper: Hazarika et al. 2020, "MISA: Modality-Invariant and -Specific Representations for Multimodal Sentiment Analysis",
ACM Multimedia. Official code: https://github.com/declare-lab/MISA.

Deviations: ``tiny`` is ours. Words have learned embeddings and an LSTM, as sound and video do;
the paper also reads them by BERT. The similarity loss is the CMD; the official code can also train a discriminator. The
difference loss divides by the square of the width, as the code does and the paper does not. Its gradient also goes
through the length of each row, which the code leaves out. The recurrent weights of LSTMs start as PyTorch has them, in
the code orthogonal. A classifier of shared against private parts, which the code builds and gives the weight 0, is
left out. Scores are learned by their squared distance, classes by cross-entropy.
"""

from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Transformer, TransformerConfig, real_tokens_first, select_tokens, small_linear
from mmlearn.models.trimodal.sequences import MODALITIES, TINY, Sequences, read_batch, task_loss
from mmlearn.objectives import central_moment_discrepancy, difference_loss, gather


@dataclass(frozen=True)
class MISAConfig(TransformerConfig):
    """The settings of the transformer are those of the fusion."""

    width: int = 128
    depth: int = 1
    num_heads: int = 2
    mlp_width: int | None = 2048
    activation: str = "relu"
    norm_first: bool = False
    dropout: float = 0.1
    prediction_dropout: float = 0.5  # of the layer before the last
    vocab_size: int = 20_000
    text_width: int = 300  # features of a word, of an audio frame and of a video frame
    audio_width: int = 74
    video_width: int = 47
    audio_pool: int = 1  # frames of sound that are averaged
    lstm_width: int | None = None  # of each direction; None: that of the features, as in the official code
    outputs: int = 1  # classes, or 1: a score
    similarity_weight: float = 1.0  # α
    difference_weight: float = 0.3  # β
    reconstruction_weight: float = 1.0  # γ
    moments: int = 5  # K

    PRESETS = {
        "tiny": TINY
        | dict(text_width=32, audio_pool=8, lstm_width=32, width=64, mlp_width=128, prediction_dropout=0.0),
        "MOSI": dict(),
    }


class MISAOutput(NamedTuple):
    """Three of each, in the order of text, audio, video."""

    logits: Float[Tensor, "b outputs"]
    utterance: Float[Tensor, "b 3 d"]  # u
    shared: Float[Tensor, "b 3 d"]  # h^c
    private: Float[Tensor, "b 3 d"]  # h^p
    reconstruction: Float[Tensor, "b 3 d"]  # û


class BidirectionalLSTM(nn.Module):
    """An LSTM that reads each sequence forwards, and one that reads it backwards.

    The first ``length`` elements of each row are real. Returns the states of both, (b, n, 2 d), and their last states,
    (b, 2 d).
    """

    def __init__(self, features: int, width: int):
        super().__init__()
        self.forward_lstm = nn.LSTM(features, width, batch_first=True)
        self.backward_lstm = nn.LSTM(features, width, batch_first=True)

    def forward(
        self, x: Float[Tensor, "b n features"], length: Int[Tensor, "b"]
    ) -> tuple[Float[Tensor, "b n double"], Float[Tensor, "b double"]]:
        last = length - 1
        # Reverses the real part of a row; applied twice it gives the row again.
        reverse = (last[:, None] - torch.arange(x.shape[1], device=x.device)) % x.shape[1]  # (b, n)
        forwards = self.forward_lstm(x)[0]  # (b, n, d)
        backwards = self.backward_lstm(select_tokens(x, reverse))[0]
        last_states = torch.cat([select_tokens(forwards, last), select_tokens(backwards, last)], dim=-1)
        return torch.cat([forwards, select_tokens(backwards, reverse)], dim=-1), last_states


class UtteranceEncoder(nn.Module):
    r"""Two bidirectional LSTM layers, whose last states become one vector.

    .. math:: u_m = \mathrm{LN}\big(\mathrm{ReLU}(W_m\, \mathrm{sLSTM}(U_m) + b_m)\big)

    Padding is skipped, also inside a sequence; a sequence without a real element reads as a single zero.
    Source: section 3.3.1; the norm between both layers is the official code's.
    """

    def __init__(self, features: int, lstm_width: int, width: int):
        super().__init__()
        self.first = BidirectionalLSTM(features, lstm_width)
        self.norm = nn.LayerNorm(2 * lstm_width)
        self.second = BidirectionalLSTM(2 * lstm_width, lstm_width)
        self.projection = nn.Sequential(nn.Linear(4 * lstm_width, width), nn.ReLU(), nn.LayerNorm(width))

    def forward(self, x: Float[Tensor, "b n features"], mask: Bool[Tensor, "b n"]) -> Float[Tensor, "b d"]:
        x = select_tokens(x, real_tokens_first(mask))  # padding to the end
        length = mask.sum(1).clamp(min=1)
        states, first = self.first(x, length)  # (b, n, 2 lstm_width), (b, 2 lstm_width)
        _, second = self.second(self.norm(states), length)
        return self.projection(torch.cat([first, second], dim=-1))  # (b, d)


class MISA(nn.Module):
    r"""One vector for each modality, divided into a shared and a private part, and a transformer over all six parts.

    .. math:: h_m^c = E_c(u_m), \; h_m^p = E_{p,m}(u_m), \quad \hat u_m = D(h_m^c + h_m^p), \quad
       \hat y = G\big(\mathrm{Transformer}([h_l^c, h_a^c, h_v^c, h_l^p, h_a^p, h_v^p])\big)

    Inputs and errors are those of :class:`~mmlearn.models.trimodal.sequences.Sequences`.
    Source: section 3 and figure 2.
    """

    def __init__(self, config: MISAConfig):
        super().__init__()
        self.config = config
        width = config.width
        widths = {name: getattr(config, f"{name}_width") for name in MODALITIES}
        self.sequences = Sequences(config.vocab_size, widths, config.audio_pool)
        self.utterance = nn.ModuleDict(
            {name: UtteranceEncoder(size, config.lstm_width or size, width) for name, size in widths.items()}
        )
        # A sigmoid, because the CMD of shared parts needs bounds.
        self.shared = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.private = nn.ModuleDict(
            {name: nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for name in MODALITIES}
        )
        self.decoders = nn.ModuleDict({name: nn.Linear(width, width) for name in MODALITIES})
        self.fusion = Transformer(config)
        self.prediction = nn.Sequential(
            nn.Linear(6 * width, 3 * width),
            nn.Dropout(config.prediction_dropout),
            nn.ReLU(),
            small_linear(3 * width, config.outputs),
        )

    def forward(
        self,
        video: Float[Tensor, "b f *frame"],
        mel: Float[Tensor, "b mels s"],
        tokens: Int[Tensor, "b t"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> MISAOutput:
        sequences = self.sequences(video, mel, tokens, video_mask, mel_mask, mask)
        utterance = {name: self.utterance[name](*sequences[name]) for name in MODALITIES}  # each (b, d)
        private = {name: self.private[name](u) for name, u in utterance.items()}
        shared = {name: self.shared(u) for name, u in utterance.items()}
        decoded = {name: self.decoders[name](shared[name] + private[name]) for name in MODALITIES}
        parts = [torch.stack(list(part.values()), dim=1) for part in (utterance, shared, private, decoded)]
        fused = self.fusion(torch.cat(parts[1:3], dim=1))  # (b, 6, d)
        return MISAOutput(self.prediction(fused.flatten(1)), *parts)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        r"""``task``, and with their weights ``similarity``, ``difference`` and ``reconstruction``.

        .. math:: \ell = \ell_\mathrm{task} + \alpha\, \ell_\mathrm{sim} + \beta\, \ell_\mathrm{diff}
           + \gamma\, \ell_\mathrm{recon}

        ``label`` (b,) is a class, or a score where there is one output. Raises ``ValueError`` without a label, for a
        class that does not exist, and for an empty batch. Source: section 3.5 and equations 7 to 12.
        """
        output, config = self(**read_batch(batch, "MISA")), self.config
        shared, private = (
            gather(output.shared).unbind(1),
            gather(output.private).unbind(1),
        )  # what a batch has in common
        pairs = list(combinations(range(3), 2))
        similarity = sum(central_moment_discrepancy(shared[i], shared[j], config.moments) for i, j in pairs) / 3
        # Private parts differ from the shared part of their modality, and from each other.
        difference = sum(difference_loss(*parts) for parts in zip(private, shared))
        difference = difference + sum(difference_loss(private[i], private[j]) for i, j in pairs)
        reconstruction = F.mse_loss(output.reconstruction, output.utterance)
        return {
            "task": task_loss(output.logits, batch["label"], F.mse_loss),
            "similarity": config.similarity_weight * similarity,
            "difference": config.difference_weight * difference,
            "reconstruction": config.reconstruction_weight * reconstruction,
        }
