"""How systems that read picture and text together are fed, kept and measured."""

import dataclasses
import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from mmlearn.training.feeding import FEEDS, HEARS, PAIRED, PIXELS, check_data, choose_objectives
from testing_tools import HEARING
from torch import nn
from torch.nn import functional as F

from mmlearn.data import fetch, load
from mmlearn.data.batches import PairCollate
from mmlearn.data.made.questions import ANSWERS
from mmlearn.models import SYSTEMS
from mmlearn.models import system as find_system
from mmlearn.training import fit, measure
from mmlearn.training.checkpoint import save_model
from mmlearn.training.runs import Run, load_run, new_run, save_run

# Name → what a batch teaches, or what each batch may.
LOSSES = {
    "uniter": [{"mlm"}, {"mrfr", "mrc_kl"}, {"itm", "wra"}],
    "vl-bert": [{"mlm", "mrc"}],
    "visual-bert": [{"mlm", "itm"}],
    "vilt": [{"mlm", "itm", "wra"}],
    "pixel-bert": [{"mlm", "itm"}],
    "vilbert": [{"mlm", "mrc_kl", "itm"}],
    "lxmert": [{"mlm", "mrfr", "mrc", "itm"}],
    "albef": [{"itc", "itm", "mlm"}],
    "blip": [{"itc", "itm", "lm"}],
}
OPTIONS = {"albef": {"queue_size": 40}, "blip": {"queue_size": 40}}


@pytest.fixture(scope="module")
def scenes():
    return load("scenes", "val", size=32, length=60)


@pytest.fixture(scope="module")
def made(scenes):
    """A new run of each system, made once."""
    known = {}

    def make(name, **options):
        key = (name, *sorted(options.items()))
        if key not in known:
            known[key] = new_run(name, scenes, vocab_size=270, **OPTIONS.get(name, {}) | options)
        return known[key]

    return make


def test_all_systems_that_learn_from_pairs_are_fed():
    assert set(FEEDS) == set(SYSTEMS) - {"bert", "vit"} - HEARING | set(HEARS)
    assert set(FEEDS) == {*LOSSES, *PAIRED, *HEARS}
    assert set(HEARS) <= HEARING
    assert set(PIXELS) == {"albef", "blip", "pixel-bert", "vilt"}


@pytest.mark.parametrize("name", LOSSES)
def test_each_learns_what_its_paper_has(made, scenes, name):
    """One objective a batch or all, and no head that no batch trains."""
    run, seen, learned = made(name), [], set()
    collate = run.collate(mark_repeats=True)
    for start in range(0, 8 if made(name).together else 60, 4):
        run.system.zero_grad()
        losses = run.system.loss(collate(fetch(scenes, range(start, start + 4))))
        sum(losses.values()).backward()
        learned |= {key for key, value in run.system.named_parameters() if value.grad is not None}
        assert all(value.isfinite() for value in losses.values())
        seen.append(set(losses))
    assert {frozenset(one) for one in seen} == {frozenset(one) for one in LOSSES[name]}
    assert learned == {key for key, value in run.system.named_parameters() if value.requires_grad}


@pytest.mark.parametrize("name", LOSSES)
def test_a_new_run_fits_its_data(made, scenes, name):
    run = made(name)
    config = run.system.config
    _, mask = run.tokenizer([sample.caption for sample in fetch(scenes, range(60))])
    assert (config.vocab_size, config.max_length) == (run.tokenizer.vocab_size, int(mask.sum(1).max()))
    picture = getattr(config, "image", config)
    assert getattr(picture, "image_size", 32) == run.image_size == 32
    if FEEDS[name].regions:
        assert (run.mean, run.std) == ([0] * 3, [1] * 3)
    else:
        image = run.collate()(fetch(scenes, range(60)))["image"]
        assert image.mean().abs() < 0.05
    for token in ("pad_token", "end_token"):
        assert getattr(config, token, getattr(run.tokenizer, token)) == getattr(run.tokenizer, token)


