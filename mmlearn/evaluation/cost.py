"""What a computation costs: operations counted, so that methods can be compared at equal cost on any machine."""

from collections.abc import Callable
from typing import Any

from torch.nn.attention import SDPBackend, sdpa_kernel


def count_flops(compute: Callable[[], Any]) -> int:
    """The floating-point operations of all matrix products and convolutions while ``compute()`` runs.

    A multiplication with its addition counts as two, as in the literature. A backward pass counts where ``compute``
    takes one; it costs twice the forward pass. Attention is counted on every device; recurrent layers are not.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, because it imports Triton where that is installed

    # A counter does not know every fused kernel of attention, least of all the CPU's; the one written out it does.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops()
