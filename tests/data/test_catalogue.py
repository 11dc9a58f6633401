"""The data sets by name: each says the truth of itself, and an unknown name is answered with the nearest."""

import inspect
from importlib.util import find_spec

import pytest
from testing_tools import refused

from mmlearn.data import data_sets, load
from mmlearn.data.catalogue import given_options
from mmlearn.data.packaged import easy_vqa
from mmlearn.data.synthetic import __path__ as made
from mmlearn.suggestions import suggest

NAMES = ("collages", "crowded-scenes", "cues", "scenes", "scenes-sound", "scenes-video", "talking-lips", "texts")
NAMES += ("emoji", "emoji-openmoji", "stamps", "easy-vqa")


def test_every_data_set_is_found_and_says_what_a_reader_must_know():
    assert tuple(data_sets()) == NAMES
    assert tuple(data_sets(apart=False)) == NAMES[:-1]
    for name, make in data_sets().items():
        assert all((make.licence, make.disk, make.shows, make.splits)), name
    assert "pip install -e '.[vqa]'" in data_sets()["easy-vqa"].disk
    assert data_sets()["emoji-openmoji"].licence == "CC-BY-SA-4.0"


@pytest.mark.parametrize("name", NAMES)
def test_every_split_loads_and_no_other(name):
    if name == "easy-vqa" and find_spec("easy_vqa") is None:
        pytest.skip("pip install -e '.[vqa]'")
    size = max(32, getattr(data_sets()[name], "smallest", 0))
    for split in data_sets()[name].splits:
        data = load(name, split, **given_options(name, size=size))
        assert type(data) is data_sets()[name]
        assert name in ("cues", "texts") or data[0].image.shape == (3, size, size)
        assert isinstance(data[0].caption, str)
    refused(", ".join(data_sets()[name].splits), load, name, "no such split")


def test_a_new_data_set_is_one_file(tmp_path):
    """It is found because it is there."""
    (tmp_path / "toy.py").write_text(
        "from mmlearn.data.synthetic.dataset import Rendered\n\n\n"
        "class Toy(Rendered):\n"
        "    name, splits, shows = 'toy', ('train',), 'a number'\n\n"
        "    def __init__(self, split='train', *, size=24, seed=0, length=3, more=0):\n"
        "        super().__init__(split, size=size, seed=seed, length=length)\n"
        "        self.more = more\n\n"
        "    def _make(self, index):\n"
        "        return [number + self.more for number in index.tolist()]\n"
    )
    made.append(str(tmp_path))
    data_sets.cache_clear()
    try:
        assert list(load("toy", more=5)) == [5, 6, 7]
        refused("toy has no option 'mroe'; did you mean 'more'", load, "toy", mroe=5)
    finally:
        made.remove(str(tmp_path))
        data_sets.cache_clear()


def test_options_go_to_the_data_set():
    data = load("emoji", "unseen-style", language="de", size=16)
    assert (data.language, data.size, data.split) == ("de", 16, "unseen-style")
    assert load("scenes", seed=5, length=7).seed == 5
    assert len(load("scenes", length=7)) == 7


def test_openmoji_has_nothing_to_train_on():
    refused("no split 'train'; choose from unseen-style, unseen-both", load, "emoji-openmoji")
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
    refused(rf"no folder '{name}'; did you mean '{nearest}'\? choose from collages, crowded-scenes, cues, ", load, name)


@pytest.mark.parametrize("name", ["imagenet", "../nowhere/at/all"])
def test_a_name_like_no_other_is_answered_with_all(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="no data set and no folder") as caught:
        load(name)
    assert "did you mean" not in str(caught.value)
    assert str(caught.value).endswith(f"choose from {', '.join(NAMES)}.")


def test_nearest_of_names_in_capitals():
    assert suggest("VIT_B", ["ViT-B", "ViT-L"]) == "did you mean 'ViT-B'? choose from ViT-B, ViT-L"
    assert suggest("xyz", ["ViT-B", "ViT-L"]) == "choose from ViT-B, ViT-L"
    assert suggest("xyz", iter(["a"])) == "choose from a"


def test_default_split_is_to_train_on():
    assert inspect.signature(load).parameters["split"].default == "train"
    assert (load("scenes").split, load("emoji", size=8).split) == ("train", "train")


def test_what_is_not_installed_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(easy_vqa, "find_spec", lambda name: None)
    refused(r"comes with its author's package; in the clone of mmlearn: pip install -e '\.\[vqa\]'", load, "easy-vqa")


def test_what_is_asked_for(tmp_path):
    """A command has a size for any data, which counts where there are pictures."""
    assert given_options("emoji", size=32, language="de") == {"size": 32, "language": "de"}
    assert given_options("scenes") == {}
    (tmp_path / "captions.csv").write_text("image,caption\n")
    assert given_options(tmp_path, size=32, skip_bad=True) == {"size": 32, "skip_bad": True}
    for name in ("testing_list.txt", "validation_list.txt"):  # of Speech Commands
        (tmp_path / name).touch()
    assert given_options(tmp_path, size=32, skip_bad=True) == {"skip_bad": True}
    refused("no data set and no folder 'emojis'; did you mean 'emoji'", given_options, "emojis", size=32)
