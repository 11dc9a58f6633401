"""Two losses that share their weights: each weight listens to one of them, and a teacher of each helps.

That gradients are masked and that teachers help is the paper's; how the mask is found here is ours.

Source: Li et al. 2021, "Towards a Unified Foundation Model: Jointly Pre-Training Transformers on Unpaired Images and
Text" (ViT-BERT).
"""

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor


def own_gradient(weight: Float[Tensor, "*n"], mask: Bool[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    r"""The weight as it is, through which a gradient goes only where ``mask`` is True.

    .. math:: G = M \odot G_\text{text} + (1 - M) \odot G_\text{image}

    if one loss is computed with M and the other with its complement. Source: Li et al. 2021 (ViT-BERT), gradient
    masking.
    """
    return torch.where(mask, weight, weight.detach())


@torch.no_grad()
def keep_largest(weight: Float[Tensor, "*n"], owned: Bool[Tensor, "*n"], share: float) -> Bool[Tensor, "*n"]:
    """Of the weights that are ``owned``, those with the largest magnitude, until a ``share`` of all is left.

    Nothing is owned that was not before. Where fewer are owned than the share, all stay. Raises ``ValueError`` for a
    share outside [0, 1]. Source: Frankle & Carbin 2019, iterative pruning by magnitude.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"A share is from 0 to 1, got {share}.")
    kept = torch.zeros_like(owned).flatten()
    size = weight.abs().masked_fill(~owned, -1.0).flatten()
    kept[size.argsort(descending=True, stable=True)[: round(share * size.numel())]] = True
    return kept.view_as(owned) & owned


def masked_divergence(
    logits: Float[Tensor, "b n c"],
    teacher_logits: Float[Tensor, "b n c"],
    masked: Bool[Tensor, "b n"],
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    r"""How far a student's guesses at hidden positions are from its teacher's, which has no gradient.

    .. math:: \ell = \frac{\tau^2}{|m|} \sum_{i \in m}
       \mathrm{KL}\!\left(\mathrm{softmax}(\bar z_i / \tau) \,\|\, \mathrm{softmax}(z_i / \tau)\right)

    Never negative, and 0 where both agree or nothing is hidden. Raises ``ValueError`` for a temperature that is not
    above 0. Source: Hinton et al. 2015, distillation; Li et al. 2021 (ViT-BERT), knowledge distillation.
    """
    if not temperature > 0:
        raise ValueError(f"temperature is above 0, got {temperature}.")
    said = (logits / temperature).log_softmax(-1)
    wanted = (teacher_logits.detach() / temperature).log_softmax(-1)
    divergence = (wanted.exp() * (wanted - said)).sum(-1).masked_fill(~masked, 0)
    return temperature**2 * divergence.sum() / masked.sum().clamp(min=1)


def complementary(one: Shaped[Tensor, "*n"], other: Shaped[Tensor, "*n"]) -> bool:
    """Whether each position belongs to exactly one of two boolean masks."""
    return bool((one ^ other).all())
