"""OSCAR and VinVL: how regions are read, tags as a second segment, what is guessed, what is told from what."""

import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from batches import read, scenes
from testing_tools import close, refused

from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.models.fusion.oscar import OSCAR, OSCARConfig
from mmlearn.models.fusion.vinvl import VinVL, VinVLConfig
from mmlearn.recipes.discovery import find_recipe
from mmlearn.recipes.vinvl import Answered
from mmlearn.training.runs import new_run

SYSTEMS = {"oscar": (OSCAR, OSCARConfig), "vinvl": (VinVL, VinVLConfig)}
systems = pytest.mark.parametrize("name", SYSTEMS)


def build(name, **changes):
    model, config = SYSTEMS[name]
    torch.manual_seed(0)
    return model(dataclasses.replace(config.tiny(), **changes))


def triples(classes=2, **options):
    """Random texts whose tags begin behind the fifth token, with their regions and all labels of these systems."""
    batch = scenes(**options)
    batch["token_type"] = (torch.arange(12) > 4).long().expand(len(batch["tokens"]), 12)
    batch["polluted"] = torch.arange(len(batch["tokens"])) % classes
    del batch["match_label"], batch["answer"]
    return batch


def norm(x):
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-12).sqrt()


@systems
def test_a_region_is_its_features_and_six_numbers_of_its_box(name):
    model, batch, seen = build(name), triples(), []
    model.transformer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    read(model, batch)
    x, real = seen[0]
    assert x.shape == (6, 12 + 9, 64)
    assert torch.equal(real, torch.cat([batch["mask"], batch["region_mask"]], 1))
    close(x[:, :12][batch["mask"]], model.embedding(batch["tokens"], batch["token_type"])[batch["mask"]])
    x1, y1, x2, y2 = batch["boxes"][2, 0].tolist()
    position = torch.tensor([x1, y1, x2, y2, x2 - x1, y2 - y1])
    v = model.region_projection.weight @ torch.cat([batch["regions"][2, 0], position]) + model.region_projection.bias
    close(x[2, 12], norm(v) if name == "vinvl" else v)


@systems
def test_tags_are_told_from_words(name):
    model, batch = build(name), triples()
    with_types, without = read(model, batch), read(model, batch | {"token_type": torch.zeros_like(batch["tokens"])})
    assert not torch.allclose(with_types.tokens, without.tokens, atol=1e-3)


@systems
def test_a_text_may_have_no_tags(name):
    """Then it is one segment, with or without types, and only what it has labels for is learned."""
    model, batch = build(name), triples()
    del batch["polluted"]
    types = batch.pop("token_type")
    assert torch.equal(read(model, batch).tokens, read(model, batch | {"token_type": torch.zeros_like(types)}).tokens)
    assert list(model.loss(batch)) == ["mlm"]


@pytest.mark.parametrize(("name", "chance"), [("oscar", math.log(2)), ("vinvl", math.log(3))])
def test_losses_start_at_what_nothing_known_costs(name, chance):
    losses = []
    for seed in range(10):
        torch.manual_seed(seed)
        model, config = SYSTEMS[name]
        model = model(dataclasses.replace(config.tiny(), initial_std=0.02))
        losses.append(model.loss(triples(1 + len(model.POLLUTED), seed=seed)))
    start = {key: sum(loss[key].item() for loss in losses) / 10 for key in losses[0]}
    assert start == {"mlm": pytest.approx(math.log(512), abs=0.05), "contrastive": pytest.approx(chance, abs=0.05)}


@systems
@pytest.mark.parametrize("segment", [0, 1])
def test_words_alone_or_tags_alone_are_guessed(name, segment):
    """Of all hidden tokens those of one segment, against a cross-entropy by hand; in polluted triples as well."""
    model, batch = build(name), triples()
    label = batch["token_label"].masked_fill(batch["token_type"] != segment, -100)
    asked = label != -100
    assert asked[batch["polluted"] == 1].any()
    logits = model.token_logits(read(model, batch).tokens[asked])
    close(model.loss(batch | {"token_label": label})["mlm"], F.cross_entropy(logits, label[asked]))


@systems
def test_the_first_token_tells_what_is_polluted(name):
    model = build(name)
    batch = triples(1 + len(model.POLLUTED))
    logits = model.contrast_head(read(model, batch).pooled)
    assert logits.shape == (6, {"oscar": 2, "vinvl": 3}[name])
    close(model.loss(batch)["contrastive"], F.cross_entropy(logits, batch["polluted"]))
    refused("0 for a whole triple", model.loss, batch | {"polluted": torch.full((6,), 3)})


@systems
def test_heads_are_built_for_objectives(name):
    assert build(name, objectives=()).contrast_head is build(name, objectives=("mlm",)).contrast_head is None
    assert list(build(name, objectives=("contrastive",)).loss(triples())) == ["contrastive"]
    refused("learns mlm, contrastive, not itm", build, name, objectives=("itm",))


# What the recipe makes of scenes.


@pytest.fixture(scope="module", params=SYSTEMS)
def run(request):
    return new_run(request.param, Scenes(size=24, length=60))


def texts(run, batch):
    """The words and the tags of each row, with nothing hidden."""
    tokens = batch["tokens"].where(batch["token_label"] == -100, batch["token_label"])
    rows = zip(tokens, batch["token_type"], batch["mask"])
    return [tuple(run.tokenizer.decode(row[real & (kind == k)]) for k in (0, 1)) for row, kind, real in rows]


def test_no_image_is_polluted_by_itself(run):
    """Captions are hidden in part and polluted in the same batch, and regions stay those of the picture."""
    samples, collate = Scenes(size=24).__getitems__(range(16)), run.collate(seed=3)
    batch = (collate.collates[0] if hasattr(collate, "collates") else collate)(samples)
    own = [(one.caption, " ".join(f"{item.colour} {item.shape}" for item in one.objects)) for one in samples]
    shares = batch["polluted"].bincount().tolist()
    assert shares == ([8, 4, 4] if run.name == "vinvl" else [8, 8])
    for k, (words, tags), (caption, names) in zip(batch["polluted"].tolist(), texts(run, batch), own):
        assert (words != caption) == (k == 2)
        assert (tags != names) == (k == 1)
    assert torch.equal(batch["regions"], run.plain(samples)["regions"])
    assert (batch["token_type"][batch["token_label"] != -100]).unique().tolist() == [0, 1]


def test_vinvl_also_learns_from_questions_with_their_answers():
    run, samples = new_run("vinvl", Scenes(size=24, length=60)), Scenes(size=24).__getitems__(range(16))
    batch = run.collate(seed=3).collates[1](samples)
    assert batch["polluted"].bincount().tolist() == [8, 4, 4]
    questions = {sample.question.text: sample.question.answer for sample in samples}
    for k, (words, tags), sample in zip(batch["polluted"].tolist(), texts(run, batch), samples):
        assert words in questions
        assert tags in questions.values()
        assert (words != sample.question.text) == (k == 2)
        assert (tags != sample.question.answer) == (k == 1)
    assert Answered(samples[0]).tags == samples[0].question.answer
    assert len(find_recipe("vinvl").stage().tasks()) == 2
