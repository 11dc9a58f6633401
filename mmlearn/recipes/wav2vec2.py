"""The recipe of wav2vec 2.0: what it reads, what it learns, and how that is measured."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmlearn.data.fields import Waveform
from mmlearn.evaluation.measures import row
from mmlearn.evaluation.speech import contrastive_accuracy, join_masked_frames
from mmlearn.models.speech.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from mmlearn.objectives import code_perplexity
from mmlearn.recipes import Objective, Recipe


class MaskedFrames(NamedTuple):
    """How often masked frames are found among distractors, how often by chance, and the perplexity of codes."""

    accuracy: float
    chance: float
    perplexity: float  # of a codebook, from 1 to all entries


@torch.no_grad()
def find_masked_frames(system: Wav2Vec2, batches: Iterable[dict[str, Tensor]]) -> MaskedFrames:
    """Mask spans of these clips, and let a system in evaluation mode find them. ``ValueError`` where none is masked."""
    right, chance, used = [], [], []
    for batch in batches:
        waveform, mask = batch["waveform"], batch["waveform_mask"]
        draws = system.draw(system.speech.frame_mask(waveform, mask))
        output = system(waveform, mask, draws.masked)
        hits, by_chance = contrastive_accuracy(
            output.context, output.target, output.codes, draws.distractor, draws.masked
        )
        right.append(hits.float())
        chance.append(by_chance)
        used.append(output.probability[draws.masked])
    perplexity = code_perplexity(torch.cat(used)).mean().item()
    return MaskedFrames(join_masked_frames(right).mean().item(), torch.cat(chance).mean().item(), perplexity)


def masked_frame_accuracy(run: Any, samples: Sequence[Any]) -> dict[str, dict[str, float | None]]:
    """How often a masked frame is found among distractors of its clip, and how many codes are in use."""
    found = find_masked_frames(run.system, run.batches(samples))
    return {
        "masked-frame accuracy": row(found.accuracy, found.chance),
        f"perplexity of {run.system.config.entries} codes": row(found.perplexity),
    }


RECIPE = Recipe(
    Wav2Vec2,
    Wav2Vec2Config,
    reads=(Waveform(),),
    learns=Objective(
        "contrastive",
        {"contrastive": lambda config, batch: math.log(1 + config.distractors), "diversity": None},
        measures=(masked_frame_accuracy,),
    ),
    architecture="""
    waveform -> convolutions -> mask spans -> transformer -> c [context] -> !contrast [own code among distractors]
    convolutions -> quantiser [codebooks] -> q [code] -> !contrast
    quantiser -> !diversity
    """,
)
