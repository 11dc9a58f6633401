"""Wrong answers about chance and search, and what each is told."""

from functools import partial

import torch
from common_mistakes import from_global_state, from_own_seed

from mmlearn.generation.decoding import beam_search, sampling_probabilities
from mmlearn.objectives import draw_spans
from mmlearn.objectives.masked import choose_positions

# By what odds a token is drawn.


def _odds(
    logits,
    *,
    temperature=1.0,
    top_k=None,
    top_p=1.0,
    heat=lambda z, t: z / t,
    soft=lambda z: z.softmax(-1),
    first_k=lambda rank, odds, k: rank < k,
    inside=lambda before, odds, p: before < p,
    shared=lambda odds: odds / odds.sum(-1, keepdim=True),
    nucleus_of=lambda cut, odds: cut,
):
    """By ranks, so that nothing has to be moved back."""
    odds = soft(heat(logits, temperature))
    rank = odds.argsort(-1, descending=True).argsort(-1)
    cut = odds if top_k is None else shared(odds * first_k(rank, odds, top_k))
    if top_p == 1:
        return cut
    of = nucleus_of(cut, odds)
    before = torch.stack([(of * (rank < rank[:, i : i + 1])).sum(1) for i in range(of.shape[1])], dim=1)
    return shared(cut * inside(before, of, top_p))


def _sorted(logits, **settings):
    return sampling_probabilities(logits, **settings).sort(descending=True).values


def _by_value(rank, odds, k):
    return odds >= odds.topk(min(k, odds.shape[1])).values[:, -1:]


# What is hidden.


def _choose(
    possible,
    probability,
    generator,
    words=None,
    *,
    chosen=lambda chance, p: chance < p,
    one=lambda possible, chosen, lowest: chosen | (lowest & ~(chosen & possible).any(1, keepdim=True)),
    spread=None,
    last=lambda possible, chosen: possible & chosen,
    draw=lambda shape, generator: torch.rand(shape, generator=generator),
):
    """One word after the other gets its number; one place only where none is chosen."""
    chance = draw(possible.shape, generator)
    if words is not None:
        chance = (spread or _word_chance)(chance, words)
    low = chance.masked_fill(~possible, 2).amin(1, keepdim=True)
    return last(possible, one(possible, chosen(chance, probability), (chance == low) & possible))


def _word_chance(chance, words):
    result = chance.clone()
    for i in range(len(chance)):
        for word in words[i].unique():
            result[i, words[i] == word] = chance[i, words[i] == word][-1]
    return result


def _any_of_a_word(chance, words):
    """The lowest number of a word, so that a long word has many chances."""
    result = chance.clone()
    for i in range(len(chance)):
        for word in words[i].unique():
            result[i, words[i] == word] = chance[i, words[i] == word].min()
    return result


def _one_extra(possible, chosen, lowest):
    """Whatever was chosen, one more."""
    rest = possible & ~chosen
    first = rest & (rest.cumsum(1) == 1)
    return chosen | torch.where((chosen & possible).any(1, keepdim=True), first, lowest)


# Spans by chance.


def _draw(
    length,
    *,
    generator,
    share=0.15,
    mean_length=3.0,
    hidden=lambda n, share: min(max(round(n * share), 1), n - 1),
    spans=lambda hidden, mean, n: min(max(round(hidden / mean), 1), n - hidden + 1),
    early=lambda n, share: n < 2 or share == 0,
    parts=None,
):
    """Bars between stars: which of the slots begin a span, and which of the tokens begin a part."""
    if early(length, share):
        return torch.zeros(length, dtype=torch.bool)
    hide = hidden(length, share)
    many = spans(hide, mean_length, length)
    kept = length - hide
    slots = sorted(torch.randperm(kept + 1, generator=generator)[:many].tolist())
    sizes = (parts or _sizes)(hide, many, generator)
    row, position = [], 0
    for slot, size in zip(slots, sizes):
        row += [False] * (slot - position) + [True] * size
        position = slot
    return torch.tensor(row + [False] * (kept - position))


