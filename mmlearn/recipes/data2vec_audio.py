"""The recipe of data2vec for speech: what it reads, what it learns, and how that is measured."""

from mmlearn.data.fields import Waveform
from mmlearn.models.unified.data2vec_audio import Data2VecAudio, Data2VecAudioConfig
from mmlearn.recipes import Objective, Recipe
from mmlearn.recipes.shared.self_distillation import masked_features_explained

RECIPE = Recipe(
    Data2VecAudio,
    Data2VecAudioConfig,
    reads=(Waveform(),),
    learns=Objective("self-distillation", {"regression": None}, measures=(masked_features_explained,)),
    architecture="""
    waveform -> convolutions -> mask spans -> student [transformer] -> head -> !squared error [masked frames]
    waveform -> teacher [the same, no gradient] -> mean of last layers [normalised] -> !squared error
    student ~> teacher
    """,
)
