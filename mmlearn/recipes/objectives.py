"""The objectives that many systems share: each with its labels, its chance and its measures."""

from dataclasses import replace
from typing import Any

from mmlearn.data.fields import (
    MaskedRegions,
    MaskedTokens,
    MatchLabel,
    ShuffledTokens,
    SpanCorruption,
    SwappedSegments,
    TextInfilling,
)
from mmlearn.data.fields.texts import Answers
from mmlearn.data.synthetic.instructions import Instructed, Reworded, instruct
from mmlearn.evaluation.hidden_words import grounded_word_accuracy
from mmlearn.evaluation.measures import (
    answer_accuracy,
    caption_scores,
    masked_region_losses,
    masked_word_accuracy,
    matching_accuracy,
    next_token_accuracy,
    replaced_token_accuracy,
    retrieval,
    segment_accuracy,
    shuffled_token_accuracy,
    target_token_accuracy,
)
from mmlearn.evaluation.responses import response_accuracy
from mmlearn.recipes.chance import ln, ln_batch
from mmlearn.recipes.recipe import Objective


class QuestionSample(Reworded):
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
ITM = Objective("itm", {"itm": ln(2)}, labels=(MatchLabel(),), measures=(matching_accuracy,))
ITM_OWN_NEGATIVES = replace(ITM, labels=())  # the system finds wrong pairs itself
MLM = Objective(
    "mlm", {"mlm": ln("vocab_size")}, labels=(MaskedTokens(),), measures=(masked_word_accuracy, grounded_word_accuracy)
)
MRM = Objective("mrm", {"mrc": ln("region_classes")}, labels=(MaskedRegions(),), measures=(masked_region_losses,))
LM = Objective("lm", {"lm": ln("vocab_size")}, measures=(next_token_accuracy, caption_scores))
RTD = Objective(
    "rtd",
    {"mlm": ln("vocab_size"), "rtd": ln(2, "rtd_weight")},
    labels=(MaskedTokens(),),
    measures=(masked_word_accuracy, replaced_token_accuracy),
)
STD = Objective("std", {"std": ln(2)}, labels=(ShuffledTokens(),), measures=(shuffled_token_accuracy,))
SOP = Objective(
    "sop",
    {"sop": ln(2)},
    labels=(SwappedSegments(),),
    measures=(segment_accuracy(SwappedSegments(), "order_label", "order_logits"),),
)
SPANS = Objective(
    "spans",
    {"spans": ln("vocab_size")},
    labels=(SpanCorruption(),),
    measures=(target_token_accuracy(SpanCorruption()),),
)
INFILLING = Objective(
    "infilling",
    {"infilling": ln("vocab_size")},
    labels=(TextInfilling(),),
    measures=(target_token_accuracy(TextInfilling()),),
)
REPLY = Objective("reply", {"lm": ln("vocab_size")}, ask=reply, measures=(response_accuracy,))
VQA = Objective(
    "vqa",
    {"vqa": ln("answers")},
    reads=(Answers(),),
    ask=QuestionSample,
    measures=(answer_accuracy,),
    samples=5000,
    by_request=True,
)