def _sizes(total, count, generator):
    cuts = sorted((torch.randperm(total - 1, generator=generator)[: count - 1] + 1).tolist())
    return [b - a for a, b in zip([0, *cuts], [*cuts, total])]


def _even_sizes(total, count, generator):
    return [total // count + (i < total % count) for i in range(count)]


def _each_by_a_coin(length, *, generator, share=0.15, mean_length=3.0):
    return torch.rand(length, generator=generator) < share


def _single_tokens(length, *, generator, share=0.15, mean_length=3.0):
    hidden = int(draw_spans(length, generator=generator, share=share, mean_length=mean_length).sum())
    masked = torch.zeros(length, dtype=torch.bool)
    masked[torch.randperm(length, generator=generator)[:hidden]] = True
    return masked


# Several beginnings at once.


def _beam(
    next_logits,
    start,
    *,
    end_token,
    max_length,
    pad_token=0,
    allowed=None,
    beams=3,
    length_penalty=1.0,
    normalise=lambda scores: scores.log_softmax(-1),
    count=lambda length, begun: length - begun,
    going=lambda ways, end, beams: [way for way in ways if way[1][-1] != end][:beams],
    unended=True,
    best=max,
):
    """One text at a time, in lists."""
    texts = []
    for row in start.tolist():
        alive, finished = [(0.0, row)], []
        for length in range(len(row) + 1, max_length + 1):
            if not alive:
                break
            scores = normalise(next_logits(torch.tensor([text for _, text in alive]))).tolist()
            ways = [(s + x, [*text, v]) for (s, text), one in zip(alive, scores) for v, x in enumerate(one)]
            ways.sort(reverse=True)
            written = count(length, len(row)) ** length_penalty
            finished += [(total / written, text) for total, text in ways[:beams] if text[-1] == end_token]
            alive = going(ways, end_token, beams)
        written = count(max_length, len(row)) ** length_penalty
        if unended or not finished:
            finished += [(total / written, text) for total, text in alive]
        texts.append(torch.tensor(best(finished)[1]))
    return torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=pad_token)


def _ends_keep_their_position(ways, end, beams):
    return [way for way in ways[:beams] if way[1][-1] != end]


def _last_alone(next_logits, start, **more):
    return beam_search(lambda tokens: next_logits(tokens[:, -1:]), start, **more)


RIGHT = {  # right answers that are written in another way than the library's
    "sampling_probabilities": _odds,
    "choose_positions": _choose,
    "draw_spans": _draw,
    "beam_search": _beam,
}

