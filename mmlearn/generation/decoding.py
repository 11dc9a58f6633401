"""From next-token scores to texts: the likeliest token each time, the likeliest text of a few, or a draw.

Each function asks ``next_logits``, a function from the tokens so far (n, t) to scores of the next one (n, v). ``start``
(b, t) holds what the texts begin with. A text goes on until ``end_token``, which is part of it, or ``max_length``
tokens with the start; behind the end stands ``pad_token``. ``ValueError`` where nothing is left to be written.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

NextLogits = Callable[[Int[Tensor, "n t"]], Float[Tensor, "n v"]]


def greedy(
    next_logits: NextLogits, start: Int[Tensor, "b t"], *, end_token: int, max_length: int, pad_token: int = 0
) -> Int[Tensor, "b length"]:
    r"""Take the likeliest token, again and again, :math:`y_t = \arg\max_y p(y \mid y_{<t})`."""
    return _extend(lambda tokens: next_logits(tokens).argmax(-1), start, end_token, max_length, pad_token)


def nucleus(
    next_logits: NextLogits,
    start: Int[Tensor, "b t"],
    *,
    end_token: int,
    max_length: int,
    pad_token: int = 0,
    mass: float = 0.9,
    generator: torch.Generator,
) -> Int[Tensor, "b length"]:
    r"""Draw each token from the nucleus: the fewest likeliest tokens that together have at least ``mass``.

    .. math:: \sum_{y \in V^{(p)}} p(y \mid y_{<t}) \ge p

    Raises ``ValueError`` for a mass outside (0, 1]. Source: Holtzman et al. 2020, section 3.1, equations 2 and 3.
    """
    if not 0 < mass <= 1:
        raise ValueError(f"mass is a probability above 0 and at most 1, got {mass}.")

    def draw(tokens: Tensor) -> Tensor:
        probability, token = next_logits(tokens).softmax(-1).sort(dim=-1, descending=True, stable=True)
        before = probability.cumsum(-1) - probability
        odds = (probability * (before < mass)).to(generator.device)  # before the likeliest stands 0
        drawn = torch.multinomial(odds, 1, generator=generator).to(token.device)
        return token.gather(1, drawn)[:, 0]

    return _extend(draw, start, end_token, max_length, pad_token)


def beam_search(
    next_logits: NextLogits,
    start: Int[Tensor, "b t"],
    *,
    end_token: int,
    max_length: int,
    pad_token: int = 0,
    beams: int = 3,
    length_penalty: float = 1.0,
) -> Int[Tensor, "b length"]:
    r"""Keep the ``beams`` likeliest beginnings of each text, and at last take the best for its length.

    .. math:: \arg\max_y \frac{1}{|y|^\alpha} \sum_t \log p(y_t \mid y_{<t})

    for :math:`|y|` written tokens and α = ``length_penalty``; 0 favours short texts. A finished text keeps its place
    among the beams. ``next_logits`` is asked for all beams at once: rows ``i · beams`` to ``(i + 1) · beams`` are text
    i. Raises ``ValueError`` for less than one beam. Source: Wu et al. 2016, section 7, equation 14, for the
    penalty by length, where 5 are added to the count of tokens; without them as in Transformers.
    """
    if beams < 1:
        raise ValueError(f"A search needs at least one beam, got {beams}.")
    _check_length(start, max_length)
    b = len(start)
    tokens = start.repeat_interleave(beams, dim=0)  # (b · beams, t)
    # All beams begin alike, so only the first of each text may go on.
    score = torch.full((b, beams), -torch.inf, device=start.device)
    score[:, 0] = 0
    done = torch.zeros(b * beams, dtype=torch.bool, device=start.device)
    written = torch.zeros(b * beams, device=start.device)
    while tokens.shape[1] < max_length and not done.all():
        step = next_logits(tokens).float().log_softmax(-1)
        v = step.shape[-1]
        step = step.masked_fill(done[:, None], -torch.inf)
        step[:, pad_token] = torch.where(done, 0.0, step[:, pad_token])  # a finished text goes on as it is, for free
        total = score[:, :, None] + step.unflatten(0, (b, beams))
        score, best = total.flatten(1).topk(beams)
        row = (best // v + torch.arange(b, device=start.device)[:, None] * beams).flatten()
        token = (best % v).flatten()
        written = written[row] + ~done[row]
        tokens = torch.cat([tokens[row], token[:, None]], dim=1)
        done = done[row] | (token == end_token)
    value = score / written.view(b, beams) ** length_penalty
    return tokens.unflatten(0, (b, beams))[torch.arange(b, device=start.device), value.argmax(1)]


def _extend(
    choose: Callable[[Tensor], Tensor], tokens: Tensor, end_token: int, max_length: int, pad_token: int
) -> Tensor:
    _check_length(tokens, max_length)
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    while tokens.shape[1] < max_length and not done.all():
        token = choose(tokens).masked_fill(done, pad_token)
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        done |= token == end_token
    return tokens


def _check_length(start: Tensor, max_length: int) -> None:
    if start.shape[1] >= max_length:
        raise ValueError(
            f"max_length {max_length} counts the {start.shape[1]} tokens of the start too, and leaves none to be "
            "written; raise it."
        )
