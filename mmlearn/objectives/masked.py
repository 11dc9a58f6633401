r"""Masked prediction: hide some words or regions, and predict them from what is left.

Sampling and loss are apart: :func:`mask_tokens` and :func:`mask_regions` choose what to hide, with a generator; the
others compare what a system says at those positions. Every loss is a mean over the hidden positions alone; with none it
is 0, not NaN, and still has a gradient: 0. Those of regions raise ``ValueError`` where predictions, targets and what
was hidden differ in shape.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.tensor_checks import values_are_readable

IGNORED = -100  # the label of a position that is not predicted, as in PyTorch's cross-entropy


def mask_tokens(
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    vocab_size: int,
    mask_token: int,
    special: Sequence[int],
    generator: torch.Generator,
    probability: float = 0.15,
    words: Int[Tensor, "b t"] | None = None,
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Hide about 15 % of the tokens: the tokens to read, and at each hidden place the token to predict (else -100).

    A hidden position shows ``mask_token`` in 80 % of cases, a random token in 10 %, itself in 10 %. Padding and
    ``special`` tokens are never hidden, and no random token is special. Places with the same number in ``words`` are
    one word: all of it is hidden, or nothing. A row with anything to hide has something hidden, so short rows lose a
    little more than ``probability``. Raises ``ValueError`` for no probability, or where every token is special.
    Source: Devlin et al. 2019 (BERT), section 3.1; for whole words, Kim et al. 2021 (ViLT), section 3.3.
    """
    reserved = torch.tensor(sorted({*special, mask_token}), device=tokens.device)
    hidden = choose_positions(mask & ~torch.isin(tokens, reserved), probability, generator, words)
    kind = uniform(tokens.shape, generator, tokens.device)
    drawn = draw_ordinary(tokens, vocab_size, reserved, generator)
    corrupted = tokens.masked_fill(hidden & (kind < 0.8), mask_token)
    corrupted = torch.where(hidden & (kind >= 0.9), drawn, corrupted)
    return corrupted, tokens.masked_fill(~hidden, IGNORED)


ROLES = ("object", "attribute", "relation")  # of a word that a scene graph names


def mask_nodes(
    tokens: Int[Tensor, "b t"],
    role: Int[Tensor, "b t"],
    node: Int[Tensor, "b t"],
    wanted: int,
    *,
    vocab_size: int,
    mask_token: int,
    special: Sequence[int],
    generator: torch.Generator,
    probability: float = 0.3,
) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
    """Hide about 30 % of the nodes of one role in each caption's scene graph: objects, attributes or relations.

    ``role`` numbers the role that each token has, ``node`` the node that it names: all tokens of a node are hidden, or
    none. No token of another role ever is, so the objects stay that an attribute or a relation belongs to. A row with
    any node of this role has one hidden. What is returned, shown and refused is as in :func:`mask_tokens`.
    Source: Yu et al. 2021 (ERNIE-ViL), scene graph prediction.
    """
    return mask_tokens(
        tokens,
        role == wanted,
        vocab_size=vocab_size,
        mask_token=mask_token,
        special=special,
        generator=generator,
        probability=probability,
        words=node,
    )


def draw_ordinary(
    tokens: Int[Tensor, "*n"], vocab_size: int, reserved: Int[Tensor, "r"], generator: torch.Generator
) -> Int[Tensor, "*n"]:
    """A random token for each position, none of the ``reserved`` ones. ``ValueError`` where there is no other."""
    ordinary = torch.arange(vocab_size, device=tokens.device)
    ordinary = ordinary[~torch.isin(ordinary, reserved)]
    if not len(ordinary):
        raise ValueError(f"All {vocab_size} tokens of the vocabulary are special: pass a larger vocab_size.")
    drawn = torch.randint(len(ordinary), tokens.shape, generator=generator, device=generator.device)
    return ordinary[drawn.to(tokens.device)].to(tokens.dtype)


def mask_regions(
    region_mask: Bool[Tensor, "b p"], *, generator: torch.Generator, probability: float = 0.15
) -> Bool[Tensor, "b p"]:
    """Which regions to hide: about 15 % of the real ones, and at least one of each row that has any.

    Raises ``ValueError`` for no probability. Source: Chen et al. 2020 (UNITER), section 3.2.
    """
    return choose_positions(region_mask, probability, generator)


def masked_cross_entropy(
    logits: Float[Tensor, "*n v"], label: Int[Tensor, "*n"], label_smoothing: float = 0.0
) -> Float[Tensor, ""]:
    r"""The cross-entropy of the hidden tokens, or of any labels where -100 means: not asked.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i \in m} \log \mathrm{softmax}(z_i)_{w_i}

    With ``label_smoothing`` ε the target is ε / v for every token, and 1 − ε more for the label. Logits that know
    nothing give ln v. Raises ``ValueError``, on a CPU, for a label that is none of v. Source: Devlin et al. 2019
    (BERT), section 3.1; Szegedy et al. 2016, section 7, for the smoothing.
    """
    wrong = (label != IGNORED) & ((label < 0) | (label >= logits.shape[-1]))
    if values_are_readable(label) and wrong.any():
        raise ValueError(
            f"Labels are 0 to {logits.shape[-1] - 1} here, or {IGNORED} for what is not asked; "
            f"got {int(label[wrong][0])}."
        )
    logits, labels = logits.reshape(-1, logits.shape[-1]), label.reshape(-1)
    total = F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing)
    return total / (label != IGNORED).sum().clamp(min=1)


