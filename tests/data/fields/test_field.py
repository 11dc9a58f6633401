"""What all fields promise: examples that fit their own description, what is known kept in JSON; and broken batches."""

import json
from dataclasses import dataclass, replace

import pytest
import torch
from testing_tools import refused

from mmlearn.data import fields, load
from mmlearn.data.fields import (
    Answers,
    Clusters,
    Cues,
    Dialogues,
    Field,
    Image,
    ImageDialogues,
    Labels,
    LogMel,
    MaskedRegions,
    MaskedTokens,
    MatchLabel,
    Objects,
    PatchCodes,
    Patches,
    Regions,
    Segments,
    TaggedCaptions,
    Tokens,
    Video,
    Waveform,
    WhisperMel,
    check_batch,
    padded_entries,
    resize,
    size,
)
from mmlearn.layers.config import Config

# Settings in nested configurations.


@dataclass(frozen=True)
class Text(Config):
    vocab_size: int = 300
    max_length: int = 16
    width: int = 8
    depth: int | None = None


@dataclass(frozen=True)
class Tower(Config):
    text: Text = Text()
    width: int = 32
    image_size: int = 16
    patch_size: int = 4
    clusters: int = 9
    mels: int = 20
    audio_width: int = 12
    modalities: int = 2
    features: int = 6

    @property
    def area(self):
        return self.image_size**2


@dataclass(frozen=True)
class Settings(Config):
    tower: Tower = Tower()
    other: Text = Text(max_length=20)
    region_width: int = 6
    region_classes: int = 5
    num_classes: int = 4
    answers: int | None = None
    outputs: int = 3
    codes: int = 7


CONFIG = Settings()


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("region_width", 6),  # its own
        ("width", 32),  # of the first part that has it, before what is inside that
        ("max_length", 16),  # two deep
        ("area", 256),  # a property
        ("answers", None),  # its own, though it is None
        ("depth", "none"),  # nowhere but as None inside
        ("stride", "none"),
    ],
)
def test_a_size_is_looked_up_in_configurations_inside_too(name, found):
    assert size(CONFIG, name, "none") == found
    assert size(CONFIG, name) == (None if found == "none" else found)


def test_resizing_reaches_every_part_that_has_the_name():
    got = resize(CONFIG, {"max_length": 7, "width": 5, "answers": 2, "area": 1, "stride": 3})
    text = Text(max_length=7, width=5)
    assert got == Settings(Tower(text, width=5), replace(text, max_length=7), answers=2)
    assert resize(CONFIG, {"area": 1, "stride": 3}) == CONFIG  # a property cannot be set, and stride is nowhere
    assert Settings() == CONFIG


# Broken batches.

HOLDS = {
    "image": "Float b 3 height width",
    "tokens": "Int b t < vocab_size",
    "mask": "Bool b t",
    "regions": "Float b p {region_width}",
    "region_mask": "Bool b p",
    "token_label": "Int b t < vocab_size or -100",
    "caption_id": "Int b",
    "match_label": "Int b < 2",
}
OPTIONAL = {"token_label", "caption_id"}


def whole(b=3, t=5, p=4):
    return {
        "image": torch.randn(b, 3, 8, 9),
        "tokens": torch.randint(0, 300, (b, t)),
        "mask": torch.ones(b, t, dtype=torch.bool),
        "regions": torch.randn(b, p, 6),
        "region_mask": torch.ones(b, p, dtype=torch.bool),
        "token_label": torch.full((b, t), -100),
        "caption_id": torch.arange(b) + 2**61,
        "match_label": torch.arange(b) % 2,
    }


def refusal(batch):
    with pytest.raises(ValueError) as error:  # noqa: PT011, the whole message is compared
        check_batch(batch, HOLDS, CONFIG, OPTIONAL)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_whole_batches_pass():
    batch = whole()
    for good in (batch, whole(1, 1, 1), batch | {"more": torch.zeros(1)}, batch | {"image": batch["image"].half()}):
        check_batch(good, HOLDS, CONFIG)
    batch["tokens"][0, 0], batch["token_label"][1, 2] = 299, 299
    check_batch(batch, HOLDS, CONFIG)
    check_batch({name: batch[name] for name in HOLDS if name not in OPTIONAL}, HOLDS, CONFIG, OPTIONAL)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", HOLDS)
