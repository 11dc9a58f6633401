"""A queue of embedded pairs from earlier batches, as further candidates for the next one, and its contrast."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.objectives import gather, own_rows
from mmlearn.objectives.align import Pair, momentum_contrast
from mmlearn.objectives.matching import positive_pairs


def queue_positions(pointer: Int[Tensor, "1"], n: int, size: int) -> tuple[Int[Tensor, "n"], Int[Tensor, "1"]]:
    r"""The positions of the next n rows in a queue, in place of its oldest ones, and the new position of its oldest
    row.

    .. math:: \mathrm{position}_i = (\mathrm{pointer} + i) \bmod \mathrm{size}

    ``pointer`` is the position of the oldest row now; after the last position comes the first.
    Source: He et al. 2020 (MoCo), section 3.2.
    """
    return (pointer + torch.arange(n, device=pointer.device)) % size, (pointer + n) % size


class PairQueue(nn.Module):
    """The last ``size`` pairs of image and text embeddings, and the numbers of their captions: all in a checkpoint.

    It starts with random directions. Raises ``ValueError`` for a size below 1.
    Source: He et al. 2020 (MoCo), section 3.2; Li et al. 2021 (ALBEF), section 3.2.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        if size < 1:
            raise ValueError(f"A queue holds at least one pair; got queue_size {size}.")
        self.register_buffer("image", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("text", F.normalize(torch.randn(size, width), dim=-1))
        self.register_buffer("caption_id", torch.full((size,), -1))  # no caption has this number
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))  # the oldest pair

    def positives(self, caption_id: Int[Tensor, "b"]) -> Bool[Tensor, "b size"]:
        """Which pairs of the queue have the caption of each row. A negative number equals no other."""
        return (caption_id[:, None] == self.caption_id) & (caption_id[:, None] >= 0)  # (b, size)

    @torch.no_grad()
    def push(self, image: Float[Tensor, "n d"], text: Float[Tensor, "n d"], caption_id: Int[Tensor, "n"]) -> None:
        """Overwrite the oldest pairs. Raises ``ValueError`` for more than the queue holds.

        A negative number is a caption that equals no other. A loss that read the queue needs it unchanged
        until its backward pass, and so a copy.
        """
        size, n = len(self.image), len(image)
        if n > size:
            raise ValueError(f"A queue of {size} pairs cannot take {n} at once; use a longer one or smaller batches.")
        positions, pointer = queue_positions(self.pointer, n, size)
        self.image[positions], self.text[positions] = image.to(self.image.dtype), text.to(self.text.dtype)
        self.caption_id[positions] = caption_id
        self.pointer.copy_(pointer)

    def check_data(self, length: int) -> None:
        """``ValueError`` where ``length`` samples are fewer than the queue holds: they would meet their own past."""
        if length < len(self.image):
            found = f"A queue of {len(self.image)} is larger than the data, so pictures would meet themselves"
            raise ValueError(f"{found}; take --set queue_size={length}, or another queue_size of at most {length}.")


def queue_contrast(
    embeddings: Pair,
    momentum_embeddings: Pair,
    caption_id: Int[Tensor, "b"],
    queue: PairQueue | None,
    logit_scale: float | Tensor,
    alpha: float,
) -> Float[Tensor, ""]:
    """ITC of each embedding with the momentum embeddings of the batch of all processes and of the queue.

    Without a queue only with those of the batch. Arguments as in :func:`~mmlearn.objectives.align.momentum_contrast`.
    Source: Li et al. 2021 (ALBEF), section 3.2.
    """
    rows, candidates = own_rows(caption_id), (gather(momentum_embeddings[0]), gather(momentum_embeddings[1]))
    positives, queues = positive_pairs(gather(caption_id), rows), (candidates[0][:0], candidates[1][:0])
    if queue is not None:
        positives = torch.cat([positives, queue.positives(caption_id)], dim=1)  # (b, all + queue)
        queues = queue.image, queue.text
    return momentum_contrast(embeddings, candidates, queues, positives, logit_scale, alpha, rows)
