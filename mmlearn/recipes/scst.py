"""The recipe of SCST: what it reads, what it learns, and how that is measured."""

from collections.abc import Sequence

from mmlearn.data.fields import Image, Tokens
from mmlearn.evaluation.captions import DocumentFrequency, cider_d_of_each, document_frequency
from mmlearn.models.recurrent_captions.scst import SCST, SCSTConfig, Texts
from mmlearn.recipes import LM, Objective, OptimizerStep, Recipe, Stage
from mmlearn.recipes.shared.recurrent_captions import pointing_before_words


class CIDErReward:
    """CIDEr-D of captions, with the rarity of the n-grams of ``corpus``, or of the true captions beside them."""

    def __init__(self, corpus: Texts | None = None):
        self.rare: DocumentFrequency | None = (
            None if corpus is None else document_frequency([[_words(text)] for text in corpus])
        )

    def __call__(self, captions: Texts, true: Texts) -> list[float]:
        return cider_d_of_each([_words(text) for text in captions], [[_words(text)] for text in true], self.rare)


def _words(text: Sequence[int]) -> str:
    return " ".join(map(str, text))


MEASURES = (*LM.measures, pointing_before_words)
RECIPE = Recipe(
    SCST,
    SCSTConfig,
    reads=(Image(), Tokens()),
    stages=(
        Stage(Objective("lm", LM.chance, measures=MEASURES), name="write"),
        Stage(
            Objective("reward", {"self_critical": None}, measures=MEASURES),
            optimizer_steps=(OptimizerStep("self_critical_loss"),),
            name="reward",
        ),
    ),
    build=lambda config: SCST(config, CIDErReward()),
    writes=True,
    architecture="""
    image -> ResNet -> positions -> attention [asked by the LSTM before each word] -> LSTM [Att2in] -> !LM
    words -> LSTM
    LSTM -> drawn caption -> reward [CIDEr-D] -> !drawn minus greedy
    LSTM -> greedy caption -> reward
    """,
)
