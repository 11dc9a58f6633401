"""What a batch holds: fields turn samples into tensors, labels add what is to be predicted."""

from mmlearn.data.fields.field import Batch, Field, check_batch, padded_entries, resize, size
from mmlearn.data.fields.labels import (
    HiddenSpans,
    Infilled,
    Label,
    MaskedRegions,
    MaskedTokens,
    MatchLabel,
    NextSegment,
    SwappedSegments,
)
from mmlearn.data.fields.pictures import Image, Regions, Video
from mmlearn.data.fields.sounds import Clusters, LogMel, Waveform
from mmlearn.data.fields.texts import Answers, Dialogues, Labels, Segments, Tokens

__all__ = [
    "Answers", "Batch", "Clusters", "Dialogues", "Field", "HiddenSpans", "Image", "Infilled", "Label", "Labels",
    "LogMel", "MaskedRegions", "MaskedTokens", "MatchLabel", "NextSegment", "Regions", "Segments", "SwappedSegments",
    "Tokens", "Video", "Waveform", "check_batch", "padded_entries", "resize", "size",
]  # fmt: skip
