"""The data sets by name: each card is true, each name loads, and an unknown one is answered with the nearest."""

import inspect
from importlib.util import find_spec

import pytest

from mmlearn.data import CARDS, load
from mmlearn.data.catalogue import APART, asked
from mmlearn.data.made.scene_sound import SoundScenes
from mmlearn.data.made.scene_video import VideoScenes
from mmlearn.data.made.scenes import Scenes
from mmlearn.data.made.talking_lips import TalkingLips
from mmlearn.data.packaged import easy_vqa
from mmlearn.data.packaged.easy_vqa import EasyVQA
from mmlearn.data.packaged.emoji import Emoji, OpenMoji
from mmlearn.data.packaged.stamps import Stamps
from mmlearn.names import choices

CLASSES = {
    "scenes": Scenes,
    "scenes-sound": SoundScenes,
    "scenes-video": VideoScenes,
    "talking-lips": TalkingLips,
    "emoji": Emoji,
    "emoji-openmoji": OpenMoji,
    "stamps": Stamps,
}


def test_there_is_a_card_for_each_packaged_set():
    assert set(CARDS) == set(CLASSES)


@pytest.mark.parametrize("name", [*CLASSES, *APART])
def test_every_split_of_a_card_loads_and_no_other(name):
    if name in APART and find_spec(APART[name].module.rpartition(".")[2]) is None:
        pytest.skip(APART[name].size)
    cards = CARDS | APART
    for split in cards[name].splits:
        data = load(name, split, size=32)
        assert type(data) is (CLASSES | {"easy-vqa": EasyVQA})[name]
        assert data[0].image.shape == (3, 32, 32)
        assert isinstance(data[0].caption, str)
    with pytest.raises(ValueError, match=", ".join(cards[name].splits)):  # the data set names the same splits
        load(name, "no such split")


def test_cards_say_what_a_reader_must_know():
    for name, card in (CARDS | APART).items():
        assert all((card.licence, card.size, card.shows)), name
    assert not set(CARDS) & set(APART)
    assert "pip install 'mmlearn[vqa]'" in APART["easy-vqa"].size
    assert CARDS["emoji-openmoji"].licence == "CC-BY-SA-4.0"


def test_options_go_to_the_data_set():
    data = load("emoji", "unseen-style", language="de", size=16)
    assert (data.language, data.size, data.split) == ("de", 16, "unseen-style")
    assert load("scenes", seed=5, length=7).seed == 5
    assert len(load("scenes", length=7)) == 7


def test_openmoji_has_nothing_to_train_on():
    with pytest.raises(ValueError, match="no split 'train'; choose from unseen-style, unseen-both"):
        load("emoji-openmoji")
    data = load("emoji-openmoji", "unseen-both", size=8)
    assert {data[i].style for i in range(5)} == {"openmoji"}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("scene", "scenes"),
        ("Scenes", "scenes"),
        ("emojis", "emoji"),
        ("openmoji", "emoji-openmoji"),
        ("emoji_openmoji", "emoji-openmoji"),
        ("stamp", "stamps"),
        ("easyvqa", "easy-vqa"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, nearest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"no folder '{name}'; did you mean '{nearest}'\? choose from scenes, "):
        load(name)


@pytest.mark.parametrize("name", ["imagenet", "../nowhere/at/all"])
def test_a_name_like_no_other_is_answered_with_all(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no data set and no folder") as caught:
        load(name)
    assert "did you mean" not in str(caught.value)
    assert str(caught.value).endswith(f"choose from {', '.join([*CARDS, *APART])}.")


def test_nearest_of_names_in_capitals():
    assert choices("VIT_B", ["ViT-B", "ViT-L"]) == "did you mean 'ViT-B'? choose from ViT-B, ViT-L"
    assert choices("xyz", ["ViT-B", "ViT-L"]) == "choose from ViT-B, ViT-L"
    assert choices("xyz", iter(["a"])) == "choose from a"


def test_default_split_is_to_train_on():
    assert inspect.signature(load).parameters["split"].default == "train"
    assert (load("scenes").split, load("emoji", size=8).split) == ("train", "train")


def test_what_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(easy_vqa, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"comes with its author's package: pip install 'mmlearn\[vqa\]'") as caught:
        load("easy-vqa")
    assert "\n" not in str(caught.value)


def test_what_is_asked_for(tmp_path):
    """A command has a size for any data, which counts where there are pictures."""
    assert asked("emoji", size=32, language="de") == {"size": 32, "language": "de"}
    assert asked("scenes") == {}
    (tmp_path / "captions.csv").write_text("image,caption\n")
    assert asked(tmp_path, size=32, skip_bad=True) == {"size": 32, "skip_bad": True}
    for name in ("testing_list.txt", "validation_list.txt"):  # of Speech Commands
        (tmp_path / name).touch()
    assert asked(tmp_path, size=32, skip_bad=True) == {"skip_bad": True}
    with pytest.raises(ValueError, match="no data set and no folder 'emojis'; did you mean 'emoji'"):
        asked("emojis", size=32)
