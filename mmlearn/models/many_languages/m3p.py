"""M3P: captions that change the language from word to word bring pictures and many languages into one stream.

Paper: Ni et al. 2021, "M3P: Learning Universal Representations via Multitask Multilingual Multimodal Pre-training".
Official code: https://github.com/microsoft/M3P.

Deviations: weights start at random; the paper starts from XLM-R. There are two languages, and the translation of a
caption is the dictionary; the paper has 50, and dictionaries of words. A word is translated with probability 0.5. xMLM
reads captions and translations, each alone, where the paper has texts of Wikipedia. All masked regions become zeros;
the official code keeps one in ten as it is. ``tiny`` is ours. Not compared with released code: its texts are XLM-R's,
which is compared; heads of its published code are many, and ours follow the paper.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, regions_to_predict
from mmlearn.models.fusion.regions import TINY, box_sizes
from mmlearn.models.fusion.single_stream import SingleStream, SingleStreamConfig, SingleStreamOutput
from mmlearn.models.many_languages.texts import XLM_R, for_two_texts
from mmlearn.objectives import masked_cross_entropy
from mmlearn.objectives.masked import IGNORED, masked_region_classification, masked_region_regression


@dataclass(frozen=True)
class M3PConfig(SingleStreamConfig):
    token_types: int = 1  # words and regions share the only one

    PRESETS = {"tiny": TINY | dict(token_types=1), "base": XLM_R}


class M3P(SingleStream):
    r"""Words as in XLM-R, and regions, which are features v and a box. Code-switched captions may become longer.

    .. math:: \mathrm{LN}(W_v v + W_l [x_1, y_1, x_2, y_2, w h])

    Source: section 3 and figure 2; section 3.3 for the objectives.
    """

    OBJECTIVES = ("mlm", "itm")
    IMAGE_TYPE = 0

    region_classifier: nn.Module

    def __init__(self, config: M3PConfig):
        super().__init__(for_two_texts(config))
        self.config = config
        width = config.width
        self.region_projection = nn.Linear(config.region_width, width)
        self.box_projection = nn.Linear(5, width)
        self.region_norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.region_regression = nn.Linear(width, config.region_width)
        self.region_classifier = nn.Linear(width, config.region_classes)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def embed(self, regions, boxes, region_mask, masked, tokens, token_type, mask):
        geometry = torch.cat([boxes, box_sizes(boxes)[..., 2:]], dim=-1)  # (b, p, 5): corners and area
        image = self.region_norm(self.region_projection(regions) + self.box_projection(geometry))  # (b, p, d)
        return torch.cat([self.embedding(tokens, token_type, mask), self.embedding.dropout(image)], dim=1)  # (b, n, d)

    def loss(self, batch: Batch) -> Losses:
        """As of :class:`~mmlearn.models.fusion.single_stream.SingleStream`; with ``translation_label``, ``xmlm``.

        xMLM reads a caption and its translation each alone, and no picture.
        """
        if "translation_label" not in batch:
            return super().loss(batch)
        states, labels = [], []
        for text in ("tokens", "mask", "token_label"), ("translation", "translation_mask", "translation_label"):
            tokens, mask, label = (batch[name] for name in text)
            positions = (label != IGNORED).nonzero(as_tuple=True)  # of masked words, which alone the head reads
            states.append(self.transformer(self.embedding(tokens, mask=mask), mask)[positions])  # (masked, d)
            labels.append(label[positions])
        return {"xmlm": masked_cross_entropy(self.token_logits(torch.cat(states)), torch.cat(labels))}

    def image_losses(self, output: SingleStreamOutput, batch: Batch) -> Losses:
        """``mrfr`` and ``mrc``: the features and the likeliest class of masked regions."""
        if not {"masked_regions", "region_target", "region_classes"} <= batch.keys():
            return {}
        masked = regions_to_predict(batch)  # (b, p)
        x = output.regions  # (b, p, d)
        return {
            "mrfr": masked_region_regression(self.region_regression(x), batch["region_target"], masked),
            "mrc": masked_region_classification(self.region_classifier(x), batch["region_classes"], masked),
        }
