"""Learning from captions: what each loss and mask must do, told one property at a time.

What the library has not as a function of its own is written here, above its check.
"""

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
    expect_not,
    expect_seen,
    expect_tensor,
    expect_trains,
    expect_whole,
    over,
    task,
)
from mmlearn.exercises.inputs import between, first_of, numbers, seeded, uniform, unit
from mmlearn.objectives.contrastive import info_nce
from mmlearn.objectives.generative import backwards, caption_language_modelling, causal_language_modelling


def texts(b: int, t: int, v: int) -> tuple[Tensor, Tensor]:
    """Tokens, and which of them are real; each text has another length, and the first is whole."""
    mask = first_of(t, [t - i for i in range(b)])
    tokens = torch.randint(0, v, (b, t), generator=seeded())
    tokens[:, 2] = 0  # a word like others
    return tokens, mask


def each_cost(logits: Tensor, tokens: Tensor, shift: int = 1) -> Tensor:
    """What tokens cost whose logits stand ``shift`` positions before them."""
    t = tokens.shape[1]
    return -logits[:, : t - shift].log_softmax(-1).gather(-1, tokens[:, shift:, None])[..., 0]


# Captions in both directions.


@task(
    backwards,
    difficulty=1,
    minutes=10,
    example=by_hand(
        torch.tensor([[1, 7, 8, 2, 0]]), torch.tensor([[True, True, True, True, False]]),
        gives=torch.tensor([[2, 8, 7, 1, 0]]),
    ),
)  # fmt: skip
def check_backwards(function: Callable) -> None:
    """Each text from its last real token to its first, with padding where it was."""
    b, t, v = 3, between(7, 9), 50
    tokens, mask = texts(b, t, v)
    tokens = tokens + v * torch.arange(t)  # no two alike in a row
    got = expect_whole(function(tokens, mask), (b, t))
    positions = (
        "real token i of a text of n takes its token from position n - 1 - i; gather takes tokens from positions."
    )
    flipped = tokens.flip(1)
    expect(
        not torch.equal(got, flipped),
        "Padding must stay at the end; here whole rows are turned, and it leads.",
        positions,
    )
    expect(not torch.equal(got, tokens.flip(0)), "Texts must be turned; here the batch is.", "the axis of tokens is 1.")
    expect(not torch.equal(got, tokens), "Texts must be turned; these are as they were.", positions)
    inner = tokens.clone()
    for row, real in enumerate(mask.sum(1).tolist()):
        inner[row, 1 : real - 1] = tokens[row, 1 : real - 1].flip(0)
    ends = "Start and end must change places as well; here they stay, and only what is between them is turned."
    expect(not torch.equal(got, inner), ends, "the backward writer begins with the token that ends captions.")
    expect((got >= 0).all(), "All must be tokens of the text; here are negative numbers.", "where padding is, too.")
    expect(torch.equal(got[~mask], tokens[~mask]), "Padding must stay as it is, whatever its number.", positions)
    expect(torch.equal(got, backwards(tokens, mask)), "Each real token must take its position from behind.", positions)
    with case("Without a mask"):
        expect(torch.equal(function(tokens), flipped), "The whole row must be turned.", "None: everything is real.")


def bicaptioning(
    forward_logits: Float[Tensor, "b t v"],
    backward_logits: Float[Tensor, "b t v"],
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
) -> Float[Tensor, ""]:
    """What both writers pay: the mean over tokens of each, and their sum."""
    there = causal_language_modelling(forward_logits, tokens, mask)
    return there + causal_language_modelling(backward_logits, backwards(tokens, mask), mask)


