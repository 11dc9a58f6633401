"""Two streams that attend to each other: what ViLBERT and LXMERT share.

Source: Lu et al. 2019 (ViLBERT), section 2.1; Tan & Bansal 2019 (LXMERT), section 2.2.
"""

from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor

CrossAttend = Callable[[Tensor, Tensor, Tensor | None], Tensor]  # (queries, context, context_mask) -> queries


def co_attention(
    text: Float[Tensor, "b t d"],
    visual: Float[Tensor, "b n visual_width"],
    mask: Bool[Tensor, "b t"] | None,
    visual_mask: Bool[Tensor, "b n"] | None,
    text_attends: CrossAttend,
    visual_attends: CrossAttend,
) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "b n visual_width"]]:
    r"""Two streams attend to each other at once: queries of one, keys and values of the other, and its mask.

    .. math:: x' = \mathrm{attend}_x(x; y, m_y), \quad y' = \mathrm{attend}_y(y; x, m_x)

    Both read the other as it was before, so neither comes first. A mask says which tokens of its own stream are real,
    so it goes with the keys. Source: Lu et al. 2019 (ViLBERT), section 2.1 and figure 2b.
    """
    return text_attends(text, visual, visual_mask), visual_attends(visual, text, mask)
