r"""Writing as an objective: every token from those before it, and from what else may be seen.

All are one cross-entropy, :math:`-\frac{1}{|m|} \sum_{i \in m} \log p(x_i \mid \text{what is seen})`. They differ in
what is seen, and in which tokens m are asked:

====================  ==========================================  ==========================
loss                  token i sees                                asked
====================  ==========================================  ==========================
causal                the tokens before it                        all but the first
prefix                the tokens before it, and all of a prefix   what follows the prefix
caption               the tokens before it, and a picture         all but the first
response              the tokens before it, and a picture         what was answered
backward              the tokens behind it, and a picture         all but the last
span denoising        the spans before it, and a text with gaps   what fills the gaps
text denoising        the text before it, and the spoilt text     the whole text
====================  ==========================================  ==========================

In the first four the logits at position i are of token i + 1: the model reads what it is to write. So they are in the
backward one, which is the causal loss of a text that :func:`backwards` has turned round. The last two have an encoder,
and the decoder reads the target :func:`shifted_right`, so the logits at position i are of token i.
Logits that know nothing give ln v. Padding, where ``mask`` is False, is not asked; a batch without anything to ask
costs 0. All raise ``ValueError`` for a token that is none of v.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.masked import IGNORED, masked_cross_entropy


def causal_language_modelling(
    logits: Float[Tensor, "b t v"], tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, ""]:
    r"""CLM: every token but the first, from those before it.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i > 1} \log p(x_i \mid x_{<i})

    Source: Radford et al. 2018 (GPT), equation 1.
    """
    return masked_cross_entropy(logits[:, :-1], _asked(tokens, mask)[:, 1:])


def prefix_language_modelling(
    logits: Float[Tensor, "b t v"],
    tokens: Int[Tensor, "b t"],
    prefix: Bool[Tensor, "b t"],
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, ""]:
    r"""PrefixLM: what follows the prefix, from all of the prefix and the tokens before.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i > p} \log p(x_i \mid x_{\le p}, x_{p < j < i})

    ``prefix`` is True where a token belongs to it; the model attends by :func:`prefix_mask`. The first token is never
    asked, also where the prefix is empty. Source: Raffel et al. 2020 (T5), section 3.2.1; Wang et al. 2022 (SimVLM),
    equation 1.
    """
    return masked_cross_entropy(logits[:, :-1], _asked(tokens, mask).masked_fill(prefix, IGNORED)[:, 1:])


def prefix_mask(prefix: Bool[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Bool[Tensor, "b t t"]:
    """Who may see whom: everything sees the prefix, and each token those before it and itself, but no padding.

    Source: Raffel et al. 2020 (T5), figure 4, right.
    """
    t = prefix.shape[1]
    past = torch.ones(t, t, dtype=torch.bool, device=prefix.device).tril()
    seen = past | prefix[:, None]
    return seen if mask is None else seen & mask[:, None]


def draw_prefix(mask: Bool[Tensor, "b t"], generator: torch.Generator) -> Bool[Tensor, "b t"]:
    """How much of each text is given: the first token at least, and never the last one. All lengths are as likely.

    A text of one token is all prefix. Source: Wang et al. 2022 (SimVLM), section 3.1.
    """
    length = mask.sum(1)
    drawn = torch.rand(len(mask), generator=generator, device=generator.device).to(mask.device)
    count = 1 + (drawn * (length - 1)).long()
    return (mask.cumsum(1) <= count[:, None]) & mask


def backwards(tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Int[Tensor, "b t"]:
    """Each text from its last real token to its first. Padding, which stands behind it, stays where it is.

    Source: Desai & Johnson 2021 (VirTex), section 3, bicaptioning.
    """
    if mask is None:
        return tokens.flip(1)
    position, length = torch.arange(tokens.shape[1], device=tokens.device), mask.sum(1, keepdim=True)
    return tokens.gather(1, torch.where(position < length, length - 1 - position, position))


def caption_language_modelling(
    logits: Float[Tensor, "b t v"],
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"] | None = None,
    label_smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    r"""LM of captions: every word from those before it and the picture, towards a target that is never certain.

    .. math:: \ell = -\frac{1}{|m|} \sum_{i > 1} \sum_w q_i(w) \log p(w \mid x_{<i}, I), \quad
       q_i(w) = (1 - \epsilon)\,[w = x_i] + \epsilon / v

    with ε = ``label_smoothing``. Source: Li et al. 2022 (BLIP), section 3.2; Szegedy et al. 2016, section 7.
    """
    return masked_cross_entropy(logits[:, :-1], _asked(tokens, mask)[:, 1:], label_smoothing)


def response_language_modelling(
    logits: Float[Tensor, "b t v"],
    tokens: Int[Tensor, "b t"],
    response: Bool[Tensor, "b t"],
    mask: Bool[Tensor, "b t"] | None = None,
) -> Float[Tensor, ""]:
    r"""LM of responses: every word of an answer from those before it, the instruction and the picture.

    .. math:: \ell = -\frac{1}{|a|} \sum_{i \in a} \log p(x_i \mid x_{<i}, I)

    ``response`` is True where a token belongs to an answer, its end token too; a conversation has several. What was
    asked is read, and never predicted. Source: Liu et al. 2023 (LLaVA), section 4.2, equation 3.
    """
    return prefix_language_modelling(logits, tokens, ~response, mask)


def responses_in_turn(lengths: Int[Tensor, "b turns"], t: int) -> Bool[Tensor, "b t"]:
    r"""Which of t tokens respond where instructions and responses take turns, an instruction first.

    .. math:: \mathrm{responds}(i) = \Big[\,\big|\{j : \textstyle\sum_{k \le j} l_k \le i\}\big| \text{ is odd}\,\Big]

    So many turns have ended before token i, and behind an odd number of them stands a response. ``lengths`` l are the
    tokens of each turn; a start token belongs to the first one, and turns that a conversation lacks have 0. Padding
    behind the last turn never responds. ``ValueError`` for conversations of more than t tokens.
    Source: Liu et al. 2023 (LLaVA), section 4.2, table 2.
    """
    ends = lengths.cumsum(1)
    if (longest := int(ends.max()) if ends.numel() else 0) > t:
        raise ValueError(f"A conversation of {longest} tokens does not fit into {t}.")
    ended = (torch.arange(t, device=lengths.device) >= ends[..., None]).sum(1)
    return (ended % 2 == 1) & (ended < lengths.shape[1])


def span_denoising(
    logits: Float[Tensor, "b o v"], target: Int[Tensor, "b o"], mask: Bool[Tensor, "b o"] | None = None
) -> Float[Tensor, ""]:
    r"""T5's objective: the hidden spans, one after the other, each behind the sentinel that stands for it.

    .. math:: \ell = -\frac{1}{|m|} \sum_i \log p(y_i \mid y_{<i}, \tilde x)

    The target y has the sentinels too, and they are asked. Source: Raffel et al. 2020 (T5), section 3.1.4, figure 2.
    """
    return masked_cross_entropy(logits, _asked(target, mask))


def text_denoising(
    logits: Float[Tensor, "b t v"], text: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, ""]:
    r"""BART's objective: the whole text as it was, from one that was spoilt.

    .. math:: \ell = -\frac{1}{|m|} \sum_i \log p(x_i \mid x_{<i}, \tilde x)

    Source: Lewis et al. 2020 (BART), section 2.2.
    """
    return masked_cross_entropy(logits, _asked(text, mask))


def shifted_right(target: Int[Tensor, "b t"], start_token: int) -> Int[Tensor, "b t"]:
    """What a decoder reads to write this target: a start token, and then all of it but the last token.

    Source: Vaswani et al. 2017, section 3.1, "outputs (shifted right)".
    """
    return F.pad(target[:, :-1], (1, 0), value=start_token)


def _asked(tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None) -> Int[Tensor, "b t"]:
    """Labels: the real tokens."""
    return tokens if mask is None else tokens.masked_fill(~mask, IGNORED)
