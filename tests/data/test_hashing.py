"""Random numbers by their position: against SplitMix64 in plain integers, itself held to published numbers."""

import os

import numpy as np
import pytest

from mmlearn.data.hashing import ENDS, fingerprint, mark, random_bits, stream, uniform

BITS = 2**64
# The first outputs of Vigna's splitmix64.c for the seed 1234567, as Rosetta Code lists them.
SEED, PUBLISHED = (
    1234567,
    [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821],
)
ODD = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


def mix(z):
    z = (z ^ (z >> 30)) * ODD[0] % BITS
    z = (z ^ (z >> 27)) * ODD[1] % BITS
    return z ^ (z >> 31)


def unmix(z):
    """The number that ``mix`` turns into z."""

    def unshift(z, by):
        x = z
        for _ in range(64 // by):
            x = z ^ (x >> by)
        return x

    z = unshift(z, 31) * pow(ODD[1], -1, BITS) % BITS
    z = unshift(z, 27) * pow(ODD[0], -1, BITS) % BITS
    return unshift(z, 30)


def splitmix(seed):
    """SplitMix64 as a stateful generator."""
    while True:
        seed = (seed + 0x9E3779B97F4A7C15) % BITS
        yield mix(seed)


def take(generator, count):
    return [next(generator) for _ in range(count)]


def test_the_reference_is_the_published_generator():
    assert take(splitmix(SEED), 5) == PUBLISHED
    assert all(mix(unmix(z)) == z for z in (0, 1, SEED, BITS - 1))


def test_published_numbers_come_out():
    assert random_bits(np.uint64(unmix(SEED)), np.array([0]), 5)[0].tolist() == PUBLISHED
    assert random_bits(np.uint64(unmix(SEED)), np.arange(5), 1)[:, 0].tolist() == PUBLISHED


@pytest.mark.parametrize("key", [0, 1, 2**63, BITS - 1])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_row_i_holds_the_outputs_from_i_times_count_on(key, count):
    outputs = take(splitmix(mix(key)), 6 * count)
    got = random_bits(np.uint64(key), np.arange(6), count)
    assert got.dtype == np.uint64
    assert got.tolist() == [outputs[i * count : (i + 1) * count] for i in range(6)]


def test_far_indices_and_any_order():
    far = np.array([2**40, 5, 2**62, 5])
    got = random_bits(np.uint64(7), far, 3)
    start = mix(7)
    for index, row in zip(far.tolist(), got.tolist()):
        assert row == [mix((start + (index * 3 + k + 1) * 0x9E3779B97F4A7C15) % BITS) for k in range(3)]
    assert random_bits(np.uint64(7), np.array([], int), 3).shape == (0, 3)


def test_uniform_is_the_upper_24_bits():
    bits = random_bits(np.uint64(3), np.arange(1000), 4)
    got = uniform(np.uint64(3), np.arange(1000), 4)
    assert got.dtype == np.float32
    assert got.astype(float).tolist() == [[(z >> 40) / 2**24 for z in row] for row in bits.tolist()]


def test_uniform_stays_below_1():
    """The largest number there is, and the smallest."""
    keys = [np.uint64(unmix((unmix(z) - 0x9E3779B97F4A7C15) % BITS)) for z in (BITS - 1, 0)]
    assert [uniform(key, np.array([0]), 1).item() for key in keys] == [1 - 2**-24, 0.0]


def test_uniform_is_uniform_and_streams_are_unrelated():
    one, other = (uniform(stream("test", name), np.arange(20000), 2).astype(float) for name in ("one", "other"))
    counts = np.histogram(one, 64, (0, 1))[0]
    chi = ((counts - 625) ** 2 / 625).sum()  # mean 63, standard deviation 11
    assert 63 - 4 * 11.2 < chi < 63 + 4 * 11.2
    columns = np.stack([*one.T, *other.T, np.roll(one[:, 0], 1)])
    correlation = np.corrcoef(columns) - np.eye(5)
    assert abs(correlation).max() < 4.5 / 20000**0.5


def test_streams_are_the_same_for_ever():
    """The splits of scenes, emoji and folders hang on these numbers."""
    assert stream("scenes", "train", 0) == 18221948388982842505
    assert stream("folder", "a dog") == 13844075734622058914


def test_every_part_counts():
    parts = [("ab", "c"), ("a", "bc"), ("abc",), (1,), ("1",), ("a", 0, 1), ("a", 1, 0), ("a", 0), ("a", "0"), ()]
    assert len({int(stream(*part)) for part in parts}) == len(parts)


# What data are changes with what is said, with its order and with what files hold, and with nothing else.


def test_a_fingerprint():
    given = [["a", "b"], ["b", "a"], ["ab"], ["a"], ["a", "\ud800"], ["a", ("b",)], []]
    assert len(set(map(fingerprint, given))) == len(given)
    assert fingerprint(iter(given[0])) == fingerprint(given[0])


def test_marks_of_files(tmp_path):
    big = os.urandom(3 * ENDS)
    seen = {mark(tmp_path / "x"), bytes(8)}
    assert len(seen) == 1  # of what is missing

    def new(content):
        (tmp_path / "x").write_bytes(content)
        found = mark(tmp_path / "x")
        assert found not in seen
        seen.add(found)
        return found

    before = new(big)
    for content in (b"two", b"one ", b""):
        new(content)
    for position in (0, ENDS - 1, 2 * ENDS, 3 * ENDS - 1):
        changed = bytearray(big)
        changed[position] ^= 1
        new(changed)
    (tmp_path / "moved").write_bytes(big)
    os.utime(tmp_path / "moved", (0, 0))
    assert mark(tmp_path / "moved") == before


def test_marks_of_parts_of_a_file(tmp_path):
    """As of a tar: each is as if it were alone."""
    (tmp_path / "tar").write_bytes(b"..one..two")
    (tmp_path / "one").write_bytes(b"one")
    assert mark(tmp_path / "tar", 2, 3) == mark(tmp_path / "one") != mark(tmp_path / "tar", 7, 3)
