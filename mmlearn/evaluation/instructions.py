"""How well a system does each of several tasks that it is told to do: texts, boxes and picture codes.

A measure is made for an objective by its name. It knows the methods that such systems share: ``write``, ``locate`` and
``draw``, each of what the system's ``encode`` reads.
"""

import inspect
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.data.fields import Batch
from mmlearn.evaluation.captions import bleu, has_facts, true_share
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.grounding import iou, referring_accuracy
from mmlearn.evaluation.measures import IMAGE, Measure, Rows, majority_share, row


def labelled_batch(run: Any, samples: Sequence[Any], name: str) -> Batch:
    """The batch of these samples as an objective learns from it."""
    batch = run.plain(samples, name)
    for label in run.stage.objectives()[name].labels:
        batch = run.label(batch, label)
    return batch


def with_other_image(batch: Batch) -> Batch:
    """The same beside another sample's picture."""
    b = len(next(iter(batch.values())))
    return batch | {name: batch[name].roll(max(b // 2, 1), 0) for name in IMAGE if name in batch}


def in_batches(run: Any, batch: Batch, method: Callable[..., Tensor], size: int = 32) -> list[Tensor]:
    """``method`` of what the system's ``encode`` reads of a batch, so many rows at a time; a tensor for each row."""
    reads, found = inspect.signature(run.system.encode).parameters, []
    inputs = {name: batch[name] for name in reads if name in batch}
    with evaluating(run.system):
        for start in range(0, len(batch["tokens"]), size):
            rows = run.on_device({name: value[start : start + size] for name, value in inputs.items()})
            found += list(method(**rows).cpu())
    return found


def generated_texts(run: Any, batch: Batch) -> list[str]:
    """What a system writes."""
    return [run.tokenizer.decode(one) for one in in_batches(run, batch, run.system.write)]


def text_accuracy(name: str) -> Measure:
    """The measure of how many texts are right, word for word; with another sample's picture as well.

    Chance is the text that is commonest among these samples.
    """

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch = labelled_batch(run, samples, name)
        right = [run.tokenizer.decode(text[real]) for text, real in zip(batch["target"], batch["target_mask"])]
        chance = Counter(right).most_common(1)[0][1] / len(right)
        rows = {}
        for how, shown in (("", batch), (", another picture", with_other_image(batch))):
            hits = [said == wanted for said, wanted in zip(generated_texts(run, shown), right)]
            rows[f"{name}: word for word{how}"] = row(sum(hits) / len(hits), chance)
        return rows

    return measure


def caption_quality(name: str) -> Measure:
    """The measure of captions: BLEU-4, and of scenes the share of stated facts that are true.

    Chance: each picture beside the next one's.
    """

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        said = generated_texts(run, labelled_batch(run, samples, name))
        other = [*said[1:], said[0]]
        references = [[" ".join(sample.caption.lower().split())] for sample in samples]
        rows = {f"{name}: BLEU-4": row(bleu(said, references), bleu(other, references))}
        if has_facts(samples[0]):
            rows[f"{name}: stated facts that are true"] = row(true_share(said, samples), true_share(other, samples))
        return rows

    return measure


def box_agreement(found: Float[Tensor, "n 4"], truth: Float[Tensor, "n 4"], near: float) -> tuple[float, float, float]:
    """The share of boxes that share half with the truth, the mean share, and the share of edges that are ``near``."""
    ordered = torch.cat([torch.minimum(found[:, :2], found[:, 2:]), torch.maximum(found[:, :2], found[:, 2:])], 1)
    close = ((found - truth).abs().amax(1) <= near).float().mean()
    return referring_accuracy(ordered, truth), float(iou(ordered, truth).mean()), float(close)


def box_accuracy(name: str) -> Measure:
    """The measure of boxes: how many share half with the truth, and how many have all edges near the true ones.

    Near is a patch of the configuration and half a bin, if it has these. Chance: the box of the next sample; and once
    more with another sample's picture.
    """

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch, config = labelled_batch(run, samples, name), run.system.config
        near = getattr(config, "patch_size", 0) / batch["image"].shape[-1] if "image" in batch else 0.0
        near += 0.5 / (config.bins - 1) if getattr(config, "bins", 0) > 1 else 0.0
        blind, truth = with_other_image(batch), batch["box"]
        seen = torch.stack(in_batches(run, batch, run.system.locate))
        chance = box_agreement(truth.roll(1, 0), truth, near)
        names = ("boxes that share half", "mean share of boxes", "boxes with all edges near")
        rows = {f"{name}: {what}": row(*each) for what, *each in zip(names, box_agreement(seen, truth, near), chance)}
        other = box_agreement(torch.stack(in_batches(run, blind, run.system.locate)), truth, near)
        return rows | {f"{name}: {names[0]}, another picture": row(other[0], chance[0])}

    return measure


def infilling_accuracy(name: str) -> Measure:
    """The measure of how many hidden codes are drawn right. Chance: always the commonest."""

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch, config = labelled_batch(run, samples, name), run.system.config
        count = batch["target"].shape[1] - 1  # behind the codes stands the end token
        drawn = torch.stack(in_batches(run, batch, lambda **inputs: run.system.draw(count, **inputs)))
        true = batch["target"][:, :count] - config.first_code
        return {f"{name}: codes drawn right": row((drawn == true).float().mean(), majority_share(true.flatten()))}

    return measure
