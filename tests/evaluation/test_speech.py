"""Hidden frames of speech, found or not: by hand, one frame at a time."""

import pytest
import torch
from testing_tools import close, refused

from mmlearn.evaluation import found_among_distractors
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
    refused("These sounds are too short", all_hidden, [torch.zeros(0), torch.zeros(0)])
