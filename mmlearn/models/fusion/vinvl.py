r"""VinVL: OSCAR+, which reads regions of a better detector and predicts which part of a triple does not belong to it.

Paper: Zhang et al. 2021, "VinVL: Revisiting Visual Representations in Vision-Language Models".
Official code: https://github.com/microsoft/Oscar, of which ``oscar/run_oscarplus_pretrain.py`` is this.

Deviations: those of OSCAR. The paper's larger detector is not here, because regions come from the data. Captions and
questions have batches of their own, in equal shares. Wrong words are a caption for a caption and a question for a
question, and so are wrong tags and answers; the code may take either. As in the code's script, projected regions are
normalised, and classes are numbered so: 0 whole, 1 wrong tags, 2 wrong words. Not compared with released code: OSCAR
with a norm and a class more, which are compared there.
"""

from dataclasses import dataclass

from mmlearn.models.fusion.oscar import OSCAR, OSCARConfig


@dataclass(frozen=True)
class VinVLConfig(OSCARConfig):
    region_norm: bool = True

    PRESETS = OSCARConfig.PRESETS


class VinVL(OSCAR):
    """OSCAR with three classes: ``polluted`` (b,) is 0 for a matching triple, 1 for wrong tags, 2 for wrong words.

    Finding wrong tags trains for questions, where q is an answer; finding wrong words trains for retrieval.
    Source: Zhang et al. 2021 (VinVL), section 3.2.
    """

    POLLUTED = ("tags", "words")
