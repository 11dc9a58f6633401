r"""Speech without transcripts: hide spans of frames, and tell what was there, among distractors or among clusters.

Sampling and loss are apart: :func:`mask_spans` and :func:`sample_distractors` draw with a generator, the others compare
what a system says at the hidden frames. Losses are means over the hidden frames; with none they are 0, not NaN, and
still have a gradient: 0.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import IGNORED, masked_cross_entropy, uniform


def mask_spans(
    real: Bool[Tensor, "b s"], *, generator: torch.Generator, probability: float = 0.065, length: int = 10
) -> Bool[Tensor, "b s"]:
    """Hide spans of ``length`` frames: a share ``probability`` of the real frames are starts, and spans may overlap.

    Starts are drawn without replacement where a whole span fits into the clip. The number of spans is rounded up or
    down by chance, but is at least 1, and never so large that nothing could stay visible; a clip of no more than
    ``length`` frames is left whole. With the paper's 0.065 and 10, about 49 % of a long clip are hidden.

    Raises ``ValueError`` for a probability outside 0 to 1 or a length below 1.
    Source: Baevski et al. 2020 (wav2vec 2.0), section 3.1 and appendix A.
    """
    if not 0 <= probability <= 1 or length < 1:
        raise ValueError(
            f"probability must be from 0 to 1 and length at least 1 frame, got {probability} and {length}."
        )
    frames = real.sum(1)
    chance = uniform((len(real), 1 + real.shape[1]), generator, real.device)
    wanted = (probability * frames + chance[:, 0]).floor().clamp(min=1)
    spans = torch.minimum(wanted, (frames - 1).clamp(min=0) // length)
    last = (frames - length)[:, None]  # the last frame from which a span fits
    order = chance[:, 1:].masked_fill(torch.arange(real.shape[1], device=real.device) > last, 2.0)
    starts = order.argsort(1).argsort(1) < spans[:, None]
    begun = starts.int().cumsum(1)
    ended = F.pad(begun, (length, 0))[:, : real.shape[1]]
    return begun > ended


def sample_distractors(
    masked: Bool[Tensor, "b s"], count: int, *, generator: torch.Generator
) -> Int[Tensor, "b s count"]:
    """For each hidden frame the positions of ``count`` other hidden frames of the same clip, never its own.

    Each is drawn evenly, and may come twice. What stands at frames that are not hidden means nothing; a clip with one
    hidden frame has no other, so there stands its own position, which :func:`distractor_contrast` leaves out.

    Raises ``ValueError`` for a count below 1. Source: Baevski et al. 2020 (wav2vec 2.0), section 3.2.
    """
    if count < 1:
        raise ValueError(f"A frame needs at least 1 distractor, got count = {count}.")
    hidden = masked.sum(1)[:, None, None]
    positions = (~masked).int().argsort(dim=1, stable=True)  # hidden frames first, in order
    own = (masked.int().cumsum(1) - 1)[:, :, None]  # the how-manieth hidden frame this is
    drawn = (uniform((*masked.shape, count), generator, masked.device) * (hidden - 1)).long()
    other = torch.where(hidden > 1, drawn + (drawn >= own), 0).clamp(max=masked.shape[1] - 1)
    return positions.gather(1, other.flatten(1)).view_as(other)


def distractor_logits(
    context: Float[Tensor, "b s d"],
    target: Float[Tensor, "b s d"],
    codes: Int[Tensor, "b s groups"],
    distractor: Int[Tensor, "b s k"],
    temperature: float = 0.1,
) -> Float[Tensor, "b s candidates"]:
    """What :func:`distractor_contrast` compares: a frame's own quantised features first, then its k distractors.

    They are cosines over κ. A distractor whose ``codes`` are those of the frame is the frame, and gets -inf.
    Source: Baevski et al. 2020 (wav2vec 2.0), equation 3, and official code.
    """
    similarity = F.normalize(context, dim=-1) @ F.normalize(target, dim=-1).mT / temperature  # (b, s context, s target)
    own = similarity.diagonal(dim1=1, dim2=2)[..., None]
    rows = torch.arange(len(codes), device=codes.device)[:, None, None]
    others = codes[rows, distractor]  # (b, s, k, groups)
    same = (others == codes[:, :, None]).all(-1)
    return torch.cat([own, similarity.gather(2, distractor).masked_fill(same, -torch.inf)], dim=2)


def distractor_contrast(
    context: Float[Tensor, "b s d"],
    target: Float[Tensor, "b s d"],
    codes: Int[Tensor, "b s groups"],
    distractor: Int[Tensor, "b s k"],
    masked: Bool[Tensor, "b s"],
    temperature: float = 0.1,
) -> Float[Tensor, ""]:
    r"""The context at a hidden frame picks that frame's quantised features among those of k other hidden frames.

    .. math:: \mathcal{L}_m = -\frac{1}{|m|} \sum_{t \in m} \log \frac{\exp(\mathrm{sim}(c_t, q_t) / \kappa)}
       {\sum_{\tilde q \sim Q_t} \exp(\mathrm{sim}(c_t, \tilde q) / \kappa)}

    sim is the cosine, and Q_t holds q_t itself. A distractor whose ``codes`` are those of the target is the target, and
    is left out. A context that knows nothing costs about ln(1 + k).
    Source: Baevski et al. 2020 (wav2vec 2.0), equation 3; van den Oord et al. 2018 (CPC), equation 4.
    """
    logits = distractor_logits(context, target, codes, distractor, temperature)
    return masked_cross_entropy(logits, torch.zeros_like(distractor[..., 0]).masked_fill(~masked, IGNORED))


def code_perplexity(probability: Float[Tensor, "n groups entries"]) -> Float[Tensor, "groups"]:
    r"""How many entries of each codebook are in use, from 1 to all: the exponential of the entropy of their mean.

    .. math:: \exp\Big(-\sum_v \bar p_{gv} \log \bar p_{gv}\Big), \quad \bar p_g = \frac{1}{n} \sum_i p_{ig}

    Source: Baevski et al. 2020 (wav2vec 2.0), section 3.2 and official code.
    """
    mean = probability.sum(0) / max(len(probability), 1)
    return torch.special.entr(mean).sum(-1).exp()


def code_diversity(
    probability: Float[Tensor, "*n groups entries"], masked: Bool[Tensor, "*n"] | None = None
) -> Float[Tensor, ""]:
    r"""The share of all entries that is not in use: 0 where each is chosen as often, near 1 where always the same is.

    .. math:: \mathcal{L}_d = \frac{GV - \sum_g \exp(H(\bar p_g))}{GV}

    Only frames that are ``masked`` count, by default all. The official code's form; the paper's equation has the
    entropies themselves, -H / GV, with the same minimum.
    Source: Baevski et al. 2020 (wav2vec 2.0), equation 4; Dieleman et al. 2018 for the idea.
    """
    masked = torch.ones_like(probability[..., 0, 0], dtype=torch.bool) if masked is None else masked
    count = masked.sum()
    # Other frames add 0, because to pick the masked ones would wait for a GPU.
    total = probability.masked_fill(~masked[..., None, None], 0).flatten(0, -3).sum(0)  # (groups, entries)
    mean = total / count.clamp(min=1)
    return (1 - code_perplexity(mean[None]).sum() / mean.numel()) * (count > 0)


def masked_cluster(
    logits: Float[Tensor, "b s c"], cluster: Int[Tensor, "b s"], masked: Bool[Tensor, "b s"], alpha: float = 1.0
) -> Float[Tensor, ""]:
    r"""Which cluster was at each hidden frame, and with α < 1 also at those that are seen.

    .. math:: \mathcal{L} = \alpha \mathcal{L}_m + (1 - \alpha) \mathcal{L}_u, \quad
       \mathcal{L}_m = -\frac{1}{|m|} \sum_{t \in m} \log \mathrm{softmax}(z_t)_{k_t}

    A frame whose ``cluster`` is -100, such as padding, counts nowhere. Logits that know nothing give ln c.

    Raises ``ValueError`` for an α outside [0, 1]. Source: Hsu et al. 2021 (HuBERT), equations 1 and 2.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be from 0 to 1, got {alpha}.")
    hidden = masked_cross_entropy(logits, cluster.masked_fill(~masked, IGNORED))
    if alpha == 1:
        return hidden
    return alpha * hidden + (1 - alpha) * masked_cross_entropy(logits, cluster.masked_fill(masked, IGNORED))
