"""What recipes share: answering."""

from dataclasses import replace

from mmlearn.recipes import VQA

ANSWERING = replace(VQA, by_request=False)  # all that these systems learn
