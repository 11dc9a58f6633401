"""Batches: a function of the step alone, each sample once an epoch at most, however many processes share one."""

import pickle
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmlearn.data import Batches, PairCollate, Tokenizer, fetch, image_statistics, load


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


class Listed(Numbers):
    """The samples of a list."""

    def __init__(self, samples):
        super().__init__(len(samples))
        self.samples = samples

    def __getitem__(self, index):
        return self.samples[index]


def numbers(samples):
    return {"number": torch.tensor(samples)}


def told(batches, steps):
    return [batches[step]["number"].tolist() for step in steps]


def pictures(count, captions=("red", "blue", "red ")):
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 0.5, 0.1]).view(3, 1, 1)
    return [
        SimpleNamespace(image=torch.rand(3, 6, 8, generator=generator) * scale, caption=captions[i % len(captions)])
        for i in range(count)
    ]


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


@pytest.mark.parametrize(
    ("count", "size", "world", "said"),
    [(3, 4, 1, "A batch of 4 cannot be drawn from 3"), (3, 0, 1, "batch of 0"), (9, 5, 2, "5 does not divide among 2")],
)
def test_batches_that_cannot_be(count, size, world, said):
    with pytest.raises(ValueError, match=said):
        Batches(Numbers(count), numbers, size, world=world)


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


# What is in a batch.


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["red", "blue"], vocab_size=262, max_length=8)


def test_pictures_are_normalised_by_channel_and_samples_stay_as_they_are(tokenizer):
    samples = pictures(4)
    before = [sample.image.clone() for sample in samples]
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    batch = PairCollate(tokenizer, mean=mean, std=std)(samples)
    assert set(batch) == {"image", "tokens", "mask"}
    expected = (np.stack([image.numpy() for image in before]) - np.array(mean).reshape(3, 1, 1)) / np.array(
        std
    ).reshape(3, 1, 1)
    assert batch["image"].dtype == torch.float32
    np.testing.assert_allclose(batch["image"].numpy(), expected, rtol=1e-5, atol=1e-6)
    tokens, mask = tokenizer([sample.caption for sample in samples])
    assert torch.equal(batch["tokens"], tokens)
    assert torch.equal(batch["mask"], mask)
    assert all(torch.equal(sample.image, image) for sample, image in zip(samples, before))


def test_repeated_captions_have_one_number_and_others_another(tokenizer):
    captions = ["a", "b", "a", "ab", "b", "", "B"]
    batch = PairCollate(tokenizer, mark_repeats=True)(pictures(7, captions))
    number = batch["caption_id"]
    assert number.dtype == torch.int64
    assert (number >= 0).all()
    same = np.array([[one == other for other in captions] for one in captions])
    assert np.array_equal((number[:, None] == number).numpy(), same)
    assert number[0] == 3136151050186550259  # in every process, so that they agree
    many = PairCollate(tokenizer, mark_repeats=True)(pictures(1000, [str(i) for i in range(1000)]))
    assert many["caption_id"].unique().numel() == 1000


@pytest.mark.parametrize("count", [1, 5, 20, 100])
def test_statistics_are_those_of_numpy(count):
    data = pictures(20)
    mean, std = image_statistics(Listed(data), count)
    chosen = {1: [0], 5: [0, 4, 9, 14, 19]}.get(count, range(20))
    pixels = np.stack([data[i].image.numpy() for i in chosen]).astype(np.float64)
    np.testing.assert_allclose(mean, pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(std, pixels.std((0, 2, 3), ddof=1), rtol=1e-5)


def test_a_channel_that_never_changes_can_be_divided_by(tokenizer):
    """As in drawings without blue: 0 / 0 would be NaN from the first step on."""
    data = pictures(6)
    for sample in data:
        sample.image[2] = 0.25
    mean, std = image_statistics(Listed(data))
    assert std[2].item() == pytest.approx(1 / 255)
    batch = PairCollate(tokenizer, mean=mean.tolist(), std=std.tolist())(data)
    assert (batch["image"][:, 2] == 0).all()
    assert batch["image"].isfinite().all()


def test_normalised_by_its_own_statistics_data_has_mean_0_and_deviation_1(tokenizer):
    data = load("scenes", size=24, length=64)
    mean, std = image_statistics(data)
    batch = PairCollate(tokenizer, mean=mean.tolist(), std=std.tolist())(fetch(data, range(64)))
    assert batch["image"].mean((0, 2, 3)).abs().max() < 1e-3
    assert (batch["image"].std((0, 2, 3)) - 1).abs().max() < 1e-3
