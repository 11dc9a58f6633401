"""New runs: every system is fitted to its data, and what it cannot learn from or be told is refused."""

import dataclasses
import pickle
from types import SimpleNamespace

import pytest
import torch
from small_data import Tones, set_of
from testing_tools import Listed, close, refused

from mmlearn.data import fetch, load
from mmlearn.data.fields import Image, LogMel, Regions, TaggedCaptions, Tokens, Video, size
from mmlearn.data.speech_features import mfcc
from mmlearn.data.synthetic.questions import ANSWERS
from mmlearn.objectives.clusters import nearest
from mmlearn.recipes import Recipe, Stage
from mmlearn.recipes.discovery import find_recipe, system_files
from mmlearn.training.runs import new_run
from mmlearn.training.settings import read_settings


def batch_of(run, data, count=6, **options):
    return run.collate(**options)(fetch(data, range(count)))


# A new run.


@pytest.mark.parametrize("name", system_files())
def test_a_new_run_fits_its_data(made, sets, name):
    """The configuration has the sizes that the fields found, and the loss reads what the collation makes."""
    run, data = made(name), sets[set_of(name)]
    for given, field in run.fields.items():
        assert {key: size(run.system.config, key, value) for key, value in field.sizes().items()} == field.sizes()
        assert field.data_options(run.system.config).get("size") in (None, 24, 32)  # as in these data sets
        if isinstance(field, Tokens):
            asks = {one.ask for task in run.tasks for one in task if given in (*run.recipe.reads, *one.reads)}
            samples = fetch(data, range(len(data)))
            captions = [(ask(sample) if ask else sample).caption for ask in asks for sample in samples]
            if isinstance(field, TaggedCaptions):
                captions = [" ".join(pair) for pair in field.pairs(samples)]
            tokens, mask = field.tokenizer(captions)
            assert field.tokenizer.max_length == tokens.shape[1] == int(mask.sum(1).max())
        if isinstance(field, Image) and given.mean is None:  # otherwise the system says how it reads pictures
            image = field(fetch(data, range(len(data))))["image"]
            close(image.mean((0, 2, 3)), torch.zeros(3), 0.02)
            close(image.std((0, 2, 3)), torch.ones(3), 0.02)
        if isinstance(field, LogMel):
            batch = field(fetch(data, range(len(data))))
            real = batch["mel"].mT[batch["mel_mask"]]
            close(torch.stack([real.mean(), real.std()]), torch.tensor([0.0, 1.0]), 0.02)
    first = getattr(run.system, run.stage.optimizer_steps[0].loss)
    assert all(value.isfinite() for value in first(batch_of(run, data)).values())


def test_regions_are_as_wide_as_the_detector_has_them(sets, monkeypatch):
    """Whatever the preset has, as the published ones for a detector of photos do."""
    config = find_recipe("lxmert").config
    other = config.PRESETS["tiny"] | {"region_width": 7, "region_classes": 3, "region_attributes": 5}
    monkeypatch.setitem(config.PRESETS, "other", other)
    run = new_run("lxmert", sets["scenes"], preset="other")
    run.system.loss(batch_of(run, sets["scenes"]))
    assert (run.system.config.region_classes, run.system.config.region_attributes) == (144, 0)


def test_hubert_numbers_each_frame(made, sets):
    run, samples = made("hubert"), fetch(sets["scenes-sound"], range(5))
    batch, centroids = run.collate()(samples), torch.tensor(run.field("cluster").centroids)
    real = run.system.speech.frame_mask(batch["waveform"], batch["waveform_mask"])
    assert ((batch["cluster"] >= 0) == real).all()
    assert centroids.shape == (run.system.config.clusters, 39)
    for row, sample, mask in zip(batch["cluster"], samples, real):
        assert torch.equal(row[mask], nearest(mfcc(sample.waveform), centroids))
    assert len(batch["cluster"][real].unique()) > 10


def test_ast_tells_the_words_of_the_data(made, sets):
    run = made("ast")
    assert run.field("label").names == tuple(Tones.words)
    assert run.system.config.num_classes == 3
    assert batch_of(run, sets["words"], 4)["label"].tolist() == [0, 1, 2, 0]
    refused("'other' is none of the 3 names that were learned", batch_of, run, Tones(words=("other",)), 1)
    refused("Captions are told apart here, and these are 30 different ones of 30", new_run, "ast", sets["scenes-sound"])


