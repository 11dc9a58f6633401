"""What all rendered sets promise: a sample is a function of split, index and seed; settings that cannot be are told."""

import hashlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

from mmlearn.data.synthetic.scene_sound import SoundScenes
from mmlearn.data.synthetic.scene_tasks import NLVR, VQA, Entailment, HopQuestions, Referring
from mmlearn.data.synthetic.scene_video import VideoScenes
from mmlearn.data.synthetic.scenes import CrowdedScenes, NamedOnce, Scenes, SmallScenes
from mmlearn.data.synthetic.talking_lips import TalkingLips

TASKS = (VQA, NLVR, Referring, Entailment, HopQuestions)
SCENES = (Scenes, CrowdedScenes, NamedOnce, SmallScenes, SoundScenes, VideoScenes)
SETS = {make.__name__: make for make in (*SCENES, TalkingLips, *TASKS)}
INDICES = [7, 0, 123, 10**9, 2**40 + 1, 31]


def made(name, split="val", seed=3, **options):
    return SETS[name](split, size=28, seed=seed, **options)


def digest(samples):
    """Everything about these samples as one number."""
    told = hashlib.sha256()
    for sample in samples:
        for image in getattr(sample, "pictures", (sample,)):
            for part in ("image", "video", "masks", "waveform"):
                if hasattr(image, part):
                    told.update(getattr(image, part).numpy().tobytes())
            for part in ("objects", "links", "graph", "question", "spans", "events", "words"):
                told.update(repr(getattr(image, part, None)).encode())
        for part in ("caption", "text", "kind", "label"):
            told.update(repr(getattr(sample, part, None)).encode())
    return told.hexdigest()


@pytest.mark.parametrize("name", SETS)
def test_a_sample_does_not_depend_on_those_asked_for_with_it(name):
    data = made(name)
    alone = {index: digest([data[index]]) for index in INDICES}
    for order in (INDICES, INDICES[::-1] + INDICES):
        assert [digest([sample]) for sample in data.__getitems__(order)] == [alone[index] for index in order]
    assert digest([made(name, length=2)[31]]) == alone[31]
    assert digest([pickle.loads(pickle.dumps(data[31]))]) == alone[31]
    others = [digest([made(name, *where)[31]]) for where in (("val", 4), ("test", 3), ("val", 2**31))]
    assert len({*alone.values(), *others}) == len(INDICES) + 3


def test_another_process_makes_the_same_bytes():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from test_dataset import *; "
        "print(*[digest(made(name).__getitems__(INDICES)) for name in SETS])"
    )
    told = subprocess.check_output([sys.executable, "-c", code, __file__.rpartition("/")[0]], text=True).split()
    assert told == [digest(made(name).__getitems__(INDICES)) for name in SETS]


@pytest.mark.parametrize("name", SETS)
def test_nothing_is_drawn_from_global_state(name):
    one = digest([made(name)[5]])
    torch.manual_seed(9)
    np.random.seed(9)
    before = torch.random.get_rng_state()
    assert digest([made(name)[5]]) == one
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("name", SETS)
def test_length_is_what_an_epoch_has_and_indices_are_not_negative(name):
    data = made(name, length=3)
    assert len(data) == 3
    assert [digest([sample]) for sample in data] == [digest([data[i]]) for i in range(3)]
    assert len(SETS[name]()) >= 100_000
    assert data.__getitems__([]) == []
    for wrong in ([-1], [3, -2]):
        with pytest.raises(IndexError, match=str(wrong[-1])):
            data.__getitems__(wrong)


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"split": "training"}, "has no split 'training'; .*train, val, test"),
        ({"split": "Composition"}, "has no split 'Composition'; (did you mean|choose from train, val, test, )"),
        ({"size": 12}, "at least (16|24|28) pixels, a multiple of 4; got 12"),
        ({"size": 30}, "got 30"),
        ({"size": 0}, "got 0"),
        ({"size": -64}, "got -64"),
        ({"length": 0}, "length must be at least 1, got 0"),
        ({"length": -1}, "length must be at least 1, got -1"),
    ],
)
def test_settings_that_cannot_be(name, options, said):
    with pytest.raises(ValueError, match=said):
        SETS[name](**options)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("Scenes", {"objects": 1}, "2 to 9 objects, got 1"),
        ("Scenes", {"objects": 10}, "2 to 9 objects, got 10"),
        ("CrowdedScenes", {"objects": 15}, "16 to 32 objects, got 15"),
        ("CrowdedScenes", {"objects": 33}, "16 to 32 objects, got 33"),
        ("NamedOnce", {"objects": 33}, "16 to 32 objects, got 33"),
        ("SmallScenes", {"objects": 3}, "1 to 2 objects, got 3"),
        ("SoundScenes", {"seconds": 0.4}, "0.4"),
        ("SoundScenes", {"seconds": 90.0}, "90"),
        ("VideoScenes", {"seconds": 0.5}, "1 to 10"),
        ("VideoScenes", {"fps": 0}, "fps=0"),
        ("VideoScenes", {"fps": 15}, "fps=15"),
        ("VideoScenes", {"fps": 10, "seconds": 1.25}, "fps=10"),
        ("TalkingLips", {"split": "speaker"}, "did you mean 'unseen-speaker'"),
        ("TalkingLips", {"seconds": 0.5}, "0.5"),
        ("TalkingLips", {"seconds": 21.0}, "21"),
        ("TalkingLips", {"seconds": 1.99}, "whole number"),
    ],
)
def test_settings_of_their_own_that_cannot_be(name, options, said):
    with pytest.raises(ValueError, match=said):
        SETS[name](**options)
