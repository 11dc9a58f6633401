"""What a batch holds: fields turn samples into tensors, labels add what is to be predicted."""

from mmlearn.data.fields.boxes import Objects
from mmlearn.data.fields.cues import Cues
from mmlearn.data.fields.field import Batch, Field, check_batch, padded_entries, resize, size
from mmlearn.data.fields.image_dialogues import ImageDialogues
from mmlearn.data.fields.images import Image, PatchCodes, Patches, Regions, Video
from mmlearn.data.fields.labels import (
    Label,
    MaskedPatches,
    MaskedRegions,
    MaskedTokens,
    MatchLabel,
    NextSegment,
    PollutedTriples,
    ShuffledTokens,
    SpanCorruption,
    SwappedSegments,
    TextInfilling,
    VisiblePatches,
)
from mmlearn.data.fields.sounds import Clusters, LogMel, Waveform, WhisperMel
from mmlearn.data.fields.tags import TaggedCaptions
from mmlearn.data.fields.texts import Answers, Dialogues, Labels, Segments, Tokens

__all__ = [
    "Answers",
    "Batch",
    "Clusters",
    "Cues",
    "Dialogues",
    "Field",
    "Image",
    "ImageDialogues",
    "Label",
    "Labels",
    "LogMel",
    "MaskedPatches",
    "MaskedRegions",
    "MaskedTokens",
    "MatchLabel",
    "NextSegment",
    "Objects",
    "PatchCodes",
    "Patches",
    "PollutedTriples",
    "Regions",
    "Segments",
    "ShuffledTokens",
    "SpanCorruption",
    "SwappedSegments",
    "TaggedCaptions",
    "TextInfilling",
    "Tokens",
    "Video",
    "VisiblePatches",
    "Waveform",
    "WhisperMel",
    "check_batch",
    "padded_entries",
    "resize",
    "size",
]  # fmt: skip