def masked_region_regression(
    prediction: Float[Tensor, "*p f"], target: Float[Tensor, "*p f"], masked: Bool[Tensor, "*p"]
) -> Float[Tensor, ""]:
    r"""MRFR: predict the features of a hidden region, by the squared distance to them.

    .. math:: \ell = \frac{1}{|m|} \sum_{i \in m} \lVert g(h_i) - r(v_i) \rVert_2^2

    The sum runs over all f features, as the equation says: the official code divides by f as well.
    Source: Chen et al. 2020 (UNITER), section 3.2, masked region feature regression.
    """
    prediction, target = _hidden_regions(prediction, target, masked)
    return (prediction - target).square().sum() / masked.sum().clamp(min=1)


def smooth_region_regression(
    prediction: Float[Tensor, "*p f"], target: Float[Tensor, "*p f"], masked: Bool[Tensor, "*p"]
) -> Float[Tensor, ""]:
    r"""The features of a masked region, by a distance that is square when small and straight when large.

    .. math:: \ell = \frac{1}{|m| f} \sum_{i \in m} \sum_k s(\hat f_{ik} - f_{ik}), \quad
       s(x) = x^2 / 2 \text{ if } |x| < 1 \text{, else } |x| - 1/2

    Source: Tan & Bansal 2019 (LXMERT), section 3.1.2, RoI-feature regression, which says L2; the official code takes
    this.
    """
    prediction, target = _hidden_regions(prediction, target, masked)
    total = F.smooth_l1_loss(prediction, target, reduction="sum")
    return total / (masked.sum() * target.shape[-1]).clamp(min=1)


def masked_region_classification(
    logits: Float[Tensor, "*p c"], classes: Float[Tensor, "*p c"], masked: Bool[Tensor, "*p"]
) -> Float[Tensor, ""]:
    r"""MRC: predict the class that the detector finds most likely for a hidden region.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i \in m} \log \mathrm{softmax}(z_i)_{k_i}, \quad k_i = \arg\max_k c_{ik}

    ``classes`` is the detector's distribution; leave its background class out of it if it has one.
    Source: Chen et al. 2020 (UNITER), section 3.2, masked region classification.
    """
    logits, classes = _hidden_regions(logits, classes, masked)
    return masked_cross_entropy(logits, classes.argmax(-1).masked_fill(~masked, IGNORED))


def masked_region_kl(
    logits: Float[Tensor, "*p c"], classes: Float[Tensor, "*p c"], masked: Bool[Tensor, "*p"]
) -> Float[Tensor, ""]:
    r"""MRC-kl: predict the detector's whole distribution over classes for a hidden region, which keeps its doubts.

    .. math:: \ell = \frac{1}{|m|} \sum_{i \in m} \sum_k c_{ik} \log \frac{c_{ik}}{\mathrm{softmax}(z_i)_k}

    Never negative where rows of ``classes`` sum to 1, and 0 only where both agree. For a detector without doubt
    (one class has 1) it is :func:`masked_region_classification`.
    Source: Chen et al. 2020 (UNITER), section 3.2, MRC-kl; Lu et al. 2019 (ViLBERT), section 2.2.
    """
    logits, classes = _hidden_regions(logits, classes, masked)
    total = F.kl_div(F.log_softmax(logits, -1), classes, reduction="sum")
    return total / masked.sum().clamp(min=1)


def _hidden_regions(prediction: Tensor, target: Tensor, masked: Tensor) -> tuple[Tensor, Tensor]:
    """A prediction (..., f) and what is right at hidden regions, and 0 at others, so that these add nothing to a sum.

    To pick the hidden ones would make a GPU and its host wait for each other, because only the GPU knows how many there
    are. ``ValueError`` where both and which regions were hidden do not agree.
    """
    if prediction.shape != target.shape or masked.shape != prediction.shape[:-1] or masked.dtype != torch.bool:
        raise ValueError(
            f"Of predictions {tuple(prediction.shape)} the targets have the same shape, and what was hidden is boolean "
            f"{tuple(prediction.shape[:-1])}; got {tuple(target.shape)}, and {masked.dtype} {tuple(masked.shape)}."
        )
    others = ~masked[..., None]
    return prediction.masked_fill(others, 0), target.masked_fill(others, 0)


def choose_positions(
    possible: Bool[Tensor, "b n"],
    probability: float,
    generator: torch.Generator,
    words: Int[Tensor, "b n"] | None = None,
) -> Bool[Tensor, "b n"]:
    """Each possible position by chance, and the place of the lowest chance anyway; a word has one chance."""
    if not 0 <= probability <= 1:
        raise ValueError(f"The share to mask must be from 0 to 1, got {probability}.")
    if not possible.numel():
        return possible
    chance = uniform(possible.shape, generator, possible.device)
    if words is not None:
        first = (words[:, :, None] == words[:, None]).int().argmax(-1)  # where the word of each position begins
        chance = chance.gather(1, first)
    lowest = chance.masked_fill(~possible, 1).amin(1, keepdim=True)
    return possible & ((chance < probability) | (chance == lowest))


def uniform(shape: Sequence[int], generator: torch.Generator, device: torch.device) -> Tensor:
    """Random numbers from 0 to 1, the same ones on every device."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device)