def test_an_entry_that_is_missing_or_of_another_type_is_named(name):
    """Any entry but an optional one; and any, where it is no tensor, of another type, or has an axis more or less."""
    batch = whole()
    shape = {"image": "(b, 3, height, width)", "regions": "(b, p, region_width)", "region_mask": "(b, p)"}
    shape = shape.get(name, "(b, t)" if batch[name].ndim == 2 else "(b)")
    rest = {key: value for key, value in batch.items() if key != name}
    if name in OPTIONAL:
        check_batch(rest, HOLDS, CONFIG, OPTIONAL)
    else:
        assert refusal(rest) == f"The batch has no {name} {shape}; it has {', '.join(rest)}."
    value = batch[name]
    other = value.int() if value.dtype == torch.int64 else value.long()
    for wrong in (value.tolist(), other, value[None], value[..., 0]):
        said = refusal(batch | {name: wrong})
        assert said.startswith(f"{name} must be ")
        assert shape in said
    assert refusal({}) == "The batch has no image (b, 3, height, width); it has nothing."


@pytest.mark.parametrize("name", HOLDS)
def test_a_length_that_is_not_that_of_the_others_is_refused(name):
    """An axis may be longer where no other entry has its letter, and no number or configuration says its length."""
    free = {"image": {2, 3}}
    for axis in range(whole()[name].ndim):
        batch = whole()
        batch[name] = torch.cat([batch[name], batch[name].narrow(axis, 0, 1)], axis)
        if axis in free.get(name, ()):
            check_batch(batch, HOLDS, CONFIG)
        else:
            assert "has the shape" in refusal(batch)
    assert refusal(whole() | {"mask": torch.ones(3, 7) > 0}) == (
        "mask has the shape (3, 7), which is not (b, t), because t is 5 in tokens."
    )
    assert refusal(whole() | {"regions": torch.randn(3, 4, 7)}).endswith(
        "which is not (b, p, region_width), because region_width is 6 in the configuration."
    )
    assert refusal(whole() | {"image": torch.randn(3, 4, 8, 9)}) == (
        "image has the shape (3, 4, 8, 9), which is not (b, 3, height, width)."
    )


@pytest.mark.parametrize(
    ("name", "number", "says"),
    [
        ("tokens", 300, "from 0 to 299; got 300"),
        ("tokens", -1, "from 0 to 299; got -1"),
        ("tokens", -100, "from 0 to 299; got -100"),  # a token is always there
        ("token_label", 300, "from 0 to 299, or -100; got 300"),
        ("token_label", -1, "from 0 to 299, or -100; got -1"),
        ("caption_id", -5, "0 or more; got -5"),
        ("match_label", 2, "from 0 to 1; got 2"),
    ],
)
def test_a_number_out_of_range_is_told(name, number, says):
    batch = whole()
    batch[name].flatten()[1] = number
    assert refusal(batch) == f"The numbers in {name} must be {says}."


def test_nothing_is_no_batch():
    assert refusal({name: value[:0] for name, value in whole().items()}) == (
        "image is empty: it has the shape (0, 3, 8, 9)."
    )
    assert refusal(whole(t=0)) == "tokens is empty: it has the shape (3, 0)."


def test_which_mask_says_what_is_padding():
    assert padded_entries(HOLDS) == {"tokens": ("mask", 1), "token_label": ("mask", 1), "regions": ("region_mask", 1)}
    assert padded_entries(LogMel.holds | Video.holds) == {"mel": ("mel_mask", 2), "video": ("video_mask", 1)}
    assert padded_entries(Tokens(whole=True).holds) == {"tokens": ("mask", 1)}
    assert padded_entries(Tokens(words=True).holds) == {"tokens": ("mask", 1), "word": ("mask", 1)}


# Every field.

FIELDS = (
    Image(),
    Regions(),
    Video(),
    Video(frames=8, shown=16, image_size=40),
    Tokens(),
    Tokens(whole=True),
    Tokens(words=True),
    Tokens(sentinels=3),
    Segments(),
    TaggedCaptions(),
    Waveform(),
    LogMel(),
    LogMel(bands="audio_width"),
    Clusters(),
    Clusters(every=2),
    Cues(),
    Labels(),
    Labels(into="outputs"),
    Answers(),
    Dialogues(),
    Patches(),
    PatchCodes(),
    Objects(),
)


