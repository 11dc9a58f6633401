r"""ERNIE-ViL: a ViLBERT that learns above all the words of a scene graph: objects, attributes and relations.

Paper: Yu et al. 2021, "ERNIE-ViL: Knowledge Enhanced Vision-Language Representations through Scene Graphs", AAAI.
Official code, without pretraining: https://github.com/PaddlePaddle/ERNIE/tree/repro/ernie-vil.

Deviations: those of :mod:`~mmlearn.models.fusion.vilbert`, and ``tiny``. Each batch serves either ViLBERT's objectives,
or one role of the scene graph with pairs that match and no region masked. The graph comes from the phrases of scenes
(:class:`~mmlearn.data.fields.graphs.GraphTokens`), in the paper from a parser of English. Weights start at random, in
the paper those of words start from ERNIE 2.0. Of the official presets only base is here. Not compared with released
code: no code of its pretraining was published; ViLBERT, whose streams it has, is compared.
"""

from dataclasses import dataclass

from mmlearn.models.fusion.pretraining_losses import Batch, Losses, mlm_loss
from mmlearn.models.fusion.vilbert import ViLBERT, ViLBERTConfig, ViLBERTOutput
from mmlearn.objectives.masked import ROLES


@dataclass(frozen=True)
class ERNIEViLConfig(ViLBERTConfig):
    """The settings are ViLBERT's."""

    PRESETS = ViLBERTConfig.PRESETS


class ERNIEViL(ViLBERT):
    r"""ViLBERT's streams, and scene graph prediction: masked words of one role, given all other words and the picture.

    .. math:: \ell_\mathrm{obj} &= -\log P(w_{o} \mid w_{\setminus o}, v) \\
       \ell_\mathrm{attr} &= -\log P(w_{a} \mid w_{o}, w_{\setminus a}, v) \\
       \ell_\mathrm{rel} &= -\log P(w_{r} \mid w_{o_1}, w_{o_2}, w_{\setminus r}, v)

    An object o has the attribute a, and stands to another in the relation r. Because words of one role alone are
    masked, an attribute is always predicted next to its object, and a relation between its two. Each is a mean over the
    masked tokens. Inputs, outputs and errors are ViLBERT's.
    Source: scene graph prediction in Yu et al. 2021, the three equations of object, attribute and relationship
    prediction.
    """

    def word_losses(self, output: ViLBERTOutput, batch: Batch) -> Losses:
        """``mlm``, ``object``, ``attribute`` and ``relation``: the masked words.

        ``object_label`` (b, t) is the true token where a word of an object was, and -100 elsewhere; so are the others.
        """
        losses = super().word_losses(output, batch)
        for role in ROLES:
            losses |= mlm_loss(self, output, batch, name=role, label=f"{role}_label")
        return losses