@pytest.mark.parametrize(("name", "seconds"), [("ast", 2.0), ("clap", 2.56), ("decoar2", None), ("wav2vec2", None)])
def test_how_long_a_sound_may_be(made, name, seconds):
    """The data set is asked for no more, and longer sounds are cut where it cannot do that."""
    run = made(name)
    options = {}
    for field in run.fields.values():
        options |= field.data_options(run.system.config)
    assert options.get("seconds") == (seconds and pytest.approx(seconds))
    assert options["speech"]
    long = [SimpleNamespace(waveform=torch.randn(60_000), caption=Tones.words[0])]
    batch = run.plain(long)
    length = batch["mel"].shape[2] * 160 if "mel" in batch else batch["waveform"].shape[1]
    assert length <= (60_160 if seconds is None else 16_000 * seconds + 160)
    assert length >= (60_000 if seconds is None else 16_000 * seconds)


def test_images_beside_sounds_are_left_alone(made, sets):
    assert "image" not in batch_of(made("clap"), sets["scenes-sound"])


def test_a_seed_decides_the_weights(sets):
    one, two, other = (new_run("clip", sets["scenes"], seed=seed).system.state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["image_projection.weight"], other["image_projection.weight"])


def test_a_seed_decides_what_is_masked(made, sets):
    one, again, other = (batch_of(made("vilbert"), sets["scenes"], seed=seed)["token_label"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(("name", "varied"), [("vilt", "image"), ("albef", "image"), ("clap", "mel"), ("ast", "mel")])
def test_augmentation(made, sets, name, varied):
    """Pictures and spectrograms differ, words do not; and a batch is a function of its samples."""
    run, data = made(name), sets[set_of(name)]
    plain, collate = batch_of(run, data), run.collate(augment=True)
    moved, again = batch_of(run, data, augment=True), pickle.loads(pickle.dumps(collate))(fetch(data, range(6)))
    assert {key for key in plain if not torch.equal(plain[key], moved[key])} == {varied}
    assert torch.equal(moved[varied], again[varied])
    refused(r"regions are cut out of pictures.*: leave augment out", made("uniter").collate, augment=True)
    for name in ("hubert", "decoar2"):
        refused(r"Nothing can be augmented here, because .*: leave augment out", made(name).collate, augment=True)


@pytest.mark.parametrize("name", ["lxmert", "vilt", "pixel-bert"])
def test_questions_where_they_are_asked_for(sets, name):
    """The vocabulary holds questions and captions, and each batch has one or the other."""
    data = sets["scenes"]
    run = new_run(name, data, objectives=("mlm", "vqa"))
    assert run.system.config.answers == len(ANSWERS)
    texts = [text for scene in fetch(data, range(60)) for text in (scene.caption, scene.question.text)]
    tokens, mask = run.tokenizer(texts)
    assert int(mask.sum(1).max()) == run.tokenizer.max_length
    assert all(run.tokenizer.decode(row) == text for row, text in zip(tokens, texts))
    collate = run.collate()
    seen = {frozenset(run.system.loss(collate.at(k)(fetch(data, range(6))))) for k in range(12)}
    assert seen == {frozenset({"mlm"}), frozenset({"mlm", "vqa"} if name == "lxmert" else {"vqa"})}
    assert run.parameters > new_run(name, data).parameters  # there is no head for answers unless it learns them


def test_chosen_objectives(made, sets):
    losses = lambda run: set(run.system.loss(batch_of(run, sets["scenes"])))  # noqa: E731
    run = made("vilbert", objectives=("itm", "itm"))
    assert run.objectives == ("itm",)
    assert losses(run) == {"itm"}
    assert losses(made("uniter", together=True)) == {"mlm", "mrfr", "mrc_kl", "itm", "wra"}
    assert losses(made("vilt", objectives=("mlm",), settings={"dropout": 0.0})) == {"mlm"}


def test_a_run_starts_from_another(made, sets):
    """Weights, configuration and fields are taken over; a head that was not there is new."""
    before = made("vilt", objectives=("mlm",), settings={"width": 32, "mlp_width": 64})
    run = new_run("vilt", sets["scenes"], objectives=("vqa",), start=before, seed=1)
    assert run.system.config == dataclasses.replace(before.system.config, answers=len(ANSWERS))
    own, old = run.system.state_dict(), before.system.state_dict()
    assert all(torch.equal(own[key], value) for key, value in old.items())
    assert {key.partition(".")[0] for key in own.keys() - old.keys()} == {"answer_head"}
    assert run.tokenizer is before.tokenizer
    assert set(run.system.loss(run.collate()(fetch(sets["scenes"], range(4))))) == {"vqa"}


# What cannot be.


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("unitre", {}, r"There is no system 'unitre'; did you mean 'uniter'\? choose from albef, .* in all\)\.$"),
        ("clip", {"preset": "tinny"}, r"no preset 'tinny'; did you mean 'tiny'\?"),
        ("clip", {"stage": "two"}, "^CLIP has no stage 'two'; it has only one: leave stage out"),
        ("uniter", {"objectives": ["wra"]}, r"no objective 'wra' here; choose from mlm, mrm, itm\."),
        ("lxmert", {"objectives": ["vga"]}, r"did you mean 'vqa'\? choose from itm, mlm, mrm, vqa\."),
        ("vilt", {"objectives": []}, r"no objective '' here; choose from itm, mlm, vqa\."),
        ("vilt", {"settings": {"queue_size": 4}}, "^vilt has no setting 'queue_size'; "),
        ("albef", {"settings": {"queue_size": 0}}, "ALBEF needs a queue: queue_size is at least 1, got 0"),
        ("albef", {"settings": {"queue_size": "many"}}, "queue_size is a whole number, not 'many'"),
        ("clip", {"settings": {"image_size": 48}}, "image_size is 32 with this data or part, and cannot be set"),
        ("clip", {"options": {"frames": 4}}, "^clip has no option 'frames': leave it out"),
        ("clip", {"options": {"grounded": True}}, "^clip hides no words here: leave grounded out"),
        ("clip", {"options": {"vocab_size": 100}}, "vocab_size must hold 256 bytes"),
        ("clip", {"options": {"max_length": 2}}, "max_length must leave room"),
        ("clip", {"start": "siglip"}, "^clip cannot start from a run of siglip"),
        ("clip", {"start": "clip", "options": {"vocab_size": 300}}, "starts from decides vocab_size: leave it out"),
        ("clip", {"start": "clip", "settings": {"depth": 1}}, "starts from decides depth: leave it out"),
        ("clip", {"start": "clip", "preset": "ViT-B/32"}, "starts from decides preset: leave it out"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_runs_that_cannot_be(made, sets, name, options, says):
    if "start" in options:
        options = options | {"start": made(options["start"])}
    refused(says, new_run, name, sets["scenes"], **options)


@pytest.mark.parametrize(("name", "smallest"), [("clip", 16), ("vilt", 16), ("albef", 16), ("pixel-bert", 8)])
def test_images_smaller_than_a_patch(name, smallest):
    with pytest.raises(ValueError, match=f"Pictures of {smallest - 1} pixels are smaller than a patch of {smallest}"):
        new_run(name, load("emoji", size=smallest - 1))


@pytest.mark.parametrize("name", system_files())
def test_data_that_lacks_what_a_system_reads(sets, name):
    """It is told in one line, which names what is lacking."""
    empty = [SimpleNamespace()] * 8
    lacks = (
        f"^({name} reads [a-z ()]+, (and these samples have none|which only)|vqa learns from questions with answers)"
    )
    refused(lacks, new_run, name, Listed(empty))
    if any(isinstance(field, Regions | Video) for field in find_recipe(name).reads):
        refused(r"use --data (scenes|talking-lips)", new_run, name, load("emoji", size=16))


def test_questions_come_from_data_that_has_them():
    with pytest.raises(ValueError, match="vqa learns from questions with answers: use --data scenes or --data easy"):
        new_run("vilt", load("emoji", size=32), objectives=("mlm", "vqa"))


def test_too_few_frames_for_the_clusters():
    refused("24 frames are too few for 50 clusters: give more sounds", new_run, "hubert", Tones(1))


def test_settings_are_read_as_json():
    texts = ["a=1", "b=0.5", "c=true", "d=mean", 'e="1"', "f=[1, 2]", "g=x=y"]
    expected = {"a": 1, "b": 0.5, "c": True, "d": "mean", "e": "1", "f": [1, 2], "g": "x=y"}
    assert read_settings(texts) == expected
    for text in ("queue_size", "=3", ""):
        refused("A setting is name=value, such as queue_size=4096; got", read_settings, [text])


def test_a_recipe_says_learns_or_stages():
    recipe = find_recipe("clip")
    assert dataclasses.replace(recipe, architecture="").stages == recipe.stages
    for wrong in ({}, {"learns": (), "stages": (Stage(()),)}):
        with pytest.raises(ValueError, match="The recipe of CLIP says learns or stages, and one of them"):
            Recipe(recipe.system, recipe.config, recipe.reads, **wrong)


def test_a_run_is_immutable(made):
    with pytest.raises(dataclasses.FrozenInstanceError):
        made("clip").name = "siglip"
    refused("Batches of clip have no waveform", made("clip").field, "waveform")