@task(
    bicaptioning,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[0.0, 1.0986], [9.0, 0.0]]]), torch.tensor([[[0.0, 0.0], [5.0, 5.0]]]),
        torch.tensor([[0, 1]]), torch.tensor([[True, True]]), gives=0.981,
    ),
)  # fmt: skip
def check_bicaptioning(function: Callable) -> None:
    """Each writer is asked for what comes next in its own direction."""
    b, t, v = 3, between(8, 10), between(11, 15)
    draws = [(numbers(b, t, v), numbers(b, t, v), *texts(b, t, v)) for _ in range(3)]
    got = over(draws, function)

    def cost(turn: Callable = backwards, shift: int = 1, real: bool = True, last: Callable | None = None) -> Tensor:
        found = []
        for forward, backward, tokens, mask in draws:
            counts = mask[:, shift:] if real else torch.ones_like(mask[:, shift:])
            ways = [each_cost(x, y, shift)[counts] for x, y in ((forward, tokens), (backward, turn(tokens, mask)))]
            found.append(last(*ways) if last else ways[0].mean() + ways[1].mean())
        return torch.stack(found)

    turned = "backwards(tokens, mask) is what the backward writer reads, and what it is asked for."
    before = "the logits that stand at position i belong to token i + 1 of the text as it is read."
    expect_not(
        got, cost(lambda x, m: x), "The backward writer must be asked for the turned text; here for the text.", turned
    )
    expect_not(got, cost(lambda x, m: x.flip(1)), "Padding must stay behind the turned text; here it leads.", turned)
    expect_not(got, cost(shift=0), "Logits must belong to the next token; here they belong to their own.", before)
    expect_not(got, cost(real=False), "Padding must not count; here it does.", "take places where the mask is True.")
    expect_not(got, cost(last=lambda x, y: x.mean()), "Both writers must pay; here only the forward one.", turned)
    expect_not(got, cost(last=lambda x, y: y.mean()), "Both writers must pay; here only the backward one.", turned)
    halves = cost(last=lambda x, y: (x.mean() + y.mean()) / 2)
    expect_not(got, halves, "It must be the sum of both; here it is their mean.", "no division by 2.")
    sums = cost(last=lambda x, y: x.sum() + y.sum())
    expect_not(got, sums, "Each must pay the mean of its tokens; here it pays their sum.", "mean, not sum.")
    agreement(function, bicaptioning)(draws, "It must be both causal losses.", f"{before} {turned}")
    forward, backward, tokens, mask = draws[0]
    expect_trains(function, forward, backward, like=bicaptioning, fixed=(tokens, mask))


@task(
    caption_language_modelling,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([[[1.0986, 0.0], [0.0, 0.0]]]), torch.tensor([[1, 0]]), None, 0.2,
        gives=0.398,
    ),
)  # fmt: skip
def check_caption_language_modelling(function: Callable) -> None:
    """The next token, towards a target that is never certain."""
    b, t, v, smooth = 3, between(8, 10), between(7, 9), uniform(0.2, 0.4)
    draws = [(numbers(b, t, v), *texts(b, t, v), smooth) for _ in range(3)]
    got = over(draws, function)

    def cost(shift: int = 1, others: int = v, real: bool = True, all_alike: float = smooth) -> Tensor:
        found = []
        for logits, tokens, mask, _ in draws:
            logs = logits[:, : t - shift].log_softmax(-1)
            hot = F.one_hot(tokens[:, shift:], v)
            target = (1 - all_alike) * hot + all_alike / others * (1 if others == v else 1 - hot)
            each = -(target * logs).sum(-1)
            found.append(each[mask[:, shift:]].mean() if real else each.mean())
        return torch.stack(found)

    before = "the logits that stand at position i belong to token i + 1: cut off the last logits and the first token."
    expect_not(got, cost(shift=0), "Logits must belong to the next token; here they belong to their own.", before)
    expect_not(got, cost(real=False), "Padding must not count; here it does.", "take places where the mask is True.")
    smoothed = "ε / v goes to every word, the true one too, which has 1 - ε besides."
    expect_not(got, cost(all_alike=0.0), "The target must be smoothed; here the true word has all of it.", smoothed)
    others = "ε must be shared by all v words; here the true one gets nothing of it."
    expect_not(got, cost(others=v - 1), others, smoothed)
    constant = "ε is an argument; here it is always 0.1."
    expect_not(got, cost(all_alike=0.1), constant, "label_smoothing=label_smoothing.")
    same = agreement(function, caption_language_modelling)
    same(draws, "It must be the mean cross-entropy with the smoothed target.", smoothed)
    logits, tokens, mask, _ = draws[0]
    with case("Without a mask"):
        same((logits, tokens, None, smooth), "All tokens but the first must count.", "None: everything is real.")
    expect_trains(function, logits, like=caption_language_modelling, fixed=(tokens, mask, smooth))


# Who sees whom, and who reads what.


def seq2seq_mask(
    seq2seq: Bool[Tensor, "b"], region_mask: Bool[Tensor, "b p"], mask: Bool[Tensor, "b t"]
) -> Bool[Tensor, "b n n"]:
    """Who may see whom where regions stand before words."""
    real = torch.cat([region_mask, mask], 1)
    n, p = real.shape[1], region_mask.shape[1]
    image = torch.arange(n) < p
    writes = image | (torch.ones(n, n, dtype=torch.bool).tril() & ~image[:, None])
    return (writes | ~seq2seq[:, None, None]) & real[:, None]


