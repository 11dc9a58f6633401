r"""Learning from a reward that has no gradient, such as a measure of captions: texts are drawn, read and judged.

The gradient of what is to be expected of a reward is that of the logarithm of what was drawn, times the reward
(REINFORCE). A baseline that does not depend on the draw changes nothing but how much that gradient varies.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.tensor_checks import values_are_readable


def self_critical(
    log_probs: Float[Tensor, "b t"],
    written: Bool[Tensor, "b t"],
    reward: Float[Tensor, "b"],
    baseline: Float[Tensor, "b"],
) -> Float[Tensor, ""]:
    r"""SCST: a drawn text becomes likelier as far as it is better than the model's own greedy text, and rarer else.

    .. math:: \ell = -\frac{1}{b} \sum_i \left(r(w^s_i) - r(\hat w_i)\right) \sum_t \log p(w^s_{i,t} \mid w^s_{i,<t})

    ``log_probs`` are of the tokens of the drawn texts :math:`w^s`, of which those count that are ``written``, the end
    token among them. ``reward`` and ``baseline`` judge them and the greedy texts :math:`\hat w`; where both texts are
    one, nothing is learned. The value of ℓ says little, since only its gradient is that of the expected reward.
    Raises ``ValueError``, on a CPU, for a reward or baseline that is no finite number.
    Source: Rennie et al. 2017, section 4.
    """
    if values_are_readable(reward) and not (finite := reward.isfinite() & baseline.isfinite()).all():
        row = int((~finite).nonzero()[0, 0])
        raise ValueError(
            f"Rewards are finite numbers; text {row} has {float(reward[row])}, and its greedy text "
            f"{float(baseline[row])}: look for it in the function that rewards."
        )
    likelihood = log_probs.masked_fill(~written, 0).sum(1)
    return -((reward - baseline).detach() * likelihood).sum() / max(len(reward), 1)


def token_log_probs(logits: Float[Tensor, "b t v"], tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    r""":math:`\log p(x_i)` of each token, of which the logits at position i are."""
    return logits.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]


def until_end(tokens: Int[Tensor, "b t"], end_token: int) -> Bool[Tensor, "b t"]:
    """Which tokens of these texts are written: all up to the first end token, and that as well."""
    ends = (tokens == end_token).long()
    return ends.cumsum(1) - ends == 0
