"""Spoilt texts: what was hidden comes back, spans are as many and as long as asked, each draw is the generator's."""

from itertools import pairwise

import pytest
import torch
from testing_tools import refused, seeded

from mmlearn.objectives.denoising import (
    Corruption,
    delete_tokens,
    draw_spans,
    fill_spans,
    hide_spans,
    infill,
    lost,
    mask_tokens_of,
    permute_sentences,
    restore,
    rotate_text,
)

MASK, SENTINEL = 3, 999


def text(length, seed=0):
    return torch.randint(4, 60, (length,), generator=seeded(seed))


def ends(length, seed=0):
    return torch.rand(length, generator=seeded(seed)) < 0.3


CORRUPTIONS = {
    "mask": lambda x, g, **more: mask_tokens_of(x, MASK, generator=g, **more),
    "delete": lambda x, g, **more: delete_tokens(x, generator=g, **more),
    "infill": lambda x, g, **more: infill(x, MASK, generator=g, **more),
    "permute": lambda x, g: permute_sentences(x, ends(len(x)), generator=g),
    "rotate": lambda x, g: rotate_text(x, generator=g),
}
LOSSY = ("mask", "delete", "infill")


# T5's spans.


def test_the_figure_of_the_paper():
    """Thank you for inviting me to your party last week: "for inviting" and "last" are hidden."""
    words = ["Thank", "you", "for", "inviting", "me", "to", "your", "party", "last", "week"]
    hidden = torch.tensor([word in ("for", "inviting", "last") for word in words])
    corrupted, target = hide_spans(torch.arange(10), hidden, SENTINEL)
    assert corrupted.tolist() == [0, 1, SENTINEL, 4, 5, 6, 7, SENTINEL - 1, 9]
    assert target.tolist() == [SENTINEL, 2, 3, SENTINEL - 1, 8, SENTINEL - 2]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 7, 40])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_filling_spans_undoes_hiding_them(length, share):
    for seed in range(20):
        x = text(length, seed)
        hidden = draw_spans(length, generator=seeded(seed), share=share)
        assert torch.equal(fill_spans(*hide_spans(x, hidden, SENTINEL), SENTINEL), x)
        any_hidden = torch.rand(length, generator=seeded(seed)) < share  # spans that the sampler never draws
        assert torch.equal(fill_spans(*hide_spans(x, any_hidden, SENTINEL), SENTINEL), x)


def test_nothing_is_kept_twice_and_nothing_hidden_is_seen():
    x, hidden = text(40), draw_spans(40, generator=seeded())
    corrupted, target = hide_spans(x, hidden, SENTINEL)
    assert torch.equal(corrupted[corrupted < 900], x[~hidden])
    assert torch.equal(target[target < 900], x[hidden])


@pytest.mark.parametrize(("share", "mean_length"), [(0.15, 3.0), (0.5, 2.0), (0.1, 1.0)])
def test_as_many_tokens_and_spans_as_asked(share, mean_length):
    n = 200
    for seed in range(10):
        hidden = draw_spans(n, generator=seeded(seed), share=share, mean_length=mean_length)
        starts = hidden & ~torch.cat([torch.tensor([False]), hidden[:-1]])
        assert hidden.sum() == round(n * share)
        assert starts.sum() == round(n * share / mean_length)
    assert torch.equal(draw_spans(n, generator=seeded(3)), draw_spans(n, generator=seeded(3)))
    assert not torch.equal(draw_spans(n, generator=seeded(3)), draw_spans(n, generator=seeded(4)))


def test_spans_begin_anywhere():
    share = torch.stack([draw_spans(20, generator=seeded(k)) for k in range(400)]).float().mean(0)
    assert (share > 0.02).all()


def test_what_cannot_be_hidden_or_filled():
    refused("share to hide must be from 0 to 1", draw_spans, 5, generator=seeded(), share=1.5)
    refused("mean_length is 1 or more", draw_spans, 5, generator=seeded(), mean_length=0.5)
    refused("are sentinels here", hide_spans, torch.tensor([SENTINEL, 4]), torch.tensor([False, True]), SENTINEL)
    refused("begins with the sentinel 999; this one begins with 4", fill_spans, text(3), torch.tensor([4]), SENTINEL)
    corrupted, target = hide_spans(text(4), torch.tensor([False, True, False, True]), SENTINEL)
    refused("asks for 1 spans, and the target has 2", fill_spans, corrupted[:-1], target, SENTINEL)
    refused("asks for 0 spans, and the target has 0", fill_spans, text(3), torch.tensor([SENTINEL, 4]), SENTINEL)


