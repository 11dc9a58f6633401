"""ERNIE-ViL: ViLBERT's streams as they are, and three more losses, each of the words of one role alone."""

import pytest
import torch
import torch.nn.functional as F
from batches import read, scenes
from testing_tools import close, shaken

from mmlearn.data import Tokenizer
from mmlearn.data.synthetic.layouts import COLOURS, RELATIONS, SHAPES, SIZES, TEXTURES
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.models.fusion.ernie_vil import ERNIEViL, ERNIEViLConfig
from mmlearn.models.fusion.vilbert import ViLBERT, ViLBERTConfig
from mmlearn.objectives.masked import ROLES
from mmlearn.recipes.ernie_vil import RECIPE
from mmlearn.training.runs import new_run

WORDS = dict(zip(ROLES, (SHAPES, (*SIZES, *TEXTURES, *COLOURS), " ".join(RELATIONS).split())))


def with_roles():
    """A batch of the fusion systems whose tokens are hidden for one role or another, some of them in wrong pairs."""
    batch = scenes()
    position = torch.arange(batch["tokens"].shape[1])
    for k, role in enumerate(ROLES):
        hidden = batch["mask"] & (position % 4 == k + 1) & (batch["token_label"] == -100)
        batch[f"{role}_label"] = torch.where(hidden, batch["tokens"], -100)
    return batch


def test_the_model_and_its_other_losses_are_vilberts():
    model, plain, batch = shaken(ERNIEViL(ERNIEViLConfig.tiny())), ViLBERT(ViLBERTConfig.tiny()).eval(), with_roles()
    plain.load_state_dict(model.state_dict())
    for one, other in zip(read(model, batch), read(plain, batch)):
        assert torch.equal(one, other)
    losses, of_plain = model.loss(batch), plain.loss(batch)
    assert set(losses) == {"mlm", "itm", "mrc_kl", *ROLES}
    assert all(torch.equal(losses[name], value) for name, value in of_plain.items())


@pytest.mark.parametrize("role", ROLES)
def test_a_role_is_a_mean_over_its_hidden_words_beside_their_own_image(role):
    model, batch = shaken(ERNIEViL(ERNIEViLConfig.tiny())), with_roles()
    label = batch[f"{role}_label"].masked_fill(batch["match_label"][:, None] == 0, -100)
    assert (label != batch[f"{role}_label"]).any()
    logits = model.token_logits(read(model, batch).tokens)
    alone = {name: value for name, value in batch.items() if not name.endswith("_label")}
    losses = model.loss(alone | {name: batch[name] for name in (f"{role}_label", "match_label")})
    assert set(losses) == {role, "itm", "mrc_kl"}
    close(losses[role], F.cross_entropy(logits.mT, label))
    matched = model.loss(alone | {f"{role}_label": batch[f"{role}_label"]})
    close(matched[role], F.cross_entropy(logits.mT, batch[f"{role}_label"]))


@pytest.fixture(scope="module")
def run():
    return new_run("ernie-vil", Scenes("train", size=32, length=400))


def test_each_batch_of_a_role_hides_words_of_it_and_shows_all_else(run):
    samples, seen = Scenes("val", size=32).__getitems__(range(20)), set()
    plain, tokenizer = run.plain(samples), run.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    for step in range(40):
        batch = run.collate().at(step)(samples)
        roles = [role for role in ROLES if f"{role}_label" in batch]
        if not roles:
            assert {"token_label", "match_label", "masked_regions"} <= batch.keys()
            seen.add("vilbert's")
            continue
        (role,) = roles
        seen.add(role)
        assert not {"token_label", "match_label", "masked_regions"} & batch.keys()
        assert torch.equal(batch["regions"], plain["regions"])
        label = batch[f"{role}_label"]
        for row, shown, true in zip(label, batch["tokens"], plain["tokens"]):
            words = tokenizer.decode(row[row != -100]).split()
            assert words
            assert set(words) <= set(WORDS[role])
            assert torch.equal(shown[row == -100], true[row == -100])
    assert seen == {"vilbert's", *ROLES}


def test_one_batch_may_serve_all():
    """With --together, where no word is hidden twice."""
    run = new_run("ernie-vil", Scenes("train", size=32, length=400), together=True)
    batch = run.collate()(Scenes("val", size=32).__getitems__(range(20)))
    assert set(run.system.loss(batch)) == {"itm", "mlm", "mrc_kl", *ROLES}
    hidden = torch.stack([batch[name] != -100 for name in ("token_label", *(f"{role}_label" for role in ROLES))])
    assert hidden.any((1, 2)).all()
    assert (hidden.sum(0) <= 1).all()


def test_roles_are_learned_as_often_as_the_rest():
    tasks = RECIPE.stage().tasks()
    assert [[one.name for one in task] for task in tasks] == [["itm", "mlm", "mrm"], *([role] for role in ROLES)]
    assert set(tasks.values()) == {0.25}
