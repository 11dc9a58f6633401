"""What may be written: one of a set of answers, or what a grammar allows; no end too early, and no words twice.

A grammar is a function from the tokens that a text has so far, without its start, to those that may come next, the end
token among them where the text may end. Every decoder takes one as ``allowed``. It forbids, and does not change the
scores of what it allows: a beam search finds the answer that is likeliest to the model. So do ``min_new_tokens`` and
``no_repeat_ngram_size`` (:func:`limits`).
"""

from collections.abc import Callable, Collection, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Allowed = Callable[[tuple[int, ...]], Collection[int]]
Limit = Callable[[Float[Tensor, "n v"], Int[Tensor, "n t"], Bool[Tensor, "n"]], Float[Tensor, "n v"]]


def trie(answers: Collection[Sequence[int]], end_token: int) -> Allowed:
    """One of these answers, and then the end token. Each answer is its tokens without start and end.

    Answers that begin alike share a branch of the tree, so that a step looks at one node. Raises ``ValueError`` for no
    answer, an empty one, and one that has the end token in it. Source: De Cao et al. 2021, section 3.2.
    """
    if not len(answers):
        raise ValueError("There is no answer to choose from: give at least one.")
    root: dict[int, dict] = {}
    for answer in answers:
        if not len(answer) or end_token in answer:
            raise ValueError(f"An answer has tokens, and the end token {end_token} is none of them; got {[*answer]}.")
        node = root
        for token in (*answer, end_token):
            node = node.setdefault(int(token), {})

    def allowed(written: tuple[int, ...]) -> Collection[int]:
        node = root
        for token in written:
            node = node.get(token, {})
        return node.keys()

    return allowed


def boxes(positions: range, labels: Collection[int], end_token: int) -> Allowed:
    """Any number of objects, each a box and a label: top, left, bottom, right, of ``positions``, and one of ``labels``.

    Bottom and right come behind top and left. A text ends after a whole object, or without any. Raises ``ValueError``
    where a token would have two meanings. Source: Chen et al. 2022 (Pix2Seq), section 2.1.
    """
    kinds = [set(positions), set(labels), {end_token}]
    if not positions or not labels or len(set.union(*kinds)) < sum(map(len, kinds)):
        raise ValueError("A token is a position, a label or the end token, and there is at least one of each.")

    def allowed(written: tuple[int, ...]) -> Collection[int]:
        part = len(written) % 5
        if part == 4:
            return labels
        if part >= 2:
            return positions[positions.index(written[-2]) :]
        return [*positions, end_token] if part == 0 else positions

    return allowed


def timestamped(text: Collection[int], times: range, end_token: int, first_within: int = 50) -> Allowed:
    """Phrases between two times: when it begins, its words, when it ends; no time is before an earlier one.

    The first token is one of the first times, up to number ``first_within``: a second, as Whisper counts them. Behind
    the end of a phrase stands the beginning of the next, at the same time or later, or the end token. A phrase may also
    break off, and then the end token follows its beginning or its words. ``text`` are all tokens of words, ``times``
    those of times, in their order. Raises ``ValueError`` where a token would have two meanings.
    Source: Radford et al. 2022 (Whisper), section 2.3; official code, ``ApplyTimestampRules``.
    """
    words = sorted(set(text))
    if not times or not words or len({*words, *times, end_token}) < len(words) + len(times) + 1:
        raise ValueError("A token is of a text, a time or the end token, and there is at least one of each.")

    def allowed(written: tuple[int, ...]) -> Collection[int]:
        if not written:
            return times[: first_within + 1]
        said = [token for token in written if token in times]
        ended = len(written) > 1 and written[-1] in times and written[-2] not in times  # a phrase has ended
        later = times[times.index(said[-1]) + (not ended) :] if said else times
        if ended:
            return [*later, end_token]
        return [*words, end_token] if written[-1] in times else [*words, *later, end_token]

    return allowed


