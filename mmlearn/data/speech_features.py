"""What systems of speech are given: waveforms on one scale, and the cepstra that HuBERT clusters first."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def standardise(
    waveform: Float[Tensor, "b samples"], waveform_mask: Bool[Tensor, "b samples"] | None = None
) -> Float[Tensor, "b samples"]:
    r"""Each clip at mean 0 and variance 1, as most published checkpoints want it.

    .. math:: (x - \mu) / \sqrt{\sigma^2 + 10^{-7}}

    Padding does not count, and is 0. Source: Baevski et al. 2020 (wav2vec 2.0), section 2.
    """
    real = torch.ones_like(waveform, dtype=torch.bool) if waveform_mask is None else waveform_mask
    samples = real.sum(1, keepdim=True).clamp(min=1)
    centred = (waveform - (waveform * real).sum(1, keepdim=True) / samples) * real
    return centred / (centred.square().sum(1, keepdim=True) / samples + 1e-7).sqrt()


def mfcc(waveform: Float[Tensor, "samples"]) -> Float[Tensor, "s 39"]:
    """13 cepstral coefficients of a clip, with their first and second differences in time: 50 frames a second.

    They are made every 10 ms of 25 ms, by torchaudio as Kaldi makes them, and every second one is kept, because the
    published strides have one frame in 20 ms. Raises ``ValueError`` for a clip shorter than 25 ms.
    Source: Hsu et al. 2021 (HuBERT), section IV-B, and official code.
    """
    if len(waveform) < 400:
        raise ValueError(f"Cepstral coefficients need 400 samples (25 ms), and this clip has {len(waveform)}.")
    import torchaudio

    still = torchaudio.compliance.kaldi.mfcc(waveform[None], sample_frequency=16_000, use_energy=False).T
    change = torchaudio.functional.compute_deltas(still)
    return torch.cat([still, change, torchaudio.functional.compute_deltas(change)])[:, ::2].T
