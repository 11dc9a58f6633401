"""Captions with errors: so many are wrong, for good, and no one can tell by the caption alone."""

import pytest
import torch
from testing_tools import refused

from mmlearn.data import fetch, load
from mmlearn.data.made.scenes import Scenes
from mmlearn.data.made.wrong_captions import captions_with_errors


@pytest.fixture(scope="module")
def scenes():
    return Scenes(size=24).__getitems__(range(400))


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_the_stated_share_of_captions_is_wrong_for_good(scenes, share):
    captions, wrong = captions_with_errors(scenes, share)
    assert wrong.dtype == torch.bool
    assert wrong.float().mean().item() == pytest.approx(share, abs=0.07)
    assert [caption != scene.caption for caption, scene in zip(captions, scenes)] == wrong.tolist()
    order = torch.randperm(400, generator=torch.Generator().manual_seed(0)).tolist()
    again, wrong_again = captions_with_errors([scenes[i] for i in order], share)
    assert again == [captions[i] for i in order]
    assert torch.equal(wrong_again, wrong[order])
    alone = [captions_with_errors([Scenes(size=32)[i]], share)[0][0] for i in range(30)]  # drawn anew, and larger
    assert alone == captions[:30]
    others, wrong_elsewhere = captions_with_errors(scenes, share, seed=1)
    assert not torch.equal(wrong_elsewhere, wrong)
    both = (wrong & wrong_elsewhere).nonzero()[:, 0].tolist()
    assert sum(others[i] == captions[i] for i in both) < 0.1 * len(both)


def test_wrong_captions_are_captions_like_others_and_all_different(scenes):
    captions, wrong = captions_with_errors(scenes, 1.0)
    assert wrong.all()
    assert len(set(captions)) == 400
    words = {word for scene in Scenes(size=24).__getitems__(range(1000)) for word in scene.caption.split()}
    assert {word for caption in captions for word in caption.split()} <= words


def test_more_errors_are_those_of_fewer_and_others(scenes):
    few, more = (captions_with_errors(scenes, share) for share in (0.2, 0.6))
    assert (few[1] <= more[1]).all()
    assert all(one == other for one, other, wrong in zip(few[0], more[0], few[1].tolist()) if wrong)
    plain, none = captions_with_errors(scenes, 0.0)
    assert plain == [scene.caption for scene in scenes]
    assert not none.any()


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_a_share_is_from_0_to_1(scenes, share):
    refused(rf"^share is from 0 to 1, got {share}\.$", captions_with_errors, scenes, share)


def test_only_scenes_have_other_scenes(unchecked):
    refused("Only scenes", captions_with_errors, fetch(load("emoji", size=24), range(3)), 0.5)