@pytest.mark.parametrize("name", [name for name, feed in FEEDS.items() if feed.regions])
def test_regions_are_as_wide_as_the_detector_has_them(scenes, monkeypatch, name):
    """Whatever the preset has, as the published ones for a detector of photos do."""
    _, config = find_system(name)
    other = config.PRESETS["tiny"] | {"region_width": 7, "region_classes": 3}
    other |= {"region_attributes": 5} if hasattr(config, "region_attributes") else {}
    monkeypatch.setitem(config.PRESETS, "other", other)
    run = new_run(name, scenes, preset="other", vocab_size=270)
    run.system.loss(run.collate()(fetch(scenes, range(4))))
    assert run.system.config.region_classes == 144
    assert getattr(run.system.config, "region_attributes", 0) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_there_and_back(made, scenes, tmp_path, name):
    run = made(name)
    save_run(run, tmp_path, training={})
    save_model(run.system, tmp_path / "model.safetensors")
    back = load_run(tmp_path)
    assert json.dumps(back.to_dict()) == json.dumps(run.to_dict())
    for field in dataclasses.fields(Run):
        if field.name not in ("system", "tokenizer"):
            assert getattr(back, field.name) == getattr(run, field.name), field.name
    assert back.system.config == run.system.config
    samples = fetch(scenes, range(6))
    batch, again = run.collate(seed=3)(samples), back.collate(seed=3)(samples)
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    losses = [{key: value.item() for key, value in one.system.eval().loss(batch).items()} for one in (run, back)]
    run.system.train()
    assert losses[0] == losses[1]


class Stop(Exception):
    """Ends a run after a step."""


@pytest.mark.parametrize("name", ["uniter", "pixel-bert", "albef", "blip"])  # a draw, samples, averages and queues
def test_a_resumed_run_equals_one_that_was_never_stopped(scenes, tmp_path, name):
    def train(folder, seed, stop=None, **options):
        def on_step(step, metrics):
            if step == stop:
                raise Stop

        run = new_run(name, scenes, vocab_size=270, seed=seed, **OPTIONS.get(name, {}))
        settings = dict(steps=4, batch_size=6, warmup=1, checkpoint_every=2, optimizer="muon", progress=False)
        collate = run.collate(mark_repeats=True, seed=1)
        fit(run.system, scenes, collate, output=folder, on_step=on_step, **settings | options)
        return run.system.state_dict()

    whole = train(tmp_path / "whole", 0)
    with pytest.raises(Stop):
        train(tmp_path / "stopped", 0, stop=3)
    resumed = train(tmp_path / "stopped", 5, resume=True)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


# What a batch holds.


def test_repeated_captions_are_numbered_where_pairs_are_compared(made, scenes):
    samples = fetch(scenes, range(4))
    for name in ("albef", "blip", "clip"):
        assert "caption_id" in made(name).collate(mark_repeats=True)(samples)
        assert "caption_id" not in made(name).collate()(samples)
    assert "caption_id" not in made("vilt").collate(mark_repeats=True)(samples)
    assert isinstance(made("blip").collate(), PairCollate)


def test_a_seed_decides_what_is_masked(made, scenes):
    samples = fetch(scenes, range(8))
    one, again, other = (made("vilbert").collate(seed=seed)(samples)["token_label"] for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_vilt_hides_whole_words(made):
    assert made("vilt").collate().whole_words
    assert not made("pixel-bert").collate().whole_words


@pytest.mark.parametrize("name", ["vilt", "albef", "blip", "clip"])
def test_augmented_pictures(made, scenes, name):
    """Pictures differ, words do not; and a batch is a function of its samples."""
    samples = fetch(scenes, range(4))
    plain, collate = made(name).collate()(samples), made(name).collate(augmented=True)
    moved, again = collate(samples), pickle.loads(pickle.dumps(collate))(samples)
    assert moved.keys() == plain.keys()
    assert {key for key in plain if not torch.equal(plain[key], moved[key])} == {"image"}
    assert torch.equal(moved["image"], again["image"])


@pytest.mark.parametrize("name", ["lxmert", "vilt", "pixel-bert"])
def test_questions_where_they_are_asked_for(scenes, name):
    run = new_run(name, scenes, vocab_size=400, objectives=("mlm", "vqa"))
    assert run.system.config.answers == len(ANSWERS)
    assert run.learned == {"mlm", "vqa"}
    texts = [text for scene in fetch(scenes, range(60)) for text in (scene.caption, scene.question.text)]
    assert int(run.tokenizer(texts)[1].sum(1).max()) == run.tokenizer.max_length
    assert all(run.tokenizer.decode(tokens) == text for tokens, text in zip(run.tokenizer(texts)[0], texts))
    seen = {frozenset(run.system.loss(run.collate(seed=k)(fetch(scenes, range(6))))) for k in range(6)}
    # Pixel-BERT and ViLT learn both from a masked question as LXMERT does, or words from a caption.
    assert seen == {frozenset({"mlm"}), frozenset({"mlm", "vqa"})}


def test_chosen_objectives(made, scenes):
    run = made("vilbert", objectives=("itm", "itm"))
    assert run.objectives == ("itm",)
    assert set(run.system.loss(run.collate()(fetch(scenes, range(6))))) == {"itm"}
    run = made("uniter", together=True)
    assert set(run.system.loss(run.collate()(fetch(scenes, range(6))))) == set().union(*LOSSES["uniter"])


# What cannot be.


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("unitre", {}, r"is no system that trains .* did you mean 'uniter'\? choose from albef, .*, wav2vec2\.$"),
        ("uniter", {"objectives": ["wra"]}, r"uniter cannot learn 'wra'; choose from mlm, mrm, itm\."),
        ("vl-bert", {"objectives": ["mlm", "itm"]}, r"vl-bert cannot learn 'itm'; choose from mlm, mrm\."),
        ("lxmert", {"objectives": ["vga"]}, r"did you mean 'vqa'\? choose from mlm, mrm, itm, vqa\."),
        ("vilt", {"objectives": []}, r"cannot learn ''; choose from mlm, itm, vqa"),
        ("clip", {"objectives": ["itc"]}, "clip learns itc, and there is nothing to choose: leave objectives out"),
        ("vilt", {"queue_size": 4}, "vilt has no queue: leave queue_size out"),
        ("albef", {"queue_size": 0}, "ALBEF needs a queue: queue_size is at least 1, got 0"),
    ],
)
def test_runs_that_cannot_be(scenes, name, options, says):
    with pytest.raises(ValueError, match=says):
        new_run(name, scenes, vocab_size=270, **options)


