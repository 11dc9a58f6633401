r"""VinVL: OSCAR+, which reads regions of a better detector, and is asked which part of a triple does not belong to it.

Paper: Zhang et al. 2021, "VinVL: Revisiting Visual Representations in Vision-Language Models".
Official code: https://github.com/microsoft/Oscar, of which ``oscar/run_oscarplus_pretrain.py`` is this.

Deviations: those of OSCAR. The paper's larger detector is not here, because regions come from the data. Captions and
questions have batches of their own, in equal shares. Wrong words are a caption for a caption and a question for a
question, and so are wrong tags and answers; the code may take either. As in the code's script, projected regions are
normalised, and classes are numbered so: 0 whole, 1 wrong tags, 2 wrong words.
"""

from dataclasses import dataclass, replace
from typing import Any

from mmlearn.data.fields import Polluted, Regions, Tagged
from mmlearn.evaluation.measures import triples_told
from mmlearn.models.fusion.oscar import OSCAR, OSCARConfig
from mmlearn.recipes import MLM, Objective, OneOf, Recipe, ln
from mmlearn.recipes.objectives import Asked


@dataclass(frozen=True)
class VinVLConfig(OSCARConfig):
    region_norm: bool = True

    PRESETS = OSCARConfig.PRESETS


class VinVL(OSCAR):
    """OSCAR with three classes: ``polluted`` (b,) is 0 for a whole triple, 1 where tags are wrong, 2 where words are.

    To be told from words with wrong tags trains for questions, where q is an answer, and from tags with wrong words for
    retrieval. Source: Zhang et al. 2021 (VinVL), section 3.2.
    """

    POLLUTED = ("tags", "words")


class Answered(Asked):
    """A sample whose text is its question, and whose tags are the answer. ``ValueError`` for a sample without one."""

    def __init__(self, sample: Any):
        super().__init__(sample)
        self.tags = sample.question.answer


POLLUTION = Polluted(words=True)
CONTRASTIVE = Objective("contrastive", {"contrastive": ln(3)}, (POLLUTION,), measures=(triples_told(POLLUTION),))

RECIPE = Recipe(
    VinVL,
    VinVLConfig,
    reads=(Tagged(), Regions()),
    learns=OneOf(
        (CONTRASTIVE, MLM),
        (
            replace(CONTRASTIVE, name="contrastive-answers", ask=Answered, measures=()),
            replace(MLM, name="mlm-answers", ask=Answered, measures=()),
        ),
    ),
    architecture="""
    words -> sum [token, type, place] -> BERT [one sequence] -> !MLM [of words and tags]
    tags [or the answer] -> sum
    *detector [not trained] -> tags
    detector -> regions -> projection [features, box] -> BERT -> !tags or words polluted?
    """,
)