def limits(
    begun: int, end_token: int, allowed: Allowed | None = None, min_new_tokens: int = 0, no_repeat_ngram_size: int = 0
) -> Limit:
    """A function from scores (n, v), tokens (n, t) of which ``begun`` are start, and which rows are done, to scores.

    These are -inf for what may not come next: the end before ``min_new_tokens`` are written, and the last token of an
    n-gram of ``no_repeat_ngram_size`` that the text has already, its start and padding included; 0 limits nothing. A
    token that is the only one with a finite score is written whatever these two say, such as a forced end. Raises
    ``ValueError`` for negative numbers. Source: Paulus et al. 2018, section 2.5 (n-grams).
    """
    for name, value in dict(min_new_tokens=min_new_tokens, no_repeat_ngram_size=no_repeat_ngram_size).items():
        if value < 0:
            raise ValueError(f"{name} is at least 0, which limits nothing; got {value}.")

    def limit(scores: Tensor, tokens: Tensor, done: Tensor) -> Tensor:
        if min_new_tokens or no_repeat_ngram_size:
            barred = repeating(tokens, no_repeat_ngram_size, scores.shape[-1])  # (n, v)
            if tokens.shape[1] - begun < min_new_tokens:
                barred[:, end_token] = True
            forced = scores.isfinite().sum(-1) == 1
            scores = scores.masked_fill(barred & ~(done | forced)[:, None], -torch.inf)
        return scores if allowed is None else mask_disallowed(scores, tokens, begun, done, allowed)

    return limit


def repeating(tokens: Int[Tensor, "n t"], size: int, vocab_size: int) -> Bool[Tensor, "n v"]:
    """Which next token would end an n-gram of this ``size`` that the row has already; none where that is 0."""
    n, t = tokens.shape
    barred = torch.zeros(n, vocab_size + 1, dtype=torch.bool, device=tokens.device)  # the last column is for no token
    if 0 < size <= t:
        ngrams = tokens.unfold(1, size, 1)  # (n, t - size + 1, size)
        begins = (ngrams[..., :-1] == tokens[:, None, t - size + 1 :]).all(-1)  # as the next one does
        last = ngrams[..., -1].masked_fill(~begins, vocab_size).clamp(max=vocab_size)
        barred.scatter_(1, last, torch.ones_like(last, dtype=torch.bool))
    return barred[:, :vocab_size]


def mask_disallowed(
    scores: Float[Tensor, "n v"], tokens: Int[Tensor, "n t"], begun: int, done: Bool[Tensor, "n"], allowed: Allowed
) -> Float[Tensor, "n v"]:
    """The scores with -inf for what may not come next. ``begun`` tokens are start; rows that are ``done`` stay.

    Raises ``ValueError`` where nothing is allowed, or nothing that the scores do not exclude, or a token beyond the v.
    """
    v = scores.shape[-1]
    may = torch.zeros_like(scores, dtype=torch.bool)
    may[done] = True
    known: dict[tuple[int, ...], list[int]] = {}  # beams and texts that began alike ask but once
    for i in (~done).nonzero()[:, 0].tolist():
        written = tuple(tokens[i, begun:].tolist())
        if written not in known:
            known[written] = sorted(allowed(written))
            if not known[written]:
                raise ValueError(
                    f"The grammar allows nothing after {[*written]}: allow the end token where it may end."
                )
            if not 0 <= known[written][0] <= known[written][-1] < v:
                wrong = next(token for token in known[written] if not 0 <= token < v)
                raise ValueError(
                    f"The grammar allows token {wrong}, and the model knows {v}, from 0: it was made with a tokenizer "
                    "of another vocabulary."
                )
        may[i, known[written]] = True
    scores = scores.masked_fill(~may, -torch.inf)
    if (none := scores.amax(-1) == -torch.inf).any():
        written = tokens[int(none.nonzero()[0, 0]), begun:].tolist()
        raise ValueError(f"The scores exclude all that the grammar allows after {written}.")
    return scores