@pytest.mark.parametrize(("name", "smallest"), [("vilt", 16), ("albef", 16), ("pixel-bert", 8)])
def test_pictures_smaller_than_a_patch(name, smallest):
    with pytest.raises(ValueError, match=f"Pictures of {smallest - 1} pixels are smaller than a patch of {smallest}"):
        new_run(name, load("emoji", size=smallest - 1), vocab_size=270)


def test_regions_and_questions_come_from_scenes_alone(scenes):
    other, scene = load("emoji", size=16)[0], scenes[0]
    for name in set(FEEDS) - set(HEARS):
        check_data(name, ("vqa",), scene)
        says = f"{name} reads regions, .* use --data scenes, or take albef, blip, pixel-bert or vilt, which read pixels"
        if FEEDS[name].regions:
            with pytest.raises(ValueError, match=says):
                check_data(name, (), other)
        else:
            check_data(name, ("mlm", "itm"), other)
    with pytest.raises(ValueError, match="vqa learns from questions with answers: use --data scenes or --data easy"):
        check_data("vilt", ("mlm", "vqa"), other)
    check_data("vilt", ("mlm", "vqa"), SimpleNamespace(question="what shape is it?", image=other.image))  # easy-vqa's
    with pytest.raises(ValueError, match="uniter reads regions"):
        new_run("uniter", load("emoji", size=16))


def test_several_processes_learn_the_same(made):
    for name in LOSSES:
        made(name).check_processes(1)
        if name != "uniter":
            made(name).check_processes(2)
    made("uniter", together=True).check_processes(2)
    made("vilt", objectives=("itm", "mlm")).check_processes(2)  # all, in another order
    for run in (made("uniter"), made("vilbert", objectives=("itm", "itm"))):
        says = f"In several processes {run.name} learns mlm, mrm, itm in every batch: add --together, and leave --obj"
        with pytest.raises(ValueError, match=says):
            run.check_processes(2)


def test_regions_are_not_augmented(made):
    with pytest.raises(ValueError, match="uniter reads regions, and augmentation changes pictures: leave augment out"):
        made("uniter").collate(augmented=True)


def test_a_queue_larger_than_the_data(scenes):
    run = new_run("albef", scenes, vocab_size=270)
    with pytest.raises(ValueError, match="set queue_size to at most 60"):
        fit(run.system, scenes, run.collate(), steps=1, batch_size=6, progress=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"objectives": ["mlm", "vga"]}, "vilt cannot learn 'vga'"),
        ({"objectives": 3}, "not iterable"),
        ({"image_size": 0}, "image_size is at least 1, not 0"),
        ({"image_size": None}, "damaged"),
    ],
)
def test_a_config_that_cannot_be(made, unchecked, tmp_path, change, says):
    save_run(made("vilt"), tmp_path, **change)
    save_model(made("vilt").system, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=says) as caught:
        load_run(tmp_path)
    assert "config.json" in str(caught.value)


# What is measured.


