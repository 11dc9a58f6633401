"""Batches: a function of the step alone, each sample once an epoch at most, however many processes share one."""

import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from testing_tools import Listed, refused
from torch.utils.data import DataLoader, get_worker_info

from mmlearn.data import Batches, batches, fetch, image_statistics
from mmlearn.data.batches import (
    GeneratedBatches,
    collated,
    prepared_batches,
    rank_batches,
    sampled_batches,
    shuffled,
    shuffled_batches,
)
from mmlearn.data.synthetic.scenes import Scenes


class Numbers(torch.utils.data.Dataset):
    """Sample i is i."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index


class Together(Numbers):
    """The same, which can also give many at once, and counts how often it does."""

    def __init__(self, count):
        super().__init__(count)
        self.calls = 0

    def __getitems__(self, indices):
        self.calls += 1
        return list(indices)


def numbers(samples):
    return {"number": torch.tensor(samples)}


def told(batches, steps):
    return [batches[step]["number"].tolist() for step in steps]


# Which samples.


@pytest.mark.parametrize(("count", "size"), [(10, 3), (12, 4), (7, 7), (5, 1), (1, 1)])
def test_an_epoch_visits_each_sample_at_most_once(count, size):
    batches = Batches(Numbers(count), numbers, size)
    steps = count // size
    orders = []
    for epoch in range(5):
        visited = [i for batch in told(batches, range(epoch * steps, (epoch + 1) * steps)) for i in batch]
        assert len(visited) == len(set(visited)) == steps * size
        assert set(visited) <= set(range(count))
        orders.append(tuple(visited))
    if count > 5:
        assert len(set(orders)) == 5  # each epoch has an order of its own


def test_what_an_epoch_leaves_another_takes():
    batches = Batches(Numbers(10), numbers, 3)
    assert {i for batch in told(batches, range(30)) for i in batch} == set(range(10))


def test_every_sample_comes_first_about_as_often():
    batches = Batches(Numbers(8), numbers, 8)
    first = Counter(batches.indices(step)[0] for step in range(4000))
    assert len(first) == 8
    assert all(abs(count - 500) < 5 * (4000 / 8 * 7 / 8) ** 0.5 for count in first.values())


def test_a_batch_is_a_function_of_seed_and_step():
    steps = [0, 7, 3, 10**6, 3, 2, 7]
    whole = Batches(Numbers(100), numbers, 8, seed=1)
    alone = [Batches(Numbers(100), numbers, 8, seed=1)[step]["number"].tolist() for step in steps]
    assert told(whole, steps) == alone
    torch.manual_seed(123)  # the global state has no part in it
    assert told(whole, steps) == alone
    other = Batches(Numbers(100), numbers, 8, seed=2)
    assert all(one != two for one, two in zip(told(other, steps), alone))


@pytest.mark.parametrize("world", [2, 3, 6])
def test_the_parts_of_all_processes_are_the_batch_of_one(world):
    whole = Batches(Numbers(50), numbers, 12, seed=4)
    parts = [Batches(Numbers(50), numbers, 12, seed=4, rank=rank, world=world) for rank in range(world)]
    for step in (0, 1, 3, 4, 99):
        drawn = [batches.indices(step) for batches in parts]
        assert [len(part) for part in drawn] == [12 // world] * world
        assert [i for part in drawn for i in part] == whole.indices(step)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("count", [8, 23, 24, 31])
def test_each_sample_of_an_epoch_has_one_process_and_all_have_as_many_batches(world, count):
    order = torch.randperm(count)
    parts = [rank_batches(order, rank, world, 8) for rank in range(world)]
    assert {tuple(part.shape) for part in parts} == {(count // 8, 8 // world)}
    assert torch.cat(parts, 1).flatten().tolist() == order[: count // 8 * 8].tolist()


@pytest.mark.parametrize(
    ("count", "size", "world", "said"),
    [(3, 4, 1, "A batch of 4 cannot be drawn from 3"), (3, 0, 1, "batch of 0"), (9, 5, 2, "5 does not divide among 2")],
)
def test_batches_that_cannot_be(count, size, world, said):
    refused(said, Batches, Numbers(count), numbers, size, world=world)


def test_many_at_once_where_the_data_can():
    data = Together(10)
    assert fetch(data, [3, 1, 3]) == fetch(Numbers(10), [3, 1, 3]) == [3, 1, 3]
    assert data.calls == 1


def test_it_can_be_sent_to_another_process():
    batches = Batches(Numbers(20), numbers, 4, seed=9)
    expected = told(batches, range(12))
    assert told(pickle.loads(pickle.dumps(batches)), range(12)) == expected
    loader = DataLoader(batches, sampler=range(3, 12), batch_size=None, num_workers=2)
    assert [batch["number"].tolist() for batch in loader] == expected[3:]


# Samples of similar length.


@pytest.mark.parametrize(("count", "size"), [(500, 4), (203, 5), (70, 5), (37, 1), (64, 64)])
def test_batches_of_similar_lengths_visit_what_others_do_with_less_padding(count, size):
    lengths = torch.randint(1, 40, (count,), generator=torch.Generator().manual_seed(count))
    plain, similar = (Batches(Numbers(count), numbers, size, lengths=given) for given in (None, lengths.tolist()))
    steps = count // size
    for epoch in range(3):
        of_epoch = range(epoch * steps, (epoch + 1) * steps)
        drawn = [similar.indices(step) for step in of_epoch]
        assert all(len(batch) == size for batch in drawn)
        visited = [i for batch in drawn for i in batch]
        assert len(visited) == len(set(visited)) == steps * size
        # Batches come from 16 at a time, in which no other division into batches has less padding.
        order, sums = shuffled(count, 0, epoch), []
        for window in order.split(16 * size):
            parts = lengths[window].sort().values.split(size)
            sums += [part.tolist() for part in parts if len(part) == size]
        assert sorted(sums) == sorted(lengths[batch].sort().values.tolist() for batch in drawn)
        if 1 < size < count:
            padding = [sum(int(lengths[batch].max()) * size for batch in part)
                       for part in (drawn, [plain.indices(step) for step in of_epoch])]  # fmt: skip
            assert padding[0] < padding[1]
            means = [lengths[batch].float().mean().item() for batch in drawn]
            assert means != sorted(means)  # short ones do not all come first
    assert drawn != [similar.indices(step) for step in range(steps)]  # each epoch has batches of its own


def test_similar_lengths_are_a_function_of_seed_and_step_and_shared_by_processes():
    lengths = list(range(50, 0, -1))
    whole = Batches(Numbers(50), numbers, 10, seed=4, lengths=lengths)
    parts = [Batches(Numbers(50), numbers, 10, seed=4, rank=rank, world=2, lengths=lengths) for rank in range(2)]
    for step in (7, 0, 3, 11, 3):
        assert [i for part in parts for i in part.indices(step)] == whole.indices(step)
    assert told(pickle.loads(pickle.dumps(whole)), range(12)) == told(whole, range(12))
    with pytest.raises(ValueError, match=r"^lengths are one number a sample; got 50 for 51 samples\.$"):
        Batches(Numbers(51), numbers, 10, lengths=lengths)


# Several data sets.


def test_every_data_set_of_a_collation_has_a_batch():
    with pytest.raises(ValueError, match="A batch of 4 cannot be drawn from 3 samples"):
        Batches({"one": Numbers(9), "other": Numbers(3)}, numbers, 4)


# Statistics.


@pytest.mark.parametrize("count", [1, 5, 20, 100])
def test_statistics_are_those_of_numpy(count):
    data = [SimpleNamespace(image=torch.rand(3, 6, 8) * torch.tensor([1, 0.5, 0.1]).view(3, 1, 1)) for _ in range(20)]
    mean, std = image_statistics(Listed(data), count)
    chosen = {1: [0], 5: [0, 4, 9, 14, 19]}.get(count, range(20))
    pixels = np.stack([data[i].image.numpy() for i in chosen]).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3), ddof=1), rtol=1e-5)


def test_a_channel_that_never_changes_can_be_divided_by():
    still = [SimpleNamespace(image=torch.full((3, 4, 4), 0.25))] * 2
    assert image_statistics(Listed(still))[1].tolist() == pytest.approx([1 / 255] * 3)


def test_drawn_batches_are_rows_of_the_data():
    data = {"number": torch.arange(5), "square": torch.arange(5) ** 2}
    batches = sampled_batches(data, 3, 40, torch.Generator().manual_seed(0))
    assert [batch["number"].shape for batch in batches] == [(3,)] * 40
    assert all(torch.equal(batch["number"] ** 2, batch["square"]) for batch in batches)
    assert set(torch.cat([batch["number"] for batch in batches]).tolist()) == set(range(5))
    again = sampled_batches(data, 3, 40, torch.Generator().manual_seed(0))
    assert all(torch.equal(one["number"], other["number"]) for one, other in zip(batches, again))


def test_batches_are_made_when_they_are_asked_for():
    asked = []
    batches = GeneratedBatches(5, lambda step: asked.append(step) or {"step": torch.tensor(step)})
    assert (len(batches), asked) == (5, [])
    assert batches[-1]["step"] == 4
    assert [int(batch["step"]) for batch in batches[1:3]] == [1, 2]
    assert asked == [4, 1, 2]
    assert [int(batch["step"]) for batch in batches] == [0, 1, 2, 3, 4]
    with pytest.raises(IndexError):
        batches[5]


def test_shuffled_batches_show_every_row_before_any_comes_again():
    data = {"number": torch.arange(7), "square": torch.arange(7) ** 2}
    batches = shuffled_batches(data, 3, 5, torch.Generator().manual_seed(0))
    assert [len(batch["number"]) for batch in batches] == [3] * 5
    assert all(torch.equal(batch["number"] ** 2, batch["square"]) for batch in batches)
    for first in (0, 2):  # two batches of three are a pass; the seventh row is left for another
        assert len(set(torch.cat([batch["number"] for batch in batches[first : first + 2]]).tolist())) == 6
    again = shuffled_batches(data, 3, 5, torch.Generator().manual_seed(0))
    assert all(torch.equal(one["number"], other["number"]) for one, other in zip(batches, again))
    with pytest.raises(ValueError, match="A batch of 8 needs as many samples, and there are 7"):
        shuffled_batches(data, 8, 1, torch.Generator())


def test_collated_samples_are_one_batch_in_order():
    told, batch = collated(Numbers(700), lambda samples: {"n": torch.tensor(samples)}, range(3, 603), lambda n: n + 1)
    assert batch["n"].tolist() == list(range(3, 603))
    assert told == list(range(4, 604))


def test_an_epoch_is_sorted_once(monkeypatch):
    sorted_ = []
    sort = batches.similar_lengths
    monkeypatch.setattr(batches, "similar_lengths", lambda *given: sorted_.append(given[-1]) or sort(*given))
    walk = Batches(Numbers(40), torch.tensor, 4, lengths=list(range(40)))
    for step in range(25):
        walk.indices(step)
    assert sorted_ == [0, 1, 2]


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_made_once_are_those_of_their_samples(workers):
    data = Scenes(size=24)
    parts = [range(3), [7, 5], [2, 2, 9, 0]]
    before = torch.get_rng_state()
    made = prepared_batches(data, images, parts, workers)
    assert torch.equal(torch.get_rng_state(), before)
    for batch, part in zip(made, parts, strict=True):
        assert torch.equal(batch["image"], torch.stack([data[i].image for i in part]))
    made_by = {int(batch["worker"]) for batch in made}
    assert made_by == ({0, 1} if workers else {-1})


def images(samples):
    worker = get_worker_info()
    number = torch.tensor(-1 if worker is None else worker.id)
    return {"image": torch.stack([sample.image for sample in samples]), "worker": number}
