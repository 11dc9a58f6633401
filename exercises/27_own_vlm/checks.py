"""Your own vision–language model: its patches, its text, its loss and its weights, told one property at a time."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.exercises import (
    agreement,
    by_hand,
    case,
    expect,
    expect_boolean,
    expect_close,
    expect_not,
    expect_sure_and_wrong,
    expect_tensor,
    expect_trains,
    over,
    task,
)
from mmlearn.exercises.inputs import between, numbers, seeded, uniform
from mmlearn.models.bridges.vlm import pixel_shuffle

# From patches to embeddings in a text.


@task(
    pixel_shuffle,
    difficulty=1,
    minutes=15,
    example=by_hand(
        torch.arange(1.0, 9.0).view(1, 8, 1), 2, 2, gives=torch.tensor([[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]]])
    ),
)
def check_pixel_shuffle(function: Callable) -> None:
    """Squares of neighbours, in reading order, and each of them in reading order too."""
    s = between(2, 3)
    high, wide, d = between(2, 3), between(4, 5), between(3, 4)
    rows, columns = high * s, wide * s
    x = numbers(2, rows * columns, d)
    got = expect_tensor(function(x, rows, s), (2, high * wide, s * s * d))
    grid = x.view(2, high, s, wide, s, d)
    square = "view the patches as (b, row, y, column, x, d), and bring y and x to d."
    line = x.view(2, high * wide, s * s * d)
    expect_not(got, line, "Neighbours are above and below too; here they follow one another in one row.", square)
    turned = grid.permute(0, 1, 3, 4, 2, 5).reshape(got.shape)
    order = "In each square, patches must be in reading order; here they go column by column."
    expect_not(got, turned, order, "y before x before d.")
    channels = grid.permute(0, 1, 3, 5, 2, 4).reshape(got.shape)
    whole = "The d numbers of a patch must stay together; here the same number of all patches does."
    expect_not(got, channels, whole, "y before x before d.")
    columns_first = grid.permute(0, 3, 1, 2, 4, 5).reshape(got.shape)
    expect_not(got, columns_first, "Squares must be in reading order; here they go column by column.", "row, column.")
    exchanged = x.view(2, wide, s, high, s, d).permute(0, 1, 3, 2, 4, 5).reshape(got.shape)
    expect_not(got, exchanged, "rows must be the number of rows; here it is taken for that of columns.", square)
    agreement(function, pixel_shuffle)((x, rows, s), "Each square of s × s patches must become one.", square)
    expect_trains(function, x, like=pixel_shuffle, fixed=(rows, s))


def place_images(
    words: Float[Tensor, "b t d"], images: Float[Tensor, "b n d"], is_image: Bool[Tensor, "b t"]
) -> Float[Tensor, "b t d"]:
    """The embeddings of words; the i-th image token of a row gives way to the i-th of its image embeddings."""
    count = (is_image.cumsum(1) - 1).clamp(min=0)  # (b, t)
    row = torch.arange(len(words))[:, None]  # (b, 1)
    return torch.where(is_image[..., None], images[row, count], words)


@task(
    place_images,
    difficulty=2,
    minutes=20,
    example=by_hand(
        torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), torch.tensor([[[10.0], [20.0]]]),
        torch.tensor([[False, True, False, True]]), gives=torch.tensor([[[1.0], [10.0], [3.0], [20.0]]]),
    ),
)  # fmt: skip
def check_place_images(function: Callable) -> None:
    """Each row counts its own image tokens, also where it has fewer than another; words stay."""
    b, t, n, d = 3, between(9, 11), 4, between(3, 5)
    found = torch.tensor([2, 4, 3])  # of the n embeddings of each row
    drawn = torch.rand(b, t, generator=seeded())
    drawn[:, 0] = 1.0  # the first one is a word
    is_image = drawn.argsort(1).argsort(1) < found[:, None]
    words, images = numbers(b, t, d), numbers(b, n, d)
    got = expect_tensor(function(words, images, is_image), (b, t, d))
    wanted = words.clone()
    for row in range(b):
        for i, at in enumerate(is_image[row].nonzero()[:, 0].tolist()):
            wanted[row, at] = images[row, i]
    hint = "the number of image tokens up to a position, less 1: is_image.cumsum(1) - 1 is of each row alone."
    stay = "Words must stay as they are."
    expect_close(got[~is_image], words[~is_image], stay, "torch.where(is_image[..., None], images, words).")
    placed, row = got[is_image], torch.arange(b)[:, None]
    expect_not(placed, words[is_image], "Image tokens must give way to images; here words are still there.", hint)
    first = images[row, torch.zeros_like(is_image).long()][is_image]
    expect_not(placed, first, "Each image token must get an embedding of its own; here all get the first.", hint)
    through = images.flatten(0, 1)[: int(found.sum())]
    across = (
        "Each row must count its own image tokens; here embeddings that the first row leaves over go to the second."
    )
    expect_not(placed, through, across, "masked_scatter takes one after the other, whatever row they are of: count.")
    late = images[row, is_image.cumsum(1).clamp(max=n - 1)][is_image]
    expect_not(placed, late, "Count from 0: the first image token of a row must get its embedding 0.", hint)
    end = images[row, (n - found[:, None] + is_image.cumsum(1) - 1).clamp(0, n - 1)][is_image]
    expect_not(placed, end, "A row with fewer image tokens must take its first embeddings, not its last.", hint)
    added = (words + wanted)[is_image]
    expect_not(placed, added, "An image token must give way; here its embedding is still in the sum.", "where, not +.")
    expect_close(got, wanted, "The i-th image token of a row must get embedding i of that row.", hint)
    with case("Without an image token"):
        nothing = torch.zeros_like(is_image)
        expect_close(function(words, images, nothing), words, "All must stay as it is.", "clamp the count to 0.")
    expect_trains(function, words, images, like=place_images, fixed=(is_image,))


# The text: which tokens are the assistant's, and what they cost.


def assistant_tokens(tokens: Int[Tensor, "b t"], opens: Int[Tensor, "k"], end: int) -> Bool[Tensor, "b t"]:
    """What stands behind ``opens``, up to and with the next ``end``."""
    opens_at = tokens.unfold(1, len(opens), 1).eq(opens).all(-1)  # (b, t - k + 1): where an assistant's turn opens
    marks = torch.zeros_like(tokens, dtype=torch.bool)
    for row, starts in enumerate(opens_at):
        done = 0
        for start in (starts.nonzero()[:, 0] + len(opens)).tolist():
            if start < done:  # what opens inside an answer is text
                continue
            ends = (tokens[row, start:] == end).nonzero()[:, 0]
            done = start + int(ends[0]) + 1 if len(ends) else tokens.shape[1]
            marks[row, start:done] = True
    return marks


START, END, USER, ASSISTANT, NEWLINE = range(1, 6)  # the tokens of the conversations that are drawn here
OPENS = torch.tensor([START, ASSISTANT, NEWLINE])


def draw_chats(b: int) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Conversations in which both sides also write words of the template, and which tokens are the assistant's.

    The last one, which is the longest, is cut in the middle of an answer; the others are padded with 0.
    """
    rows: list[list[tuple[int, bool]]] = []
    for number in range(b):
        row: list[tuple[int, bool]] = []
        for turn in range(4 if number < b - 1 else 6):
            answers = turn % 2 == 1
            said = torch.randint(6, 30, (between(3, 5),), generator=seeded()).tolist()
            said += [USER, NEWLINE] if answers else [ASSISTANT, NEWLINE]  # words like any other
            row += [(token, False) for token in (START, ASSISTANT if answers else USER, NEWLINE)]
            row += [(token, answers) for token in (*said, END)] + [(NEWLINE, False)]
        rows.append(row if number < b - 1 else row[:-4])
    longest = len(rows[-1])
    pairs = torch.tensor([row + [(0, False)] * (longest - len(row)) for row in rows])
    return pairs[..., 0], pairs[..., 1].bool()


