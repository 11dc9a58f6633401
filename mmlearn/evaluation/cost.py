"""What a computation costs: operations counted, so that methods can be compared at equal cost on any machine."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

aten = torch.ops.aten


def count_flops(compute: Callable[[], Any]) -> int:
    """The floating-point operations of all matrix products and convolutions while ``compute()`` runs.

    A multiplication with its addition counts as two, as in the literature. A backward pass counts where ``compute``
    takes one; it costs twice the forward pass. Attention and recurrent layers are counted on every device.
    """
    from torch.utils.flop_counter import FlopCounterMode  # here, because it imports Triton

    # PyTorch does not know the cost of every fused kernel of attention, least of all of the CPU's.
    with FlopCounterMode(display=False, custom_mapping=RECURRENT) as counter, sdpa_kernel(SDPBackend.MATH):
        compute()
    return counter.get_total_flops()


def _gates(x: Sequence[int], weights: Iterable[Sequence[int]]) -> int:
    """Each element of a sequence, or the state before it, is multiplied by each matrix of these shapes."""
    return 2 * math.prod(x[:-1]) * sum(math.prod(weight) for weight in weights if len(weight) == 2)


RECURRENT = {  # kernels of whole layers, which PyTorch's counter does not know: on a CPU, and NVIDIA's
    aten.mkldnn_rnn_layer: lambda x, of_input, of_state, *_, **named: _gates(x, (of_input, of_state)),
    aten.mkldnn_rnn_layer_backward: lambda x, of_input, of_state, *_, **named: 2 * _gates(x, (of_input, of_state)),
    aten._cudnn_rnn: lambda x, weights, *_, **named: _gates(x, weights),
    aten._cudnn_rnn_backward: lambda x, weights, *_, **named: 2 * _gates(x, weights),
}
