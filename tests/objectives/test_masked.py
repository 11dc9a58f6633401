"""What is hidden is hidden by the rules, and each loss equals plain Python loops over the hidden positions alone."""

import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives import (
    mask_nodes,
    mask_regions,
    mask_tokens,
    masked_cross_entropy,
    masked_region_classification,
    masked_region_kl,
    masked_region_regression,
)

VOCABULARY, PAD, START, END, MASK = 40, 0, 1, 2, 3
SPECIAL = [PAD, START, END]
B, T, P, F, C = 4, 9, 5, 6, 7


def texts(b=B, t=T, seed=0):
    """<start> words <end> <pad>, of every length from one word on."""
    tokens = torch.randint(MASK + 1, VOCABULARY, (b, t), generator=seeded(seed))
    end = 2 + torch.arange(b) % (t - 2)
    tokens[:, 0] = START
    tokens[torch.arange(b), end] = END
    mask = torch.arange(t) <= end[:, None]
    return tokens.masked_fill(~mask, PAD), mask


def hide(tokens, mask, seed=0, **options):
    options = {"vocab_size": VOCABULARY, "mask_token": MASK, "special": SPECIAL, "generator": seeded(seed)} | options
    return mask_tokens(tokens, mask, **options)


def ordinary(tokens):
    return tokens > MASK


def assert_share(count, total, expected):
    """Within four standard deviations of a coin with this chance."""
    assert abs(count - expected * total) <= 4 * math.sqrt(expected * (1 - expected) * total)


# Tokens.


@pytest.mark.parametrize("seed", range(5))
def test_labels_hold_the_hidden_tokens_and_everything_else_stays(seed):
    tokens, mask = texts(seed=seed)
    corrupted, label = hide(tokens, mask, seed, probability=0.5)
    hidden = label != -100
    assert torch.equal(label[hidden], tokens[hidden])
    assert torch.equal(corrupted[~hidden], tokens[~hidden])
    assert (ordinary(tokens) & mask)[hidden].all()


def test_fifteen_percent_are_hidden_in_three_ways():
    tokens = torch.randint(MASK + 1, VOCABULARY, (200, 400), generator=seeded())
    corrupted, label = hide(tokens, torch.ones_like(tokens, dtype=torch.bool))
    hidden = label != -100
    total = hidden.sum().item()
    assert_share(total, tokens.numel(), 0.15)
    masked, same = (corrupted == MASK)[hidden], (corrupted == tokens)[hidden]
    by_chance = 0.1 / (VOCABULARY - MASK - 1)  # a random token that is the true one
    assert_share(masked.sum().item(), total, 0.8)
    assert_share(same.sum().item(), total, 0.1 + by_chance)
    assert_share((~masked & ~same).sum().item(), total, 0.1 - by_chance)


def test_random_tokens_are_all_ordinary_ones_and_never_special():
    tokens = torch.full((100, 200), 20)
    special = [PAD, START, END, 11, VOCABULARY - 1]
    corrupted, _ = hide(tokens, torch.ones_like(tokens, dtype=torch.bool), probability=1.0, special=special)
    seen = set(corrupted.flatten().tolist()) - {MASK}
    assert seen == set(range(VOCABULARY)) - {*special, MASK}
    drawn = corrupted[(corrupted != MASK) & (corrupted != 20)]
    for token in seen - {20}:
        assert_share((drawn == token).sum().item(), len(drawn), 1 / (len(seen) - 1))


def test_special_tokens_and_padding_are_never_hidden():
    tokens, mask = texts()
    tokens = torch.where(mask, tokens, 20)  # padding that looks like a word
    tokens[3, 1] = MASK
    _, label = hide(tokens, mask, probability=1.0)
    assert torch.equal(label != -100, mask & ordinary(tokens))


@pytest.mark.parametrize("seed", range(5))
def test_each_text_with_a_word_has_one_hidden(seed):
    tokens, mask = texts(b=20, seed=seed)
    tokens[7, 1:-1] = MASK  # and a text without words has none
    mask[7] = True
    tokens[7, -1] = END
    _, label = hide(tokens, mask, seed, probability=0.0)
    expected = torch.ones(20, dtype=torch.long)
    expected[7] = 0
    assert torch.equal((label != -100).sum(1), expected)
    _, label = hide(tokens, mask, seed)
    assert torch.equal((label != -100).any(1), expected.bool())


