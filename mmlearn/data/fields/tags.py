"""Object tags: the names of what a detector finds in a picture, read as words behind the caption."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset

from mmlearn.data.batches import caption_ids, spread
from mmlearn.data.boxes import BoxDetector
from mmlearn.data.fields.field import Batch
from mmlearn.data.fields.texts import RENDERED, Segments, in_chunks
from mmlearn.data.synthetic.regions import SceneDetector
from mmlearn.layers.config import Config


@dataclass(frozen=True)
class TaggedCaptions(Segments):
    """Captions with tags: ``tokens``, ``mask`` and ``token_type`` (b, t); and ``tag_id`` (b,), equal where tags are.

    A row is ``<start> caption <end> tags <end>``, and ``token_type`` is 1 for tags and their end. Tags are the names of
    the likeliest class of each region, in the order of regions; one tokenizer and one vocabulary serve both. A sample
    with ``tags`` of its own, a text, keeps these; an empty one means that it has none. Other settings as for
    :class:`Segments`. Source: Li et al. 2020 (OSCAR), section 3.
    """

    detector: SceneDetector | BoxDetector = SceneDetector()
    max_length: int = 64  # of both together, at most

    optional = (*Segments.optional, "tag_id")

    @property
    def holds(self) -> dict[str, str]:
        """The entries and their axes."""
        return super().holds | {"tag_id": "Int b"}

    def vocabulary_texts(self, data: Dataset) -> list[str]:
        """Captions and tags."""
        parts = in_chunks(data, spread(len(data), RENDERED))
        return [" ".join(pair) for part in parts for pair in self.pairs(part)]

    def pairs(self, samples: Sequence[Any]) -> list[tuple[str, str]]:
        """The caption of each sample and its tags."""
        named = isinstance(self.detector, SceneDetector) and not hasattr(samples[0], "layout")  # as collages are
        found = [" ".join(tags) for tags in ([one.names for one in samples] if named else self.detector.tags(samples))]
        tags = [getattr(sample, "tags", text) for sample, text in zip(samples, found)]
        return [(getattr(sample, self.source), text) for sample, text in zip(samples, tags)]

    def __call__(self, samples: Sequence[Any]) -> Batch:
        return super().__call__(samples) | {"tag_id": caption_ids([tags for _, tags in self.pairs(samples)])}

    def example(self, b: int, config: Config, generator: torch.Generator) -> Batch:
        """Random captions, of which some have no tags."""
        return super().example(b, config, generator) | {"tag_id": torch.arange(b)}
