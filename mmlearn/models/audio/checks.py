"""Checks of waveforms and log-mels before a system reads them, and which part of them is real."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def check_clips(batch: dict[str, Tensor]) -> tuple[Float[Tensor, "b samples"], Bool[Tensor, "b samples"] | None]:
    """The ``waveform`` and ``waveform_mask`` of a batch. ``ValueError`` without the first, or for an empty batch."""
    if "waveform" not in batch:
        found = ", ".join(batch) or "nothing"
        raise ValueError(f"A batch of speech holds waveform (b, samples); this one has {found}.")
    if not len(batch["waveform"]):
        raise ValueError("A batch holds at least one clip.")
    return batch["waveform"], batch.get("waveform_mask")


def real_samples(
    waveform: Float[Tensor, "..."], waveform_mask: Bool[Tensor, "..."] | None
) -> Bool[Tensor, "b samples"]:
    """Which samples of a waveform are real: ``waveform_mask``, or all of them where there is no mask.

    Raises ``ValueError`` for a waveform that is not float (b, samples), and for a mask that is not boolean of the same
    shape.
    """
    if waveform.ndim != 2 or not waveform.is_floating_point():
        raise ValueError(f"A waveform is a float tensor (b, samples); got {waveform.dtype} {tuple(waveform.shape)}.")
    return _check_mask("waveform_mask is boolean (b, samples) like the waveform", waveform, waveform_mask)


def real_frames(
    mel: Float[Tensor, "..."], mel_mask: Bool[Tensor, "..."] | None, mels: int, frames: int | None = None
) -> Bool[Tensor, "b s"]:
    """Which frames of a log-mel are real: ``mel_mask``, or all of them where there is no mask.

    Raises ``ValueError`` for a log-mel that is not float (b, mels, s), for one without a frame or with more than
    ``frames``, and for a mask that is not boolean (b, s).
    """
    if mel.ndim != 3 or mel.shape[1] != mels or not mel.is_floating_point():
        raise ValueError(f"A log-mel is a float tensor (b, {mels}, s); got {mel.dtype} {tuple(mel.shape)}.")
    if not mel.shape[2]:
        raise ValueError("A log-mel has at least one frame; this one has none.")
    if frames is not None and mel.shape[2] > frames:
        raise ValueError(f"{mel.shape[2]} frames are more than the {frames} of this model; cut the sound into pieces.")
    return _check_mask("mel_mask is boolean (b, s) like the log-mel", mel[:, 0], mel_mask)


def _check_mask(rule: str, values: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return torch.ones_like(values, dtype=torch.bool)
    if mask.dtype != torch.bool or mask.shape != values.shape:
        raise ValueError(f"{rule}, {tuple(values.shape)}; got {mask.dtype} {tuple(mask.shape)}.")
    return mask