def test_the_one_that_is_always_hidden_is_any_of_them():
    tokens = torch.full((8000, 4), 20)
    _, label = hide(tokens, torch.ones_like(tokens, dtype=torch.bool), probability=0.0)
    for count in (label != -100).sum(0).tolist():
        assert_share(count, 8000, 1 / 4)


@pytest.mark.parametrize("probability", [0.0, 0.3])
def test_words_are_hidden_whole(probability):
    words = torch.tensor([[-1, 5, 5, 2, 2, 2, 9, -1, -1]]).expand(3000, T)
    tokens = torch.tensor([[START, 10, 11, 12, 13, 14, 15, END, PAD]]).expand(3000, T)
    corrupted, label = hide(tokens, tokens != PAD, words=words, probability=probability)
    hidden = label != -100
    assert torch.equal(hidden[:, 1], hidden[:, 2])
    assert torch.equal(hidden[:, 3], hidden[:, 4])
    assert torch.equal(hidden[:, 3], hidden[:, 5])
    assert not torch.equal(hidden[:, 1], hidden[:, 3])
    assert not torch.equal(hidden[:, 3], hidden[:, 6])
    one = hidden[:, [1, 3, 6]]
    share = 1 / 3 if probability == 0 else 0.3 + 0.7**3 / 3  # by chance, or as the only one of three
    for word in range(3):
        assert_share(one[:, word].sum().item(), 3000, share)
    # Each piece is replaced on its own.
    both = (corrupted[:, 1] == MASK)[hidden[:, 1]] & (corrupted[:, 2] == MASK)[hidden[:, 1]]
    assert_share(both.sum().item(), hidden[:, 1].sum().item(), 0.8**2)


def test_the_numbers_of_words_are_only_names():
    tokens, mask = texts()
    words = torch.arange(T).div(2, rounding_mode="floor").expand(B, T)
    got, again = (hide(tokens, mask, words=names, probability=0.3) for names in (words, 1000 - 7 * words))
    assert torch.equal(got[0], again[0])
    assert torch.equal(got[1], again[1])


