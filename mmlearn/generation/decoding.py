"""From next-token scores to texts: the likeliest token each time, the likeliest text of a few, or a draw.

Each function asks ``next_logits``, a function from the tokens so far (n, t) to scores of the next one (n, v). It knows
no model. ``start`` (b, t) holds what the texts begin with, padded at the left. A text goes on until ``end_token``,
which is part of it, or until it has ``max_length`` tokens with the start; behind the end stands ``pad_token``. Where a
model has several end tokens, each of them ends a text. A start may hold an end token only where it has ``turns``, as a
chat has.

``allowed`` narrows what may be written. No text ends before it has ``min_new_tokens`` behind its start, and no n-gram
of ``no_repeat_ngram_size`` tokens is in it twice (:mod:`mmlearn.generation.constrained`). All raise ``ValueError`` for
a start that is empty, too long, or has its end in the middle, and for scores that are NaN or exclude every token.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.generation.constrained import Allowed, EndToken, Limit, limits

NextLogits = Callable[[Int[Tensor, "n t"]], Float[Tensor, "n v"]]


def greedy(
    next_logits: NextLogits,
    start: Int[Tensor, "b t"],
    *,
    end_token: EndToken,
    max_length: int,
    pad_token: int = 0,
    turns: bool = False,
    allowed: Allowed | None = None,
    min_new_tokens: int = 0,
    no_repeat_ngram_size: int = 0,
) -> Int[Tensor, "b length"]:
    r"""Take the likeliest token, again and again, :math:`y_t = \arg\max_y p(y \mid y_{<t})`."""
    limit = limits(start.shape[1], end_token, allowed, min_new_tokens, no_repeat_ngram_size)
    return _extend(next_logits, lambda logits: logits.argmax(-1), start, end_token, max_length, pad_token, turns, limit)


def sample(
    next_logits: NextLogits,
    start: Int[Tensor, "b t"],
    *,
    end_token: EndToken,
    max_length: int,
    pad_token: int = 0,
    turns: bool = False,
    allowed: Allowed | None = None,
    min_new_tokens: int = 0,
    no_repeat_ngram_size: int = 0,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    generator: torch.Generator,
) -> Int[Tensor, "b length"]:
    """Draw each token by its probability, as :func:`sampling_probabilities` changes it. Errors as there."""
    settings = dict(temperature=temperature, top_k=top_k, top_p=top_p)
    sampling_probabilities(torch.zeros(1, 1), **settings)  # refuses what cannot be, before a model is asked
    limit = limits(start.shape[1], end_token, allowed, min_new_tokens, no_repeat_ngram_size)

    def draw(logits: Tensor) -> Tensor:
        odds = sampling_probabilities(logits, **settings).to(generator.device)
        return torch.multinomial(odds, 1, generator=generator)[:, 0].to(logits.device)

    return _extend(next_logits, draw, start, end_token, max_length, pad_token, turns, limit)


def sampling_probabilities(
    logits: Float[Tensor, "n v"], *, temperature: float = 1.0, top_k: int | None = None, top_p: float = 1.0
) -> Float[Tensor, "n v"]:
    r"""By what odds each token is drawn: the likely ones likelier still, and the unlikely ones never.

    .. math:: p(y) = \mathrm{softmax}(z / \tau)_y, \qquad \sum_{y \in V^{(p)}} p(y) \ge \mathrm{top\_p}

    A ``temperature`` τ below 1 sharpens. Of the result only the ``top_k`` likeliest stay, and of these the nucleus
    :math:`V^{(p)}`: the fewest that together have at least ``top_p``. What stays is divided by its sum. Raises
    ``ValueError`` for a temperature that is not above 0, less than one token, or a ``top_p`` outside (0, 1].
    Source: Fan et al. 2018, section 5.1 (top-k); Holtzman et al. 2020, section 3.1, equations 2 and 3 (nucleus).
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature is above 0, got {temperature}; near 0 it is greedy decoding, so take that.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k is at least one token, got {top_k}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p is a probability above 0 and at most 1, got {top_p}.")
    probability, token = (logits.float() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    if top_k is not None:
        probability[:, top_k:] = 0
        probability = probability / probability.sum(-1, keepdim=True)
    if top_p < 1:
        before = probability.cumsum(-1) - probability  # before the likeliest stands 0
        probability = probability * (before < top_p)
        probability = probability / probability.sum(-1, keepdim=True)
    return torch.zeros_like(probability).scatter(1, token, probability)


def beam_search(
    next_logits: NextLogits,
    start: Int[Tensor, "b t"],
    *,
    end_token: EndToken,
    max_length: int,
    pad_token: int = 0,
    allowed: Allowed | None = None,
    beams: int = 3,
    length_penalty: float = 1.0,
    turns: bool = False,
    min_new_tokens: int = 0,
    no_repeat_ngram_size: int = 0,
) -> Int[Tensor, "b length"]:
    r"""Keep the ``beams`` likeliest beginnings of each text, and of all that ended take the best for its length.

    .. math:: \arg\max_y \frac{1}{|y|^\alpha} \sum_t \log p(y_t \mid y_{<t})

    where :math:`|y|` counts written tokens and α = ``length_penalty``; 0 favours short texts. A beginning that ends
    while it is among the likeliest is remembered and leaves its position to others. The search stops once no beginning
    can become better than what is remembered. ``next_logits`` is asked for all beams at once: rows ``i · beams`` to
    ``(i + 1) · beams`` are text i. Raises ``ValueError`` for less than one beam, or more than tokens in the vocabulary.
    Source: Wu et al. 2016, section 7, equation 14, for the penalty by length, where 5 are added to the count of tokens;
    without them, and with the end token in it, as in Transformers.
    """
    if beams < 1:
        raise ValueError(f"A search needs at least one beam, got {beams}.")
    _check_start(start, end_token, max_length, pad_token, turns)
    (b, begun), device = start.shape, start.device
    limit = limits(begun, end_token, allowed, min_new_tokens, no_repeat_ngram_size)
    tokens = start.repeat_interleave(beams, dim=0)  # (b · beams, t)
    # All beams begin alike, so only the first of each text may go on. What may not has -inf.
    score = torch.full((b, beams), -torch.inf, device=device)
    score[:, 0] = 0
    best = torch.full((b, max_length), pad_token, device=device)
    best_value, length = torch.full((b,), -torch.inf, device=device), torch.zeros(b, dtype=torch.long, device=device)

    def remember(texts: Int[Tensor, "b k t"], value: Float[Tensor, "b k"]) -> None:
        """The best of these where it is better than the best so far."""
        value, which = value.max(1)
        better, t = value > best_value, texts.shape[-1]
        best[better, :t] = texts[better, which[better]]
        best[better, t:] = pad_token
        best_value[better], length[better] = value[better], t

    while tokens.shape[1] < max_length and _can_improve(score, best_value, tokens, begun, max_length, length_penalty):
        dead = score.flatten() == -torch.inf
        step = _ask(next_logits, tokens, dead).float().log_softmax(-1)
        if beams > (v := step.shape[-1]):
            raise ValueError(f"{beams} beams are more than the {v} tokens of the vocabulary: take at most {v}.")
        step = limit(step, tokens, dead)
        total = score[:, :, None] + step.unflatten(0, (b, beams))  # (b, beams, v)
        _check_open(total.flatten(1), tokens[::beams], best_value > -torch.inf)
        # Each beam has as many ways to end as there are end tokens, so that of these at least ``beams`` go on.
        ways = 1 if isinstance(end_token, int) else len(end_token)
        high, index = total.flatten(1).topk(min((1 + ways) * beams, beams * v))
        row = index // v + torch.arange(b, device=device)[:, None] * beams
        longer = torch.cat([tokens[row], (index % v)[..., None]], dim=-1)  # (b, (1 + ways) · beams, t + 1)
        ends, written = is_end(index % v, end_token), longer.shape[-1] - begun
        remember(longer[:, :beams], (high / written**length_penalty).masked_fill(~ends, -torch.inf)[:, :beams])
        score, order = high.masked_fill(ends, -torch.inf).topk(beams)
        tokens = longer.gather(1, order[..., None].expand(-1, -1, longer.shape[-1])).flatten(0, 1)
    if tokens.shape[1] == max_length:  # what has not ended competes as it is
        remember(tokens.unflatten(0, (b, beams)), score / (max_length - begun) ** length_penalty)
    return best[:, : int(length.max())] if b else start


def is_end(tokens: Int[Tensor, "..."], end_token: EndToken) -> Bool[Tensor, "..."]:
    """Which of these tokens end a text."""
    if isinstance(end_token, int):
        return tokens == end_token
    return torch.isin(tokens, torch.tensor(end_token, device=tokens.device))


def _can_improve(
    score: Tensor, best_value: Tensor, tokens: Tensor, begun: int, max_length: int, length_penalty: float
) -> bool:
    """Whether a text may still be found that is better, if all that its likeliest beginning lacks were certain."""
    written = max_length - begun if length_penalty > 0 else tokens.shape[1] - begun + 1
    return bool((score.amax(1) / written**length_penalty > best_value).any())


def _extend(
    next_logits: NextLogits,
    choose: Callable[[Float[Tensor, "n v"]], Int[Tensor, "n"]],
    tokens: Int[Tensor, "n t"],
    end_token: EndToken,
    max_length: int,
    pad_token: int,
    turns: bool,
    limit: Limit,
) -> Int[Tensor, "n length"]:
    """Add the chosen token to each text until all have ended."""
    _check_start(tokens, end_token, max_length, pad_token, turns)
    done = torch.zeros(len(tokens), dtype=torch.bool, device=tokens.device)
    while tokens.shape[1] < max_length and not done.all():
        logits = limit(_ask(next_logits, tokens, done), tokens, done)
        _check_open(logits, tokens, done)
        token = choose(logits).masked_fill(done, pad_token)
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        done |= is_end(token, end_token)
    return tokens


def _ask(next_logits: NextLogits, tokens: Int[Tensor, "n t"], done: Bool[Tensor, "n"]) -> Float[Tensor, "n v"]:
    """The scores of what comes next. ``ValueError`` where a text that is not done has none that can be used."""
    logits = next_logits(tokens)
    highest = logits.amax(-1)  # NaN where one of them is
    if (wrong := ~(highest.isfinite() | done)).any():
        i = int(wrong.nonzero()[0, 0])
        where = f"after the {tokens.shape[1]} tokens of row {i}"
        if highest[i] == -torch.inf:
            raise ValueError(f"No token may be written {where}: the scores of all are -inf.")
        raise ValueError(f"The scores {where} have {highest[i].item()} among them: look for it in the model's weights.")
    return logits.masked_fill(done[:, None], 0.0) if done.any() else logits  # whatever is said after the end


def _check_open(logits: Float[Tensor, "n v"], tokens: Int[Tensor, "n t"], done: Bool[Tensor, "n"]) -> None:
    """``ValueError`` for a text that is not done, and of which no token may be written."""
    if (none := (logits.amax(-1) == -torch.inf) & ~done).any():
        written = tokens[int(none.nonzero()[0, 0])].tolist()
        raise ValueError(
            f"min_new_tokens and no_repeat_ngram_size leave no token that may follow {written}: lower one of them."
        )


def _check_start(start: Int[Tensor, "b t"], end_token: EndToken, max_length: int, pad_token: int, turns: bool) -> None:
    t = start.shape[1]
    if not t:
        raise ValueError("The start is empty: a text begins with at least one token, such as a start token.")
    if t >= max_length:
        raise ValueError(
            f"max_length {max_length} counts the {t} tokens of the start too, and leaves none to be written; raise it, "
            "or shorten the start."
        )
    if turns:
        return
    ends = is_end(start, end_token)
    ordinary = ~ends & (start != pad_token)  # before them some models begin with the end token
    if (early := ends & (ordinary.cumsum(1) > 0)).any():
        row, column = early.nonzero()[0].tolist()
        token = int(start[row, column])
        raise ValueError(f"Row {row} of the start has its end token, {token}, at position {column}: cut it off there.")
