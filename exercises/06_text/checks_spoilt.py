"""Texts that are spoilt and mended: what each function must do, told one property at a time."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mmlearn.exercises import (
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_parts,
    expect_rows_differ,
    expect_seeded,
    expect_share,
    expect_tensor,
    expect_whole,
    task,
)
from mmlearn.exercises.inputs import between, seeded
from mmlearn.objectives import (
    delete_tokens,
    fill_spans,
    hide_spans,
    infill,
    lost,
    mask_tokens_of,
    permute_sentences,
    restore,
    rotate_text,
    sample_replacements,
    swap_segments,
)
from mmlearn.objectives.denoising import Corruption

# Two segments.

ROW = torch.tensor([[1, 5, 6, 2, 7, 2, 0]]), torch.tensor([[0, 0, 0, 0, 1, 1, 0]])


@task(
    swap_segments,
    difficulty=3,
    minutes=20,
    example=by_hand(
        *ROW,
        torch.arange(7)[None] < 6,
        torch.tensor([True]),
        gives=(torch.tensor([[1, 7, 2, 5, 6, 2, 0]]), torch.tensor([[0, 0, 0, 1, 1, 1, 0]])),
    ),
)
def check_swap_segments(function: Callable) -> None:
    """The same tokens, the second segment first; start and padding stay; twice is nothing."""
    b = 8
    first, second = torch.randint(2, 7, (b,)), torch.randint(2, 7, (b,))
    first[:2] = second[:2] = torch.tensor([2, 6])  # the first row, which is swapped, has padding, and the second none
    first[2], second[2] = 2, 5  # of a swapped row the types change where its segments differ in length
    t = int((1 + first + second).max())
    position = torch.arange(t)
    real = position < (1 + first + second)[:, None]
    kind = ((position > first[:, None]) & real).long()
    tokens = torch.randint(10, 2**30, (b, t)).masked_fill(~real, 0)
    tokens[:, 0] = 1
    swapped = torch.arange(b) % 2 == 0
    got, got_kind = expect_parts(function(tokens, kind, real, swapped), "tokens", "token_type")
    expect_whole(got, (b, t))
    expect_whole(got_kind, (b, t))
    wanted, wanted_kind = swap_segments(tokens, kind, real, swapped)
    sorts = torch.equal(got.sort(1).values, tokens.sort(1).values)
    expect(sorts, "A row must keep the tokens that it had, each as it was.", "they move, and none is changed or lost.")
    stays = torch.equal(got[~swapped], tokens[~swapped]) and torch.equal(got_kind[~swapped], kind[~swapped])
    expect(stays, "A row that is not swapped must stay as it is, token types too.", "torch.where(swapped[:, None], …).")
    expect((got[:, 0] == 1).all(), "The start token must stay in front.", "it belongs to no segment: move the rest.")
    hint = "take only real tokens; padding comes last, and is 0 in both."
    expect((got[~real] == 0).all(), "Padding must stay behind the text.", hint)
    property = "The second segment must stand first, and in each the tokens in their order, the end token last."
    expect(torch.equal(got, wanted), property, "[start] B [end] A [end]: token_type == 1 comes before the rest.")
    property = "The types must be of the new order: 0 up to the first end token, 1 behind it."
    expect(
        torch.equal(got_kind, wanted_kind), property, "they do not move along: the second segment becomes the first."
    )
    again = expect_parts(function(got, got_kind, real, swapped), "tokens", "token_type")
    twice = torch.equal(again[0], tokens) and torch.equal(again[1], kind)
    expect(twice, "To swap twice must change nothing.", "go by token_type, whichever segment is longer.")


# A small model fills the gaps.


def _drawn(got: tuple) -> bool:
    tokens, replaced = got
    inside = tokens[0, ::2].tolist() == [5, 6] and tokens[0, 1].item() in (1, 3)
    return inside and replaced.tolist() == [[False, tokens[0, 1].item() != 3, False]]


@task(
    sample_replacements,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor([[0, 1.0, 0, 1]]).log(),
        torch.tensor([[5, 4, 6]]),
        torch.tensor([[-100, 3, -100]]),
        seeded,
        gives=_drawn,
        says="[[5, 3, 6]] with no token replaced, or [[5, 1, 6]] with the second",
    ),
)
def check_sample_replacements(function: Callable) -> None:
    """A draw from the generator at each hidden position, and whether it is another token than the true one."""
    b, t, v = 6, 12, between(9, 12)
    hidden = torch.rand(b, t) < 0.4
    hidden[:, 3] = True
    truth = torch.randint(v, (b, t))
    read, label = torch.where(hidden, v + 1, truth), truth.masked_fill(~hidden, -100)
    logits = torch.randn(int(hidden.sum()), v).scatter_add(
        1, label[hidden][:, None], torch.full((int(hidden.sum()), 1), 2.0)
    )

    def draw(logits: Tensor, seed: Generator | None = None, read: Tensor = read, label: Tensor = label) -> tuple:
        got = expect_parts(function(logits, read, label, seeded(seed)), "tokens", "replaced")
        return expect_whole(got[0], read.shape), expect_boolean(got[1], read.shape)

    filled, replaced = draw(logits)
    hint = "label is -100 where nothing was hidden."
    kept = torch.equal(filled[~hidden], read[~hidden])
    expect(kept, "What was not hidden must stay as it is read.", hint)
    expect(not replaced[~hidden].any(), "A token that was not hidden is never replaced.", hint)
    expect(
        (filled[hidden] < v).all(), "Each hidden position must get a token of the vocabulary.", "one draw for each row."
    )
    expect(
        torch.equal(replaced, (filled != label) & hidden),
        "A position counts as replaced only where the draw differs from the true token.",
        "compare with label, not with what was read: the generator may be right.",
    )
    sure = torch.full_like(logits, -300.0).scatter(1, label[hidden][:, None], 300.0)
    filled, replaced = draw(sure)
    property = "Row i of the logits must be of the i-th hidden position, row by row."
    expect(torch.equal(filled[hidden], label[hidden]) and not replaced.any(), property, "tokens[hidden] = drawn.")
    expect_rows_differ(lambda seed: draw(torch.zeros(b, v), seed, read, _only(3, label))[0][:, 3])
    _check_odds(draw)
    function(logits.clone().requires_grad_(), read, label, seeded())  # logits of a model that learns
    with case("Where nothing is hidden"):
        filled, replaced = draw(logits[:0], label=torch.full_like(label, -100))
        expect(
            torch.equal(filled, read) and not replaced.any(),
            "nothing must change.",
            "the positions are those of label.",
        )
    expect_seeded(lambda seed: draw(logits, seed))


def _only(position: int, label: Tensor) -> Tensor:
    return label.masked_fill(torch.arange(label.shape[1]) != position, -100)


def _check_odds(draw: Callable) -> None:
    label = torch.zeros(3000, 1, dtype=torch.long)
    odds = torch.tensor([0.6, 0.3, 0.1]).log() + 200.0
    filled, _ = draw(odds.expand(3000, 3), read=label + 7, label=label)
    expect((filled != filled[0]).any(), "It must be a draw, not the likeliest token.", "torch.multinomial, not argmax.")
    hint = "multinomial of softmax(logits); logits are no odds."
    expect_share(filled == 0, 0.6, "A token must be drawn as often as the softmax says.", hint)
    expect_share(filled == 2, 0.1, "A token must be drawn as often as the softmax says.", hint)


# Spans and their sentinels.

TEXT, HIDDEN = torch.tensor([11, 12, 13, 14, 15, 16]), torch.tensor([False, False, True, True, False, True])
GAPS, SPANS = torch.tensor([11, 12, 99, 15, 98]), torch.tensor([99, 13, 14, 98, 16, 97])


def _texts() -> list[tuple[str, Tensor, Tensor]]:
    """Texts and what is hidden: usual ones, and those at the edges."""
    n = between(10, 15)
    positions = {
        "With spans at both ends": [*range(2), *range(5, 7), n - 1],
        "With single tokens": [1, 3, 5],
        "With nothing hidden": [],
        "With everything hidden": [*range(n)],
    }
    texts = []
    for words, positions_hidden in positions.items():
        hidden = torch.zeros(n, dtype=torch.bool)
        hidden[positions_hidden] = True
        texts.append((words, torch.randint(10, 2**30, (n,)), hidden))
    return texts


@task(hide_spans, difficulty=3, minutes=15, example=by_hand(TEXT, HIDDEN, 99, gives=(GAPS, SPANS)))
def check_hide_spans(function: Callable) -> None:
    """One sentinel for a span, the same one before its tokens, counting down, and a last one."""
    first = 2**30 + between(20, 90)
    for words, text, hidden in _texts():
        with case(words):
            got = expect_parts(function(text, hidden, first), "text", "target")
            got = tuple(map(expect_tensor, got))
            short, target = hide_spans(text, hidden, first)
            spans = len(text) - int(hidden.sum())
            hint = "a span begins where a token is hidden and the one before it is not."
            many = got[0].shape == text.shape and len(short) < len(text)
            expect(not many, "A span must leave one sentinel, not one for each token.", hint)
            expect_whole(got[0], short.shape)
            kept = torch.equal(got[0][got[0] < 2**30], text[~hidden])
            expect(kept, f"The text must keep its {spans} other tokens, in order.", "only hidden ones go.")
            without_end = len(got[1]) == len(target) - 1
            hint = "s₀ span s₁ span s₂: one more sentinel than spans."
            expect(not without_end, "The target must end with one more sentinel: nothing follows.", hint)
            expect_whole(got[1], target.shape)
            expect(
                torch.equal(got[0], short),
                "In the text the sentinels must count down from the first, in order.",
                "first_sentinel - 0, first_sentinel - 1, …",
            )
            expect(torch.equal(got[1], target), "In the target each span must stand behind its own sentinel.", hint)


@task(fill_spans, difficulty=3, minutes=15, example=by_hand(GAPS, SPANS, 99, gives=TEXT))
def check_fill_spans(function: Callable) -> None:
    """The exact inverse of hiding."""
    first = 2**30 + between(20, 90)
    for words, text, hidden in _texts():
        with case(words):
            got = function(*hide_spans(text, hidden, first), first)
            hint = "split the target at its sentinels, and put each span where the text has that sentinel."
            left = isinstance(got, Tensor) and bool((got >= first - 20).any())
            expect(not left, "No sentinel must be left in the text, nor the last one of the target.", hint)
            expect_whole(got, text.shape)
            ordered = torch.equal(got.sort().values, text.sort().values)
            expect(ordered, "Each token of text and target must come back once, as it was.", hint)
            expect(torch.equal(got, text), "It must be the text as it was: each span at its own gap.", hint)


# Sentences in any order, and the way back.

SENTENCES = torch.tensor([5, 9, 6, 7, 9]), torch.tensor([False, True, False, False, True])


def _reordered(got: tuple) -> bool:
    ways = ([5, 9, 6, 7, 9], [0, 1, 2, 3, 4]), ([6, 7, 9, 5, 9], [2, 3, 4, 0, 1])
    return (got[0].tolist(), got[1].tolist()) in ways and int(got[2]) == 5


@task(
    permute_sentences,
    difficulty=3,
    minutes=15,
    example=by_hand(
        *SENTENCES,
        generator=seeded,
        gives=_reordered,
        says="the text as it was, or [6, 7, 9, 5, 9] from positions [2, 3, 4, 0, 1], and the length 5",
    ),
)
def check_permute_sentences(function: Callable) -> None:
    """Whole sentences in an order drawn at random, and for each token the position that it had."""
    lengths = [between(2, 3), between(4, 5), between(6, 7)]
    n, last = sum(lengths), list(itertools.accumulate(lengths))
    text, ends = torch.randint(10, 2**30, (n,)), torch.zeros(n, dtype=torch.bool)
    ends[torch.tensor(last) - 1] = True
    sentences = torch.arange(n).split(lengths)

    def draw(seed: Generator | None = None, text: Tensor = text, ends: Tensor = ends) -> tuple:
        got = expect_parts(function(text, ends, generator=seeded(seed)), "tokens", "source", "length")
        tokens, source = (expect_whole(part, text.shape) for part in got[:2])
        expect(int(got[2]) == len(text), "The length must be that of the text as it was.", "len(text).")
        return tokens, source

    orders = [torch.cat(order) for order in itertools.permutations(sentences)]
    found = []
    for _ in range(600):
        tokens, source = draw()
        once = torch.equal(source.sort().values, torch.arange(n))
        expect(once, "Each place of the text must come once.", "cut the positions 0 … n - 1 into sentences.")
        away = torch.empty_like(text)
        away[source] = text
        property = "source must say where each token was before; here it says where each token goes."
        inverse = torch.equal(away, tokens) and not torch.equal(text[source], tokens)
        expect(not inverse, property, "tokens = text[source].")
        hint = "move the positions, and look the tokens up with them."
        expect(torch.equal(text[source], tokens), "The tokens must be those of the positions, as they were.", hint)
        which = [i for i, order in enumerate(orders) if torch.equal(order, source)]
        property = "Sentences must stay whole, their tokens in order, and end where ends is True."
        expect(len(which) == 1, property, "tensor_split behind each end.")
        found += which
    drawn = torch.tensor(found)
    for i in range(math.factorial(3)):
        property = "Each order of the sentences must be as likely, the text as it was too."
        expect_share(drawn == i, 1 / 6, property, "torch.randperm over the sentences.")
    with case("Where the last sentence has no end"):
        ends = ends.clone()
        ends[-1] = False
        draw(ends=ends)
        moved = any(not torch.equal(draw(ends=ends)[1], torch.arange(n)) for _ in range(30))
        expect(moved, "it must be a sentence all the same.", "what follows the last end is one more.")
    with case("With sentences of one token"):
        said = torch.randint(10, 12, (4,))  # where tokens repeat, too
        parts = torch.arange(4).split([1, 1, 2])
        orders = {tuple(torch.cat(order).tolist()) for order in itertools.permutations(parts)}
        found = {tuple(draw(text=said, ends=torch.arange(4) != 2)[1].tolist()) for _ in range(120)}
        expect(found == orders, "Each order of them must come, and nothing else.", "each end ends one, the first too.")
    with case("With one sentence"):
        for end in (text < 0, torch.arange(n) == n - 1):
            stays = torch.equal(draw(ends=end)[1], torch.arange(n))
            expect(stays, "It must stay as it is.", "an end in the last position begins no further sentence.")
    many = torch.randint(10, 99, (24,))
    expect_seeded(lambda seed: draw(seed, many, torch.arange(24) % 2 == 1))


@task(
    restore,
    difficulty=3,
    minutes=10,
    example=by_hand(
        Corruption(torch.tensor([7, 4, 9]), torch.tensor([0, -1, 3]), 4),
        torch.tensor([5, 6]),
        gives=torch.tensor([7, 5, 6, 9]),
    ),
)
def check_restore(function: Callable) -> None:
    """What is left goes to its positions, what was lost to the others: the inverse of every corruption."""
    n, mask = between(14, 20), 4
    text = torch.randint(10, 2**30, (n,))
    ends = torch.arange(n) % 4 == 3
    tail = Corruption(torch.cat([text[:-1], torch.tensor([mask])]), torch.tensor([*range(n - 1), -1]), n)
    for words, corrupt in {
        "After deletion": lambda: delete_tokens(text, generator=seeded(), share=0.4),
        "After masking": lambda: mask_tokens_of(text, mask, generator=seeded(), share=0.4),
        "After masking of the last token": lambda: tail,
        "After infilling": lambda: infill(text, mask, generator=seeded(), share=0.4),
        "After rotation": lambda: rotate_text(text, generator=seeded()),
        "After a permutation of sentences": lambda: permute_sentences(text, ends, generator=seeded()),
        "After the deletion of everything": lambda: delete_tokens(text, generator=seeded(), share=1.0),
    }.items():
        for _ in range(4):
            spoilt = corrupt()
            kept = spoilt.source[spoilt.source >= 0]
            with case(words):
                got = expect_whole(function(spoilt, lost(text, spoilt)), (n,))
                property = "No mask must be left in the text."
                expect(not (got == mask).any(), property, "a source of -1 is a mask: it has no position.")
                property = "What is left must stand at the positions that source gives."
                hint = "text[source[kept]] = tokens[kept], not text[kept] = …"
                expect(torch.equal(got[kept], text[kept]), property, hint)
                property = "What was lost must stand in the positions that nobody took, in order."
                expect(torch.equal(got, text), property, "True everywhere, then False at the positions that are taken.")
