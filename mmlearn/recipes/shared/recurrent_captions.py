"""What recipes share: recurrent captions."""

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from mmlearn.evaluation.alignment import pointing_accuracy, pointing_chance
from mmlearn.evaluation.measures import Rows, row
from mmlearn.evaluation.mentions import find_mentions


def maps_before_words(maps: Float[Tensor, "b t p"]) -> Float[Tensor, "b t p"]:
    """The maps at the tokens that they were drawn for: at position i, where was looked before token i was written."""
    return maps.roll(1, 1)


def pointing_before_words(run: Any, samples: Sequence[Any]) -> Rows:
    """How often the model pointing_before_words at an object before it writes its noun. Nothing where no caption names
    a region."""
    if not any(getattr(sample, "links", ()) for sample in samples):
        return {}
    side = -(-samples[0].image.shape[-1] // run.system.config.image.stride)
    mentions = find_mentions(samples, run.tokenizer, (side, side))
    maps = run.read(run.plain(samples), lambda output, rows: maps_before_words(output.maps))
    return {
        "pointing accuracy": row(
            pointing_accuracy(mentions.select(maps), mentions.region), pointing_chance(mentions.region)
        )
    }
