"""Reading order, trust and losses of text: what each function must do, told one property at a time."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_log,
    expect_not,
    expect_number,
    expect_seen,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    expect_whole,
    expect_zero,
    over,
    task,
)
from mmlearn.exercises.inputs import between, first_of, some_of, uniform
from mmlearn.generation.decoding import greedy
from mmlearn.objectives import (
    causal_language_modelling,
    inherit_knowledge,
    inheritance_rate,
    masked_cross_entropy,
    prefix_mask,
    replaced_token_detection,
    shifted_right,
)

# What a decoder reads, and how long a teacher is trusted.


@task(
    shifted_right,
    difficulty=1,
    minutes=5,
    example=by_hand(torch.tensor([[7, 8, 9]]), 1, gives=torch.tensor([[1, 7, 8]])),
)
def check_shifted_right(function: Callable) -> None:
    """The start token, and then all but the last token."""
    b, t, start = between(2, 4), between(5, 9), between(2, 9)
    target = torch.randint(10, 2**30, (b, t))
    got = expect_whole(function(target, start), (b, t))
    expect(
        not torch.equal(got[:, :-1], target[:, 1:]),
        "Tokens must move to the right, one position later; here they move to the left.",
        "the token at position 0 is read at position 1.",
    )
    expect((got[:, 0] == start).all(), "Each row must begin with the start token.", "put it before the first column.")
    expect(
        torch.equal(got[:, 1:], target[:, :-1]),
        "Behind the start token must stand the target without its last token, each token as it is.",
        "target[:, :-1] is all but the last column; whole numbers stay int64.",
    )
    one = expect_whole(function(target[:, :1], start), (b, 1))
    expect(
        (one == start).all(), "For a target of one token only the start token is read.", "no special case is needed."
    )


@task(inheritance_rate, difficulty=1, minutes=5, example=by_hand(30, 120, 0.8, gives=0.6))
def check_inheritance_rate(function: Callable) -> None:
    """The start at step 0, a straight line, and 0 from the last step on."""
    steps, start = between(40, 200), uniform(0.3, 0.9)
    hint = "start times (1 - step / steps)."
    expect_number(function(0, steps, start), start, "At step 0 the teacher must be trusted as the start says.", hint)
    half = start * (1 - (steps // 2) / steps)
    line = "In between it must fall along a straight line."
    expect_number(function(steps // 2, steps, start), half, line, "/ divides, // rounds down; count steps from 0.")
    expect_number(function(1, steps, start), start * (1 - 1 / steps), line, hint)
    expect_number(function(steps, steps, start), 0.0, "At the last step it must be 0.", hint)
    later = function(steps + between(1, 50), steps, start)
    expect_number(
        later, 0.0, "Behind the last step it must stay 0.", "max(0, …): a rate below 0 would teach the opposite."
    )
    whole = "Without a start it must begin with 1."
    expect_number(function(steps // 4, steps), 1 - (steps // 4) / steps, whole, "start: float = 1.0 in the signature.")


# What is seen, and what is asked.


SEEN = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]], dtype=torch.bool)


@task(
    prefix_mask, difficulty=2, minutes=10, example=by_hand(torch.tensor([[True, True, False, False]]), gives=SEEN[None])
)
def check_prefix_mask(function: Callable) -> None:
    """All see the prefix, each sees the past and itself, and nobody sees padding."""
    b, t = 4, between(6, 12)
    prefix = first_of(t, [0, between(2, 3), between(4, 5), t])
    got = expect_boolean(function(prefix), (b, t, t))
    past = torch.ones(t, t, dtype=torch.bool).tril()
    expect(
        not torch.equal(got, (past | prefix[:, None]).mT),
        "Rows must be those who look, columns what they see; here it is the other way.",
        "[b, i, j] says whether token i sees token j.",
    )
    expect(got.diagonal(dim1=1, dim2=2).all(), "Each token must see itself.", "tril() keeps the diagonal.")
    hint = "tril() of ones: row i is True up to column i."
    expect(torch.equal(got[0], past), "Without a prefix each token must see the past, and no later token.", hint)
    expect(got[3].all(), "Where everything is prefix, everything must be seen by all.", "past | prefix.")
    expect(
        torch.equal(got, past | prefix[:, None]),
        "Every token must see the whole prefix of its own row, and beside it the past.",
        "prefix[:, None] is (b, 1, t): the columns that all may see.",
    )
    apart = torch.zeros(b, t, dtype=torch.bool)
    apart[:, 2], apart[2:, 4] = True, True
    seen = expect_boolean(function(apart), (b, t, t))
    hint = "go by prefix itself, not by how many tokens it has."
    expect(torch.equal(seen, past | apart[:, None]), "A prefix must count also where it is not at the start.", hint)
    mask = first_of(t, [t, t - 1, 2, t - 3])
    for real in (mask, mask.flip(1)):  # padded at the right, and at the left
        seen = expect_boolean(function(prefix, real), (b, t, t))
        expect(not (seen & ~real[:, None]).any(), "Nobody must see padding, not even in a prefix.", "& mask[:, None].")
        columns = "A mask must take away columns, and nothing else."
        expect_seen(seen, (past | prefix[:, None]) & real[:, None], real, columns, "mask[:, None] is (b, 1, t).")


HALF_AND_QUARTER = torch.tensor([[[0, 0, 3.0, 0], [0, 0, 0, 0], [7, 0, 0, 0]]])
HALF_AND_QUARTER[0, 0, 2] = math.log(3)


@task(
    causal_language_modelling,
    difficulty=2,
    minutes=10,
    example=by_hand(HALF_AND_QUARTER, torch.tensor([[0, 2, 1]]), gives=1.5 * math.log(2)),
)
def check_causal_language_modelling(function: Callable) -> None:
    """The logits at position i are of token i + 1; padding is not asked; the mean over all tokens that are."""
    b, t, v = 3, between(6, 9), between(11, 15)
    same = agreement(function, causal_language_modelling)
    expect_tensor(function(torch.randn(b, t, v), torch.randint(v, (b, t))), ())
    draws = [(2 * torch.randn(b, t, v), torch.randint(v, (b, t))) for _ in range(3)]
    got = over(draws, function)
    expect_log(function(torch.zeros(b, t, v), draws[0][1]), v, "v", "the mean over the tokens asked: of t, t - 1.")
    expect_not(
        got,
        (over(draws, masked_cross_entropy), over(draws, lambda z, x: masked_cross_entropy(z[:, :-1], x[:, :-1]))),
        "The logits at position i must be asked for token i + 1; here they are asked for token i, which is read there.",
        "logits[:, :-1] beside tokens[:, 1:].",
    )
    expect_not(
        got,
        over(draws, lambda z, x: masked_cross_entropy(z[:, 1:], x[:, :-1])),
        "The logits at position i must be asked for the next token; here they are asked for the one before.",
        "logits[:, :-1] beside tokens[:, 1:].",
    )
    same(draws, "It must be the mean of -log softmax(logits)[next token].", "cross_entropy over (b · (t - 1), v).")
    padded = [(*draw, first_of(t, [t, t - 1, 2])) for draw in draws]
    with case("With a mask"):
        got = over(padded, function)
        hint = "the token that is asked has to be real: mask[:, 1:]."
        expect_not(got, over(draws, causal_language_modelling), "Padding must not be asked.", hint)
        by_input = over(padded, lambda z, x, m: masked_cross_entropy(z[:, :-1], x[:, 1:].masked_fill(~m[:, :-1], -100)))
        expect_not(got, by_input, "It must be the asked token that is real, not the one before it.", hint)
        same(
            padded, "It must be one mean over all real tokens that are asked.", "no mean of rows, no division by b · t."
        )
    expect_trains(function, draws[0][0], fixed=padded[0][1:], like=causal_language_modelling)
    expect_zero(function, draws[0][0], draws[0][1], torch.zeros(b, t, dtype=torch.bool))
    sure = 400 * torch.nn.functional.one_hot(torch.randint(v, (b, t)), v).float()
    expect_sure_and_wrong(function, sure, fixed=(draws[0][1],), like=causal_language_modelling)


@task(
    replaced_token_detection,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[math.log(3), 0, 5]]),
        torch.tensor([[True, False, True]]),
        torch.tensor([[True, True, False]]),
        gives=(math.log(4 / 3) + math.log(2)) / 2,
    ),
)
def check_replaced_token_detection(function: Callable) -> None:
    """A yes/no question at every real token, of which the mean is taken."""
    b, t = 4, between(8, 12)
    same = agreement(function, replaced_token_detection)

    def draw() -> tuple[Tensor, Tensor, Tensor]:
        return 2 * torch.randn(b, t), some_of(b, t, real=2), first_of(t, [t, 3, t - 2, 5])

    draws = [draw() for _ in range(3)]
    got = over(draws, function)
    logits, replaced, mask = draws[0]
    expect_log(function(torch.zeros(b, t), replaced, mask), 2, "2", "a mean over the real tokens.")
    expect_not(
        got,
        over(draws, lambda z, wrong, m: replaced_token_detection(-z, wrong, m)),
        "A logit above 0 must say that a token is wrong; here it says that it is the original.",
        "the label is 1 where a token was replaced.",
    )
    expect_not(
        got,
        over(draws, lambda z, wrong, m: replaced_token_detection(z, wrong, wrong)),
        "Every real token must be asked, not the replaced ones alone: that is the gain over masking.",
        "mask says who is asked.",
    )
    everyone = over(draws, lambda z, wrong, m: replaced_token_detection(z, wrong, torch.ones_like(m)))
    expect_not(got, everyone, "Padding must not be asked.", "only positions where mask is True.")
    same(
        draws,
        "It must be the mean over all real tokens of the batch.",
        "one sum over the real tokens, divided by mask.sum().",
    )
    expect_trains(function, logits, fixed=(replaced, mask), like=replaced_token_detection)
    expect_zero(function, logits, replaced, torch.zeros_like(mask))
    sure = torch.where(replaced, -300.0, 300.0)
    expect_sure_and_wrong(function, sure, fixed=(replaced, mask), like=replaced_token_detection)


# Write.


def _speaker(script: Tensor, v: int) -> Callable:
    """A model whose row is told by its first token and which says what the script says at each position."""
    noise = torch.rand(len(script), script.shape[1] + 40, v)
    noise[..., 12] = 0.9  # the end is hardly ever the least likely

    def next_logits(tokens: Tensor) -> Tensor:
        row, position = tokens[:, 0].clamp(max=len(script) - 1), tokens.shape[1]
        scores = noise[row, position].clone()
        if position < script.shape[1]:
            scores[torch.arange(len(tokens)), script[row, position]] += 3
        return scores

    return next_logits


THREE = torch.tensor([[0.0, 0, 0, 0], [0, 0, 1, 4], [0, 0, 0, 0], [0, 1, 5, 2]])


@task(
    greedy,
    difficulty=2,
    minutes=15,
    example=by_hand(
        lambda tokens: THREE[tokens[:, -1]],
        torch.tensor([[1]]),
        end_token=2,
        max_length=6,
        gives=torch.tensor([[1, 3, 2]]),
    ),
)
def check_greedy(function: Callable) -> None:
    """The likeliest token again and again, until the end token of each row or the length."""
    v, end, pad, length = 14, 12, 13, between(8, 10)
    script = torch.randint(5, 12, (5, length))
    script[:, 0] = torch.arange(5)
    script[1, 3], script[2, 5], script[3, 1] = end, end, end  # rows 0 and 4 do not end
    speaker = _speaker(script, v)

    def write(rows: list[int], begun: int = 1, most: int = length) -> tuple[Tensor, Tensor]:
        start, rest = script[rows, :begun], dict(end_token=end, max_length=most, pad_token=pad)
        got, wanted = function(speaker, start, **rest), greedy(speaker, start, **rest)
        return expect_tensor(got), wanted

    got, _ = write([0])
    hint = "torch.cat of what there is and the new token, dim=1; while tokens.shape[1] < max_length."
    expect(got.shape != (1, length - 1), "A text must begin with its start.", "return start and what was written.")
    expect(
        got.shape != (1, length + 1), "max_length must count the tokens of the start too.", "compare the whole length."
    )
    expect_whole(got, (1, length), hint)
    expect(
        torch.equal(got, script[:1]),
        "Each token must be the likeliest of those that follow the whole text so far.",
        "argmax over the last axis of next_logits(tokens), and tokens are all of them, the start too.",
    )
    got, wanted = write([1, 2])
    expect(
        got.shape[1] <= wanted.shape[1], "Writing must stop once every text has ended.", "while …, and not done.all()."
    )
    expect_whole(got, wanted.shape)
    expect((got == end).any(1).all(), "The end token must be part of a text.", "add it, and then stop.")
    expect(
        (got[0, 4:] == pad).all(),
        "Behind the end token of a text must stand pad_token, while others go on.",
        "remember which rows are done, and give them pad_token in place of what the model says.",
    )
    with case("Where the first token ends a text"):
        got, wanted = write([3])
        expect_whole(got, wanted.shape)
        expect(torch.equal(got, wanted), "that must be the whole text.", "the end token is added like any other.")
    got, wanted = write([0, 1, 2, 4], begun=2)
    expect_whole(got, wanted.shape)
    expect(torch.equal(got, wanted), "Each row must be written as if it were alone.", "all rows are asked at once.")


# A teacher that is trusted less and less.


def unlike_both_ways(n: int, c: int) -> Float[Tensor, "2 n c"]:
    """Logits of a student and a teacher whose divergence is another from one than from the other."""
    while True:
        both = 2 * torch.randn(2, n, c)
        there, back = (inherit_knowledge(torch.tensor(0.0), *one, 1.0) for one in (both, both.flip(0)))
        if (there - back).abs() > 0.1:
            return both


@task(
    inherit_knowledge,
    difficulty=3,
    minutes=15,
    example=by_hand(
        torch.tensor(2.0),
        torch.zeros(1, 2),
        torch.tensor([[math.log(3), 0]]),
        0.25,
        gives=1.5 + 0.25 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)),
    ),
)
def check_inherit_knowledge(function: Callable) -> None:
    """The own loss alone at α = 0, the divergence from the teacher to the student, and a teacher that stays."""
    n, c, alpha = between(4, 7), between(5, 9), uniform(0.2, 0.4)
    loss, (student, teacher) = 1 + torch.rand(()), unlike_both_ways(n, c)
    given = loss, student, teacher
    got = expect_tensor(function(*given, alpha), ())
    expect_close(
        function(*given, 0.0), loss, "With α = 0 it must be the loss, as it is.", "1 - α is the share of the loss."
    )
    wild = function(loss, student, torch.full_like(teacher, torch.inf), 0.0)
    exact = isinstance(wild, Tensor) and torch.equal(wild, loss)
    expect(exact, "With α = 0 the teacher must not be looked at, whatever it says.", "if alpha == 0: return loss.")
    agreed = function(loss, student, student, alpha)
    expect_close(agreed, (1 - alpha) * loss, "Where both agree only (1 - α) · loss must be left.", "a divergence is 0.")
    reverse = (1 - alpha) * loss + inherit_knowledge(0 * loss, teacher, student, alpha)
    expect_not(
        got, reverse, "The divergence must be KL(teacher ‖ student).", "Σ p_teacher (ln p_teacher - ln p_student)."
    )
    part = inherit_knowledge(0 * loss, student, teacher, alpha)
    hint = "a sum over the c tokens, a mean over the n positions."
    expect_not(got, (1 - alpha) * loss + part / c, "The sum must run over all tokens, with no division by c.", hint)
    expect_not(got, (1 - alpha) * loss + part * n, "It must be the mean over the n positions.", hint)
    same = agreement(function, inherit_knowledge)
    same((*given, alpha), "It must be (1 - α) · loss + α · KL.", hint)
    same((*given, 1.0), "With α = 1 only the teacher must count.", hint)
    with case("With temperature 2"):
        property = "Both must be divided by the temperature, and the divergence multiplied by its square."
        same((*given, alpha, 2.0), property, "τ² keeps the gradient of the divergence as large as it was.")
    expect_trains(function, loss, student, fixed=(teacher, alpha, 1.5), like=inherit_knowledge)
    learned = teacher.clone().requires_grad_()
    told = function(loss, student, learned, alpha)
    expect(not told.requires_grad, "The teacher must get no gradient: it is not trained.", "teacher_logits.detach().")
    with case("Logits of hundreds"):
        fixed = (300 * torch.randn(n, c), alpha)
        expect_sure_and_wrong(function, loss, 300 * torch.randn(n, c), fixed=fixed, like=inherit_knowledge)
