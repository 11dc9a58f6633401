"""One sequence of two kinds: what its function must do, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from mmlearn.exercises import by_hand, case, expect, expect_boolean, expect_parts, expect_tensor, task
from mmlearn.exercises.inputs import between, first_of
from mmlearn.objectives import prefix_mask


def words_then_codes(
    mask: Bool[Tensor, "b t"], p: int, words: int, codes: int
) -> tuple[Bool[Tensor, "b n n"], Bool[Tensor, "n-1 v"]]:
    """Who may see whom where p codes stand behind a text, and which tokens may follow each position."""
    real = F.pad(mask, (0, p), value=True)
    code_follows = torch.arange(1, real.shape[1]) >= mask.shape[1]
    is_code = torch.arange(words + codes) >= words
    return prefix_mask(torch.zeros_like(real), real), code_follows[:, None] == is_code


def _one_code(got: tuple) -> bool:
    sees, may = (part.int().tolist() for part in got)
    return [sees[0][0], sees[0][2]] == [[1, 0, 0], [1, 0, 1]] and may == [[1, 1, 1, 0, 0], [0, 0, 0, 1, 1]]


@task(
    words_then_codes,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[True, False]]), 1, 3, 2,
        gives=_one_code,
        says="sees [1, 0, 0] of the word and [1, 0, 1] of the code, and may [1, 1, 1, 0, 0] and [0, 0, 0, 1, 1]",
    ),
)  # fmt: skip
def check_words_then_codes(function: Callable) -> None:
    """Each sees what is before it and real; each position is followed by a token of one kind."""
    p, t, words, codes = between(3, 4), between(6, 7), between(6, 9), between(10, 14)
    n, v = t + p, words + codes
    mask = first_of(t, [t, t - 3, t - 2])
    got, may = expect_parts(function(mask, p, words, codes), "sees", "may")
    got = expect_boolean(got, (3, n, n))
    _check_past(got[0], t)
    with case("With padding behind the words"):
        _check_padding(got, mask, p)
    with case("With padding before the words"):
        _check_padding(function(mask.flip(1), p, words, codes)[0], mask.flip(1), p)
    may = expect_tensor(may)
    expect(may.shape != (n, v), "Behind the last code nothing follows, so that may has n - 1 rows.", "one row less.")
    may, wanted = expect_boolean(may, (n - 1, v)), words_then_codes(mask, p, words, codes)[1]
    here = torch.cat([wanted[:1], wanted[:-1]])
    property = "Place i says what follows it, so that the last place of the text says a code; here it says a word."
    expect(not torch.equal(may, here), property, "a code follows from position t - 1 on.")
    expect(not torch.equal(may, ~wanted), "Words and codes are exchanged.", "words have the lower numbers.")
    expect(not may.all(), "Each position must be followed by one kind of token; here by both.", "words or codes.")
    hint = "token j is a word where j < words."
    expect(torch.equal(may, wanted), "All words, or all codes, must be allowed, and nothing of the other kind.", hint)


def _check_past(sees: Tensor, t: int) -> None:
    """A row without padding."""
    past, look, say = torch.ones_like(sees).tril(), slice(t, None), slice(t)
    expect(
        not torch.equal(sees, past.mT),
        "Rows must be those who look, columns what they see; here it is the other way.",
        "[b, i, j] says whether token i sees token j.",
    )
    expect(sees.diagonal().all(), "Each token must see itself.", "tril() keeps the diagonal.")
    expect(sees[look, say].all(), "Each code must see the whole text.", "rows of codes, columns of words.")
    expect(not sees[say, look].any(), "No word must see a code, because codes are written behind it.", "tril().")
    expect(not sees[say, say].triu(1).any(), "No word must see a later one: words are written, too.", "tril().")
    expect(not sees[look, look].triu(1).any(), "No code must see a later one.", "tril() over the whole row.")
    expect(torch.equal(sees, past), "Each token must see all those before it.", "tril(), not the one before alone.")


def _check_padding(sees: Tensor, mask: Tensor, p: int) -> None:
    """What padding itself sees is left alone."""
    real = F.pad(mask, (0, p), value=True)
    wanted, sees, t = real[:, :, None] & words_then_codes(mask, p, 1, 1)[0], sees & real[:, :, None], mask.shape[1]
    of_padding = sees & ~real[:, None]
    expect(not of_padding[:, t:].any(), "No code must see padding of the text.", "& with the mask, by columns.")
    expect(not of_padding.any(), "No word must see padding.", "& with the mask in all rows, not in those of codes.")
    hint = "(b, 1, n): each row of the batch has a mask of its own, and codes are all real."
    expect(torch.equal(sees, wanted), "All that is real and not later must be seen, in each row of the batch.", hint)
