"""Connectionist temporal classification: the probability of a text, summed over all ways to place it in time.

Each frame says one token or the blank. A path π of s such symbols becomes a text by :math:`\\mathcal{B}`: repeated
symbols are merged, then blanks are removed, so ``a a - a b b`` reads ``a a b``. Source: Graves et al. 2006,
"Connectionist Temporal Classification: Labelling Unsegmented Sequence Data with Recurrent Neural Networks".
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

# ln 0, so low that nothing is left of it in a sum, and finite: infinities would have gradients that are no numbers.
IMPOSSIBLE = -1e30


def ctc_loss(
    log_probs: Float[Tensor, "b s v"],
    tokens: Int[Tensor, "b t"],
    frame_mask: Bool[Tensor, "b s"] | None = None,
    token_mask: Bool[Tensor, "b t"] | None = None,
    blank: int = 0,
) -> Float[Tensor, ""]:
    r"""The mean over texts of :math:`-\ln p(l \mid x) / |l|`, as in PyTorch, from :func:`ctc_log_likelihood`.

    A text without tokens counts as one of length 1. Where no path reads a text, the loss is infinite, for such data
    should be told; the gradient leaves that text out and has no NaN. Errors as in :func:`ctc_log_likelihood`.
    Source: Graves et al. 2006, equation 12, there the sum over texts of :math:`-\ln p(l \mid x)`.
    """
    length = (torch.ones_like(tokens, dtype=torch.bool) if token_mask is None else token_mask).sum(1)
    log_likelihood = ctc_log_likelihood(log_probs, tokens, frame_mask, token_mask, blank)
    return -(log_likelihood / length.clamp(min=1)).mean()


def ctc_log_likelihood(
    log_probs: Float[Tensor, "b s v"],
    tokens: Int[Tensor, "b t"],
    frame_mask: Bool[Tensor, "b s"] | None = None,
    token_mask: Bool[Tensor, "b t"] | None = None,
    blank: int = 0,
) -> Float[Tensor, "b"]:
    r"""How likely each text is, :math:`\ln p(l \mid x)`, by the forward algorithm; ``log_probs`` are :math:`\ln y^t_k`.

    .. math:: p(l \mid x) = \sum_{\pi \in \mathcal{B}^{-1}(l)} \prod_t y^t_{\pi_t} = \alpha_T(|l'|) + \alpha_T(|l'| - 1)

    for :math:`l'`, the text with a blank before, between and after its tokens, and

    .. math:: \alpha_t(u) = y^t_{l'_u} \left(\alpha_{t-1}(u) + \alpha_{t-1}(u - 1)
       + [l'_u \ne \mathrm{blank} \wedge l'_u \ne l'_{u-2}]\; \alpha_{t-1}(u - 2)\right)

    Masks are True where a frame or a token is real; other frames are left out. −∞ where no path reads the text, for it
    needs a frame for each token and one more between two that are alike; its gradient is 0.

    Raises ``ValueError`` for an empty batch, shapes that do not go together, a blank or a token outside the vocabulary,
    a blank among the tokens, and a ``token_mask`` that is not True from the first token to the last.
    Source: Graves et al. 2006, equations 2 and 3, and 5 to 8, here in logarithms.
    """
    lattice = lattice_of(log_probs, tokens, frame_mask, token_mask, blank)
    alpha = lattice.start
    for t in range(log_probs.shape[1]):
        ways = lattice.moves(alpha)
        alpha = torch.where(lattice.frames[:, t, None], lattice.emission[:, t] + ways.logsumexp(0), alpha)

    last = lattice.last
    ends = torch.cat([alpha.gather(1, last), alpha.gather(1, (last - 1).clamp(min=0))], dim=1)
    total = torch.where(last[:, 0] > 0, ends.logsumexp(1), ends[:, 0])
    return total.where(total > IMPOSSIBLE / 2, -torch.inf)


class Lattice(NamedTuple):
    """The states of texts between blanks, and how paths go through them. Probabilities are logarithms."""

    emission: Float[Tensor, "b s states"]  # of the symbol of each state
    start: Float[Tensor, "b states"]  # before the first frame: the first blank, so that it reads it or the first token
    skips: Bool[Tensor, "b states"]  # into which states a path may skip a blank
    frames: Bool[Tensor, "b s"]  # True where real
    last: Int[Tensor, "b 1"]  # the last blank; before it the last token, unless there is none

    def moves(self, before: Float[Tensor, "b states"]) -> Float[Tensor, "3 b states"]:
        """The three ways into each state, from those before: stay, one on, and two on where a path may skip."""
        shifted = F.pad(before, (2, 0), value=IMPOSSIBLE)
        return torch.stack([before, shifted[:, 1:-1], shifted[:, :-2].masked_fill(~self.skips, IMPOSSIBLE)])


def lattice_of(
    log_probs: Float[Tensor, "b s v"],
    tokens: Int[Tensor, "b t"],
    frame_mask: Bool[Tensor, "b s"] | None = None,
    token_mask: Bool[Tensor, "b t"] | None = None,
    blank: int = 0,
) -> Lattice:
    """What the sum over all paths and the search for the likeliest share. Errors of :func:`ctc_log_likelihood`."""
    real = torch.ones_like(tokens, dtype=torch.bool) if token_mask is None else token_mask
    frames = torch.ones_like(log_probs[..., 0], dtype=torch.bool) if frame_mask is None else frame_mask
    _check(log_probs, tokens, frames, real, blank)
    symbols = between_blanks(tokens.masked_fill(~real, blank), blank)
    emission = log_probs.gather(2, symbols[:, None].expand(-1, log_probs.shape[1], -1)).clamp(min=IMPOSSIBLE)
    start = torch.full_like(symbols, IMPOSSIBLE, dtype=log_probs.dtype)
    start[:, 0] = 0
    skips = symbols != F.pad(symbols, (2, 0), value=blank)[:, :-2]  # never into a blank: two before is another one
    return Lattice(emission, start, skips, frames, 2 * real.sum(1, keepdim=True))


def between_blanks(tokens: Int[Tensor, "*b t"], blank: int = 0) -> Int[Tensor, "*b states"]:
    """:math:`l'`: a blank before, between and after the tokens, 2 t + 1 symbols. Position 2 k + 1 is token k."""
    symbols = torch.full((*tokens.shape[:-1], 2 * tokens.shape[-1] + 1), blank, device=tokens.device)
    symbols[..., 1::2] = tokens
    return symbols


def _check(log_probs: Tensor, tokens: Tensor, frames: Tensor, real: Tensor, blank: int) -> None:
    b, s, v = log_probs.shape
    if not b:
        raise ValueError("A batch holds at least one sound and its text.")
    if len(tokens) != b or frames.shape != (b, s) or real.shape != tokens.shape:
        raise ValueError(
            f"To log_probs (b, s, v) = {(b, s, v)} belong tokens (b, t) and masks (b, s) and (b, t); got "
            f"{tuple(tokens.shape)}, {tuple(frames.shape)} and {tuple(real.shape)}."
        )
    if not 0 <= blank < v:
        raise ValueError(f"blank is one of the {v} symbols, from 0; got {blank}.")
    if (real[:, 1:] & ~real[:, :-1]).any():
        raise ValueError("token_mask is True from the first token of a text to its last; pad behind.")
    wrong = tokens[real & ((tokens < 0) | (tokens >= v) | (tokens == blank))]
    if len(wrong):
        raise ValueError(
            f"A text is made of the {v} symbols from 0, but for the blank, {blank}; got {int(wrong[0])}. Say in "
            "token_mask what is padding."
        )