@task(
    seq2seq_mask,
    difficulty=3,
    minutes=20,
    example=by_hand(
        torch.tensor([True]), torch.tensor([[True]]), torch.tensor([[True, True]]),
        gives=torch.tensor([[[True, False, False], [True, True, False], [True, True, True]]]),
    ),
)  # fmt: skip
def check_seq2seq_mask(function: Callable) -> None:
    """Rows of a batch under one mask or the other; padding is seen by nobody."""
    p, t = between(3, 4), between(5, 6)
    seq2seq = torch.tensor([True, False, True, False])
    regions, real = first_of(p, [p, p, p - 1, p - 1]), first_of(t, [t, t, t - 2, t - 2])
    got = expect_boolean(function(seq2seq, regions, real), (4, p + t, p + t))
    padding = ~torch.cat([regions, real], 1)
    seen = got & padding[:, None]
    expect(not seen[:, :, p:].any(), "Padding of texts must never be seen.", "& with the mask, by columns.")
    expect(not seen[:, :, :p].any(), "Regions that are no regions must never be seen.", "region_mask, by columns.")
    look, say = slice(0, p), slice(p, p + t)
    writes, reads = got[0], got[1]
    expect(reads.all(), "Read both ways, all must see all.", "rows where seq2seq is False have no past.")
    expect(writes[look, look].all(), "Regions must see each other, in both kinds of rows.", "no tril among regions.")
    leak = "Under the sequence-to-sequence mask no region must see a word, because words see regions."
    expect(not writes[look, say].any(), leak, "False, in the rows of regions and the columns of words.")
    expect(writes[say, look].all(), "A word must see all regions.", "the rows of words, the columns of regions.")
    future = torch.ones(t, t, dtype=torch.bool).triu(1)
    words = writes[say, say]
    expect(not (words & future).any(), "A word must not see later ones, which it is to write.", "tril.")
    expect(words.diagonal().all(), "A word must see itself.", "tril() with the diagonal.")
    expect(words[~future].all(), "A word must see all words before it.", "tril, not the one before alone.")
    each = "Each row of the batch must follow its own entry of seq2seq, and its own padding."
    expect_seen(got, seq2seq_mask(seq2seq, regions, real), ~padding, each, "seq2seq[:, None, None].")


def pool_by_attention(
    queries: Float[Tensor, "q d"], x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"]
) -> Float[Tensor, "b q d"]:
    """What each query reads of the real tokens."""
    scores = (queries @ x.mT / x.shape[-1] ** 0.5).masked_fill(~mask[:, None], -torch.inf)
    return scores.softmax(-1) @ x


@task(
    pool_by_attention,
    difficulty=2,
    minutes=15,
    example=by_hand(
        torch.zeros(1, 2), torch.tensor([[[4.0, 0.0], [0.0, 2.0], [9.0, 9.0]]]), torch.tensor([[True, True, False]]),
        gives=torch.tensor([[[2.0, 1.0]]]),
    ),
)  # fmt: skip
def check_pool_by_attention(function: Callable) -> None:
    """A few queries read many tokens, each with weights of its own."""
    b, q, n, d = 3, between(2, 3), between(6, 8), between(9, 12)
    queries, x, mask = 2 * numbers(q, d), 2 * numbers(b, n, d), first_of(n, [n, n - 1, n - 3])
    got = expect_tensor(function(queries, x, mask), (b, q, d))
    scores = queries @ x.mT
    hidden, root = ~mask[:, None], d**0.5
    padded = (scores / root).softmax(-1)
    expect_not(got, padded @ x, "Padding must not be read; here it is.", "masked_fill with -inf before the softmax.")
    lost = padded.masked_fill(hidden, 0) @ x
    expect_not(
        got, lost, "Weights must sum to 1 over what is real; here padding takes some.", "mask first, softmax then."
    )
    zeroed = (scores / root).masked_fill(hidden, 0).softmax(-1) @ x
    expect_not(got, zeroed, "A score of 0 is no mask: its weight is e⁰.", "masked_fill with -inf.")
    plain = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ x
    expect_not(got, plain, "Scores must be divided by √d; here they are not.", "d is the width of a token.")
    width = (scores / d).masked_fill(hidden, -torch.inf).softmax(-1) @ x
    expect_not(got, width, "Scores must be divided by √d; here by d.", "d ** 0.5.")
    over_queries = (scores / root).masked_fill(hidden, -torch.inf).softmax(1).nan_to_num() @ x
    expect_not(
        got, over_queries, "Each query must share 1 among tokens; here queries share each token.", "softmax(-1)."
    )
    mean = ((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))[:, None].expand(b, q, d)
    expect_not(got, mean, "Queries must choose; here it is the mean of all tokens.", "weights come from q · x.")
    same = agreement(function, pool_by_attention, tolerance=1e-4)
    same((queries, x, mask), "It must be the mean of tokens, by softmax(q · x / √d).", "scores, mask, softmax, @ x.")
    expect_trains(function, queries, x, like=pool_by_attention, fixed=(mask,))


