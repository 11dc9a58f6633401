"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
import torch.nn.functional as F
from common_mistakes import deaf, detached, then
from einops import rearrange

from mmlearn.models.bridges.vlm import pixel_shuffle


def _shuffled(x, rows, s, *, into="b (row column) (y x d)", swap=False):
    """Cut into squares one by one, or so that something differs."""
    other = x.shape[1] // rows
    high, wide = (other, rows) if swap else (rows, other)
    grid = x.unflatten(1, (high, wide))
    cut = "b (row y) (column x) d -> " + into
    return rearrange(grid, cut, y=s, x=s)


def _squares_apart(x, rows, s):
    grid = x.unflatten(1, (rows, -1))
    squares = [one.flatten(1) for line in grid.split(s, 1) for one in line.split(s, 2)]
    return torch.stack(squares, 1)


def _placed(words, images, is_image, *, number=lambda i, n, found: i, sums=False):
    """Row by row, or so that something differs."""
    rows = []
    for text, seen, here in zip(words, images, is_image):
        row, i = [], 0
        for word, gives_way in zip(text, here.tolist()):
            new = seen[number(i, len(seen), int(here.sum()))] if gives_way else word
            row.append(new + word if sums and gives_way else new)
            i += gives_way
        rows.append(torch.stack(row))
    return torch.stack(rows)


def _in_place(words, images, is_image):
    words[is_image] = _placed(words, images, is_image)[is_image]
    return words


def _assistant(
    tokens, opens, end, *, key=lambda opens: opens, last=True, given=False, turns=lambda found: found, stops=True
):
    """From each place where an answer opens to its end, or so that something differs; ``key`` is what opens it."""
    rows = []
    for row in tokens.tolist():
        wanted, mark, done, spans = key(opens).tolist(), [False] * len(row), 0, []
        for i in range(len(row) - len(wanted) + 1):
            if i >= done and row[i : i + len(wanted)] == wanted:
                begin = i + len(wanted)
                done = row.index(end, begin) + 1 if end in row[begin:] and stops else len(row)
                spans.append((i if given else begin, done))
        for begin, done in turns(spans):
            for i in range(begin, done if last or row[done - 1] != end else done - 1):
                mark[i] = True
        rows.append(mark)
    return torch.tensor(rows)


def _ended_answers(tokens, opens, end):
    """An answer that is cut is none."""
    marks = _assistant(tokens, opens, end)
    for row, mark in zip(tokens.tolist(), marks):
        if mark[-1] and row[-1] != end:
            last = len(row) - row[::-1].index(end)
            mark[last:] = False
    return marks


def _answered(states, table, tokens, is_answer, *, shift=1, counts=lambda here: here, moved=True, last=None):
    """Cross-entropy of what counts, or of what is counted in its place."""
    t = tokens.shape[1]
    some = counts(is_answer)
    chosen = some[:, 1:] if moved and shift else some[:, : t - 1]
    wanted = tokens[:, 1:] if shift else tokens[:, : t - 1]
    logs = (torch.where(chosen[..., None], states[:, : t - 1], 0) @ table.T).log_softmax(-1)
    losses = -logs.gather(2, wanted[..., None])[..., 0]
    return (last or (lambda each, which: each[which].mean()))(losses, chosen)


def _masked_at_the_end(states, table, tokens, is_answer):
    logs = (states[:, :-1] @ table.T).log_softmax(-1).gather(2, tokens[:, 1:, None])[..., 0]
    return -(logs * is_answer[:, 1:]).sum() / is_answer[:, 1:].sum()


def _merged(weight, down, up, alpha, *, scale=lambda a, r, w: a / r, keep=1.0, sign=1.0):
    change = torch.einsum("kr,rd->kd", up, down)
    return keep * weight + sign * scale(alpha, down.shape[0], weight) * change


def _merged_in_place(weight, down, up, alpha):
    weight += alpha / len(down) * up @ down
    return weight


RIGHT = {  # right answers that are written in another way than the library's
    "pixel_shuffle": _squares_apart,
    "place_images": _placed,
    "assistant_tokens": _assistant,
    "answer_loss": _answered,
    "merged_lora": _merged,
}

