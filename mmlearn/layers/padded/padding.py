"""Padding, taken out where tokens are computed one by one and put back where they meet.

A batch is as long as its longest text, so much of it may be padding. A linear layer, a norm and an MLP treat every
token alone: they take the real tokens of all texts in one row, (r, d). Only attention needs to know which of them
belong together. Source: Portes et al. 2023 (MosaicBERT), where it is called unpadding.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def check_boolean(mask: Tensor) -> None:
    """``ValueError`` for a mask of numbers, as other libraries have them."""
    if mask.dtype != torch.bool:
        raise ValueError(f"A mask is boolean, True where a token is real; this one is {mask.dtype}. Use mask.bool().")


class Padding:
    """Which places of a batch (b, n) hold nothing: those where ``mask`` is False. Without a mask all are real.

    ``restore(remove(x))`` is x, but 0 where there is padding. Where there is none, both return what they are given, and
    ``mask`` is None. Raises ``ValueError`` for a mask that is not boolean, or not as large as what it is used for.
    """

    def __init__(self, mask: Bool[Tensor, "b n"] | None = None):
        if mask is not None:
            check_boolean(mask)
        self.shape = None if mask is None else mask.shape
        places = (
            None if mask is None else mask.flatten().nonzero()[:, 0]
        )  # asked once, for on a GPU each question waits
        some = places is not None and len(places) < mask.numel()
        self.mask, self.places = (mask, places) if some else (None, None)

    def remove(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "*r d"]:
        """The r real tokens, text by text."""
        if self.shape not in (None, x.shape[:2]):
            raise ValueError(f"A mask of {tuple(self.shape)} does not fit {tuple(x.shape[:2])} tokens, (b, n).")
        return x if self.places is None else x.flatten(0, 1).index_select(0, self.places)

    def restore(self, x: Float[Tensor, "*r d"]) -> Float[Tensor, "b n d"]:
        """The batch again, with zeros for its padding."""
        if self.places is None:
            return x
        return x.new_zeros(self.mask.numel(), x.shape[-1]).index_copy_(0, self.places, x).unflatten(0, self.shape)


NO_PADDING = Padding()