class Knows(nn.Module):
    """Knows by its picture which text each sample has, or takes the picture for that of ``shift`` samples before."""

    def __init__(self, run, samples, shift=0):
        super().__init__()
        self.config, self.ahead = run.system.config, 0
        self.unused = nn.Parameter(torch.zeros(1))
        texts, _ = run.tokenizer([sample.caption for sample in samples])
        self.texts = texts.roll(shift, 0)
        self.answers = torch.tensor([ANSWERS.index(sample.question.answer) for sample in samples]).roll(shift, 0)
        self.number = {one.sum().item(): i for i, one in enumerate(run.pairs()(samples)["image"])}
        self.vocab_size = run.tokenizer.vocab_size

    def forward(self, tokens, image, mask=None):
        assert not self.training
        number = torch.tensor([self.number[one.sum().item()] for one in image])
        text = self.texts[number]
        true = (tokens == text).all(1).long()
        token_logits = F.one_hot(text.roll(-self.ahead, 1), self.vocab_size).float()
        answer_logits = F.one_hot(self.answers[number], len(ANSWERS)).float()
        return dataclasses.make_dataclass("Output", ["match_logits", "token_logits", "answer_logits"])(
            F.one_hot(true, 2).float(), token_logits, answer_logits
        )

    def match(self, image, tokens, mask):
        return self(tokens, image).match_logits

    def encode_image(self, image):
        return torch.ones(len(image), 4) / 2

    def encode_text(self, tokens, mask):
        return torch.ones(len(tokens), 4) / 2


def knowing(run, samples, **options):
    return dataclasses.replace(run, system=Knows(run, samples, **options))


@pytest.fixture
def samples(scenes):
    return fetch(scenes, range(15))


def test_matching(made, samples):
    run = knowing(made("vilt"), samples)
    rows = measure.matching_measures(run, samples)
    assert [row["obtained"] for row in rows.values()] == [1, 1, 1]
    assert [row["chance"] for row in rows.values()] == [0.5] * 3
    assert run.system.training  # as it was
    rows = measure.matching_measures(knowing(made("vilt"), samples, shift=1), samples)  # finds no pair true
    assert rows["matching accuracy"]["obtained"] == pytest.approx(7 / 15, abs=0.1)
    assert rows["matching accuracy, true pairs"]["obtained"] == 0
    assert rows["matching accuracy, wrong pairs"]["obtained"] >= 6 / 7
    with pytest.raises(ValueError, match="Matching needs at least two different captions, and these pictures have one"):
        measure.matching_measures(run, [samples[0]] * 3)


def test_masked_words(made, samples):
    run = knowing(made("vilt"), samples)
    rows = measure.masked_word_measures(run, samples)
    own, other = rows["masked-word accuracy"], rows["masked-word accuracy, another picture"]
    assert own["obtained"] == 1
    assert other["obtained"] < 0.7
    label = run.labelled("mlm")(samples)["token_label"]
    label = label[label != -100].tolist()
    assert own["chance"] == other["chance"] == pytest.approx(max(map(label.count, label)) / len(label))
    rows = measure.masked_word_measures(knowing(made("vilt"), samples, shift=-1), samples)
    assert rows["masked-word accuracy, another picture"]["obtained"] == 1  # the next pair's


def test_next_words(made, samples):
    run = knowing(made("blip"), samples)
    run.system.ahead = 1
    rows = measure.next_word_measures(run, samples)
    assert rows["next-word accuracy"]["obtained"] == 1
    tokens, mask = run.tokenizer([sample.caption for sample in samples])
    tokens = tokens[:, 1:][mask[:, 1:]].tolist()
    assert rows["next-word accuracy"]["chance"] == pytest.approx(max(map(tokens.count, tokens)) / len(tokens))
    run.system.ahead = 0
    assert measure.next_word_measures(run, samples)["next-word accuracy"]["obtained"] < 0.3


def test_answers(made, samples):
    run = made("vilt", objectives=("vqa",))
    rows = measure.answer_measures(knowing(run, samples), samples)
    row = rows["answer accuracy"]
    assert row["obtained"] == 1
    assert 0.1 < row["chance"] < 1
    kinds = [sample.question.kind for sample in samples]
    assert set(rows) - {f"answer accuracy, {kind}" for kind in kinds} == {
        "answer accuracy",
        "answer accuracy, another picture",
    }
    shares = [rows[f"answer accuracy, {kind}"]["chance"] for kind in kinds]
    assert row["chance"] == pytest.approx(sum(shares) / len(kinds))
    assert all(rows[f"answer accuracy, {kind}"]["obtained"] == 1 for kind in kinds)
    assert rows["answer accuracy, another picture"]["obtained"] < 1
    row = measure.answer_measures(knowing(run, samples, shift=1), samples)["answer accuracy"]
    answers = [sample.question.answer for sample in samples]
    assert row["obtained"] == pytest.approx(sum(a == b for a, b in zip(answers, answers[-1:] + answers)) / 15)


