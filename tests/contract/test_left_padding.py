"""Texts that are padded at their left: refused in one line, or read so that what the padding holds changes nothing.

A system that reads a text at its first token would read padding, and has to refuse.
"""

from dataclasses import replace

import pytest
import torch
from contract import call, cases, unchecked, with_other_padding

from mmlearn.recipes.discovery import find_recipe, system_files

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
        system, case = case.settled(), replace(case, batch=at_the_left(case))
        with unchecked(), torch.no_grad():
            told = refusal(case, system)
            if told is None:
                losses = case.losses(system)
                assert losses == case.losses(system, with_other_padding(case))
                assert all(x.isfinite().all() for x in call(system, case.batch).values())
            else:
                assert "is padded at its left, and a text is read at its first" in told
                assert "\n" not in told


def refusal(case, system):
    """What a system says where it refuses the batch, or None."""
    try:
        case.losses(system)
    except ValueError as error:
        return str(error)
    return None
