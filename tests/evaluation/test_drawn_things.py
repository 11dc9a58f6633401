"""The judge of drawn things: it learns, and counts colour, noun and both."""

import torch
from testing_tools import refused

from mmlearn.evaluation.drawn_things import Right, ThingJudge, judge_things


def test_it_learns_from_a_few_pictures():
    torch.manual_seed(0)
    judge = ThingJudge(16, width=4)
    batch = {"image": torch.rand(8, 3, 16, 16) * 2 - 1, "colour": torch.arange(8) % 6, "noun": torch.arange(8) % 7}
    optimizer = torch.optim.Adam(judge.parameters(), 1e-2)
    before = sum(judge.loss(batch).values()).item()
    for _ in range(60):
        optimizer.zero_grad()
        sum(judge.loss(batch).values()).backward()
        optimizer.step()
    assert sum(judge.eval().loss(batch).values()).item() < before / 2
    right = judge_things(judge, batch["image"], batch["colour"], batch["noun"])
    assert right.shares()["both"] > 0.5
    refused("30 pixels cannot be", ThingJudge, 30)


def test_both_are_right_in_one_picture():
    right = Right(torch.tensor([True, True, False]), torch.tensor([True, False, True]))
    assert right.both.tolist() == [True, False, False]
    assert right.shares()["colour"] == torch.tensor(2 / 3).item()
