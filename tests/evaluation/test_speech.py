"""Hidden frames of speech, found or not, what clusters hold, texts heard right, words in time: by hand."""

from collections import Counter

import pytest
import torch
from testing_tools import close, refused

from mmlearn.evaluation import (
    attention_over_time,
    attention_peak_in_span,
    contrastive_accuracy,
    edit_distance,
    edit_rate,
    linear_interpolation,
    phone_purity,
    temporal_pointing,
    temporal_pointing_chance,
)
from mmlearn.evaluation.speech import join_masked_frames
from mmlearn.objectives.speech import sample_distractors


def scene(entries, seed=0, k=9):
    generator = torch.Generator().manual_seed(seed)
    masked = torch.rand(3, 8, generator=generator) < 0.6
    masked[0, :2] = True
    return dict(
        context=torch.randn(3, 8, 5, generator=generator),
        target=torch.randn(3, 8, 5, generator=generator),
        codes=torch.randint(entries, (3, 8, 2), generator=generator),
        distractor=sample_distractors(masked, k, generator=generator),
        masked=masked,
    )


@pytest.mark.parametrize("entries", [2, 3, 40])
@pytest.mark.parametrize("seed", range(4))
def test_each_frame_against_its_distractors(entries, seed):
    """With two entries many distractors sound as the frame does, or as each other; with forty hardly any."""
    given = scene(entries, seed)
    right, chance = contrastive_accuracy(**given)
    hidden = given["masked"].nonzero().tolist()
    assert len(right) == len(chance) == len(hidden)
    for (clip, frame), found, by_chance in zip(hidden, right, chance):
        codes = given["codes"][clip]
        others = [
            position
            for position in given["distractor"][clip, frame].tolist()
            if (codes[position] != codes[frame]).any()
        ]
        cosine = torch.cosine_similarity(given["context"][clip, frame], given["target"][clip], dim=-1)
        assert found == all(cosine[frame] > cosine[position] for position in others)
        assert by_chance == pytest.approx(1 / (1 + len({tuple(codes[position].tolist()) for position in others})))


def test_a_context_that_knows_finds_all_and_one_that_guesses_as_many_as_chance_says():
    given = scene(40)
    assert contrastive_accuracy(**given | {"context": given["target"]})[0].all()
    guesses, chances = [], []
    for seed in range(200):
        # Frames of one code have one vector, as the quantiser gives them.
        table = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(seed))
        coded = scene(2, seed)
        coded["target"] = table[0][coded["codes"][..., 0]] + table[1][coded["codes"][..., 1]]
        right, chance = contrastive_accuracy(**coded)
        guesses.append(right.float())
        chances.append(chance)
    close(torch.cat(guesses).mean(), torch.cat(chances).mean(), tolerance=0.03)


def test_hidden_frames_of_all_batches_are_joined():
    assert join_masked_frames([torch.tensor([1.0, 2]), torch.zeros(0), torch.tensor([3.0])]).tolist() == [1, 2, 3]
    refused("These sounds are too short", join_masked_frames, [torch.zeros(0), torch.zeros(0)])


# What needs no network.


def test_a_line_over_each_gap():
    mel = torch.tensor([[0.0, 1, 9, 9, 4, 9, 6, 9], [0, -1, 9, 9, -4, 9, 0, 9]])
    hidden = torch.tensor([False, False, True, True, False, True, False, True])
    crossed = linear_interpolation(mel, hidden)
    close(crossed, torch.tensor([[0.0, 1, 2, 3, 4, 5, 6, 6], [0, -1, -2, -3, -4, -2, 0, 0]]))
    begins_hidden = linear_interpolation(mel, torch.tensor([True, *[False] * 7]))
    assert torch.equal(begins_hidden[:, 0], mel[:, 1])  # the first frame that is seen goes on
    assert torch.equal(linear_interpolation(mel, torch.zeros(8, dtype=torch.bool)), mel)


def test_a_line_needs_two_frames():
    with pytest.raises(ValueError, match="A line needs two frames that are seen; of these 4 there are 1"):
        linear_interpolation(torch.zeros(2, 4), torch.tensor([True, False, True, True]))


# Texts.


