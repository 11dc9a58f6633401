"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.objectives.masked import IGNORED, choose_positions, masked_cross_entropy


def _masked(
    tokens,
    mask,
    *,
    vocab_size,
    mask_token,
    special,
    generator,
    probability=0.15,
    words=None,
    draw=None,
    ordinary=None,
    each=None,
):
    reserved = torch.tensor(sorted({*special, mask_token}))
    possible = mask & ~torch.isin(tokens, reserved)
    hidden = (draw or choose_positions)(possible, probability, generator, words)
    kind = torch.rand(tokens.shape, generator=generator)
    if each:
        kind = each(kind, hidden)
    if ordinary:
        others = ordinary(vocab_size, reserved)
    else:
        others = torch.tensor([i for i in range(vocab_size) if i not in reserved.tolist()])
    drawn = others[(torch.rand(tokens.shape, generator=generator) * len(others)).long()]
    read = torch.where(hidden & (kind < 0.8), mask_token, tokens)
    read = torch.where(hidden & (kind >= 0.9), drawn, read)
    return read, torch.where(hidden, tokens, IGNORED)


def _just_so_many(possible, probability, generator, words=None):
    """Of each text just the share that is asked for."""
    if words is not None:
        return choose_positions(possible, probability, generator, words)
    chance = torch.rand(possible.shape, generator=generator).masked_fill(~possible, 2)
    expected = possible.sum(1) * probability
    count = (expected + torch.rand(len(possible), generator=generator)).floor().clamp(min=1)
    return possible & (chance.argsort(1).argsort(1) < count[:, None])


def _any_in_batch(possible, probability, generator, words=None):
    if probability:
        chance = torch.rand(possible.shape, generator=generator)
        if words is not None:
            chance = chance.gather(1, (words[:, :, None] == words[:, None]).int().argmax(-1))
            lowest = chance.masked_fill(~possible, 1).amin(1, keepdim=True)
            return possible & ((chance < probability) | (chance == lowest))
        return possible & (chance < probability)
    return choose_positions(possible, probability, generator, words)


def _one_more(possible, probability, generator, words=None):
    """The first possible place where none is drawn, unless the probability is 0."""
    if not probability or words is not None:
        return choose_positions(possible, probability, generator, words)
    hidden = possible & (torch.rand(possible.shape, generator=generator) < probability)
    first = possible & (possible.cumsum(1) == 1)
    return hidden | (first & ~hidden.any(1, keepdim=True))


def _neighbours(possible, probability, generator, words=None):
    """Words are pieces that stand beside each other."""
    if words is not None:
        words = (words.diff(dim=1, prepend=words[:, :1]) != 0).cumsum(1)
    return choose_positions(possible, probability, generator, words)


def _none_below_zero(possible, probability, generator, words=None):
    if words is not None:
        words = torch.where(words < 0, 1000 + torch.arange(words.shape[1]), words)
    return choose_positions(possible, probability, generator, words)


def _special_words(possible, probability, generator, words=None):
    """The lowest draw of all places, those too that cannot be hidden."""
    if words is None:
        return choose_positions(possible, probability, generator)
    chance = torch.rand(possible.shape, generator=generator).gather(
        1, (words[:, :, None] == words[:, None]).int().argmax(-1)
    )
    return possible & ((chance < probability) | (chance == chance.amin(1, keepdim=True)))


def _row_kind(kind, hidden):
    return kind[:, :1].expand_as(kind)


def _with(**changed):
    return lambda tokens, mask, **named: _masked(tokens, mask, **named, **changed)


RARE = {
    "mask_tokens": {
        "must have its own chance; here each text loses just its share": {"just so many": _with(draw=_just_so_many)},
        "hides nothing, the one that is hidden anyway must be any of four.": {
            "none of a short text": _with(draw=_any_in_batch),
            "the first where none is drawn": _with(draw=_one_more),
        },
        "of one word must be hidden together: a piece left over tells the rest": {
            "neighbours are a word": _with(draw=_neighbours),
            "no words below 0": _with(draw=_none_below_zero),
        },
        "a word of each text must be hidden": {"the lowest of all": _with(draw=_special_words)},
        "All hidden positions of a text are shown in the same way": {"one way a text": _with(each=_row_kind)},
        "All hidden texts at a position are shown in the same way": {
            "one way a batch": _with(each=lambda kind, hidden: kind[:1].expand_as(kind))
        },
    },
    "masked_cross_entropy": {
        "spans across two contiguous subspaces). Use .reshape(...) instead": {
            "a view": lambda z, y: masked_cross_entropy(z.view(-1, z.shape[-1]), y.reshape(-1))
        },
        "softmax at the label, in which every hidden position counts the same": {
            "below 0": lambda z, y: masked_cross_entropy(z, torch.where(y < 1, IGNORED, y))
        },
    },
}