def test_another_picture_is_not_that_of_a_neighbour(made, samples):
    """Where several questions in a row are asked about one picture."""
    rows = measure.answer_measures(
        knowing(made("vilt", objectives=("vqa",)), samples), [one for one in samples for _ in range(2)]
    )
    assert rows["answer accuracy"]["obtained"] == 1
    assert rows["answer accuracy, another picture"]["obtained"] < 0.5


def test_ranking_again(made, samples):
    """Vectors that are all alike find nothing; a close look finds everything, in any number of pictures and texts."""
    other = dataclasses.replace(samples[0], image=samples[0].image * 0.9)  # another picture with the same caption
    samples = [samples[1], *samples, other]  # and one of them is there twice
    rows = measure.retrieval_measures(knowing(made("albef"), samples), samples)
    for name in ("image to text R@1 of 15", "text to image R@1 of 16"):
        assert rows[name]["obtained"] == pytest.approx(1 / 15)
        assert rows[f"{name}, re-ranked"]["obtained"] == 1
    assert rows["text to image median rank, re-ranked"]["obtained"] == 1


EXPECTED = {name: {"matching accuracy", "masked-word accuracy"} for name in LOSSES}
EXPECTED["vl-bert"] = {"masked-word accuracy"}
EXPECTED["blip"] = {"matching accuracy", "next-word accuracy", "image to text R@1 of 20, re-ranked"}
EXPECTED["albef"] |= {"image to text R@1 of 20, re-ranked", "image to text R@1 of 20"}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_is_measured_of_each_system(made, name):
    """An untrained one is near chance."""
    rows = measure.measure(made(name), "scenes", limit=20)
    heads = {"matching accuracy", "masked-word accuracy", "next-word accuracy", "answer accuracy"}
    assert (heads | EXPECTED[name]) & set(rows) == EXPECTED[name]
    assert all(0 <= row["obtained"] <= 0.75 for key, row in rows.items() if "accuracy" in key and "pairs" not in key)
    assert any("re-ranked" in key for key in rows) == (name in ("albef", "blip"))


def test_systems_that_read_both_together_see_fewer_pairs(made, monkeypatch):
    monkeypatch.setattr(measure, "FUSED", 5)
    assert "text to image R@1 of 5, re-ranked" in measure.measure(made("albef"), "scenes", limit=9)
    assert "text to image R@1 of 9" in measure.measure(made("clip"), "scenes", limit=9)
    assert "text to image R@1 of 4" in measure.measure(made("albef"), "scenes", limit=4)


def test_pictures_are_as_large_as_in_training(made, monkeypatch):
    seen = []
    monkeypatch.setattr(measure, "load", lambda *_, size, **options: seen.append(size) or load(*_, size=size))
    for name in ("vilt", "vilbert", "albef", "lit"):
        measure.measure(made(name), "scenes", limit=2)
    assert seen == [32] * 4


def test_measuring_other_data(made):
    assert "matching accuracy" in measure.measure(made("vilt"), "emoji", limit=8)
    with pytest.raises(ValueError, match="uniter reads regions, which only scenes has"):
        measure.measure(made("uniter"), "emoji", limit=8)
    run = made("vilt", objectives=("itm", "vqa"))
    assert "answer accuracy" in measure.measure(run, "scenes", limit=8)
    assert not any("answer" in key for key in measure.measure(run, "emoji", limit=8))
    with pytest.raises(ValueError, match="vqa learns from questions with answers"):
        measure.measure(made("vilt", objectives=("vqa",)), "emoji", limit=8)


def test_what_has_no_measure_is_told(made):
    says = "^{} learned mrm, which has no measure: train it on {} as well.$"
    for name, others in (("uniter", "mlm or itm"), ("vl-bert", "mlm")):
        with pytest.raises(ValueError, match=says.format(name, others)):
            measure.measure(made(name, objectives=("mrm",)), "scenes", limit=4)


def test_objectives_are_a_plain_choice(made):
    config = made("lxmert").system.config
    assert choose_objectives("lxmert", config) == ("mlm", "mrm", "itm")
    assert choose_objectives("lxmert", config, ["vqa", "mlm"]) == ("vqa", "mlm")
