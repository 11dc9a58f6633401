r"""Masked image modelling: hide patches of a picture, and say from the others what was there, as pixels or as codes.

Sampling and loss are apart: :func:`draw_visible` and :func:`mask_blocks` choose with a generator what stays or goes,
:func:`masked_pixels` and :func:`masked_codes` compare what a system says at the hidden patches. Losses are means over
the hidden patches; with none they are 0, not NaN, and still have a gradient: 0.
"""

import math
import random

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import IGNORED, masked_cross_entropy, uniform
from mmlearn.tensor_checks import values_are_readable


def draw_visible(rows: int, patches: int, share: float, generator: torch.Generator) -> Int[Tensor, "rows kept"]:
    r"""Which patches of each picture stay visible.

    .. math:: \lfloor p (1 - \mathrm{share}) \rfloor \;\text{of them, at least one}

    Each set of that size is as likely as any other, and numbers rise within a row. Raises ``ValueError`` for a
    ``share`` to hide that is outside [0, 1).
    Source: He et al. 2022 (MAE), section 3, masking; official code, ``random_masking``.
    """
    kept = visible_count(patches, share)
    return uniform((rows, patches), generator, torch.device("cpu")).argsort(1)[:, :kept].sort(1).values


def visible_count(patches: int, share: float) -> int:
    """How many of so many patches stay visible; ``share`` and errors as for :func:`draw_visible`."""
    if not 0 <= share < 1:
        raise ValueError(f"The share of patches to hide is from 0 to below 1, got {share}.")
    return max(1, int(patches * (1 - share)))


def hidden_patches(visible: Int[Tensor, "b kept"], patches: int) -> Bool[Tensor, "b {patches}"]:
    """Which of so many patches are not among the visible ones.

    Raises ``ValueError``, on a CPU, for the number of a patch that there is not.
    """
    if values_are_readable(visible) and visible.numel() and not 0 <= int(visible.min()) <= int(visible.max()) < patches:
        raise ValueError(
            f"Visible patches are numbered from 0 to {patches - 1}; got {visible.unique().tolist()[:6]} …."
        )
    hidden = torch.ones(len(visible), patches, dtype=torch.bool, device=visible.device)
    return hidden.scatter(1, visible, False)


def restore_order(
    tokens: Float[Tensor, "b kept d"], visible: Int[Tensor, "b kept"], mask_token: Float[Tensor, "d"], patches: int
) -> Float[Tensor, "b {patches} d"]:
    """Each visible token back at the place of its patch, and the mask token at every other position.

    Source: He et al. 2022 (MAE), section 3, MAE decoder; the official code sorts twice to the same end.
    """
    everywhere = mask_token.to(tokens).expand(len(tokens), patches, -1)
    return everywhere.scatter(1, visible[..., None].expand_as(tokens), tokens)


def normalised_patches(patches: Float[Tensor, "b p pixels"]) -> Float[Tensor, "b p pixels"]:
    r"""Each patch at mean 0 and variance 1, so that texture counts as much as brightness.

    .. math:: \hat x = \frac{x - \mu}{\sqrt{\sigma^2 + 10^{-6}}}, \quad
       \sigma^2 = \frac{1}{n - 1} \sum_i (x_i - \mu)^2

    Source: He et al. 2022 (MAE), section 3, reconstruction target; official code for σ² and its floor.
    """
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


def masked_pixels(
    prediction: Float[Tensor, "b p pixels"], target: Float[Tensor, "b p pixels"], masked: Bool[Tensor, "b p"]
) -> Float[Tensor, ""]:
    r"""The squared error of the pixels of hidden patches; what is said of visible ones costs nothing.

    .. math:: \ell = \frac{1}{|m|\, n} \sum_{i \in m} \lVert \hat x_i - x_i \rVert_2^2

    To say 0 of normalised patches costs 1 − 1/n. Source: He et al. 2022 (MAE), section 3, reconstruction target.
    """
    error = (prediction - target).square().mean(-1)
    return (error * masked).sum() / masked.sum().clamp(min=1)


def mask_blocks(
    grid: tuple[int, int],
    generator: torch.Generator,
    share: float = 0.4,
    smallest: int = 16,
    slimmest: float = 0.3,
    largest: int | None = None,
) -> Bool[Tensor, "p"]:
    r"""Hide about a ``share`` of the patches, as rectangles that may overlap, until enough are hidden.

    A rectangle has an area from ``smallest`` patches to what is still to be hidden (or ``largest``), and sides in a
    proportion from ``slimmest`` to its inverse. It counts where it hides something new and no more than is left, as in
    the official code; after ten that do not fit the picture is done. So a picture loses at most the share. Unlike
    there, a rectangle may be as large as the picture, and where less than ``smallest`` is left, its area is just that.
    Raises ``ValueError`` for a share outside [0, 1], or a proportion that is none.
    Source: Bao et al. 2022 (BEiT), blockwise masking; official code, ``masking_generator.py``.
    """
    if not 0 <= share <= 1 or not 0 < slimmest <= 1:
        raise ValueError(f"share is from 0 to 1 and slimmest above 0 and up to 1, got {share} and {slimmest}.")
    rows, columns = grid
    chance = random.Random(int(torch.randint(2**31, (), generator=generator)))
    hidden = torch.zeros(rows, columns, dtype=torch.bool)
    wanted = int(share * rows * columns)
    while (left := wanted - int(hidden.sum())) > 0:
        most = min(left, largest or left)
        for _ in range(10):
            area = chance.uniform(min(smallest, most), most)
            proportion = math.exp(chance.uniform(math.log(slimmest), -math.log(slimmest)))
            height, width = round((area * proportion) ** 0.5), round((area / proportion) ** 0.5)
            if not (0 < height <= rows and 0 < width <= columns):
                continue
            top, left_side = chance.randint(0, rows - height), chance.randint(0, columns - width)
            block = hidden[top : top + height, left_side : left_side + width]
            if 0 < int((~block).sum()) <= left:
                block.fill_(True)
                break
        else:
            break
    return hidden.flatten()


def masked_codes(
    logits: Float[Tensor, "b p codes"], code: Int[Tensor, "b p"], masked: Bool[Tensor, "b p"]
) -> Float[Tensor, ""]:
    r"""Which code a picture tokenizer gives each hidden patch, as cross-entropy.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i \in m} \log \mathrm{softmax}(z_i)_{c_i}

    Logits that know nothing give ln of the codebook's size. Raises ``ValueError``, on a CPU, for a code outside it.
    Source: Bao et al. 2022 (BEiT), masked image modelling.
    """
    wrong = (code < 0) | (code >= logits.shape[-1])
    if values_are_readable(code) and wrong.any():
        raise ValueError(
            f"Code {int(code[wrong][0])} is outside the codebook, which has codes 0 to {logits.shape[-1] - 1}."
        )
    return masked_cross_entropy(logits, code.masked_fill(~masked, IGNORED))
