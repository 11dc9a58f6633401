"""Wrong answers about a sequence of words and codes, and what each is told."""

from functools import partial

import torch


def _both(
    mask,
    p,
    words,
    codes,
    *,
    past=lambda i, j, t: j <= i,
    hide=lambda seen, real, t: seen & real[:, None],
    follows=lambda i, t: i + 1 >= t,
    kinds=lambda code_follows, j, words: code_follows == (j >= words),
    rows=lambda n: n - 1,
):
    """By comparing positions, or what differs in a single one."""
    real = torch.cat([mask, torch.ones(len(mask), p, dtype=torch.bool)], 1)
    (b, n), t = real.shape, mask.shape[1]
    position = torch.arange(n)
    sees = hide(past(position[:, None], position, t).expand(b, n, n), real, t)
    return sees, kinds(follows(position[: rows(n), None], t), torch.arange(words + codes), words)


def _by_length(seen, real, t):
    """Padding is behind as many words as are real."""
    position = torch.arange(real.shape[1])
    return seen & ((position < real[:, :t].sum(1, keepdim=True)) | (position >= t))[:, None]


RIGHT = {  # padding sees nothing here: what it sees does not matter
    "words_then_codes": partial(_both, hide=lambda seen, real, t: seen & real[:, None] & real[:, :, None])
}

MISTAKES = {
    "words_then_codes": {
        "columns what they see; here it is the other way": {
            "transposed": partial(_both, past=lambda i, j, t: j >= i, hide=lambda seen, real, t: seen)
        },
        "Each token must see itself": {"only what is before": partial(_both, past=lambda i, j, t: j < i)},
        "Each code must see the whole text": {
            "two sequences": partial(_both, past=lambda i, j, t: (j <= i) & ((i < t) == (j < t)))
        },
        "No word must see a code": {"everything": partial(_both, past=lambda i, j, t: i + j >= 0)},
        "No word must see a later one": {
            "a text that is read both ways": partial(_both, past=lambda i, j, t: (j <= i) | ((i < t) & (j < t)))
        },
        "No code must see a later one": {
            "a picture that is seen both ways": partial(_both, past=lambda i, j, t: (j <= i) | ((i >= t) & (j >= t)))
        },
        "Each token must see all those before it": {
            "the last two codes": partial(_both, past=lambda i, j, t: (j <= i) & ((j < t) | (j > i - 2)))
        },
        "With padding behind the words: No code must see padding": {
            "no mask": partial(_both, hide=lambda seen, real, t: seen),
            "rows for columns": partial(_both, hide=lambda seen, real, t: seen & real[:, :, None]),
        },
        "All that is real and not later must be seen": {
            "nothing behind padding": partial(
                _both, hide=lambda seen, real, t: seen & real.int().cumprod(1).bool()[:, None]
            )
        },
        "With padding before the words: No word must see padding": {
            "hidden from codes alone": partial(
                _both, hide=lambda seen, real, t: seen & (real[:, None] | (torch.arange(real.shape[1]) < t)[:, None])
            )
        },
        "With padding before the words: No code must see padding": {"by length": partial(_both, hide=_by_length)},
        "here it says a word": {"by what stands there": partial(_both, follows=lambda i, t: i >= t)},
        "Words and codes are exchanged": {
            "exchanged": partial(_both, kinds=lambda code, j, words: code == (j < words))
        },
        "here by both": {"all": partial(_both, kinds=lambda code, j, words: (code == code) & (j >= 0))},
        "nothing of the other kind": {
            "one too many": partial(_both, kinds=lambda code, j, words: code == (j > words)),
            "words all the time": partial(_both, kinds=lambda code, j, words: ~code & (j < words) | code),
        },
        "Behind the last code nothing follows": {"one row more": partial(_both, rows=lambda n: n)},
        "must be boolean": {"numbers": lambda *given: tuple(part.float() for part in _both(*given))},
    }
}
