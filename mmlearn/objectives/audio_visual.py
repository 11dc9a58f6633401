"""Sound and pictures of speech together: what a clip keeps of both, and which cluster a hidden frame belongs to."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import IGNORED, uniform
from mmlearn.objectives.speech import masked_cluster


def modality_dropout(
    real: Bool[Tensor, "b f"], *, generator: torch.Generator, both: float = 0.5, audio: float = 0.5
) -> tuple[Bool[Tensor, "b"], Bool[Tensor, "b"]]:
    r"""Which clips keep their sound, and which their pictures: both with p_m, else the sound alone with p_a.

    .. math:: P(\text{both}) = p_m, \quad P(\text{sound alone}) = (1 - p_m)\, p_a, \quad
       P(\text{pictures alone}) = (1 - p_m)(1 - p_a)

    Each clip is drawn by itself, and none loses both. With ``both`` = 1 nothing is dropped. Raises ``ValueError`` for
    probabilities outside 0 to 1. Source: Shi et al. 2022 (AV-HuBERT), equation 2; Ngiam et al. 2011 for the idea.
    """
    if not (0 <= both <= 1 and 0 <= audio <= 1):
        raise ValueError(f"Probabilities are from 0 to 1; got {both} for both and {audio} for the sound alone.")
    chance = uniform((2, len(real)), generator, real.device)
    keeps_both, keeps_audio = chance[0] < both, chance[1] < audio
    return keeps_both | keeps_audio, keeps_both | ~keeps_audio


def masked_multimodal_cluster(
    logits: Float[Tensor, "b f c"],
    cluster: Int[Tensor, "b f"],
    audio_masked: Bool[Tensor, "b f"],
    video_masked: Bool[Tensor, "b f"],
    real: Bool[Tensor, "b f"],
) -> Float[Tensor, ""]:
    r"""Which cluster was at each frame whose sound is hidden, or whose picture is, or both.

    .. math:: \mathcal{L} = -\frac{1}{|m^a \cup m^v|} \sum_{t \in m^a \cup m^v} \log \mathrm{softmax}(z_t)_{k_t}

    Frames that are not ``real`` count nowhere, whatever their cluster. Logits that know nothing give ln c; with no
    hidden frame it is 0, not NaN. Source: Shi et al. 2022 (AV-HuBERT), equation 4 with α = 0.
    """
    return masked_cluster(logits, cluster.masked_fill(~real, IGNORED), audio_masked | video_masked)
