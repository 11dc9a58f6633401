r"""Sparse experts: which network a token goes to, and what keeps all of them at work.

``probability`` (n, e) is a router's softmax over e experts for each of n tokens; ``real`` says which tokens are no
padding. Losses are 0 where no token is real.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def top_experts(probability: Float[Tensor, "n e"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k likeliest experts of each token, the likeliest first, and how likely they are: by that their outputs count.

    Raises ``ValueError`` for more experts than there are, or none.
    Source: Riquelme et al. 2021 (V-MoE), official code, ``NoisyTopExpertsPerItemRouter``, without its noise.
    """
    if not 1 <= k <= probability.shape[-1]:
        raise ValueError(f"A token goes to 1 to {probability.shape[-1]} experts, not to {k}.")
    return probability.topk(k, dim=-1)


def mean_probability(probability: Float[Tensor, "n e"], real: Bool[Tensor, "n"]) -> Float[Tensor, "e"]:
    """How likely each expert is for the real tokens on the whole."""
    return (probability * real[:, None]).sum(0) / real.sum().clamp(min=1)


def balance(probability: Float[Tensor, "n e"], real: Bool[Tensor, "n"], k: int = 1) -> Float[Tensor, ""]:
    r"""That tokens spread over experts: the more go to an expert, the less likely it should be.

    .. math:: \ell = N \sum_i f_i P_i

    f is the share of choices that an expert gets, which has no gradient, and P how likely it is on the whole. Uniform
    probabilities give 1, however ties are broken; one expert for all tokens gives N.
    With k = 1 it is also V-MoE's ``_gshard_auxiliary_loss``. Source: Fedus et al. 2022 (Switch Transformers),
    equation 4.
    """
    chosen = torch.zeros_like(probability).scatter(1, top_experts(probability, k)[1], 1.0).detach()
    share = (chosen * real[:, None]).sum(0) / (k * real.sum()).clamp(min=1)
    return probability.shape[1] * (share * mean_probability(probability, real)).sum()


def entropy(probability: Float[Tensor, "*n e"]) -> Float[Tensor, "*n"]:
    r""":math:`H(p) = -\sum_i p_i \ln p_i`, from 0 for one expert to ln e for all alike."""
    return -(probability * probability.clamp(min=1e-30).log()).sum(-1)


def local_entropy(probability: Float[Tensor, "n e"], real: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    r"""That each token of a modality knows where to go.

    .. math:: \Omega_\text{local} = \frac{1}{n} \sum_i H\big(p(\text{experts} \mid x_i)\big)

    Source: Mustafa et al. 2022 (LIMoE), local entropy loss.
    """
    return (entropy(probability) * real).sum() / real.sum().clamp(min=1)


def global_entropy(probability: Float[Tensor, "n e"], real: Bool[Tensor, "n"], experts: float) -> Float[Tensor, ""]:
    r"""That the tokens of a modality together use at least so many ``experts``; more are not asked for.

    .. math:: \Omega_\text{global} = \max\{0,\, \ln \tau - H(\bar p)\}, \quad
       \bar p = \frac{1}{n} \sum_i p(\text{experts} \mid x_i)

    Raises ``ValueError`` for fewer than one expert, or more than there are.
    Source: Mustafa et al. 2022 (LIMoE), global entropy loss with a threshold.
    """
    if not 1 <= experts <= probability.shape[1]:
        raise ValueError(f"Tokens can use 1 to {probability.shape[1]} experts, not {experts}.")
    used = entropy(mean_probability(probability, real))
    return (math.log(experts) - used).clamp(min=0) * real.any()


def router_z(logits: Float[Tensor, "n e"], real: Bool[Tensor, "n"]) -> Float[Tensor, ""]:
    r"""That a router's logits stay small, where rounding does little harm.

    .. math:: \ell = \frac{1}{n} \sum_i \Big(\ln \sum_j e^{z_{ij}}\Big)^2

    Source: Zoph et al. 2022 (ST-MoE), router z-loss.
    """
    return (logits.logsumexp(-1).square() * real).sum() / real.sum().clamp(min=1)
