"""What data2vec is in every modality: a student of masked inputs predicts the features of its momentum teacher.

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
from mmlearn.layers.steps import StepCounter
from mmlearn.objectives.distillation import momentum_update
from mmlearn.objectives.self_distillation import contextual_targets, masked_regression, rising_decay


@dataclass(frozen=True)
class Data2VecConfig(Config):
    top_layers: int = 8  # of the teacher, whose mean is the target; K
    beta: float = 0.0  # of the smooth L1 loss; 0: squared error
    decay_start: float = 0.999  # of the teacher; τ₀
    decay_end: float = 0.9999  # τₑ
    decay_steps: int = 30_000  # in which it rises; τₙ
    pretrain: bool = True  # build the teacher and the head


class Data2Vec(StepCounter):
    """An ``encoder`` that learns from its own momentum copy, the ``teacher``, whose features ``head`` predicts.

    Subclasses build the encoder, call :meth:`add_teacher`, and name in :meth:`blocks_of` the blocks whose outputs are
    targets. Blocks of the teacher are a moving average, all else of it is the student's as it is, as in the official
    code for speech and texts. Raises ``ValueError`` for more layers than the encoder has.
    """

    config: Data2VecConfig
    encoder: nn.Module

    def add_teacher(self, width: int, depth: int, norm_first: bool = False) -> None:
        """Build the teacher and the head, where the configuration asks for them. A pre-norm encoder ends in a norm."""
        config = self.config
        self.teacher = self.head = None
        if not config.pretrain:
            return
        if not 1 <= config.top_layers <= depth:
            raise ValueError(f"top_layers is from 1 to the {depth} blocks of the encoder, not {config.top_layers}.")
        rising_decay(0, config.decay_start, config.decay_end, config.decay_steps)  # raises where they cannot be
        self.teacher = copy.deepcopy(self.encoder).requires_grad_(False).eval()
        linear = small_linear(width, width)
        self.head = nn.Sequential(nn.LayerNorm(width), linear) if norm_first else linear

    def blocks_of(self, encoder: nn.Module) -> Iterable[nn.Module]:
        """The transformer blocks of an encoder, first to last."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """The teacher stays in evaluation mode, without dropout."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self

    @torch.no_grad()
    def targets(
        self, *inputs: Tensor | None, real: Bool[Tensor, "b n"] | None = None, over_time: bool = False
    ) -> Float[Tensor, "b n d"]:
        """The teacher's features of unmasked inputs: a normalised mean over its last layers."""
        if self.teacher is None:
            raise ValueError(f"This {type(self).__name__} has no teacher: set pretrain=True in its configuration.")
        with mlp_outputs(self.blocks_of(self.teacher)) as layers:
            self.teacher(*inputs)  # fills layers, each (b, n, d)
        return contextual_targets(layers, self.config.top_layers, real, over_time)

    def regression(
        self, prediction: Float[Tensor, "b n d"], target: Float[Tensor, "b n d"], masked: Bool[Tensor, "b n"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The distance to the teacher's features where inputs were masked."""
        return {"regression": masked_regression(prediction, target, masked, self.config.beta)}

    @property
    def decay(self) -> float:
        """The teacher's decay at this step, τ."""
        config = self.config
        return rising_decay(int(self.steps), config.decay_start, config.decay_end, config.decay_steps)

    @torch.no_grad()
    def after_step(self) -> None:
        """The teacher follows the student, and the step is counted."""
        if self.teacher is not None:
            decay = self.decay  # once, because it waits for the device
            for (name, teacher), student in zip(self.teacher.named_parameters(), self.encoder.parameters()):
                teacher.copy_(momentum_update(teacher, student, decay if ".blocks." in name else 0.0))
        super().after_step()


@contextmanager
def mlp_outputs(blocks: Iterable[nn.Module]) -> Iterator[list[Tensor]]:
    """A list that collects, within this context, the output of each block's MLP, before scales and residual paths.

    Source: Baevski et al. 2022 (data2vec), official code for speech and texts.
    """
    outputs: list[Tensor] = []
    hooks = [block.mlp.register_forward_hook(lambda mlp, inputs, output: outputs.append(output)) for block in blocks]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()
