"""A queue forgets its oldest pairs, and knows whose caption waits in it."""

from collections import deque

import pytest
import torch
from testing_tools import assert_unit_length, refused

from mmlearn.models.align.pair_queue import PairQueue, queue_positions


def test_the_oldest_pairs_give_way():
    """Against Python's own queue: as a set, and in order from the pointer on."""
    queue, plain = PairQueue(7, 3), deque(maxlen=7)
    plain.extend(zip(queue.image.tolist(), queue.text.tolist(), queue.caption_id.tolist()))
    for step, n in enumerate((3, 4, 2, 7, 1, 5)):
        rows = [torch.randn(n, 3), torch.randn(n, 3), torch.arange(n) + 10 * step]
        queue.push(*rows)
        plain.extend(zip(*(part.tolist() for part in rows)))
        order = (int(queue.pointer) + torch.arange(7)) % 7
        got = zip(queue.image[order].tolist(), queue.text[order].tolist(), queue.caption_id[order].tolist())
        assert list(got) == list(plain)


def test_positions_go_round():
    pointer = torch.tensor([3])
    positions, moved = queue_positions(pointer, 4, 5)
    assert (positions.tolist(), moved.tolist()) == ([3, 4, 0, 1], [2])
    positions, moved = queue_positions(moved, 3, 5)
    assert (positions.tolist(), moved.tolist()) == ([2, 3, 4], [0])
    assert pointer.tolist() == [3]


def test_a_caption_is_found_and_negative_numbers_never_are():
    queue = PairQueue(4, 2)
    queue.push(torch.zeros(3, 2), torch.zeros(3, 2), torch.tensor([5, -2, 5]))
    assert queue.positives(torch.tensor([5, -2, -1, 6])).tolist() == [[True, False, True, False], *[[False] * 4] * 3]


def test_it_starts_with_directions_and_is_saved_whole():
    queue = PairQueue(6, 4)
    assert_unit_length(queue.image)
    assert_unit_length(queue.text)
    assert not torch.equal(queue.image, queue.text)
    assert list(queue.state_dict()) == ["image", "text", "caption_id", "pointer"]
    assert list(queue.parameters()) == []


def test_more_than_it_holds():
    queue = PairQueue(4, 2)
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    with pytest.raises(ValueError, match="A queue of 4 pairs cannot take 5 at once"):
        queue.push(torch.zeros(5, 2), torch.zeros(5, 2), torch.arange(5))
    assert all(torch.equal(value, before[name]) for name, value in queue.state_dict().items())


def test_it_keeps_its_precision_and_no_gradient():
    queue = PairQueue(4, 2)
    queue.push(torch.ones(2, 2, dtype=torch.bfloat16), torch.ones(2, 2, requires_grad=True), torch.arange(2))
    assert queue.image.dtype == queue.text.dtype == torch.float32
    assert not queue.text.requires_grad
    assert queue.image[:2].eq(1).all()


@pytest.mark.parametrize("size", [0, -1])
def test_a_queue_holds_something(size):
    refused(f"holds at least one pair; got queue_size {size}", PairQueue, size, 2)
