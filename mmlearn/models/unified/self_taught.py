"""What data2vec is in every modality: a student with gaps, a slow copy of it without, and a head between them.

Source: Baevski et al. 2022 (data2vec), and its official code for speech and texts.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Config, small_linear
from mmlearn.layers.steps import CountsSteps
from mmlearn.objectives.distillation import momentum_update
from mmlearn.objectives.self_distillation import contextual_targets, masked_regression, rising_decay


@dataclass(frozen=True)
class SelfTaughtConfig(Config):
    top_layers: int = 8  # of the teacher, whose mean is the target, K
    beta: float = 0.0  # where the distance goes from square to straight; 0: square
    decay_start: float = 0.999  # of the teacher, τ₀
    decay_end: float = 0.9999  # τₑ
    decay_steps: int = 30_000  # in which it rises, τₙ
    pretrain: bool = True  # build the teacher and the head; False: a model that only reads


class SelfTaught(CountsSteps):
    """An ``encoder`` that learns from its own slow copy, the ``teacher``; ``head`` predicts what that one says.

    Subclasses build the encoder, call :meth:`add_teacher`, and name in :meth:`blocks_of` the blocks whose outputs are
    targets. Blocks of the teacher are a moving average, all else of it is the student's as it is, as in the official
    code for speech and texts. Raises ``ValueError`` for more layers than the encoder has.
    """

    config: SelfTaughtConfig
    encoder: nn.Module

    def add_teacher(self, width: int, depth: int, norm_first: bool = False) -> None:
        """Build the teacher and the head, where the configuration asks for them. A pre-norm encoder ends in a norm."""
        config = self.config
        self.teacher = self.head = None
        if not config.pretrain:
            return
        if not 1 <= config.top_layers <= depth:
            raise ValueError(f"top_layers is from 1 to the {depth} blocks of the encoder, not {config.top_layers}.")
        rising_decay(0, config.decay_start, config.decay_end, config.decay_steps)  # says what is wrong with it
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        linear = small_linear(width, width)
        self.head = nn.Sequential(nn.LayerNorm(width), linear) if norm_first else linear

    def blocks_of(self, encoder: nn.Module) -> Iterable[nn.Module]:
        """The transformer blocks of an encoder, first to last."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Nothing is ever dropped in the teacher."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @torch.no_grad()
    def targets(
        self, *inputs: Tensor | None, real: Bool[Tensor, "b n"] | None = None, over_time: bool = False
    ) -> Float[Tensor, "b n d"]:
        """What the teacher makes of these inputs, which have no gaps."""
        with mlp_outputs(self.blocks_of(self.teacher)) as layers:
            self.teacher(*inputs)
        return contextual_targets(layers, self.config.top_layers, real, over_time)

    def regression(
        self, prediction: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"], masked: Bool[Tensor, "b n"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The one loss."""
        return {"regression": masked_regression(prediction, target, masked, self.config.beta)}

    @property
    def decay(self) -> float:
        """How slowly the teacher follows now."""
        config = self.config
        return rising_decay(int(self.steps), config.decay_start, config.decay_end, config.decay_steps)

    @torch.no_grad()
    def after_step(self) -> None:
        """The teacher follows the student, and the step is counted."""
        if self.teacher is not None:
            decay = self.decay  # once, because it waits for the device
            for (name, slow), fast in zip(self.teacher.named_parameters(), self.encoder.parameters()):
                slow.copy_(momentum_update(slow, fast, decay if ".blocks." in name else 0.0))
        super().after_step()


@contextmanager
def mlp_outputs(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """Within this block a list fills with what the MLP of each block says, before any scale and the residual path.

    Source: Baevski et al. 2022 (data2vec), official code for speech and texts.
    """
    found: list[Tensor] = []
    hooks = [block.mlp.register_forward_hook(lambda part, inputs, output: found.append(output)) for block in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
