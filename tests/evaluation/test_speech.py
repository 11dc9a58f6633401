"""Hidden frames of speech, found or not: by hand, one frame at a time. And what clusters hold."""

from collections import Counter

import pytest
import torch
from testing_tools import close

from mmlearn.evaluation import found_among_distractors, phone_purity
from mmlearn.evaluation.speech import all_hidden
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
    right, chance = found_among_distractors(**given)
    hidden = given["masked"].nonzero().tolist()
    assert len(right) == len(chance) == len(hidden)
    for (clip, frame), found, by_chance in zip(hidden, right, chance):
        codes = given["codes"][clip]
        others = [place for place in given["distractor"][clip, frame].tolist() if (codes[place] != codes[frame]).any()]
        cosine = torch.cosine_similarity(given["context"][clip, frame], given["target"][clip], dim=-1)
        assert found == all(cosine[frame] > cosine[place] for place in others)
        assert by_chance == pytest.approx(1 / (1 + len({tuple(codes[place].tolist()) for place in others})))


def test_a_context_that_knows_finds_all_and_one_that_guesses_as_many_as_chance_says():
    given = scene(40)
    assert found_among_distractors(**given | {"context": given["target"]})[0].all()
    guesses, chances = [], []
    for seed in range(200):
        # Frames of one code have one vector, as the quantiser gives them.
        table = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(seed))
        coded = scene(2, seed)
        coded["target"] = table[0][coded["codes"][..., 0]] + table[1][coded["codes"][..., 1]]
        right, chance = found_among_distractors(**coded)
        guesses.append(right.float())
        chances.append(chance)
    close(torch.cat(guesses).mean(), torch.cat(chances).mean(), tolerance=0.03)


def test_hidden_frames_of_all_batches_are_joined():
    assert all_hidden([torch.tensor([1.0, 2]), torch.zeros(0), torch.tensor([3.0])]).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="These sounds are too short"):
        all_hidden([torch.zeros(0), torch.zeros(0)])


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
