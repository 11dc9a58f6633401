"""The recipe of toy_unit."""

from dataclasses import replace
from types import SimpleNamespace

from mmlearn.models.toys.toy_unit import ToyUniT, ToyUniTConfig

from mmlearn.data.fields import Answers, Image, Labels, Tokens
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.measures import majority_share, row
from mmlearn.recipes import VQA, Objective, OneOf, Recipe, ln


def weigh(sample):
    return SimpleNamespace(caption=sample.caption, length="long" if len(sample.caption) > 12 else "short")


def told(task, label):
    def measure(run, samples):
        with evaluating(run.system):
            batch = run.on_device(run.plain(samples, task))
            right = run.system.logits(batch).argmax(-1) == batch[label]
        return {f"{task} told": row(right.float().mean(), majority_share(batch[label]))}

    return measure


RECIPE = Recipe(
    ToyUniT,
    ToyUniTConfig,
    reads=(Tokens(),),
    learns=OneOf(
        replace(VQA, reads=(Image(), Answers()), measures=(told("vqa", "answer"),), by_request=False),
        Objective(
            "length",
            {"length": ln("lengths")},
            reads=(Labels(source="length", into="lengths"),),
            ask=weigh,
            data="emoji",
            measures=(told("length", "label"),),
        ),
        shares=(3, 1),
    ),
)
