"""The measure that UC2 and InfoXLM share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.fields import MaskedTokens
from mmlearn.evaluation.measures import Rows, majority_share, row
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.translation import join_translations


def masked_words_with_translation(run: Any, samples: Sequence[Any]) -> Rows:
    """How many masked tokens of captions are predicted next to their translation, to another one, and to none.

    Chance: the commonest token.
    """
    batch = run.label(run.plain(samples), MaskedTokens())
    text, translation = (batch["tokens"], batch["mask"]), (batch["translation"], batch["translation_mask"])
    known = torch.full_like(translation[0], IGNORED)

    def accuracy(other: Tensor, real: Tensor) -> Tensor:
        tokens, mask = join_translations(text[0], other, text[1], real)
        label, _ = join_translations(batch["token_label"], known, text[1], real, IGNORED)
        return run.read(batch | {"tokens": tokens, "mask": mask, "token_label": label}, right).float().mean()

    def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
        hidden = rows["token_label"] != IGNORED
        return run.system.token_logits(output.tokens[hidden]).argmax(-1) == rows["token_label"][hidden]

    chance = majority_share(batch["token_label"][batch["token_label"] != IGNORED])
    ways = {
        "its translation": translation,
        "another translation": tuple(part.roll(1, 0) for part in translation),
        "none": (translation[0], torch.zeros_like(translation[1])),
    }
    return {f"masked-word accuracy beside {what}": row(accuracy(*way), chance) for what, way in ways.items()}
