"""UC2: a picture is what captions in different languages have in common; UNITER's one stream over XLM-R's vocabulary.

Paper: Zhou et al. 2021, "UC²: Universal Cross-lingual Cross-modal Vision-and-Language Pre-training".
Official code: https://github.com/zmykevin/UC2.

Deviations: weights start at random; the paper starts from XLM-R. There are two languages, and half of the captions that
MLM and ITM read are in the second one; the paper has six. MRTM names regions in the language of the captions, by the
last token of a class; in the official code a caption may be in any language, and one of the class's tokens is drawn.
Words are always masked together with their translation, in both languages, where the code does so in half of the rows.
A translation begins without a start token, where the code has a second end token. ``tiny`` is ours. Not compared with
released code: its one stream is UNITER's and its texts are XLM-R's, which are compared.
"""

from dataclasses import dataclass
from functools import partial

import torch

from mmlearn.layers.language import check_text_mask, initialise_as_bert
from mmlearn.models.fusion.pretraining_losses import Batch, Losses, regions_to_predict
from mmlearn.models.fusion.regions import TINY
from mmlearn.models.fusion.single_stream import SingleStreamConfig, SingleStreamOutput
from mmlearn.models.fusion.uniter_encoder import UNITEREncoder
from mmlearn.models.many_languages.texts import XLM_R, for_two_texts
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.translation import join_translations, masked_region_to_token


@dataclass(frozen=True)
class UC2Config(SingleStreamConfig):
    class_tokens: tuple[int, ...] = ()  # of each class of the detector, the token that names it

    PRESETS = {"tiny": TINY, "base": XLM_R}


class UC2(UNITEREncoder):
    """One stream: a caption, or a caption and its translation in one row, and the regions of a picture.

    Source: section 3.1 and figure 2; section 3.2 for the objectives.
    """

    OBJECTIVES = ("mlm", "itm")  # the head of MLM serves VTLM and MRTM as well

    def __init__(self, config: UC2Config):
        super().__init__(for_two_texts(config))
        self.config = config
        self.register_buffer("class_tokens", torch.tensor(config.class_tokens, dtype=torch.long), persistent=False)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def loss(self, batch: Batch) -> Losses:
        """As of :class:`~mmlearn.models.fusion.single_stream.SingleStream`; with ``translation_label``, ``vtlm``.

        VTLM is MLM of a row ``[x; x'; v]``, so its words are predicted from the other language and from the picture.
        """
        if "translation_label" not in batch:
            return super().loss(batch)
        masks = batch["mask"], batch["translation_mask"]  # (b, t), (b, u)
        for mask in masks:
            check_text_mask(mask)
        tokens, mask = join_translations(batch["tokens"], batch["translation"], *masks)
        label, _ = join_translations(batch["token_label"], batch["translation_label"], *masks, IGNORED)
        losses = super().loss(batch | {"tokens": tokens, "mask": mask, "token_label": label})
        return {{"mlm": "vtlm"}.get(name, name): loss for name, loss in losses.items()}

    def image_losses(self, output: SingleStreamOutput, batch: Batch) -> Losses:
        """``mrtm``: the token that names the class of a masked region, from the head that predicts words."""
        if self.language_head is None or not {"masked_regions", "region_classes"} <= batch.keys():
            return {}
        positions = regions_to_predict(batch).nonzero(as_tuple=True)  # of masked regions: the vocabulary is large
        logits = self.token_logits(output.regions[positions])  # (masked, v)
        return {"mrtm": masked_region_to_token(logits, batch["region_classes"][positions], self.class_tokens)}
