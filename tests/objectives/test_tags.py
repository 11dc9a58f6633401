"""Polluted triples: how many, of whom, and never with what is a row's own; the loss against a sum by hand."""

import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives.tags import pollute_tags, pollute_triples, triple_contrastive

SEEDS = range(60)


def test_half_of_the_rows_get_the_tags_of_another_image():
    """Rows 0 and 1 are two captions of one picture."""
    tag_id = torch.tensor([7, 7, 3, 4, 5, 6])
    given = {row: set() for row in range(6)}
    for seed in SEEDS:
        words, tags, label = pollute_tags(tag_id, seeded(seed))
        assert torch.equal(words, torch.arange(6))
        assert label.sum() == 3
        assert torch.equal(label == 1, tag_id[tags] != tag_id)
        assert torch.equal(tags[label == 0], words[label == 0])
        for row in (label == 1).nonzero().flatten().tolist():
            given[row].add(int(tags[row]))
    assert given == {row: {other for other in range(6) if tag_id[other] != tag_id[row]} for row in range(6)}
    assert all(torch.equal(*pair) for pair in zip(pollute_tags(tag_id, seeded(3)), pollute_tags(tag_id, seeded(3))))


def test_a_quarter_gets_other_words_and_a_quarter_other_tags():
    """Rows 0 and 1 are two captions of one picture; rows 2 and 3 are two pictures with one caption."""
    caption_id, tag_id = torch.tensor([0, 1, 2, 2, 4, 5, 6, 7]), torch.tensor([7, 7, 1, 2, 3, 4, 5, 6])
    spoken, shown = ({row: set() for row in range(8)} for _ in range(2))
    for seed in SEEDS:
        words, tags, label = pollute_triples(caption_id, tag_id, seeded(seed))
        assert label.bincount().tolist() == [4, 2, 2]
        assert torch.equal(label == 2, (caption_id[words] != caption_id) & (tag_id[words] != tag_id))
        assert torch.equal(label == 1, tag_id[tags] != tag_id)
        assert torch.equal(words[label != 2], torch.arange(8)[label != 2])
        assert torch.equal(tags[label != 1], torch.arange(8)[label != 1])
        for row in range(8):
            if label[row] == 2:
                spoken[row].add(int(words[row]))
            if label[row] == 1:
                shown[row].add(int(tags[row]))
    assert {1} & spoken[0] == {0} & spoken[1] == {3} & spoken[2] == {2} & spoken[3] == set()
    assert shown[2] & {3} == {3}  # a picture with the same caption and other tags


@pytest.mark.parametrize(("b", "counts"), [(2, [1, 1]), (3, [2, 1]), (5, [3, 1, 1]), (7, [4, 2, 1])])
def test_of_few_rows_tags_are_polluted_before_words(b, counts):
    own = torch.arange(b)
    assert pollute_triples(own, own, seeded())[2].bincount().tolist() == counts
    assert pollute_tags(own, seeded())[2].sum() == b // 2


def test_rows_that_nothing_can_be_taken_from_are_told():
    same, own = torch.zeros(4, dtype=torch.long), torch.arange(4)
    refused("no negative exists for some row", pollute_tags, same, seeded())
    refused("no negative exists for some row", pollute_triples, own, same, seeded())
    refused("no negative exists for some row", pollute_triples, same, own, seeded())
    refused("no negative exists for some row", pollute_tags, own[:1], seeded())


@pytest.mark.parametrize("classes", [2, 3])
def test_the_loss_is_the_mean_of_what_the_true_class_costs(classes):
    label = torch.tensor([0, 1, 0, classes - 1])
    assert triple_contrastive(torch.zeros(4, classes), label).item() == pytest.approx(math.log(classes))
    logits = torch.randn(4, classes, generator=seeded())
    by_hand = [math.log(sum(math.exp(z) for z in row)) - row[k] for row, k in zip(logits.tolist(), label.tolist())]
    close(triple_contrastive(logits, label), torch.tensor(sum(by_hand) / 4))
    assert triple_contrastive(torch.nn.functional.one_hot(label, classes) * 100.0, label) == 0
    refused("in at least one row", triple_contrastive, torch.zeros(0, classes), label[:0])
    for wrong in (-1, classes):
        refused(f"0 for a whole triple, else up to {classes - 1}", triple_contrastive, logits, label.fill_(wrong))
