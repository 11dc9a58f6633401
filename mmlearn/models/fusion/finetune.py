"""Fine-tuning a fusion encoder: pretrain once, then learn each task from few labels with a small head.

Papers: Tan & Bansal 2019, "LXMERT: Learning Cross-Modality Encoder Representations from Transformers"; Chen et al.
2020, "UNITER: UNiversal Image-TExt Representation Learning". Official code: https://github.com/airsplay/lxmert,
https://github.com/ChenRocks/UNITER.

Deviations: every task has the two-layer classifier of visual question answering (UNITER's code reads pairs of pictures
and regions by one layer each; for regions that is so here too). Entailment is learned by cross-entropy, where UNITER's
code takes binary cross-entropy of soft labels. Two pictures and a sentence are read as two pairs, UNITER's "Pair"; its
"Triplet" and "Pair-biattn" are not here.
"""

import inspect
from typing import Any, Self

from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.models.fusion.heads import EntailmentHead, NLVRHead, ReferringHead, VQAHead

IMAGE_INPUTS = ("image", "pixel_mask", "regions", "boxes", "region_mask")  # of two pictures each is (b, 2, ...)


class FineTuned(nn.Module):
    """An encoder and the head of one task.

    ``encoder`` is a module that reads entries of a batch by name and returns ``pooled`` (b, d), or else ``tokens``
    (b, t, d), of which the first is taken. A :class:`~mmlearn.models.fusion.heads.ReferringHead` needs ``regions``
    (b, p, d) instead. The head determines the task. For pairs of pictures the batch holds one sentence a pair, and
    ``image``, ``pixel_mask``, ``regions``, ``boxes`` and ``region_mask`` with an axis of two behind the first.

    The encoder learns too, unless it was frozen by ``encoder.requires_grad_(False)``; then it also stays in evaluation
    mode, without dropout. Raises ``ValueError`` for a batch that lacks what the encoder needs, and for a
    ``ReferringHead`` on an encoder without regions.
    """

    def __init__(self, encoder: nn.Module, head: VQAHead | NLVRHead | EntailmentHead | ReferringHead):
        super().__init__()
        self.encoder = encoder
        self.head = head
        parameters = inspect.signature(encoder.forward).parameters.values()
        self.inputs = {
            parameter.name: parameter.default is parameter.empty  # whether it is required
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        }

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            self.encoder.eval()
        return self

    def forward(self, **batch: Tensor) -> Float[Tensor, "b outputs"]:
        """The head's logits. Takes a whole batch by name, ``system(**batch)``, and passes on what the encoder reads."""
        required = [name for name, required in self.inputs.items() if required]
        if any(name not in batch for name in required):
            raise ValueError(f"The encoder needs {', '.join(required)}, and the batch has only {', '.join(batch)}.")
        inputs = {name: batch[name] for name in self.inputs if name in batch}
        if isinstance(self.head, NLVRHead):
            pooled = _pooled(self.encoder(**_split_pairs(inputs)))  # (2 b, d)
            return self.head(rearrange(pooled, "(b pair) d -> b pair d", pair=2))
        output = self.encoder(**inputs)
        if not isinstance(self.head, ReferringHead):
            return self.head(_pooled(output))
        if not hasattr(output, "regions"):
            name = type(self.encoder).__name__
            raise ValueError(f"{name} returns no regions to refer to; take an encoder of regions.")
        return self.head(output.regions, batch.get("region_mask"))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The head's loss, by the name of its task: vqa, nlvr, entailment or referring.

        The label is ``batch["answer"]`` (b,) or soft (b, answers), ``batch["label"]`` (b,) or ``batch["referred"]``
        (b,). ``ValueError`` without it, or where the batch is empty.
        """
        task, name = self.head.task, self.head.label
        if name not in batch:
            raise ValueError(f"The task {task} learns from batch['{name}']; this batch has {', '.join(batch)}.")
        if not len(batch[name]):
            raise ValueError("A batch holds at least one text and picture.")
        return {task: self.head.loss(self(**batch), batch[name])}


def _pooled(output: Any) -> Float[Tensor, "b d"]:
    if hasattr(output, "pooled"):
        return output.pooled
    if getattr(output, "tokens", None) is not None:  # BLIP without an encoder returns None
        return output.tokens[:, 0]
    raise ValueError(f"A head reads pooled or tokens of an encoder, and {type(output).__name__} has neither.")


def _split_pairs(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two pictures a sentence → one picture a sentence, each sentence twice."""
    pairs = {}
    for name, value in inputs.items():
        if name not in IMAGE_INPUTS:
            pairs[name] = repeat(value, "b ... -> (b pair) ...", pair=2)
        elif value.ndim < 3 or value.shape[1] != 2:
            raise ValueError(f"Of two pictures {name} is (b, 2, ...); got {tuple(value.shape)}.")
        else:
            pairs[name] = rearrange(value, "b pair ... -> (b pair) ...")
    return pairs