MISTAKES = {
    "sampling_probabilities": {
        "Each probability must stand at its own token": {"still sorted": _sorted},
        "Without further arguments it must be the softmax": {
            "not normalised": partial(_odds, soft=lambda z: 0.5 * z.softmax(-1))
        },
        "Below 1 it must sharpen": {"multiplied": partial(_odds, heat=lambda z, t: z * t)},
        "It must be the softmax of logits / temperature": {"no temperature": partial(_odds, heat=lambda z, t: z)},
        "tokens must stay": {
            "one too many": partial(_odds, first_k=lambda rank, odds, k: rank <= k),
            "no top_k": partial(_odds, first_k=lambda rank, odds, k: rank < 99),
        },
        "The likeliest must stay, divided by their sum": {"not divided": partial(_odds, shared=lambda odds: odds)},
        "Of equals no more must stay": {"by value": partial(_odds, first_k=_by_value)},
        "At least the likeliest must stay": {
            "without the one that reaches it": partial(_odds, inside=lambda before, odds, p: before + odds <= p)
        },
        "here there are fewer": {
            "the likeliest and no more": partial(
                _odds, inside=lambda before, odds, p: (before + odds <= p) | (before == 0)
            )
        },
        "here there are more": {"no top_p": partial(_odds, inside=lambda before, odds, p: before < 2)},
        "just top_p are enough": {"or equal": partial(_odds, inside=lambda before, odds, p: before <= p)},
        "one of what top_k left": {"nucleus of all": partial(_odds, nucleus_of=lambda cut, odds: odds)},
        "must be finite": {"exp of logits": partial(_odds, soft=lambda z: z.exp() / z.exp().sum(-1, keepdim=True))},
    },
    "choose_positions": {
        "Only possible positions must be chosen": {
            "any position": partial(_choose, last=lambda possible, chosen: chosen)
        },
        "must be chosen with this probability": {
            "the others": partial(_choose, chosen=lambda chance, p: chance >= p),
            "half as often": partial(_choose, chosen=lambda chance, p: chance < p / 2),
        },
        "just one place of each row must be chosen": {
            "possibly none": partial(_choose, one=lambda possible, chosen, lowest: chosen)
        },
        "all equally likely": {
            "always the first": partial(
                _choose,
                one=lambda possible, chosen, lowest: (
                    chosen | (possible & (possible.cumsum(1) == 1) & ~(chosen & possible).any(1, keepdim=True))
                ),
            )
        },
        "of two coins both fall": {"one more each time": partial(_choose, one=_one_extra)},
        "All of a word must be chosen": {"words left out": partial(_choose, spread=lambda chance, words: chance)},
        "A long word must be as likely as a short one": {
            "a chance for each token": partial(_choose, spread=_any_of_a_word)
        },
        "Each row must draw for itself": {
            "one draw for all": partial(
                _choose, draw=lambda shape, g: torch.rand(1, shape[1], generator=g).expand(shape)
            )
        },
        "The same seed must give the same result": {"torch's own generator": from_global_state(choose_positions)},
        "Another seed must give another result": {"a seed of its own": from_own_seed(choose_positions)},
    },
    "draw_spans": {
        "must be hidden; here": {
            "each by a coin": _each_by_a_coin,
            "rounded up": partial(_draw, hidden=lambda n, share: min(int(n * share) + 1, n - 1)),
            "possibly none": partial(
                _draw,
                hidden=lambda n, share: min(round(n * share), n - 1),
                early=lambda n, share: round(n * share) == 0 or n < 2,
            ),
        },
        "spans, apart from each other; here there are": {
            "single tokens": _single_tokens,
            "one span": partial(_draw, spans=lambda hidden, mean, n: 1),
        },
        "With a share of 1 one token must be kept": {
            "everything": lambda length, *, generator, share=0.15, mean_length=3.0: (
                torch.ones(length, dtype=torch.bool)
                if share == 1
                else draw_spans(length, generator=generator, share=share, mean_length=mean_length)
            )
        },
        "and with a share of 0 every text": {"always one": partial(_draw, early=lambda n, share: n < 2)},
        "Both ends of a text must be": {
            "never at the end": lambda length, *, generator, **more: (
                _draw(length, generator=generator, **more)
                if length != 6
                else torch.cat([_draw(5, generator=generator, share=0.6, mean_length=1.5), torch.tensor([False])])
            )
        },
        "The lengths of spans must differ": {"all alike": partial(_draw, parts=_even_sizes)},
        "The same seed must give the same result": {"torch's own generator": from_global_state(draw_spans)},
    },
    "beam_search": {
        "find the likeliest of all texts": {
            "scores as they are": partial(_beam, normalise=lambda scores: scores),
            "probabilities added": partial(_beam, normalise=lambda scores: scores.softmax(-1)),
            "the last token alone": _last_alone,
            "the worst": partial(_beam, best=min),
            "only those that ended": partial(_beam, unended=False),
        },
        "With one beam": {
            "more beams": lambda *given, beams=3, **more: beam_search(*given, beams=max(beams, 6), **more)
        },
        "A text that ends must leave its position": {
            "ended ones keep their position": partial(_beam, going=_ends_keep_their_position)
        },
        "The sum must be divided by the number of written tokens": {
            "the end not counted": partial(_beam, count=lambda length, begun: max(length - begun - 1, 1)),
            "no length penalty": lambda *given, length_penalty=1.0, **more: beam_search(
                *given, length_penalty=0.0, **more
            ),
        },
        "The tokens of the start must not count": {
            "the start counted": partial(_beam, count=lambda length, begun: length - min(begun, 1))
        },
        "It must take 3 beams and length penalty 1": {
            "other defaults": lambda *given, beams=5, **more: beam_search(*given, beams=beams, **more)
        },
    },
}