@task(
    assistant_tokens,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[1, 3, 7, 2, 1, 4, 8, 9, 2, 0]]), torch.tensor([1, 4]), 2,
        gives=torch.tensor([[False] * 6 + [True] * 3 + [False]]),
    ),
)  # fmt: skip
def check_assistant_tokens(function: Callable) -> None:
    """Every answer, with its end token and without the tokens that open it; nothing of the user, and no padding."""
    tokens, wanted = draw_chats(4)
    got = expect_boolean(function(tokens, OPENS.clone(), END), tokens.shape)
    ends = (tokens == END) & wanted
    behind = "an answer begins behind the last token of opens."
    expect(not got[tokens == 0].any(), "Padding must not count.", "an answer is over at its end token.")
    before = torch.stack([wanted.roll(-k, 1) & ~wanted for k in (1, 2, 3)]).any(0)  # the tokens of opens
    expect(not got[before].any(), "The tokens that open an answer must not count: they are given.", behind)
    order = wanted.long().diff(dim=1, prepend=torch.zeros(len(tokens), 1).long()).clamp(min=0).cumsum(1)
    later = wanted & (order > 1)
    expect(got[later].any(), "Every answer must count; here only the first one does.", "there are several turns.")
    expect(got[wanted & (order == 1)].any(), "Every answer must count; here the first one does not.", "all turns.")
    cut = wanted[-1].clone()
    cut[: int((~wanted[-1]).nonzero()[-1, 0]) + 2] = False  # but for its first token, which is asked for below
    hint = "where no end token follows, an answer goes on to the end of the row."
    expect(got[-1][cut].all(), "An answer that is cut must count up to the end of its row.", hint)
    expect(got[ends].all(), "The end token of an answer must count, or the model never learns to stop.", "<= end.")
    first = wanted & ~wanted.roll(1, 1)
    expect(got[first].all(), "The first token of an answer must count.", behind)
    expect(got[wanted].all(), "Every token of an answer must count.", behind)
    text = "compare all tokens of opens, one after the other: a user may write the word assistant, too."
    expect(not got[~wanted].any(), "What is not of an answer must not count: what a user says is given.", text)
    with case("With other words for the template"):
        opens, end, other = torch.tensor([40, 41]), 42, torch.tensor([[40, 43, 9, 42, 40, 41, 7, 41, 42, 8, 41, 6]])
        right = torch.tensor([[False] * 6 + [True] * 3 + [False] * 3])
        got = expect_boolean(function(other, opens, end), other.shape)
        expect(torch.equal(got, right), "It must go by opens and end.", "no number of a token is written in the code.")


