"""Published Idefics3 checkpoints, such as HuggingFaceM4/Idefics3-8B-Llama3: SmolVLM's format, and its defaults."""

from mmlearn.pretrained import smolvlm
from mmlearn.pretrained.loading import Family

FAMILY = Family(**vars(smolvlm.FAMILY))
