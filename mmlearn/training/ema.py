"""An average of the weights over the steps, which is often the better model."""

from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmlearn.training.distributed import local, part_like, wholes


class MovingAverage:
    r"""The exponential moving average of all weights that are trained.

    .. math:: \bar w_t = d_t\, \bar w_{t-1} + (1 - d_t)\, w_t, \quad d_t = \min(d, (1 + t) / (10 + t))

    It begins with the first weights, which the rising :math:`d_t` soon forgets. Where weights are sharded each process
    averages its part. Raises ``ValueError`` for a ``decay`` that is not between 0 and 1.
    Source: Polyak & Juditsky 1992; the rise as in TensorFlow's ``ExponentialMovingAverage``.
    """

    def __init__(self, system: nn.Module, decay: float):
        if not 0 < decay < 1:
            raise ValueError(f"The decay of an average (ema) is between 0 and 1, such as 0.9999; got {decay}.")
        self.decay = decay
        self.trained = {name: value for name, value in system.named_parameters() if value.requires_grad}
        self.average = {name: local(value).clone() for name, value in self.trained.items()}

    def update(self, step: int) -> None:
        """Take in the weights after so many steps."""
        take_in = get_ema_multi_avg_fn(min(self.decay, (1 + step) / (10 + step)))
        take_in(list(self.average.values()), [local(value) for value in self.trained.values()], None)

    def whole(self, keep: bool = True) -> dict[str, Tensor]:
        """The average, all of it, where this process is to ``keep`` it. Every process calls this."""
        return wholes({name: (value, self.trained[name]) for name, value in self.average.items()}, keep)

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what :meth:`whole` returned, of the same parameters."""
        for name, value in tensors.items():
            self.average[name].copy_(local(part_like(value, self.trained[name])))