# BART's corruptions.


@pytest.mark.parametrize("length", [0, 1, 2, 9, 40])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_restoring_undoes_each_corruption(kind, length):
    for seed in range(20):
        x = text(length, seed)
        spoilt = CORRUPTIONS[kind](x, seeded(seed))
        missing = lost(x, spoilt)
        assert kind in LOSSY or not len(missing)
        assert torch.equal(restore(spoilt, missing), x)
        assert torch.equal(spoilt.tokens, CORRUPTIONS[kind](x, seeded(seed)).tokens)


@pytest.mark.parametrize("kind", LOSSY)
def test_a_share_of_0_changes_nothing_and_of_1_leaves_nothing(kind):
    x = text(30)
    assert torch.equal(CORRUPTIONS[kind](x, seeded(), share=0.0).tokens, x)
    spoilt = CORRUPTIONS[kind](x, seeded(), share=1.0)
    assert (spoilt.tokens == MASK).all()
    assert torch.equal(lost(x, spoilt), x)
    refused("share to hide must be from 0 to 1", CORRUPTIONS[kind], x, seeded(), share=-0.1)


def test_masking_keeps_the_length_and_deletion_hides_where():
    x = text(4000)
    masked, deleted = (CORRUPTIONS[kind](x, seeded()) for kind in ("mask", "delete"))
    assert len(masked.tokens) == len(x)
    assert (masked.tokens == MASK).float().mean().item() == pytest.approx(0.15, abs=0.02)
    assert len(deleted.tokens) == pytest.approx(0.85 * len(x), rel=0.02)
    assert (deleted.source >= 0).all()


def test_spans_of_infilling_are_of_poisson_length_and_one_mask_each():
    x, gaps = text(60), []
    for seed in range(300):
        spoilt = infill(x, MASK, generator=seeded(seed))
        assert len(lost(x, spoilt)) == 18  # 30 %
        position, masks = -1, 0
        for source in [*spoilt.source.tolist(), len(x)]:
            masks += source < 0
            if source >= 0:
                if masks == 1:
                    gaps.append(source - position - 1)
                assert masks or source == position + 1  # nothing vanishes without a mask
                position, masks = source, 0
    gaps = torch.tensor(gaps).float()
    assert (gaps == 0).any()  # a mask where nothing is missing
    assert 2 < gaps.mean() < 3.2  # λ = 3, and the last span is cut
    refused("mean_length is above 0", infill, x, MASK, generator=seeded(), mean_length=0.0)


def test_permuted_sentences_stay_whole():
    x, last = torch.arange(12), torch.zeros(12, dtype=torch.bool)
    last[[2, 6, 11]] = True
    sentences = {(0, 1, 2), (3, 4, 5, 6), (7, 8, 9, 10, 11)}
    orders = set()
    for seed in range(60):
        spoilt = permute_sentences(x, last, generator=seeded(seed)).tokens.tolist()
        orders.add(tuple(spoilt))
        cut = [0, *(i + 1 for i, token in enumerate(spoilt) if token in (2, 6, 11))]
        assert {tuple(spoilt[a:b]) for a, b in pairwise(cut)} == sentences
    assert len(orders) == 6


def test_a_rotated_text_begins_anywhere():
    x = torch.arange(5)
    starts = {tuple(rotate_text(x, generator=seeded(k)).tokens.tolist()) for k in range(60)}
    assert starts == {tuple(x.roll(-k).tolist()) for k in range(5)}


def test_as_many_tokens_as_are_missing():
    spoilt = Corruption(torch.tensor([7, MASK]), torch.tensor([0, -1]), 3)
    assert restore(spoilt, torch.tensor([8, 9])).tolist() == [7, 8, 9]
    refused("2 tokens are missing in this text, got 1", restore, spoilt, torch.tensor([8]))
