"""What the recipes of words, sound and video share."""

from mmlearn.data.fields import Labels, LogMel, Tokens, Video
from mmlearn.evaluation.measures import class_accuracy
from mmlearn.recipes import Objective, ln

READS = (
    Tokens(),
    LogMel(bands="audio_width"),
    Video(fps=10, shown=16, features="video_width"),
    Labels(source="order", into="outputs"),
)
TASK = Objective("task", {"task": ln("outputs")}, measures=(class_accuracy("order accuracy"),))
