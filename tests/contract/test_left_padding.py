"""Texts that are padded at their left: told in one line by whoever reads a text at its first token."""

import pytest
import torch
from contract import call, cases, unchecked

from mmlearn.recipes.discovery import find_recipe, system_files

# In all of these the token that is read would be padding.
FIRST = {"albef", "albert", "bert", "blip", "clap", "electra", "lxmert", "pixel-bert", "uniter", "vilbert", "vilt"}
FIRST |= {"blip-2", "data2vec-text", "flava", "multiway", "visual-bert", "vit-bert", "vl-bert", "coca", "git"}
FIRST |= {"align", "ernie-vil", "infoxlm", "kvl-bert", "m3p", "oscar", "std-roberta", "uc2", "vinvl"}
FIRST |= {"vokenization"}
MASKED_ALONE = {"flava", "multiway"}  # which learn masked words in stages of their own, and read no first token there
READING = [name for name in system_files() if "mask" in find_recipe(name).holds()[0]]


def at_the_left(case):
    """The batch with the padding of each text before it."""
    batch, mask = dict(case.batch), case.batch["mask"]
    assert not mask.all()
    for name in ["mask", *(name for name, (its, axis) in case.padded().items() if (its, axis) == ("mask", 1))]:
        rows = zip(batch[name], mask)
        batch[name] = torch.stack([row.roll(int((~real).sum()), 0) for row, real in rows])
    return batch


@pytest.mark.parametrize("name", READING)
def test_texts_padded_at_the_left(name):
    for case in cases(name):
        if "mask" not in case.batch:
            continue
        system, batch = case.settled(), at_the_left(case)
        with unchecked(), torch.no_grad():
            if name in FIRST:
                with pytest.raises(ValueError, match="is padded at its left, and a text is read at its first") as told:
                    call(system, batch)
                assert "\n" not in str(told.value)
                if name in MASKED_ALONE and "pairs" not in {one.name for one in case.task}:
                    continue
                with pytest.raises(ValueError, match="padded at its left"):
                    case.losses(system, batch)
            else:
                assert all(x.isfinite().all() for x in call(system, batch).values())


def test_every_system_that_reads_at_the_first_token_is_there():
    assert set(READING) >= FIRST
