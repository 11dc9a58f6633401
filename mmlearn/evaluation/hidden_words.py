"""Is a hidden word read off the picture? Of each caption the word that only the picture can tell is hidden."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmlearn.data.fields import Tokens
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.measures import IMAGE, Rows, majority_share, row


def grounded_word_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many nouns of collages, or colours of scenes, are guessed, and how many beside another sample's picture.

    One is hidden in each caption, and is right where all its tokens are. Chance: the commonest of them. Nothing where
    no caption is linked to a region, or where tokens are not those of a caption alone.
    """
    if type(run.field("tokens")) is not Tokens or run.field("tokens").source != "caption":
        return {}
    asked = []  # samples, each with the tokens of a word
    for i, sample in enumerate(each for each in samples if getattr(each, "links", ())):
        link = sample.links[i % len(sample.links)]
        if tokens := run.tokenizer.positions(sample.caption, *sample.grounded_position(link)):
            asked.append((sample, tokens))
    if not asked:
        return {}
    batch = run.plain([sample for sample, _ in asked])
    label = torch.full_like(batch["tokens"], -100)
    for own, true, (_, tokens) in zip(label, batch["tokens"], asked):
        own[tokens] = true[tokens]
    hidden = label != -100
    batch |= {"tokens": batch["tokens"].masked_fill(hidden, Tokenizer.mask_token), "token_label": label}

    def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
        logits = getattr(output, "token_logits", None)
        logits = run.system.token_logits(output.tokens) if logits is None else logits
        return ((logits.argmax(-1) == rows["token_label"]) | (rows["token_label"] == -100)).all(1)

    words = [tuple(own[own != -100].tolist()) for own in label]
    number = {word: i for i, word in enumerate(dict.fromkeys(words))}
    chance = majority_share(torch.tensor([number[word] for word in words]))
    rows = {"hidden grounded word": row(run.read(batch, right).float().mean(), chance)}
    if other := {name: batch[name].roll(len(asked) // 2, 0) for name in IMAGE if name in batch}:
        rows["hidden grounded word, another picture"] = row(run.read(batch | other, right).float().mean(), chance)
    return rows
