r"""Two languages at once: a text and its translation in one row, a text of both, and regions that are named by words.

Which words are hidden is drawn by :func:`~mmlearn.objectives.mask_tokens` over both texts side by side. With the
numbers of words that translate each other as its ``words``, a word and its translation are hidden together: co-masking.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import masked_cross_entropy, uniform


def join_translations(
    text: Int[Tensor, "b t"],
    translation: Int[Tensor, "b u"],
    mask: Bool[Tensor, "b t"],
    translation_mask: Bool[Tensor, "b u"],
    padding: int = 0,
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """TLM's row: ``[start] text [end] translation [end]`` and padding, n = t + u − 1 long; and which of it is real.

    The start token of the translation is left out. Tokens of the text keep their positions. Labels are joined in the
    same way, with -100 as their ``padding``. Masked words of such a row are guessed from both languages; where there is
    no translation the row is the text, and TLM is MLM. Source: Lample & Conneau 2019 (XLM), section 3.3 and figure 1;
    Chi et al. 2021 (InfoXLM), official code.
    """
    both = torch.cat([text, translation[:, 1:]], dim=1)
    real = torch.cat([mask, translation_mask[:, 1:]], dim=1)
    order = (~real).int().argsort(dim=1, stable=True)  # what is real first, and each in its order
    real = real.gather(1, order)
    return both.gather(1, order).masked_fill(~real, padding), real


def code_switch(
    text: Int[Tensor, "b t"],
    translation: Int[Tensor, "b u"],
    mask: Bool[Tensor, "b t"],
    translation_mask: Bool[Tensor, "b u"],
    word: Int[Tensor, "b t"],
    translated: Int[Tensor, "b u"],
    probability: float,
    generator: torch.Generator,
    padding: int = 0,
) -> tuple[Int[Tensor, "b n"], Bool[Tensor, "b n"]]:
    """Each word of a text gives way to its translation with this probability: tokens, and which are real; n = t + u.

    ``word`` and ``translated`` number words, and one that translates another has its number; tokens of no word have -1.
    A word is exchanged whole and in its place, so the order of words stays that of the text. With probability 0 it is
    the text; with 1 all words are translated that have a translation. Raises ``ValueError`` for no probability.
    Source: Ni et al. 2021 (M3P), section 3.2, multimodal code-switched training.
    """
    if not 0 <= probability <= 1:
        raise ValueError(f"The share of words to translate is from 0 to 1, got {probability}.")
    b, t = text.shape
    first = (word[:, :, None] == word[:, None]).int().argmax(-1)  # where the word of each token begins
    means = (translated[:, :, None] == word[:, None]) & ((translated >= 0) & translation_mask)[:, :, None]  # (b, u, t)
    chosen = uniform(text.shape, generator, text.device).gather(1, first) < probability
    chosen = chosen & means.any(1) & (word >= 0)
    position = torch.arange(t, device=text.device).expand(b, t)
    there = means.int().argmax(-1)  # where the word begins that a token of the translation is of
    taken = means.any(-1) & chosen.gather(1, there)
    kept = torch.cat([mask & ~chosen, taken], dim=1)
    order = torch.cat([position, there], dim=1).masked_fill(~kept, t).argsort(dim=1, stable=True)
    real = kept.gather(1, order)
    return torch.cat([text, translation], dim=1).gather(1, order).masked_fill(~real, padding), real


def masked_region_to_token(
    logits: Float[Tensor, "n v"], classes: Float[Tensor, "n c"], class_tokens: Int[Tensor, "c"]
) -> Float[Tensor, ""]:
    r"""MRTM: name each of n hidden regions by a word of the vocabulary, and not by a number of the detector.

    .. math:: \ell = -\frac{1}{n} \sum_i \log \mathrm{softmax}(z_i)_{w(k_i)}, \quad k_i = \arg\max_k c_{ik}

    ``class_tokens`` w says which token names each class of the detector. Without a hidden region the loss is 0. Logits
    that know nothing give ln v. Source: Zhou et al. 2021 (UC2), section 3.2, masked region-to-token modelling.
    """
    return masked_cross_entropy(logits, class_tokens[classes.argmax(-1)])