@pytest.mark.parametrize(
    ("said", "right", "count"),
    [("", "", 0), ("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("abc", "abc", 0), ("ab", "ba", 2)],
)
def test_edits_by_hand(said, right, count):
    assert edit_distance(said, right) == edit_distance(list(said), list(right)) == edit_distance(right, said) == count


def test_edits_are_the_fewest():
    """Against a search through all ways."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        one, other = (torch.randint(3, (length,), generator=generator).tolist() for length in (5, 4))

        def least(i, j, one=one, other=other):
            if not i or not j:
                return i + j
            same = one[i - 1] == other[j - 1]
            return min(least(i - 1, j) + 1, least(i, j - 1) + 1, least(i - 1, j - 1) + (not same))

        assert edit_distance(one, other) == least(5, 4)


def test_the_rate_is_of_all_right_tokens():
    assert edit_rate(["abc", "x"], ["abd", "xyz"]) == pytest.approx(3 / 6)
    assert edit_rate([[1, 2, 3, 4]], [[5]]) == 4  # more than all
    with pytest.raises(ValueError, match="got 2, of 2 tokens, and 1"):
        edit_rate(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="got 1, of 0 tokens, and 1"):
        edit_rate(["a"], [""])


# Time.


def box(begin, end, frames=20, height=1.0):
    return height * ((torch.arange(frames) >= begin) & (torch.arange(frames) <= end))


def test_a_map_that_is_its_sound_is_in_time():
    begin, end = torch.tensor([[3.0, 10.0]]), torch.tensor([[6.0, 15.0]])
    right = torch.stack([box(3, 6), box(10, 15, height=0.2)])[None]
    assert temporal_pointing(right, begin, end) == {"inside": 1, "begins": 1, "ends": 1}
    shifted = torch.stack([box(4, 7), box(11, 16)])[None]
    assert temporal_pointing(shifted, begin, end) == {"inside": 1, "begins": 1, "ends": 1}  # to within one frame
    late = torch.stack([box(5, 8), box(12, 17)])[None]
    assert temporal_pointing(late, begin, end) == {"inside": 1, "begins": 0, "ends": 0}
    only_one = torch.stack([box(3, 3), box(17, 18)])[None]
    assert temporal_pointing(only_one, begin, end) == {"inside": 0.5, "begins": 0.5, "ends": 0}


def test_a_second_peak_does_not_count():
    begin, end = torch.tensor([[3.0]]), torch.tensor([[6.0]])
    maps = (box(3, 6) + 0.9 * box(9, 12))[None, None]
    assert temporal_pointing(maps, begin, end) == {"inside": 1, "begins": 1, "ends": 1}


def test_by_chance_is_what_every_frame_gives_on_average():
    begin, end = torch.tensor([[3.0, 10.0]]), torch.tensor([[6.0, 15.0]])
    chance = temporal_pointing_chance(20, begin, end)
    single = [temporal_pointing(torch.stack([box(k, k)] * 2)[None], begin, end) for k in range(20)]
    assert chance["inside"] == pytest.approx(sum(one["inside"] for one in single) / 20)
    assert chance["begins"] == pytest.approx(sum(one["begins"] for one in single) / 20)
    assert chance["ends"] == pytest.approx(sum(one["ends"] for one in single) / 20)
    assert chance == pytest.approx({"inside": (6 + 8) / 40, "begins": 6 / 40, "ends": 6 / 40})


def test_attention_of_readers_is_added_up_by_column():
    rows, columns, readers = 2, 3, 2
    tokens = readers + rows * columns
    first, second = (
        torch.rand(4, 2, tokens, tokens, generator=torch.Generator().manual_seed(k)).softmax(-1) for k in range(2)
    )
    got = attention_over_time({"one": first, "two": second}, (rows, columns), readers)
    assert got.shape == (4, 4, columns)
    for b, head, column in ((0, 0, 0), (3, 1, 2), (2, 3, 1)):
        weights = (first, second)[head // 2][b, head % 2]
        patches = [readers + column, readers + columns + column]
        close(got[b, head, column], sum(weights[q, p] for q in range(readers) for p in patches) / readers)


def test_who_looks_inside_and_which_moment_is_inside():
    looks = torch.tensor([[[0.1, 0.8, 0.1], [0.7, 0.2, 0.1]], [[0.0, 0.1, 0.9], [0.9, 0.0, 0.1]]])
    middle = torch.tensor([0.1, 0.2, 0.3])
    by_head, by_moment = attention_peak_in_span(looks, middle, torch.tensor([0.15, 0.25]), torch.tensor([0.35, 0.35]))
    assert by_head.tolist() == [1, 0]
    assert by_moment.tolist() == [0, 0.5, 1]


def test_purity_by_hand():
    """Cluster 0 holds two frames of phone 3 and one of 1; cluster 4 one of each, and what is masked does not count."""
    cluster = torch.tensor([[0, 0, 0, 4], [4, 0, 0, 7]])
    phone = torch.tensor([[3, 3, 1, 1], [3, 1, 1, 2]])
    mask = torch.tensor([[True, True, True, True], [True, False, False, False]])
    assert phone_purity(cluster, phone, mask) == pytest.approx((2 + 1) / 5)
    assert phone_purity(cluster, phone) == pytest.approx((3 + 1 + 1) / 8)
    padded = cluster.masked_fill(~mask, -100), phone.masked_fill(~mask, -100)
    assert phone_purity(*padded, mask) == pytest.approx(3 / 5)


@pytest.mark.parametrize("seed", range(4))
def test_purity_counts_the_phone_that_each_cluster_holds_most_of(seed):
    generator = torch.Generator().manual_seed(seed)
    cluster, phone = torch.randint(6, (9, 20), generator=generator), torch.randint(4, (9, 20), generator=generator)
    mask = torch.rand(9, 20, generator=generator) < 0.7
    pairs = list(zip(cluster[mask].tolist(), phone[mask].tolist()))
    most = sum(Counter(p for c, p in pairs if c == one).most_common(1)[0][1] for one in {c for c, _ in pairs})
    assert phone_purity(cluster, phone, mask) == pytest.approx(most / len(pairs))
    assert phone_purity(5 - cluster, 3 - phone, mask) == phone_purity(cluster, phone, mask)  # names do not matter
    assert phone_purity(phone, phone, mask) == 1
    assert phone_purity(4 * cluster + phone, phone) == 1  # finer clusters, each of one phone
    assert phone_purity(torch.zeros_like(phone), phone) == pytest.approx(phone.flatten().bincount().max() / 180)


def test_purity_of_no_frame_is_refused():
    nothing = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="leaves out every frame"):
        phone_purity(nothing, nothing, nothing.bool())
