"""CTC: equal to the sum over all paths, and to PyTorch's; texts that do not fit, padding, and wrong input."""

import math
from itertools import groupby, product

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused

from mmlearn.objectives.ctc import IMPOSSIBLE, between_blanks, ctc_log_likelihood, ctc_loss, lattice_of


def read(path, blank):
    """The text of a path, another way than the library's."""
    return tuple(symbol for symbol, _ in groupby(path) if symbol != blank)


def by_all_paths(probability, text, blank):
    """The probability of a text: every path is written down, and those that read it are summed."""
    s, v = probability.shape
    paths = [path for path in product(range(v), repeat=s) if read(path, blank) == tuple(text)]
    return sum(math.prod(probability[t, symbol].item() for t, symbol in enumerate(path)) for path in paths)


def frames(b, s, v, seed=0, dtype=torch.double):
    return torch.randn(b, s, v, generator=torch.Generator().manual_seed(seed), dtype=dtype).log_softmax(-1)


TEXTS = [[], [1], [2, 1], [1, 1], [1, 2, 1], [2, 2, 2], [1, 2, 2, 1], [1, 2, 1, 2, 1]]


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("s", [1, 2, 4, 5])
def test_equals_the_sum_over_all_paths(s, blank):
    log_probs = frames(1, s, 3)
    symbols = [symbol for symbol in range(3) if symbol != blank]
    for text in TEXTS:
        text = [symbols[token - 1] for token in text]
        expected = by_all_paths(log_probs[0].exp(), text, blank)
        got = ctc_log_likelihood(log_probs, torch.tensor([text], dtype=torch.long), blank=blank)
        assert got.exp().item() == pytest.approx(expected, rel=1e-9, abs=1e-12), text
        assert (got.item() == -math.inf) == (expected == 0)


def test_all_texts_together_are_certain():
    """Every path reads exactly one text."""
    log_probs = frames(1, 4, 3)
    texts = {read(path, 0) for path in product(range(3), repeat=4)}
    total = sum(ctc_log_likelihood(log_probs, torch.tensor([text], dtype=torch.long)).exp() for text in texts)
    assert total.item() == pytest.approx(1, abs=1e-12)


def test_every_way_counts_once_by_hand():
    """Two frames, a with 0.4 and the blank with 0.6: a is read by aa, a- and -a."""
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    close(ctc_log_likelihood(log_probs, torch.tensor([[1]])).exp(), torch.tensor([0.4 * 0.4 + 2 * 0.4 * 0.6]))
    assert ctc_log_likelihood(log_probs, torch.tensor([[1, 1]])).item() == -math.inf  # a blank has no room