def answer_loss(
    states: Float[Tensor, "b t d"],
    table: Float[Tensor, "v d"],
    tokens: Int[Tensor, "b t"],
    is_answer: Bool[Tensor, "b t"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the tokens of answers, with logits at the positions before them and nowhere else."""
    asked = is_answer[:, 1:]
    return F.cross_entropy(states[:, :-1][asked] @ table.T, tokens[:, 1:][asked])


@task(
    answer_loss,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.tensor([[[5.0], [1.0986], [7.0]]]), torch.tensor([[1.0], [0.0]]), torch.tensor([[1, 0, 0]]),
        torch.tensor([[False, False, True]]), gives=0.2877,
    ),
)  # fmt: skip
def check_answer_loss(function: Callable) -> None:
    """Only answers count, each of their tokens from the state before it; other states are not even read."""
    b, t, v, d = 3, between(8, 10), between(11, 15), 4
    position = torch.arange(t)
    is_answer = ((position >= 3) & (position < torch.tensor([[5], [6], [7]]))) | (position == t - 1)
    tokens = torch.randint(v, (b, t), generator=seeded())
    draws = [(numbers(b, t, d), numbers(v, d), tokens, is_answer) for _ in range(3)]
    logs = [(states @ table.T).log_softmax(-1) for states, table, _, _ in draws]
    got = over(draws, function)

    def cost(counts: Tensor, shift: int = 1) -> Tensor:
        rows = counts.nonzero().tolist()
        return torch.stack([-torch.stack([log[b, i - shift, tokens[b, i]] for b, i in rows]).mean() for log in logs])

    before = "the state at position i predicts token i + 1: states[:, :-1], tokens[:, 1:] and is_answer[:, 1:]."
    own = cost(is_answer, 0), cost(is_answer & (position < t - 1), 0)
    expect_not(got, own, "A state must predict the next token; here it predicts its own.", before)
    every = cost(position.expand(b, t) > 0)
    expect_not(got, every, "Questions and images must not count; here every token does.", before)
    expect_not(got, cost(~is_answer & (position > 0)), "Answers must count; here all else does.", "not ~is_answer.")
    late = torch.cat([is_answer[:, :1] & False, is_answer[:, :-1]], 1)
    expect_not(
        got, cost(late), "is_answer must be moved with the tokens: token i counts where is_answer[i] is.", before
    )
    rows = torch.stack([cost(is_answer & (torch.arange(b)[:, None] == row)) for row in range(b)]).mean(0)
    expect_not(got, rows, "Each token must count alike; here each conversation does.", "one mean over all tokens.")
    total = cost(is_answer) * is_answer.sum()
    expect_not(got, total, "It must be the mean over tokens of answers; here it is their sum.", "mean, not sum.")
    diluted = total / (b * (t - 1)), total / (b * t)
    expect_not(got, diluted, "Divide by the tokens of answers; here the sum is divided by all tokens.", "their number.")
    same = agreement(function, answer_loss)
    same(draws, "It must be the mean cross-entropy of the tokens of answers.", before)
    states, table = draws[0][:2]
    expect_trains(function, states, table, like=answer_loss, fixed=(tokens, is_answer))
    expect_sure_and_wrong(function, 100 * states, table, like=answer_loss, fixed=(tokens, is_answer))
    with case("Where all other states are infinite"):
        used = torch.cat([is_answer[:, 1:], is_answer[:, :1] & False], 1)
        spoilt = states.masked_fill(~used[..., None], torch.inf)
        choose = "choose states by the mask first, and then multiply by the table: 0 times infinity is NaN."
        value = function(spoilt, table, tokens, is_answer)
        expect(value.isfinite(), "States that predict no answer must not be read.", choose)
        expect_close(value, answer_loss(states, table, tokens, is_answer), "The loss must be the same.", choose)


# Weights: what has been learned beside a matrix becomes a part of it.


def merged_lora(
    weight: Float[Tensor, "k d"], down: Float[Tensor, "r d"], up: Float[Tensor, "k r"], alpha: float
) -> Float[Tensor, "k d"]:
    r"""One matrix that does what both did: :math:`W + \frac{\alpha}{r} B A`."""
    return weight + alpha / len(down) * up @ down


@task(
    merged_lora,
    difficulty=2,
    minutes=10,
    example=by_hand(
        torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0]]), 2.0,
        gives=torch.tensor([[7.0, 12.0], [0.0, 1.0]]),
    ),
)  # fmt: skip
def check_merged_lora(function: Callable) -> None:
    """One product of the merged matrix gives what three products gave."""
    rank, d, k, alpha = between(2, 4), between(6, 9), between(10, 13), uniform(5, 9)
    weight, down, up = numbers(k, d), numbers(rank, d), numbers(k, rank)
    got = expect_tensor(function(weight, down, up, alpha), (k, d))
    change = up @ down
    hint = "W + alpha / r · B A: up @ down is (k, d), and r is the number of rows of down."
    expect_not(got, alpha / rank * change, "W must be in the sum; here only the change is.", hint)
    expect_not(got, weight + change, "The change must be scaled by α / r; here it is not scaled.", hint)
    expect_not(got, weight + alpha * change, "The change must be scaled by α / r; here it is by α alone.", hint)
    inverse = weight + rank / alpha * change, weight + alpha * rank * change
    expect_not(got, inverse, "The change must be scaled by α / r, and not by r / α or α · r.", hint)
    wrong = weight + alpha / k * change, weight + alpha / d * change
    expect_not(got, wrong, "r is the rank; here α is divided by a width of the layer.", hint)
    expect_not(got, weight - alpha / rank * change, "The change must be added; here it is taken away.", hint)
    scaled = alpha / rank * (weight + change)
    expect_not(got, scaled, "Only the change must be scaled; here W is scaled with it.", hint)
    expect_close(function(weight, down, 0 * up, alpha), weight, "With B = 0 the matrix must stay as it is.", hint)
    x = numbers(5, d)
    apart = F.linear(x, weight) + alpha / rank * F.linear(F.linear(x, down), up)
    told = "W x + α / r · B A x must come out of one product."
    expect_close(F.linear(x, got), apart, told, hint, tolerance=1e-4)
    agreement(function, merged_lora, tolerance=1e-4)((weight, down, up, alpha), told, hint)
    expect_trains(function, weight, down, up, like=merged_lora, fixed=(alpha,))
