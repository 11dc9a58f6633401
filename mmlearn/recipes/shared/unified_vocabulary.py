"""What recipes share: unified vocabulary."""

from mmlearn.data.fields import Image, PatchCodes
from mmlearn.data.fields.orders import Box, Infilling, Located, Orders, Told
from mmlearn.data.synthetic.instructions import Instruct
from mmlearn.evaluation.orders import captioned, filled, located, told
from mmlearn.recipes import Objective, OneOf, ln

TOKENS = {"tokens": ln("all_tokens")}
READS = (Image(), Orders())
CAPTION = Objective("caption", TOKENS, labels=(Told(),), ask=Instruct("caption"), measures=(captioned("caption"),))
VQA = Objective("vqa", TOKENS, labels=(Told(),), ask=Instruct("vqa"), measures=(told("vqa"),))
GROUNDING = Objective(
    "grounding",
    TOKENS,
    labels=(Located(),),
    reads=(Box(),),
    ask=Instruct("grounding"),
    measures=(located("grounding"),),
)
NAMING = Objective(
    "naming", TOKENS, labels=(Told(region=True),), reads=(Box(),), ask=Instruct("naming"), measures=(told("naming"),)
)
INFILLING = Objective(
    "infilling",
    TOKENS,
    labels=(Infilling(),),
    reads=(PatchCodes(),),
    ask=Instruct("infilling"),
    measures=(filled("infilling"),),
)
ALL_TASKS = OneOf(CAPTION, VQA, GROUNDING, NAMING, INFILLING)
