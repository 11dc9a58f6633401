"""What recipes share: unified vocabulary."""

from mmlearn.data.fields import Image, PatchCodes
from mmlearn.data.fields.instructions import Box, BoxTarget, InfillingTarget, Instructions, TextTarget
from mmlearn.data.synthetic.instructions import Instruct
from mmlearn.evaluation.instructions import box_accuracy, caption_quality, infilling_accuracy, text_accuracy
from mmlearn.recipes import Objective, OneOf, ln

TOKENS = {"tokens": ln("all_tokens")}
READS = (Image(), Instructions())
CAPTION = Objective(
    "caption", TOKENS, labels=(TextTarget(),), ask=Instruct("caption"), measures=(caption_quality("caption"),)
)
VQA = Objective("vqa", TOKENS, labels=(TextTarget(),), ask=Instruct("vqa"), measures=(text_accuracy("vqa"),))
GROUNDING = Objective(
    "grounding",
    TOKENS,
    labels=(BoxTarget(),),
    reads=(Box(),),
    ask=Instruct("grounding"),
    measures=(box_accuracy("grounding"),),
)
NAMING = Objective(
    "naming",
    TOKENS,
    labels=(TextTarget(region=True),),
    reads=(Box(),),
    ask=Instruct("naming"),
    measures=(text_accuracy("naming"),),
)
INFILLING = Objective(
    "infilling",
    TOKENS,
    labels=(InfillingTarget(),),
    reads=(PatchCodes(),),
    ask=Instruct("infilling"),
    measures=(infilling_accuracy("infilling"),),
)
ALL_TASKS = OneOf(CAPTION, VQA, GROUNDING, NAMING, INFILLING)
