"""Three sequences, each with its own length and mask: the input layer of systems of words, sound and video frames."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers.embeddings import look_up

MODALITIES = ("text", "audio", "video")
# Sound has 64 log-mel bands; small video frames are read as they are.
TINY: dict[str, Any] = dict(vocab_size=512, audio_width=64, video_width=3 * 16 * 16, dropout=0.0, outputs=4)

Sequence = tuple[Float[Tensor, "b n features"], Bool[Tensor, "b n"]]


class Sequences(nn.Module):
    """Words as learned embeddings, sound frame by frame, and flattened video frames, each with its mask.

    Texts are tokens; sound is (b, features, s) like a log-mel; a frame of a video may have any shape, and is
    flattened. Masks are True where an element is real. ``widths`` are the features of a word, of a frame
    of sound and of a frame of video. Every ``audio_pool`` frames of sound become one, the mean of the real ones; the
    rest at the end becomes one more. Where there is padding, features are zeros. Raises ``ValueError`` for sequences of
    another number of features or without elements, where the three modalities have different numbers of rows, for masks
    of another shape, and, on a CPU, for tokens outside the vocabulary.
    """

    def __init__(self, vocab_size: int, widths: dict[str, int], audio_pool: int = 1):
        super().__init__()
        self.audio_pool = audio_pool
        self.words = nn.Embedding(vocab_size, widths["text"])
        self.widths = widths

    def forward(
        self,
        video: Float[Tensor, "b f *frame"],
        mel: Float[Tensor, "b mels s"],
        tokens: Int[Tensor, "b t"],
        video_mask: Bool[Tensor, "b f"] | None = None,
        mel_mask: Bool[Tensor, "b s"] | None = None,
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> dict[str, Sequence]:
        # Each (b, n, features).
        sequences = {"text": look_up(self.words, tokens), "audio": mel.mT, "video": video.flatten(2)}
        masks = {"text": mask, "audio": mel_mask, "video": video_mask}
        result = {}
        for name, x in sequences.items():
            real = masks[name]
            if real is None:
                real = torch.ones_like(x[..., 0], dtype=torch.bool)
            if len(x) != len(tokens) or not x.shape[1] or x.shape[2] != self.widths[name] or real.shape != x.shape[:2]:
                raise ValueError(
                    f"To {len(tokens)} texts belong as many sequences of {name} with {self.widths[name]} features each "
                    f"and a mask; got {tuple(x.shape)} and {tuple(real.shape)}."
                )
            x = x.masked_fill(~real[..., None], 0)
            result[name] = mean_pool(x, real, self.audio_pool) if name == "audio" else (x, real)
        return result


def mean_pool(
    x: Float[Tensor, "b n features"], mask: Bool[Tensor, "b n"], size: int
) -> tuple[Float[Tensor, "b fewer features"], Bool[Tensor, "b fewer"]]:
    """The mean of the real ones among every ``size`` elements, and whether there are any; else zeros."""
    if size == 1:
        return x, mask
    missing = -x.shape[1] % size
    x, mask = F.pad(x, (0, 0, 0, missing)).unflatten(1, (-1, size)), F.pad(mask, (0, missing)).unflatten(1, (-1, size))
    # (b, fewer, size, features) → (b, fewer, features)
    return (x * mask[..., None]).sum(2) / mask.sum(2).clamp(min=1)[..., None], mask.any(2)


def read_batch(batch: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries of a batch that a system reads; its ``name`` is for errors.

    Raises ``ValueError`` for a batch that lacks one of them or a label, or that is empty.
    """
    if missing := [key for key in ("tokens", "mel", "video", "label") if key not in batch]:
        raise ValueError(f"Nothing to learn: {name} needs {' and '.join(missing)} in the batch as well.")
    if not len(batch["tokens"]):
        raise ValueError("A batch holds at least one text with its sound and video.")
    keys = ("video", "mel", "tokens", "video_mask", "mel_mask", "mask")
    return {key: batch[key] for key in keys if batch.get(key) is not None}


def task_loss(
    logits: Float[Tensor, "b outputs"], label: Tensor, distance: Callable[[Tensor, Tensor], Tensor]
) -> Float[Tensor, ""]:
    """Cross-entropy where labels (b,) are classes, and their ``distance`` to the single output where they are scores.

    Raises ``ValueError`` for scores where there are several outputs and, on a CPU, for a class that does not exist.
    """
    b, outputs = logits.shape
    if label.shape != (b,) or (label.is_floating_point() and outputs != 1):
        raise ValueError(
            f"batch['label'] is int64 ({b},), a class from 0 to {outputs - 1}, or float, a score, with outputs=1; got "
            f"{label.dtype} {tuple(label.shape)}."
        )
    if label.is_floating_point():
        return distance(logits[:, 0], label)
    try:
        return F.cross_entropy(logits, label)
    except IndexError as error:  # checked afterwards, because checking every label of every batch takes time
        wrong = int(label[(label < 0) | (label >= outputs)][0])
        raise ValueError(f"batch['label'] holds {wrong}; labels are 0 to {outputs - 1} here.") from error