MISTAKES = {
    "pixel_shuffle": {
        "here they follow one another in one row": {
            "a view": lambda x, rows, s: x.reshape(len(x), -1, s * s * x.shape[2])
        },
        "In each square, patches must be in reading order": {
            "x before y": partial(_shuffled, into="b (row column) (x y d)")
        },
        "The d numbers of a patch must stay together": {"d first": partial(_shuffled, into="b (row column) (d y x)")},
        "Squares must be in reading order": {"column by column": partial(_shuffled, into="b (column row) (y x d)")},
        "here it is taken for that of columns": {
            "a square's sides exchanged": lambda x, rows, s: (
                x.view(len(x), x.shape[1] // rows // s, s, rows // s, s, -1)
                .permute(0, 1, 3, 2, 4, 5)
                .reshape(_squares_apart(x, rows, s).shape)
            )
        },
        "must have shape": {
            "a mean": lambda x, rows, s: _squares_apart(x, rows, s).unflatten(2, (s * s, -1)).mean(2),
            "still a grid": lambda x, rows, s: pixel_shuffle(x, rows, s).unflatten(1, (rows // s, -1)),
        },
        "A gradient must flow from the result": {"no gradient": detached(pixel_shuffle)},
    },
    "place_images": {
        "here words are still there": {"nothing is placed": lambda words, images, is_image: words + 0},
        "here all get the first": {"the first for all": partial(_placed, number=lambda i, n, found: 0)},
        "here embeddings that the first row leaves over": {
            "masked_scatter": lambda words, images, is_image: words.masked_scatter(is_image[..., None], images)
        },
        "Count from 0": {"one too late": partial(_placed, number=lambda i, n, found: min(i + 1, n - 1))},
        "not its last": {"the last ones": partial(_placed, number=lambda i, n, found: n - found + i)},
        "here its embedding is still in the sum": {"a sum": partial(_placed, sums=True)},
        "Words must stay": {"no words": lambda w, images, here: _placed(0 * w, images, here)},
        "must get embedding i": {"from the end": partial(_placed, number=lambda i, n, found: n - 1 - i)},
        "must leave its arguments": {"in place": _in_place},
        "none comes to images": {"images are constants": deaf(_placed, 1)},
        "none comes to words": {"words are constants": deaf(_placed, 0)},
    },
    "assistant_tokens": {
        "The end token of an answer must count": {"without the end": partial(_assistant, last=False)},
        "The tokens that open an answer must not count": {"with its opening": partial(_assistant, given=True)},
        "here only the first one does": {"the first answer": partial(_assistant, turns=lambda found: found[:1])},
        "here the first one does not": {"the last answer": partial(_assistant, turns=lambda found: found[-1:])},
        "An answer that is cut": {"only what has an end": _ended_answers},
        "The first token of an answer must count": {
            "one too late": partial(_assistant, turns=lambda found: [(begin + 1, done) for begin, done in found])
        },
        "Padding must not count": {"all that follows": partial(_assistant, stops=False)},
        "what a user says is given": {
            "the word assistant opens": partial(_assistant, key=lambda opens: opens[1:]),
            "padding alone left out": lambda tokens, opens, end: (
                _assistant(tokens, opens, end, stops=False) & (tokens != 0) & ~_opening(tokens, opens)
            ),
        },
        "It must go by opens and end": {
            "the template of the first test": lambda tokens, opens, end: _assistant(tokens, torch.tensor([1, 4, 5]), 2)
        },
        "must be boolean": {"whole numbers": then(_assistant, torch.Tensor.int)},
    },
    "answer_loss": {
        "here it predicts its own": {"not shifted": partial(_answered, shift=0)},
        "here every token does": {"all tokens": partial(_answered, counts=torch.ones_like)},
        "here all else does": {"the question": partial(_answered, counts=lambda here: ~here)},
        "must be moved with the tokens": {"is_answer as it is": partial(_answered, moved=False)},
        "here each conversation does": {
            "a mean of conversations": partial(
                _answered, last=lambda each, which: ((each * which).sum(1) / which.sum(1)).mean()
            )
        },
        "here it is their sum": {"a sum": partial(_answered, last=lambda each, which: each[which].sum())},
        "divided by all tokens": {"diluted": partial(_answered, last=lambda each, which: (each * which).mean())},
        "must not be read": {"masked at the end": _masked_at_the_end},
        "must have shape ()": {"of each token": partial(_answered, last=lambda each, which: each * which)},
        "A gradient must flow from the result": {"no gradient": detached(_answered)},
        "none comes to table": {"the table is a constant": deaf(_answered, 1)},
    },
    "merged_lora": {
        "here only the change is": {"no W": partial(_merged, keep=0.0)},
        "here it is not scaled": {"no scale": partial(_merged, scale=lambda a, r, w: 1)},
        "here it is by α alone": {"α": partial(_merged, scale=lambda a, r, w: a)},
        "and not by r / α": {
            "upside down": partial(_merged, scale=lambda a, r, w: r / a),
            "α times r": partial(_merged, scale=lambda a, r, w: a * r),
        },
        "divided by a width": {
            "the layer's output": partial(_merged, scale=lambda a, r, w: a / w.shape[0]),
            "the layer's input": partial(_merged, scale=lambda a, r, w: a / w.shape[1]),
        },
        "here it is taken away": {"a difference": partial(_merged, sign=-1.0)},
        "here W is scaled with it": {"all is scaled": lambda w, d, u, a: a / len(d) * (w + u @ d)},
        "must have shape": {"transposed": then(_merged, lambda w: w.mT)},
        "It stops": {"A B": lambda w, d, u, a: w + a / len(d) * d @ u},
        "must leave its arguments": {"in place": _merged_in_place},
        "none comes to down": {"A is a constant": deaf(_merged, 1)},
    },
}


def _opening(tokens, opens):
    """The tokens by which answers open."""
    found = torch.zeros_like(tokens, dtype=torch.bool)
    for row, i in tokens.unfold(1, len(opens), 1).eq(opens).all(-1).nonzero().tolist():
        found[row, i : i + len(opens)] = True
    return found


def _packed(conversation, *, same=True, past=0, padding=True, begin=0, anew=True):
    """Who sees whom, pair by pair, or so that something differs."""
    b, t = conversation.shape
    mask, position = torch.zeros(b, t, t, dtype=torch.bool), torch.zeros(b, t, dtype=torch.long)
    for k, row in enumerate(conversation.tolist()):
        for i, one in enumerate(row):
            for j, other in enumerate(row):
                real = not padding or (one >= 0 and other >= 0)
                mask[k, i, j] = real and (one == other or not same) and j + past <= i
            if one >= 0:
                position[k, i] = begin + (row[:i].count(one) if anew else i)
    return mask, position


def _dpo(chosen, rejected, by_chosen, by_rejected, beta, *, loss=None, slope=None, order=1.0):
    """By the odds of the two answers, or so that something differs."""
    margin = order * ((chosen + by_rejected) - (rejected + by_chosen))
    value = (loss or (lambda h: F.softplus(-beta * h).mean()))(margin)
    each = (slope or (lambda h: beta * (1 - torch.sigmoid(beta * h)) / len(h)))(margin)
    return value, -order * each, order * each


RIGHT |= {"packed": partial(_packed, padding=False), "dpo": _dpo}

MISTAKES |= {
    "packed": {
        "No token must see another conversation": {"a causal mask": partial(_packed, same=False)},
        "No token must see a later one": {"no past": partial(_packed, past=-99)},
        "Each token must see itself": {"not itself": partial(_packed, past=1)},
        "Nobody must see padding": {"padding too": lambda c: (_packed(c)[0] | (c < 0)[:, None], _packed(c)[1])},
        "here they go on along the row": {"along the row": partial(_packed, anew=False)},
        "must be counted from 0": {"from 1": partial(_packed, begin=1)},
        "all of its own conversation": {
            "two tokens back": lambda c: (
                _packed(c)[0] & torch.ones(c.shape[1], c.shape[1]).bool().triu(-1),
                (_packed(c)[1]),
            )
        },
        "Padding must be at position 0": {
            "padding is at -1": lambda c: (_packed(c)[0], _packed(c)[1].masked_fill(c < 0, -1))
        },
        "as a tuple": {"a list": then(_packed, list)},
        "must be boolean": {"numbers": lambda c: (_packed(c)[0].float(), _packed(c)[1])},
        "must hold whole numbers": {"positions as floats": lambda c: (_packed(c)[0], _packed(c)[1].float())},
    },
    "dpo": {
        "here the reference is missing": {"no reference": lambda c, r, rc, rr, beta: _dpo(c, r, 0 * rc, 0 * rr, beta)},
        "here the rejected one does": {"the other order": partial(_dpo, order=-1.0)},
        "must be inside the sigmoid": {
            "β outside": lambda *given: _dpo(*given, loss=lambda h: given[4] * F.softplus(-h).mean()),
            "no β": partial(_dpo, loss=lambda h: F.softplus(-h).mean()),
        },
        "here it divides it": {
            "divided by β": lambda *given: _dpo(*given, loss=lambda h: F.softplus(-h / given[4]).mean())
        },
        "here σ does": {"no logarithm": lambda *g: _dpo(*g, loss=lambda h: -(g[4] * h).sigmoid().mean())},
        "here it is their sum": {"a sum": lambda *g: _dpo(*g, loss=lambda h: F.softplus(-g[4] * h).sum())},
        "its derivative must be negative": {"signs exchanged": then(_dpo, lambda of: (of[0], of[2], of[1]))},
        "here it is large where it is right": {
            "σ(h)": lambda *g: _dpo(*g, slope=lambda h: g[4] * (g[4] * h).sigmoid() / len(h))
        },
        "here β is missing": {
            "no β in the gradient": lambda *g: _dpo(*g, slope=lambda h: (-g[4] * h).sigmoid() / len(h))
        },
        "here its derivative is not divided": {
            "of the sum": lambda *g: _dpo(*g, slope=lambda h: g[4] * (-g[4] * h).sigmoid())
        },
        "by_rejected must be": {"twice the same": then(_dpo, lambda of: (of[0], of[1], of[1]))},
        "must be finite": {"log of σ": lambda *g: _dpo(*g, loss=lambda h: -(g[4] * h).sigmoid().log().mean())},
        "as a tuple": {"a list": then(_dpo, list)},
        "none comes to rejected": {"rejected is a constant": deaf(_dpo, 1)},
    },
}
