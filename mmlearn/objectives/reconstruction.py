"""Reconstruction: say the features themselves, not what they are called."""

from jaxtyping import Bool, Float
from torch import Tensor


def masked_l1(
    prediction: Float[Tensor, "b s features"], target: Float[Tensor, "b s features"], mask: Bool[Tensor, "b s"]
) -> Float[Tensor, ""]:
    r"""The absolute distance of the frames in ``mask``, hidden or real ones, as a mean over frames and features.

    .. math:: \ell = \frac{1}{|m|\, d} \sum_{t \in m} \lVert x_t - \hat x_t \rVert_1

    With no frame it is 0, not NaN, and still has a gradient: 0. What stands at other frames, even NaN, changes nothing.
    Source: Ling & Liu 2020 (DeCoAR 2.0), section 2.3; Prajwal et al. 2020 (Lip2Wav), section 4.3.
    """
    distance = (prediction - target).masked_fill(~mask[..., None], 0).abs()
    return distance.sum() / (mask.sum() * target.shape[-1]).clamp(min=1)
