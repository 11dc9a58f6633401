"""How well a system does as it is told: what it writes behind an instruction, word for word."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import Rows, row
from mmlearn.generation.cache import pad_left


def response_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many instructions are answered word for word: all, each task, and all beside another sample's picture.

    Chance is the response that is commonest among these samples for the same task.
    """
    asked = [run.stage.objectives()["reply"].ask(sample) for sample in samples]
    right = [run.tokenizer.decode(run.tokenizer.prompt(one.response)) for one in asked]
    image = run.plain(samples)["image"]
    said, blind = (write_responses(run, each, asked) for each in (image, image.roll(len(samples) // 2, 0)))
    by_task: dict[str, list[int]] = {}
    for i, one in enumerate(asked):
        by_task.setdefault(one.task, []).append(i)
    common = {task: Counter(right[i] for i in rows).most_common(1)[0][1] for task, rows in by_task.items()}
    prior, hits = sum(common.values()) / len(asked), [one == other for one, other in zip(said, right)]
    found = {"instructions answered": row(sum(hits) / len(asked), prior)}
    for task, rows in sorted(by_task.items()):
        found[f"instructions answered, {task}"] = row(sum(hits[i] for i in rows) / len(rows), common[task] / len(rows))
    wrong = sum(one == other for one, other in zip(blind, right)) / len(asked)
    return found | {"instructions answered, another picture": row(wrong, prior)}


def write_responses(run: Any, image: Tensor, asked: Sequence[Any], size: int = 32) -> list[str]:
    """What a system writes behind these prompts about these pictures, without the prompts."""
    said: list[str] = []
    with evaluating(run.system):
        for start in range(0, len(asked), size):
            padded = pad_left([run.tokenizer.prompt(one.prompt) for one in asked[start : start + size]])
            images, prompt, mask = (part.to(run.device) for part in (image[start : start + size], *padded))
            longest = run.tokenizer.max_length
            written = run.system.generate(images, prompt=prompt, prompt_mask=mask, max_length=longest)
            said += [run.tokenizer.decode(text) for text in written[:, prompt.shape[1] :]]
    return said