def padded(b=5, s=11, t=4, v=6, blank=0):
    """Sounds and texts of different lengths, with repeated tokens and a text without any."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(b, s, v, generator=generator, dtype=torch.double)
    frame_count, token_count = torch.tensor([s, s - 2, s, 7, 3])[:b], torch.tensor([t, 3, 0, t, 1])[:b]
    tokens = torch.randint(1, v, (b, t), generator=generator)
    tokens[0] = torch.tensor([2, 2, 3, 3])
    tokens = torch.where(tokens == blank, torch.zeros_like(tokens), tokens)
    masks = torch.arange(s) < frame_count[:, None], torch.arange(t) < token_count[:, None]
    return logits, tokens, *masks, frame_count, token_count


@pytest.mark.parametrize("blank", [0, 5])
def test_equals_pytorch_with_gradients(blank):
    logits, tokens, frame_mask, token_mask, frame_count, token_count = padded(blank=blank)
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = ctc_loss(ours.log_softmax(-1), tokens, frame_mask, token_mask, blank)
    expected = F.ctc_loss(theirs.log_softmax(-1).transpose(0, 1), tokens, frame_count, token_count, blank)
    each = ctc_log_likelihood(logits.log_softmax(-1), tokens, frame_mask, token_mask, blank)
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    close(-each, F.ctc_loss(log_probs, tokens, frame_count, token_count, blank, reduction="none"), 1e-10)
    close(loss, expected, 1e-10)
    loss.backward()
    expected.backward()
    close(ours.grad, theirs.grad, 1e-10)
    assert ours.grad.abs().max() > 1e-3


def test_equals_pytorch_in_single_precision_over_many_frames():
    logits = torch.randn(4, 300, 30, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(1, 30, (4, 40), generator=torch.Generator().manual_seed(1))
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss = ctc_loss(ours.log_softmax(-1), tokens)
    lengths = torch.full((4,), 300), torch.full((4,), 40)
    expected = F.ctc_loss(theirs.log_softmax(-1).transpose(0, 1), tokens, *lengths)
    close(loss, expected)
    loss.backward()
    expected.backward()
    close(ours.grad, theirs.grad)


def test_gradient_is_the_slope():
    log_probs = frames(2, 5, 4).requires_grad_()
    tokens, token_mask = torch.tensor([[1, 1], [3, 0]]), torch.tensor([[True, True], [True, False]])
    assert torch.autograd.gradcheck(lambda x: ctc_log_likelihood(x, tokens, None, token_mask), log_probs)


def test_a_text_that_does_not_fit_is_infinite_and_the_others_learn():
    """As in PyTorch the loss is infinite; unlike there the gradient has no NaN, and the fitting text has its own."""
    logits = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.double).requires_grad_()
    tokens = torch.tensor([[1, 2, 3, 4, 1], [1, 1, 2, 2, 0], [1, 2, 0, 0, 0]])  # 5 frames, 6, and 2
    mask = torch.arange(5) < torch.tensor([[5], [4], [2]])
    each = ctc_log_likelihood(logits.log_softmax(-1), tokens, token_mask=mask)
    assert each.isinf().tolist() == [True, True, False]
    loss = ctc_loss(logits.log_softmax(-1), tokens, token_mask=mask)
    assert loss.item() == math.inf
    loss.backward()
    assert (logits.grad[:2] == 0).all()
    alone = logits.detach()[2:].clone().requires_grad_()
    (ctc_loss(alone.log_softmax(-1), tokens[2:], token_mask=mask[2:]) / 3).backward()
    close(logits.grad[2:], alone.grad, 1e-12)


@pytest.mark.parametrize(("text", "needed"), [([1], 1), ([1, 2], 2), ([1, 1], 3), ([1, 1, 1, 2], 6)])
def test_repeated_tokens_need_a_frame_between(text, needed):
    tokens = torch.tensor([text])
    assert ctc_log_likelihood(frames(1, needed - 1, 3), tokens).item() == -math.inf
    assert ctc_log_likelihood(frames(1, needed, 3), tokens).isfinite()


def test_symbols_without_any_probability():
    """ln 0 on the way is no NaN: it closes that way, or all of them."""
    log_probs = frames(1, 3, 3)
    log_probs[0, 1, 0] = -math.inf
    log_probs.requires_grad_()
    got = ctc_log_likelihood(log_probs, torch.tensor([[1]]))
    assert got.exp().item() == pytest.approx(by_all_paths(log_probs[0].exp(), [1], 0), rel=1e-9)
    got.sum().backward()
    assert log_probs.grad.isfinite().all()
    closed = torch.full((1, 3, 3), -math.inf, dtype=torch.double).requires_grad_()
    got = ctc_log_likelihood(closed, torch.tensor([[1]]))
    assert got.item() == -math.inf
    got.sum().backward()
    assert (closed.grad == 0).all()


def test_padding_changes_nothing():
    logits, tokens, frame_mask, token_mask, *_ = padded()
    log_probs = logits.log_softmax(-1)
    before = ctc_log_likelihood(log_probs, tokens, frame_mask, token_mask)
    other = torch.where(frame_mask[..., None], log_probs, 7.0), torch.where(token_mask, tokens, 99)
    assert torch.equal(ctc_log_likelihood(*other, frame_mask, token_mask), before)
    for i in range(len(tokens)):
        alone = ctc_log_likelihood(log_probs[i : i + 1, frame_mask[i]], tokens[i : i + 1, token_mask[i]])
        close(alone, before[i : i + 1], 1e-12)


def test_frames_that_are_not_real_are_left_out_wherever_they_are():
    log_probs, tokens = frames(1, 6, 4), torch.tensor([[2, 3]])
    mask = torch.tensor([[False, True, False, True, True, False]])
    close(ctc_log_likelihood(log_probs, tokens, mask), ctc_log_likelihood(log_probs[:, mask[0]], tokens), 1e-12)
    nothing = torch.zeros(1, 6, dtype=torch.bool)
    assert ctc_log_likelihood(log_probs, tokens, nothing).item() == -math.inf
    assert ctc_log_likelihood(log_probs, tokens[:, :0], nothing).item() == 0  # certain


def test_a_certain_path_costs_nothing():
    path = torch.tensor([1, 1, 0, 1, 2])
    log_probs = F.one_hot(path, 3).double().clamp(min=1e-30).log()[None]
    close(ctc_loss(log_probs, torch.tensor([[1, 1, 2]])), torch.zeros((), dtype=torch.double), 1e-12)


def test_wrong_input_is_told(unchecked):
    log_probs, tokens = frames(2, 4, 3), torch.tensor([[1, 2], [2, 1]])
    for blank in (3, -1):
        refused(rf"blank is one of the 3 symbols, from 0; got {blank}", ctc_loss, log_probs, tokens, blank=blank)
    for wrong in (3, -100, 0):
        with pytest.raises(ValueError, match=rf"3 symbols from 0, but for the blank, 0; got {wrong}"):
            ctc_loss(log_probs, torch.tensor([[1, wrong], [2, 1]]))
    with pytest.raises(ValueError, match="token_mask is True from the first token of a text to its last"):
        ctc_loss(log_probs, tokens, token_mask=torch.tensor([[False, True], [True, True]]))
    with pytest.raises(ValueError, match=r"To log_probs \(b, s, v\) = \(2, 4, 3\) belong .*; got \(1, 2\), \(2, 4\)"):
        ctc_loss(log_probs, tokens[:1])
    refused(r"got \(2, 2\), \(2, 3\) and \(2, 2\)", ctc_loss, log_probs, tokens, torch.ones(2, 3, dtype=torch.bool))
    refused("at least one sound and its text", ctc_loss, log_probs[:0], tokens[:0])


def test_a_text_between_blanks_and_where_a_path_may_skip():
    """Of s–i and s–s: into the i it may, into the second s it may not, and never into a blank."""
    assert between_blanks(torch.tensor([0, 1], dtype=torch.int32), blank=3).tolist() == [3, 0, 3, 1, 3]
    lattice = lattice_of(frames(2, 3, 3), torch.tensor([[1, 2], [1, 1]]))
    assert lattice.skips.tolist() == [[False, True, False, True, False], [False, True, False, False, False]]
    assert lattice.last.tolist() == [[4], [4]]


def test_a_state_is_reached_from_itself_from_one_before_and_by_a_skip():
    lattice = lattice_of(frames(1, 3, 3, dtype=torch.float), torch.tensor([[1, 2]]))
    no = IMPOSSIBLE
    expected = [[-1.0, -2, -3, -4, -5], [no, -1, -2, -3, -4], [no, no, no, -2, no]]
    close(lattice.moves(torch.tensor([[-1.0, -2, -3, -4, -5]]))[:, 0], torch.tensor(expected))