def test_every_field_is_here():
    every = {
        one for name in fields.__all__ if isinstance(one := getattr(fields, name), type) and issubclass(one, Field)
    }
    assert {type(field) for field in FIELDS} == every - {Field, ImageDialogues, WhisperMel}  # which ask one system


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: type(field).__name__)
@pytest.mark.parametrize("b", [1, 8])
def test_an_example_is_what_the_field_says(field, b):
    """Of the right types and sizes, a function of the generator; some rows are shorter, and none is empty."""
    config = resize(CONFIG, field.example_sizes(CONFIG))
    batch, again = (field.example(b, config, torch.Generator().manual_seed(3)) for _ in range(2))
    check_batch(batch, field.holds, config)
    assert batch.keys() == field.holds.keys()
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert len(next(iter(batch.values()))) == b
    for name, (mask, axis) in padded_entries(field.holds).items():
        lengths = batch[mask].sum(1)
        assert torch.equal(batch[mask], torch.arange(batch[name].shape[axis]) < lengths[:, None])
        assert lengths.min() > 0
        assert b == 1 or len(lengths.unique()) > 1


@pytest.mark.parametrize("label", [MaskedTokens(), MaskedTokens(0.5), MaskedRegions(0.5), MatchLabel()], ids=repr)
@pytest.mark.parametrize("words", [False, True])
def test_labels_of_examples_are_what_they_say(label, words):
    parts, batch = (Tokens(words=words), Regions()), {}
    for field in parts:
        batch |= field.example(8, CONFIG, torch.Generator().manual_seed(0))
    labelled = label(batch, torch.Generator().manual_seed(0), lambda name: size(CONFIG, name))
    check_batch(labelled, parts[0].holds | parts[1].holds | label.holds, CONFIG, parts[0].optional)


LEARNED = {
    "images": (Image(), "scenes", {"size": 24, "length": 8}),
    "images as they are": (Image(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), "scenes", {"size": 24, "length": 8}),
    "tokens": (Tokens(), "scenes", {"size": 24, "length": 30}),
    "spectrograms": (LogMel(), "scenes-sound", {"size": 24, "length": 4}),
    "spectrograms of few bands": (LogMel(bands="audio_width"), "scenes-sound", {"size": 24, "length": 4}),
    "clusters": (Clusters(), "scenes-sound", {"size": 24, "length": 3}),
    "cues": (Cues(), "cues", {"missing": 0.5}),
    "orders": (Labels(source="order", into="outputs"), "scenes-video", {"size": 24, "length": 20}),
    "answers": (Answers(), "scenes", {"size": 24, "length": 4}),
}


@pytest.mark.parametrize("name", LEARNED)
def test_what_was_learned_of_the_data_survives_a_folder(name, tmp_path):
    """And a batch of the field that was read is that of the one that was written, bit for bit."""
    field, data, options = LEARNED[name]
    data = load(data, **options)
    fitted = field.fitted(data, CONFIG, 0)
    values = json.loads(json.dumps(fitted.save(tmp_path)))
    read = field.load(tmp_path, values)
    samples = [data[i] for i in range(3)]
    one, other = fitted(samples), read(samples)
    assert one.keys() == other.keys() <= field.holds.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert read.sizes() == fitted.sizes()
    if name != "tokens":  # whose tokenizer is written to its own file
        assert read == fitted
        assert list(tmp_path.iterdir()) == []
    check_batch(one, field.holds, resize(CONFIG, fitted.sizes()), field.optional)
    assert json.loads(json.dumps(read.save(tmp_path))) == values


def test_samples_without_what_is_read_are_told():
    silent = load("scenes", size=24)[0]
    for field, says in (
        (Waveform(), "ast reads sounds, and these samples have none: use --data scenes-sound"),
        (LogMel(), "use --data scenes-sound"),
        (Clusters(), "use --data scenes-sound"),
        (Video(), "use --data talking-lips or --data scenes-video"),
        (Cues(), r"reads one vector for each modality \(cues\), and these samples have none: use --data cues"),
        (Labels(source="order"), "ast reads order, and these samples have none"),
    ):
        refused(says, field.check_sample, silent, "ast")
    emoji = load("emoji", size=24)[0]
    refused("uniter reads regions, which only scenes and collages have", Regions().check_sample, emoji, "uniter")
    refused("vqa learns from questions with answers", Answers().check_sample, emoji, "vilt")
    for field in (Image(), Tokens(), Regions(), Answers(), Labels()):
        field.check_sample(silent, "any")


def test_fields_can_be_compared_and_be_keys():
    """As runs have it, where equal fields of two objectives are one."""
    for field in (*FIELDS, Tokens(maskable={"red", "Blue"})):
        assert {field: 1}[replace(field)] == 1
    assert Tokens(maskable=["blue", "RED"]) == Tokens(maskable={"red", "blue"}) != Tokens()
