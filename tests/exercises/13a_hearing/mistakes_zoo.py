"""Wrong answers to the task about the zoo's reader, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
from common_mistakes import then

from mmlearn.data.spoken_captions import LETTERS
from mmlearn.evaluation import edit_rate


def _merged(path):
    return path.unique_consecutive()


@torch.no_grad()
def _letters_wrong(
    reader,
    mel,
    mel_mask,
    texts,
    *,
    real_only=True,
    best=lambda row: row.argmax(-1),
    read=lambda path: _merged(path)[_merged(path) != 0],
    letters=" " + LETTERS,
    rate=edit_rate,
):
    """Clip by clip, or with a single step that differs."""
    log_p, real = reader(mel, mel_mask)
    rows = [row[mask] if real_only else row for row, mask in zip(log_p, real)]
    return rate(["".join(letters[token] for token in read(best(row)).tolist()) for row in rows], texts)


def _position_by_position(written, texts):
    right = sum(one == other for pair in zip(written, texts) for one, other in zip(*pair))
    return 1 - right / sum(map(len, texts))


RIGHT = {"letters_wrong": _letters_wrong}

MISTAKES = {
    "letters_wrong": {
        "unless a blank is between them": {
            "blanks first": partial(_letters_wrong, read=lambda path: _merged(path[path != 0])),
            "repeats stay": partial(_letters_wrong, read=lambda path: path[path != 0]),
            "blanks are letters": partial(_letters_wrong, read=_merged),
            "token k is letter k": partial(_letters_wrong, letters=LETTERS + " "),
            "the least likely": partial(_letters_wrong, best=lambda row: row.argmin(-1)),
            "right letters": then(_letters_wrong, lambda rate: 1 - rate),
        },
        "It must be the share of wrong letters": {
            "position by position": partial(_letters_wrong, rate=_position_by_position),
            "a count": partial(
                _letters_wrong, rate=lambda written, texts: edit_rate(written, texts) * sum(map(len, texts))
            ),
            "percent": then(_letters_wrong, lambda rate: 100 * rate),
            "at most all": partial(
                _letters_wrong, rate=lambda written, texts: float(any(map(str.__ne__, written, texts)))
            ),
        },
        "that are not real must write nothing": {"padding too": partial(_letters_wrong, real_only=False)},
        "Every letter must count the same": {
            "a mean of clips": partial(
                _letters_wrong,
                rate=lambda written, texts: sum(edit_rate([w], [t]) for w, t in zip(written, texts)) / len(texts),
            )
        },
    }
}
