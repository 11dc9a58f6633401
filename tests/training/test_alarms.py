"""What a recipe wants told is told once, in one line, and only after so many steps on end."""

import warnings

import pytest
import torch
from killable import Numbers, collate
from testing_tools import fit
from torch import nn

from mmlearn.recipes import Alarm, OptimizerStep
from mmlearn.training.log import Alarms

ALARM = Alarm("the judge has won", below={"judge": 0.1}, above={"maker": 4.0}, steps=3)
TURNS = (OptimizerStep("judge_loss", alarm=ALARM), OptimizerStep("maker_loss"))
BAD, GOOD = (0.05, 9.0), (0.7, 0.7)


class Scripted(nn.Module):
    """Two turns, whose losses are those of a list, step by step."""

    def __init__(self, losses):
        super().__init__()
        self.weight, self.losses, self.step = nn.Parameter(torch.zeros(())), losses, 0

    def judge_loss(self, batch):
        return {"judge": self.losses[self.step][0] + 0 * self.weight}

    def maker_loss(self, batch):
        return {"maker": self.losses[self.step][1] + 0 * self.weight}

    def after_step(self):
        self.step += 1


def told(losses, optimizer_steps=TURNS, **options):
    """All lines that a training with these losses tells."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        how = dict(steps=len(losses), batch_size=4, warmup=0, progress=False) | options
        fit(Scripted(losses), Numbers(), collate, optimizer_steps=optimizer_steps, **how)
    return [str(one.message) for one in caught]


def test_it_is_told_once_where_both_losses_stay_beyond_their_bounds():
    line = "step 5: the judge has won (judge 0.05, maker 9, and so for 3 steps)"
    assert told([GOOD, GOOD, *[BAD] * 9]) == [line]
    assert told([GOOD, GOOD, *[BAD] * 3, GOOD, *[BAD] * 5], log_every=4) == [line]


@pytest.mark.parametrize("other", [GOOD, (0.05, 0.7), (0.7, 9.0), (0.1, 9.0), (0.05, 4.0)])
def test_a_step_between_bounds_begins_the_count_anew(other):
    assert told([BAD, BAD, other] * 4) == []


def test_without_an_alarm_nothing_is_told():
    assert told([BAD] * 9, optimizer_steps=(OptimizerStep("judge_loss"), OptimizerStep("maker_loss"))) == []


def test_losses_that_a_step_does_not_have_are_not_beyond_their_bounds():
    assert not ALARM.holds({"judge": 0.0})
    assert not ALARM.holds({"maker": 9.0})
    assert not ALARM.holds({"judge": float("nan"), "maker": 9.0})
    assert ALARM.holds({"judge": 0.0, "maker": 9.0, "loss": 9.0})


def test_each_alarm_is_told_by_itself():
    alarms = Alarms([*TURNS, OptimizerStep(alarm=Alarm("up", above={"maker": 8.0}, steps=1))])
    with pytest.warns(UserWarning, match=r"^step 1: up \(maker 9, and so for 1 steps\)$"):
        alarms(1, {"judge": 0.05, "maker": 9.0})
    alarms(2, {"judge": 0.05, "maker": 9.0})
    with pytest.warns(UserWarning, match="^step 3: the judge has won"):
        alarms(3, {"judge": 0.05, "maker": 9.0})
