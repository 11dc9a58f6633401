"""Wrong tokens: who is wrong, how many, from where they come; and the loss of telling them."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded

from mmlearn.objectives import replaced_token_detection, sample_replacements, shuffle_tokens, substitute_tokens

SPECIAL = (0, 1, 2)


def texts(b=6, t=30, v=40):
    tokens = torch.randint(4, v, (b, t), generator=seeded())
    mask = torch.arange(t) < t - 3 * torch.arange(b)[:, None]
    tokens[:, 0] = 1
    return tokens.masked_fill(~mask, 0), mask


def test_the_loss_is_a_yes_or_no_at_every_real_token():
    logits, replaced, (_, mask) = torch.randn(6, 30), torch.rand(6, 30) < 0.3, texts()
    loss = replaced_token_detection(logits, replaced, mask)
    close(loss, F.binary_cross_entropy_with_logits(logits[mask], replaced[mask].float()))
    other = torch.where(mask, logits, torch.nan)
    assert torch.equal(replaced_token_detection(other, replaced, mask), loss)
    assert replaced_token_detection(torch.zeros(6, 30), replaced, mask).item() == pytest.approx(math.log(2))
    sure = torch.where(replaced, 100.0, -100.0)
    assert replaced_token_detection(sure, replaced, mask) < 1e-30
    assert replaced_token_detection(logits, replaced, torch.zeros_like(mask)) == 0


def test_a_drawn_token_that_equals_the_original_is_real():
    tokens, mask = texts()
    hidden = (torch.rand(tokens.shape, generator=seeded(1)) < 0.3) & mask
    label = tokens.masked_fill(~hidden, -100)
    right = F.one_hot(tokens[hidden], 40).float() * 1000
    filled, replaced = sample_replacements(right, tokens.masked_fill(hidden, 3), label, seeded())
    assert torch.equal(filled, tokens)
    assert not replaced.any()
    wrong = F.one_hot((tokens[hidden] + 1) % 40, 40).float() * 1000
    filled, replaced = sample_replacements(wrong, tokens.masked_fill(hidden, 3), label, seeded())
    assert torch.equal(replaced, hidden)
    assert torch.equal(filled[~hidden], tokens[~hidden])


def test_draws_follow_the_generators_distribution():
    odds = torch.tensor([0.5, 0.3, 0.2])
    label = torch.zeros(1, 6000, dtype=torch.long)
    logits = odds.log().expand(6000, 3).clone().requires_grad_()
    filled, replaced = sample_replacements(logits, label, label, seeded())
    close(filled.flatten().bincount(minlength=3) / 6000, odds, 0.02)
    assert torch.equal(replaced, filled != 0)
    assert not filled.requires_grad


def test_nothing_hidden_and_logits_that_are_none():
    tokens, _ = texts()
    none = torch.full_like(tokens, -100)
    filled, replaced = sample_replacements(torch.zeros(0, 40), tokens, none, seeded())
    assert torch.equal(filled, tokens)
    assert not replaced.any()
    refused("0 hidden positions need one row", sample_replacements, torch.zeros(2, 40), tokens, none, seeded())
    nan = torch.full((tokens.numel(), 40), torch.nan)
    refused("with NaN", sample_replacements, nan, tokens, tokens, seeded())


@pytest.mark.parametrize("kind", ["shuffle", "substitute"])
def test_wrong_tokens_are_where_they_differ_and_never_special(kind):
    tokens, mask = texts()
    options = dict(special=SPECIAL, generator=seeded(2))
    if kind == "shuffle":
        read, wrong = shuffle_tokens(tokens, mask, **options)
        assert torch.equal(read.sort(1).values, tokens.sort(1).values)  # the multiset is kept
    else:
        read, wrong = substitute_tokens(tokens, mask, vocab_size=40, **options)
        assert not torch.isin(read[wrong], torch.tensor(SPECIAL)).any()
    assert torch.equal(wrong, read != tokens)
    assert wrong.any()
    still = ~mask | torch.isin(tokens, torch.tensor(SPECIAL))
    assert torch.equal(read[still], tokens[still])


def test_as_many_as_asked():
    tokens = torch.arange(4, 4004).view(2, 2000)
    mask = torch.ones_like(tokens, dtype=torch.bool)
    _, moved = shuffle_tokens(tokens, mask, special=SPECIAL, generator=seeded(), probability=0.2)
    assert moved.float().mean().item() == pytest.approx(0.2, abs=0.03)  # none of the chosen keeps its position
    _, new = substitute_tokens(tokens, mask, vocab_size=5000, special=SPECIAL, generator=seeded(), probability=0.2)
    assert new.float().mean().item() == pytest.approx(0.2, abs=0.03)
    read, moved = shuffle_tokens(tokens, mask, special=SPECIAL, generator=seeded(), probability=1.0)
    assert moved.all()
    assert torch.equal(read.sort(1).values, tokens)


def test_the_generator_decides():
    tokens, mask = texts()
    one, again, other = (shuffle_tokens(tokens, mask, special=SPECIAL, generator=seeded(k))[0] for k in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    options = dict(special=SPECIAL, generator=seeded())
    refused("share to mask", shuffle_tokens, tokens, mask, **options, probability=2.0)
    refused("All 3 tokens", substitute_tokens, tokens, mask, vocab_size=3, **options)