def contrast_and_caption(
    image_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b d"],
    logits: Float[Tensor, "b t v"],
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    logit_scale: float,
    contrast_weight: float = 1.0,
    caption_weight: float = 2.0,
) -> Float[Tensor, ""]:
    """CoCa's loss of one pass."""
    contrast = info_nce(image_embedding, text_embedding, torch.tensor(logit_scale))
    return contrast_weight * contrast + caption_weight * causal_language_modelling(logits, tokens, mask)


@task(
    contrast_and_caption,
    difficulty=4,
    minutes=25,
    example=by_hand(
        torch.ones(2, 1), torch.ones(2, 1), torch.zeros(2, 2, 3), torch.tensor([[0, 1], [0, 2]]),
        torch.ones(2, 2, dtype=torch.bool), 5.0, gives=2.890,
    ),
)  # fmt: skip
def check_contrast_and_caption(function: Callable) -> None:
    """Both ways of the contrast, the next word of the caption, and a weight for each."""
    b, t, v, d, scale = between(4, 5), between(7, 8), between(9, 12), 8, uniform(3, 6)
    weights = uniform(0.5, 0.8), uniform(1.5, 2.5)
    draws = [(unit(b, d), unit(b, d), numbers(b, t, v), *texts(b, t, v), scale, *weights) for _ in range(3)]
    got = over(draws, function)

    def cost(
        both: tuple = (0.5, 0.5), used: tuple = weights, s: float = scale, shift: int = 1, real: bool = True
    ) -> Tensor:
        found = []
        for u, w, logits, tokens, mask, *_ in draws:
            similarity, own = s * u @ w.T, torch.arange(b)
            contrast = both[0] * F.cross_entropy(similarity, own) + both[1] * F.cross_entropy(similarity.T, own)
            each = each_cost(logits, tokens, shift)
            found.append(used[0] * contrast + used[1] * (each[mask[:, shift:]] if real else each).mean())
        return torch.stack(found)

    one, two = weights
    halves = "half of what pictures pay, and half of what texts pay."
    expect_not(got, cost((1, 0)), "Texts must pick their pictures too; here only pictures pick.", halves)
    expect_not(got, cost((0, 1)), "Pictures must pick their texts too; here only texts pick.", halves)
    expect_not(got, cost((1, 1)), "The contrast must be the mean of both ways; here it is their sum.", halves)
    weigh = "contrast_weight * contrast + caption_weight * captioning."
    expect_not(got, cost(used=(two, one)), "Each loss must have its own weight; here they are exchanged.", weigh)
    expect_not(got, cost(used=(1.0, 1.0)), "Losses must be weighed; here they are added as they are.", weigh)
    expect_not(got, cost(used=(one, 0.0)), "The caption must count; here only the contrast does.", weigh)
    expect_not(got, cost(used=(0.0, two)), "The contrast must count; here only the caption does.", weigh)
    scaled = "logit_scale is 1 / τ already: multiply by it."
    expect_not(got, cost(s=1 / scale), "logit_scale must multiply; here it divides.", scaled)
    expect_not(got, cost(s=1.0), "Cosines must be scaled; here they are not.", scaled)
    before = "the logits that stand at position i belong to token i + 1."
    expect_not(got, cost(shift=0), "Logits must belong to the next token; here they belong to their own.", before)
    expect_not(got, cost(real=False), "Padding must not count; here it does.", "take places where the mask is True.")
    same = agreement(function, contrast_and_caption)
    same(draws, "It must be both losses, each with its weight.", weigh)
    with case("With a logit_scale of 1000"):
        sharp = [(*draw[:5], 1000.0, *weights) for draw in draws]
        same(sharp, "It must be both losses.", "cross_entropy takes logits of any size; exp alone does not.")
    u, w, logits, *rest = draws[0]
    expect_trains(function, u, w, logits, like=contrast_and_caption, fixed=tuple(rest))
