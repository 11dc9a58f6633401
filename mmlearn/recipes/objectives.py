"""The objectives that many systems share: each with its labels, its chance and its measures."""

from dataclasses import replace
from typing import Any

from mmlearn.data.fields import (
    HiddenSpans,
    Infilled,
    MaskedRegions,
    MaskedTokens,
    MatchLabel,
    ShuffledTokens,
    SwappedSegments,
)
from mmlearn.data.fields.texts import Answers
from mmlearn.data.synthetic.instructions import Instructed, Reworded, instruct
from mmlearn.evaluation.measures import (
    answers,
    masked_regions,
    masked_words,
    matching,
    next_words,
    replaced_words,
    retrieval,
    rewritten,
    segments_told,
    shuffled_words,
    written_captions,
)
from mmlearn.evaluation.replies import replies
from mmlearn.recipes.chance import ln, ln_batch
from mmlearn.recipes.recipe import Objective


class Asked(Reworded):
    """A sample whose text is its question. ``ValueError`` for a sample without one."""

    def __init__(self, sample: Any):
        Answers().check_sample(sample, "vqa")
        super().__init__(sample)
        self.caption = sample.question.text


def reply(sample: Any) -> Instructed:
    """A sample whose text is an instruction and the response to it. ``ValueError`` for a sample without a question."""
    Answers().check_sample(sample, "reply")
    return instruct(sample)


ITC = Objective("itc", {"itc": ln_batch}, measures=(retrieval("image", "text"),), samples=5000)
ITM = Objective("itm", {"itm": ln(2)}, labels=(MatchLabel(),), measures=(matching,))
ITM_INSIDE = replace(ITM, labels=())  # the system finds wrong pairs itself
MLM = Objective("mlm", {"mlm": ln("vocab_size")}, labels=(MaskedTokens(),), measures=(masked_words,))
MRM = Objective("mrm", {"mrc": ln("region_classes")}, labels=(MaskedRegions(),), measures=(masked_regions,))
LM = Objective("lm", {"lm": ln("vocab_size")}, measures=(next_words, written_captions))
RTD = Objective(
    "rtd",
    {"mlm": ln("vocab_size"), "rtd": ln(2, "rtd_weight")},
    labels=(MaskedTokens(),),
    measures=(masked_words, replaced_words),
)
STD = Objective("std", {"std": ln(2)}, labels=(ShuffledTokens(),), measures=(shuffled_words,))
SOP = Objective(
    "sop",
    {"sop": ln(2)},
    labels=(SwappedSegments(),),
    measures=(segments_told(SwappedSegments(), "order_label", "order_logits"),),
)
SPANS = Objective("spans", {"spans": ln("vocab_size")}, labels=(HiddenSpans(),), measures=(rewritten(HiddenSpans()),))
INFILLING = Objective(
    "infilling", {"infilling": ln("vocab_size")}, labels=(Infilled(),), measures=(rewritten(Infilled()),)
)
REPLY = Objective("reply", {"lm": ln("vocab_size")}, ask=reply, measures=(replies,))
VQA = Objective(
    "vqa", {"vqa": ln("answers")}, reads=(Answers(),), ask=Asked, measures=(answers,), samples=5000, by_request=True
)