def test_a_generator_pins_what_is_hidden():
    tokens, mask = texts(b=30)
    before, kept = torch.get_rng_state(), tokens.clone()
    first, again, other = (hide(tokens, mask, seed, probability=0.5) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(tokens, kept)


def test_nothing_to_hide():
    tokens, mask = texts()
    for rows in (tokens[:0], tokens[:, :0]):
        corrupted, label = hide(rows, mask[: len(rows), : rows.shape[1]])
        assert corrupted.shape == label.shape == rows.shape
    _, label = hide(tokens, torch.zeros_like(mask), probability=1.0)
    assert (label == -100).all()


@pytest.mark.parametrize("probability", [-0.1, 1.5, math.nan])
def test_a_share_is_a_probability(probability):
    tokens, mask = texts()
    refused("from 0 to 1, got", hide, tokens, mask, probability=probability)
    refused("from 0 to 1, got", mask_regions, mask, generator=seeded(), probability=probability)


def test_a_vocabulary_has_more_than_special_tokens():
    refused(r"All 4 tokens .* special", hide, *texts(), vocab_size=4)


# Regions.


def test_fifteen_percent_of_the_real_regions_are_hidden():
    real = torch.rand(300, 200, generator=seeded()) < 0.7
    masked = mask_regions(real, generator=seeded(1))
    assert not (masked & ~real).any()
    assert_share(masked.sum().item(), real.sum().item(), 0.15)


@pytest.mark.parametrize("seed", range(5))
def test_each_image_with_regions_has_one_hidden(seed):
    real = torch.arange(P) < torch.tensor([P, 1, 0, 3])[:, None]
    assert mask_regions(real, generator=seeded(seed), probability=0.0).sum(1).tolist() == [1, 1, 0, 1]
    assert mask_regions(real, generator=seeded(seed)).any(1).tolist() == [True, True, False, True]
    assert torch.equal(mask_regions(real, generator=seeded(seed), probability=1.0), real)


# Losses.


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def region_batch(seed=0):
    """Features or logits, their targets and what is hidden: two of five regions and none of the last row."""
    masked = torch.rand(B, P, generator=seeded(seed)).argsort(1) < 2
    masked[-1] = False
    return masked, normal(B, P, C, seed=seed), normal(B, P, C, seed=seed + 100).mul(3).softmax(-1)


def nll(logits, k):
    return math.log(sum(math.exp(z - logits[k]) for z in logits))


def by_regression(prediction, target):
    return sum((g - r) ** 2 for g, r in zip(prediction, target))


def by_class(logits, classes):
    return nll(logits, classes.index(max(classes)))


def by_distribution(logits, classes):
    return sum(c * (math.log(c) + nll(logits, k)) for k, c in enumerate(classes))


REGION_LOSSES = {
    "mrfr": (masked_region_regression, by_regression),
    "mrc": (masked_region_classification, by_class),
    "mrc_kl": (masked_region_kl, by_distribution),
}
region_losses = pytest.mark.parametrize("loss", REGION_LOSSES)


@region_losses
@pytest.mark.parametrize("seed", range(3))
def test_region_losses_equal_loops_over_hidden_regions(loss, seed):
    function, one = REGION_LOSSES[loss]
    masked, x, target = region_batch(seed)
    terms = [one(x[i, j].tolist(), target[i, j].tolist()) for i, j in masked.nonzero().tolist()]
    close(function(x, target, masked), torch.tensor(sum(terms) / len(terms), dtype=torch.float64), 1e-12)


@region_losses
def test_region_losses_read_hidden_regions_alone(loss):
    function, _ = REGION_LOSSES[loss]
    masked, x, target = region_batch()
    x.requires_grad_()
    value = function(x, target, masked)
    value.backward()
    assert (x.grad[~masked] == 0).all()
    assert (x.grad[masked] != 0).any(-1).all()
    broken = [y.detach().masked_fill(~masked[..., None], torch.nan) for y in (x, target)]
    assert torch.equal(function(*broken, masked), value.detach())


@region_losses
@pytest.mark.parametrize("rows", [B, 0])
def test_without_hidden_regions_the_loss_is_zero(loss, rows):
    function, _ = REGION_LOSSES[loss]
    masked, x, target = (y[:rows] for y in region_batch())
    x.requires_grad_()
    value = function(x, target, torch.zeros_like(masked))
    value.backward()
    assert value == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("seed", range(3))
def test_kl_is_zero_only_where_model_and_detector_agree(seed):
    masked, logits, classes = region_batch(seed)
    assert masked_region_kl(logits, classes, masked) > 0.01
    agreed = masked_region_kl(classes.log() + 5, classes, masked)  # logits are free up to a constant
    assert abs(agreed) < 1e-14
    for step in (1e-1, 1e-2, -1e-2):  # away from the minimum, in any direction
        assert masked_region_kl(classes.log() + step * logits, classes, masked) > agreed + 1e-7


def test_kl_of_a_detector_without_doubt_is_classification():
    masked, logits, classes = region_batch()
    certain = torch.nn.functional.one_hot(classes.argmax(-1), C).double()
    kl, mrc = masked_region_kl(logits, certain, masked), masked_region_classification(logits, certain, masked)
    close(kl, mrc, 1e-14)
    assert torch.equal(mrc, masked_region_classification(logits, classes, masked))


@pytest.mark.parametrize("scale", [0.0, 3.0])
def test_logits_that_know_nothing_give_the_logarithm_of_the_classes(scale):
    masked, _, classes = region_batch()
    same = torch.full((B, P, C), scale, dtype=torch.float64)
    close(masked_region_classification(same, classes, masked).item(), math.log(C), 1e-14)
    label = torch.randint(VOCABULARY, (B, T), generator=seeded())
    close(masked_cross_entropy(torch.full((B, T, VOCABULARY), scale), label).item(), math.log(VOCABULARY))


@pytest.mark.parametrize("shape", [(B, T), (11,), (2, 3, 2)])
def test_masked_cross_entropy_equals_loops(shape):
    logits = normal(*shape, VOCABULARY, seed=1)
    label = torch.randint(VOCABULARY, shape, generator=seeded(2))
    asked = torch.rand(shape, generator=seeded(3)) < 0.5
    terms = [nll(z, k) for z, k in zip(logits[asked].tolist(), label[asked].tolist())]
    expected = torch.tensor(sum(terms) / len(terms), dtype=torch.float64)
    close(masked_cross_entropy(logits, label.masked_fill(~asked, -100)), expected, 1e-12)
    close(masked_cross_entropy(logits[asked], label[asked]), expected, 1e-12)


def test_masked_cross_entropy_reads_hidden_tokens_alone():
    logits = normal(B, T, VOCABULARY).requires_grad_()
    _, label = hide(*texts())
    asked = label != -100
    value = masked_cross_entropy(logits, label)
    value.backward()
    assert (logits.grad[~asked] == 0).all()
    assert (logits.grad[asked] != 0).all()
    moved = torch.where(asked[..., None], logits.detach(), normal(B, T, VOCABULARY, seed=9))
    assert torch.equal(masked_cross_entropy(moved, label), value.detach())


@pytest.mark.parametrize("shape", [(B, T), (0,), (0, T)])
def test_without_hidden_tokens_the_loss_is_zero(shape):
    logits = normal(*shape, VOCABULARY).requires_grad_()
    value = masked_cross_entropy(logits, torch.full(shape, -100))
    value.backward()
    assert value == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


# What does not fit is refused.


@pytest.mark.parametrize("label", [-1, 40, -101])
def test_a_label_outside_the_vocabulary_is_refused(label):
    labels = torch.full((B, T), -100)
    labels[1, 2] = label
    with pytest.raises(ValueError, match=f"Labels are 0 to 39 here, or -100 .* got {label}"):
        masked_cross_entropy(torch.randn(B, T, VOCABULARY), labels)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", [masked_region_regression, masked_region_classification, masked_region_kl])
@pytest.mark.parametrize(
    ("target", "masked"),
    [
        (torch.rand(B, P, F + 1), torch.ones(B, P, dtype=torch.bool)),
        (torch.rand(B, P, F - 1), torch.ones(B, P, dtype=torch.bool)),
        (torch.rand(B, P, F), torch.ones(B, P, dtype=torch.long)),
    ],
)
def test_targets_of_other_regions_or_features_are_refused(loss, target, masked):
    refused("the targets have the same shape", loss, torch.rand(B, P, F), target, masked)


# Nodes of a scene graph.


def graphs(b):
    """An object of two tokens, an attribute, a relation of two tokens, another object, and words of no role."""
    role = torch.tensor([[-1, 1, 0, 0, 2, 2, -1, 0, -1]]).expand(b, T)
    node = torch.tensor([[-1, 0, 1, 1, 2, 2, -1, 3, -1]]).expand(b, T)
    return torch.arange(10, 10 + T).expand(b, T), role, node


def hide_nodes(tokens, role, node, wanted, seed=0, **options):
    sizes = dict(vocab_size=VOCABULARY, mask_token=MASK, special=SPECIAL)
    return mask_nodes(tokens, role, node, wanted, generator=seeded(seed), **sizes, **options)


@pytest.mark.parametrize("wanted", range(3))
def test_only_words_of_one_role_are_hidden_node_by_node(wanted):
    tokens, role, node = graphs(3000)
    corrupted, label = hide_nodes(tokens, role, node, wanted)
    hidden = label != -100
    assert (role[hidden] == wanted).all()
    assert torch.equal(label[hidden], tokens[hidden])
    assert torch.equal(corrupted[~hidden], tokens[~hidden])
    assert hidden.any(1).all()  # at least one node of each row
    for number in node[0, role[0] == wanted].unique().tolist():
        of_node = hidden[:, node[0] == number]
        assert torch.equal(of_node.all(1), of_node.any(1))
        share = 1.0 if wanted else 0.3 + 0.7**2 / 2  # by chance, or as the only one of two objects
        assert_share(of_node.any(1).sum().item(), 3000, share)
    assert_share((corrupted[hidden] == MASK).sum().item(), hidden.sum().item(), 0.8)


def test_of_many_nodes_thirty_percent_are_hidden():
    tokens = torch.full((200, 300), 20)
    role, node = torch.zeros_like(tokens), (torch.arange(300) // 2).expand_as(tokens)
    for share, options in ((0.3, {}), (0.6, {"probability": 0.6})):
        hidden = hide_nodes(tokens, role, node, 0, **options)[1] != -100
        assert_share(hidden[:, ::2].sum().item(), 200 * 150, share)
        assert torch.equal(hidden[:, ::2], hidden[:, 1::2])


def test_a_graph_without_a_role_stays_as_it_is():
    tokens, role, node = graphs(4)
    corrupted, label = hide_nodes(tokens, role.masked_fill(role == 2, -1), node, 2)
    assert torch.equal(corrupted, tokens)
    assert (label == -100).all()
