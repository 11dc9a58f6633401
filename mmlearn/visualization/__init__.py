"""Pictures with their numbers."""

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

__all__ = [
    "Explorer", "LiveCurve", "alignment_explorer", "bars", "contact_sheet", "embedding_plane", "head_table",
    "heat_maps", "listening_page", "loss_curve", "retrieval_gallery", "similarity_matrix",
]  # fmt: skip
