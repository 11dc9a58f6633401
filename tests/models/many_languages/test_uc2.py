"""UC2 reads as UNITER does; VTLM guesses words of two languages beside a picture; regions are named by words."""

import dataclasses

import torch
import torch.nn.functional as F
from batches import OF_REGIONS, read, scenes
from testing_tools import close, seeded, shaken

from mmlearn.models.fusion.uniter import UNITER, UNITERConfig
from mmlearn.models.many_languages.uc2 import UC2, UC2Config
from mmlearn.recipes.uc2 import RECIPE

NAMES = tuple(4 + k // 12 for k in range(144))  # twelve classes have one name


def built():
    return shaken(UC2(dataclasses.replace(UC2Config.tiny(), class_tokens=NAMES)).eval())


def in_two_languages():
    batch, generator = scenes(), seeded(5)
    other = torch.randint(4, 500, (6, 9), generator=generator)
    real = torch.arange(9) < 9 - torch.arange(6)[:, None]
    hidden = (torch.arange(9) % 4 == 2) & real
    del batch["match_label"], batch["masked_regions"]
    texts = {"translation": other.masked_fill(hidden, 3), "translation_mask": real}
    return batch | texts | {"translation_label": other.masked_fill(~hidden, -100)}


def test_words_and_regions_are_read_as_by_uniter():
    model, batch = built(), scenes()
    uniter = UNITER(dataclasses.replace(UNITERConfig.tiny(), objectives=("mlm", "itm"), max_length=64)).eval()
    assert model.state_dict().keys() == uniter.state_dict().keys()  # class_tokens stand in the configuration
    uniter.load_state_dict(model.state_dict())
    for one, other in zip(read(model, batch), read(uniter, batch), strict=True):
        close(one, other)
    del batch["region_classes"], batch["region_target"]
    for name, loss in model.loss(batch).items():
        close(loss, uniter.loss(batch)[name])


def test_vtlm_guesses_the_words_of_both_languages_from_both_and_the_image():
    model, batch = built(), in_two_languages()
    total, count = 0.0, 0
    for i in range(6):
        real, other = batch["mask"][i], batch["translation_mask"][i]
        row = torch.cat([batch["tokens"][i][real], batch["translation"][i][other][1:]])[None]
        label = torch.cat([batch["token_label"][i][real], batch["translation_label"][i][other][1:]])
        given = {name: batch[name][i : i + 1] for name in OF_REGIONS if name in batch} | {"tokens": row}
        logits = model.token_logits(model(**given | {"mask": torch.ones_like(row, dtype=torch.bool)}).tokens[0])
        total, count = total + F.cross_entropy(logits, label, reduction="sum"), count + (label != -100).sum()
    losses = model.loss(batch)
    assert losses.keys() == {"vtlm"}
    close(losses["vtlm"], total / count)
    for name in ("regions", "translation"):
        assert abs(model.loss(batch | {name: batch[name].flip(0)})["vtlm"] - losses["vtlm"]) > 1e-4


def test_without_a_translation_vtlm_is_mlm():
    model, batch = built(), in_two_languages()
    alone = model.loss(batch | {"translation_mask": batch["translation_mask"] & False})["vtlm"]
    close(alone, model.loss({key: x for key, x in batch.items() if key != "translation_label"})["mlm"])


def test_hidden_regions_of_true_pairs_are_named_by_the_head_of_words():
    model, batch = built(), scenes()
    hidden = batch["masked_regions"] & (batch["match_label"] == 1)[:, None]
    logits = model.token_logits(read(model, batch).regions[hidden])
    names = torch.tensor(NAMES)[batch["region_classes"][hidden].argmax(-1)]
    losses = model.loss(batch)
    assert losses.keys() == {"mlm", "itm", "mrtm"}
    close(losses["mrtm"], F.cross_entropy(logits, names))
    junk = torch.where(batch["masked_regions"][..., None], 7.0, batch["regions"])
    close(model.loss(batch | {"regions": junk})["mrtm"], losses["mrtm"])
    model.zero_grad()
    losses["mrtm"].backward()
    assert model.embedding.tokens.weight.grad[4:16].any()
    assert model.masked_region.grad.any()


def test_each_task_has_its_share_and_either_language():
    shares = {task[0].name: share for task, share in RECIPE.stage().tasks().items()}
    assert shares == {"mlm": 12 / 33, "mrtm": 9 / 33, "itm": 9 / 33, "vtlm": 3 / 33}
    batches = dict(zip(shares, RECIPE.examples(RECIPE.tiny())))
    whole = next(RECIPE.examples(RECIPE.tiny()))["translation"]
    assert {name for name, batch in batches.items() if "translation_label" in batch} == {"vtlm"}
    assert torch.equal(batches["mrtm"]["translation"], batches["vtlm"]["translation"]) is False
    assert not torch.equal(batches["itm"]["translation"], batches["mrtm"]["translation"])  # half are exchanged
    assert whole.shape == batches["itm"]["translation"].shape
