"""The recipe of LXMERT: what it reads, what it learns, and how that is measured."""

from dataclasses import replace

from mmlearn.data.fields import MaskedTokens, Regions, Tokens
from mmlearn.models.fusion.lxmert import LXMERT, LXMERTConfig
from mmlearn.recipes import ITM, MLM, MRM, VQA, Recipe

RECIPE = Recipe(
    LXMERT,
    LXMERTConfig,
    reads=(Tokens(), Regions()),
    # Questions are masked like captions.
    learns=(ITM, MLM, replace(MRM, chance={**MRM.chance, "mrfr": None}), replace(VQA, labels=(MaskedTokens(),))),
    settings={"answers": 0, "region_attributes": 0},
    architecture="""
    words -> language encoder -> cross-modality layers [each stream attends to the other] -> !MLM
    *detector [not trained] -> regions -> object encoder -> cross-modality layers -> !ITM
    cross-modality layers -> !MRFR, MRC
    cross-modality layers -> !VQA
    """,
)
