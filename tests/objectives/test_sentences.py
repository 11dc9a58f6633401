"""Two segments: exchanged ones hold the same tokens, the second of another row is another row's, labels say which."""

import math

import pytest
import torch
from testing_tools import refused, seeded

from mmlearn.objectives import next_sentence, segment_order, sentence_order, swap_segments

START, END = 1, 2


def rows(lengths=((2, 3), (1, 1), (4, 0), (3, 2))):
    """``[start] A [end] B [end]`` with tokens that no other row has."""
    t = max(a + b for a, b in lengths) + 3
    tokens, kind = torch.zeros(2, len(lengths), t, dtype=torch.long)
    mask = torch.zeros(len(lengths), t, dtype=torch.bool)
    for i, (a, b) in enumerate(lengths):
        first, second = (torch.arange(count) + 100 * i + 10 * part + 10 for part, count in enumerate((a, b), 1))
        end = torch.tensor([END])
        row = torch.cat([torch.tensor([START]), first, end, second, end])
        tokens[i, : len(row)], mask[i, : len(row)], kind[i, a + 2 : len(row)] = row, True, 1
    return tokens, kind, mask


def parts(tokens, kind, mask, i):
    """The two segments of a row as they stand, without their start."""
    return tokens[i][mask[i] & (kind[i] == 0)].tolist()[1:], tokens[i][mask[i] & (kind[i] == 1)].tolist()


def test_exchanged_segments_are_the_same_two():
    tokens, kind, mask = rows()
    swapped = torch.tensor([True, False, True, True])
    read, new_kind = swap_segments(tokens, kind, mask, swapped)
    for i in range(4):
        first, second = parts(tokens, kind, mask, i)
        assert parts(read, new_kind, mask, i) == ((second, first) if swapped[i] else (first, second))
        assert read[i, 0] == START
    assert (read[~mask] == 0).all()
    assert torch.equal(read.sort(1).values, tokens.sort(1).values)


def test_to_swap_twice_changes_nothing():
    tokens, kind, mask = rows()
    every = torch.ones(4, dtype=torch.bool)
    once = swap_segments(tokens, kind, mask, every)
    again = swap_segments(*once, mask, every)
    assert torch.equal(again[0], tokens)
    assert torch.equal(again[1], kind)
    never = swap_segments(tokens, kind, mask, ~every)
    assert torch.equal(never[0], tokens)
    assert torch.equal(never[1], kind)


def test_half_of_the_rows_are_exchanged_and_the_label_says_which():
    tokens, kind, mask = rows()
    seen = set()
    for seed in range(20):
        read, new_kind, same_mask, label = sentence_order(tokens, kind, mask, seeded(seed))
        assert torch.equal(same_mask, mask)
        assert label.sum() == 2
        assert torch.equal(label == 1, (read != tokens).any(1) | (new_kind != kind).any(1))
        seen.add(tuple(label.tolist()))
    assert len(seen) == 6


def test_the_next_sentence_is_of_another_document():
    tokens, kind, mask = rows()
    document = torch.tensor([5, 5, 6, 7])
    own = [parts(tokens, kind, mask, i) for i in range(4)]
    for seed in range(20):
        read, new_kind, new_mask, label = next_sentence(tokens, kind, mask, document, 40, seeded(seed))
        assert label.sum() == 2
        for i in range(4):
            first, second = parts(read, new_kind, new_mask, i)
            assert first == own[i][0]
            if label[i]:
                of = [j for j in range(4) if own[j][1] == second]
                assert of
                assert all(document[j] != document[i] for j in of)
            else:
                assert second == own[i][1]
        assert (read[~new_mask] == 0).all()
        assert new_mask.any(0).all()  # no longer than its longest row


def test_no_row_is_longer_than_the_model_reads():
    tokens, kind, mask = rows(((9, 1), (1, 9), (9, 1), (1, 9)))
    for seed in range(10):
        read, new_kind, new_mask, _ = next_sentence(tokens, kind, mask, torch.arange(4), 13, seeded(seed))
        assert read.shape[1] <= 13
        for i in range(4):
            first, second = parts(read, new_kind, new_mask, i)
            assert first[-1] == second[-1] == END
    refused("no negative exists", next_sentence, tokens, kind, mask, torch.zeros(4).long(), 40, seeded())


def test_the_loss_is_a_yes_or_no():
    label = torch.tensor([0, 1, 1])
    assert segment_order(torch.zeros(3, 2), label).item() == pytest.approx(math.log(2))
    sure = torch.nn.functional.one_hot(label, 2) * 100.0
    assert segment_order(sure, label) == 0
    refused("at least one row", segment_order, torch.zeros(0, 2), label[:0])
    refused("0 for segments as they were and 1", segment_order, torch.zeros(1, 2), torch.tensor([2]))
