"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

from mmlearn.exercises import expect_observed, experiment
from mmlearn.models.speech.encoder import frame_count


@experiment("a quarter of", "half of", "as many as")
def check_one_convolution_more(observed: list[int]) -> str:
    """Strides multiply: 320 samples a frame become 640, so that 50 frames a second become 25, the most tokens."""
    kernels, strides = [10, 3, 3, 3, 3, 2, 2], [5, 2, 2, 2, 2, 2, 2]
    unchanged = frame_count(160_000, kernels, strides)
    expect_observed(observed, [frame_count(160_000, [*kernels, 2], [*strides, 2])], [unchanged])
    return "half of"
