"""What one vector for each modality teaches: to do without one, to restore what is lost, to tell a false pair."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def keep_modalities(mask: Bool[Tensor, "b m"], chance: Float[Tensor, "b m"], probability: float) -> Bool[Tensor, "b m"]:
    r"""Which of its modalities each row keeps: one is dropped where its ``chance`` is below p, but never the last.

    .. math:: k_{ij} = r_{ij} \wedge (c_{ij} \ge p \;\vee\; j = \arg\max_{l: r_{il}} c_{il})

    ``mask`` r says which are there, ``chance`` is drawn evenly from 0 to 1. p = 0 is the identity, p = 1 keeps one. Of
    two modalities both stay with probability (1 - p)². Raises ``ValueError`` for p outside 0 to 1.
    Source: Ngiam et al. 2011, section 4.1, for the idea.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"A modality is dropped with a probability from 0 to 1, got {probability}.")
    likely = chance.masked_fill(~mask, -1)
    last = F.one_hot(likely.argmax(1), mask.shape[1]).bool()
    return mask & ((chance >= probability) | last)


def destroy_numbers(x: Float[Tensor, "b n"], chance: Float[Tensor, "b n"], share: float) -> Float[Tensor, "b n"]:
    r"""x̃: in each row the νn numbers with the least ``chance`` are 0, and all others stay as they are.

    ``chance`` is drawn evenly; ν is the ``share``, and νn is rounded. With ν = 0 nothing changes. Raises ``ValueError``
    for a share outside 0 to 1. Source: Vincent et al. 2008, section 2.3.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"The share that is destroyed is from 0 to 1, got {share}.")
    return x.masked_fill(chance.argsort(1).argsort(1) < round(share * x.shape[1]), 0)


def cue_reconstruction(
    reconstruction: Float[Tensor, "b m features"], cues: Float[Tensor, "b m features"], mask: Bool[Tensor, "b m"]
) -> Float[Tensor, ""]:
    r"""The mean squared error over the numbers of all modalities that were there, whether the encoder saw them or not.

    .. math:: \ell = \frac{1}{f \sum_{ij} r_{ij}} \sum_{ij} r_{ij} \lVert \hat x_{ij} - x_{ij} \rVert^2

    Without any it is 0. Saying 0 everywhere costs the mean square. Source: Ngiam et al. 2011, section 4.1.
    """
    error = (reconstruction - cues.masked_fill(~mask[..., None], 0)).square().mean(-1)
    return (error * mask).sum() / mask.sum().clamp(min=1)


def pair_similarity(text: Float[Tensor, "b d"], image: Float[Tensor, "b d"]) -> Float[Tensor, "b"]:
    r"""From 0, where both point away from each other, to 1, where both point the same way.

    .. math:: \mathcal{M}_s(t, v) = \frac{t \cdot v + \lVert t \rVert \lVert v \rVert}
       {2 \lVert t \rVert \lVert v \rVert}

    Lengths do not matter, and a vector of zeros gives 1/2. Source: Zhou et al. 2020 (SAFE), section 3.
    """
    return (1 + F.cosine_similarity(_precise(text), _precise(image), dim=1)) / 2


def similarity_of_pairs(similarity: Float[Tensor, "b"], true: Int[Tensor, "b"]) -> Float[Tensor, ""]:
    r"""True pairs (1) should be similar, false ones (0) should not: the cross-entropy of similarity as a probability.

    .. math:: \mathcal{L}_s = -\frac{1}{b} \sum_i \left[y_i \log(1 - \mathcal{M}_{s,i})
       + (1 - y_i) \log \mathcal{M}_{s,i}\right]

    where y is 1 for false news. Similarities stay 10⁻⁶ away from 0 and 1, so that the loss is finite.
    Source: Zhou et al. 2020 (SAFE), section 3.
    """
    similar = _precise(similarity).clamp(1e-6, 1 - 1e-6)
    return -torch.where(true == 1, similar.log(), (1 - similar).log()).mean()


def _precise(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """With at least 32 bits: next to 1, half precision knows too few similarities."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
