"""Pictures with their numbers."""

from mmlearn.visualization.chat import chat_widget
from mmlearn.visualization.curves import curves, line_panels
from mmlearn.visualization.explorer import Explorer, alignment_explorer
from mmlearn.visualization.figures import (
    bars,
    contact_sheet,
    embedding_plane,
    head_table,
    heat_maps,
    loss_curve,
    retrieval_gallery,
    similarity_matrix,
)
from mmlearn.visualization.listening import listening_page
from mmlearn.visualization.live import LiveCurve
from mmlearn.visualization.measured import iso_flop_curves, planned_and_measured, roofline, spread_bars
from mmlearn.visualization.sounds import (
    attention_over_sounds,
    caption_matrix,
    grouped_bars,
    images_found,
    spectrogram_rows,
    word_times,
)

__all__ = [
    "Explorer",
    "LiveCurve",
    "alignment_explorer",
    "attention_over_sounds",
    "bars",
    "caption_matrix",
    "chat_widget",
    "contact_sheet",
    "curves",
    "embedding_plane",
    "grouped_bars",
    "head_table",
    "heat_maps",
    "images_found",
    "iso_flop_curves",
    "line_panels",
    "listening_page",
    "loss_curve",
    "planned_and_measured",
    "retrieval_gallery",
    "roofline",
    "similarity_matrix",
    "spectrogram_rows",
    "spread_bars",
    "word_times",
]  # fmt: skip
