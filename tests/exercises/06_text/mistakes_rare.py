"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.objectives.denoising import draw_spans, permute_sentences
from mmlearn.objectives.masked import choose_positions


def _long_sentences(text, ends, *, generator):
    """A sentence of one token goes with the one behind it."""
    ends = ends & ~torch.cat([torch.tensor([False]), ends[:-1]])
    return tuple(permute_sentences(text, ends, generator=generator))


def _without_first(text, ends, *, generator):
    if ends[0]:
        ends = ends.clone()
        ends[0] = False
    return tuple(permute_sentences(text, ends, generator=generator))


def _moved(text, ends, *, generator):
    """Never as it was where there is one sentence."""
    found = permute_sentences(text, ends, generator=generator)
    return tuple(found) if ends[:-1].any() else (text.flip(0), torch.arange(len(text)).flip(0), len(text))


def _up(length, *, generator, share=0.15, mean_length=3.0):
    hidden = max(1, int(length * share + 0.5))
    return draw_spans(
        length, generator=generator, share=min(1.0, hidden / max(length, 1)) if share else 0.0, mean_length=mean_length
    )


def _at_least_two(length, *, generator, share=0.15, mean_length=3.0):
    return draw_spans(max(length, 1), generator=generator, share=share, mean_length=mean_length)


def _of_words(change):
    def choose(possible, probability, generator, words=None):
        return choose_positions(possible, probability, generator, None if words is None else change(words, possible))

    return choose


RARE = {
    "permute_sentences": {
        "of one token: Each order of them must come, and nothing else": {
            "sentences of one token": _long_sentences,
            "no first sentence of one token": _without_first,
        },
        "With one sentence: It must stay as it is": {"one sentence turned": _moved},
    },
    "draw_spans": {
        "must be hidden; here": {"a half goes up": _up},
        "Its result must have shape": {"at least one token": _at_least_two},
    },
    "choose_positions": {
        "With words: All of a word must be chosen, or nothing of it": {
            "words below 0 are none": _of_words(
                lambda words, possible: torch.where(words < 0, 10**6 + torch.arange(words.shape[1]), words)
            ),
            "word 0 is none": _of_words(
                lambda words, possible: torch.where(words == 0, 10**6 + torch.arange(words.shape[1]), words)
            ),
        },
        "just one whole word must be chosen": {
            "words as float32": _of_words(lambda words, possible: words.float()),
            "words up to 100": _of_words(lambda words, possible: words % 100),
        },
    },
}
