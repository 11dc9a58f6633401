"""data2vec for pictures: from masked patches a transformer predicts the features of its momentum copy.

Paper: Baevski et al. 2022, "data2vec: A General Framework for Self-supervised Learning in Speech, Vision and Language".
Official code: https://github.com/facebookresearch/data2vec_vision.

Deviations: ``tiny`` is ours: its teacher follows faster, branches start unscaled, and patches also have learned
positions, because relative ones start at 0 and then no masked patch differs from another. Pictures are not cropped,
flipped or tinted at random, and no blocks are dropped. Targets are what MLPs add and only blocks of the teacher are
averages, as in the official code for speech and texts; in that for pictures they are outputs of whole blocks, for the
base size with a norm after their mean, and all of the teacher is an average. The large teacher's decay rises, there it
changes once, between two runs. Norms add 1e-12, there 1e-6. Released models have no head and no teacher; one with a
classifier learns that instead.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.models.unified.data2vec import Data2Vec, Data2VecConfig
from mmlearn.models.vision.relative_encoder import LARGE_RELATIVE, RelativeEncoder, RelativeEncoderConfig
from mmlearn.objectives import class_cross_entropy


@dataclass(frozen=True)
class Data2VecVisionConfig(Data2VecConfig):
    image: RelativeEncoderConfig = RelativeEncoderConfig()
    top_layers: int = 6
    beta: float = 2.0
    decay_start: float = 0.9998
    decay_end: float = 0.9998
    decay_steps: int = 0
    mask_share: float = 0.6  # of patches that are masked, at most
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(
            image=RelativeEncoderConfig(64, 3, 4, image_size=64, patch_size=8, absolute_positions=True, layer_scale=1.0)
        )
        | dict(top_layers=2, beta=1.0, decay_start=0.98, decay_end=0.998, decay_steps=300),
        "base": dict(),
        "large": dict(image=LARGE_RELATIVE, decay_end=0.9999, decay_steps=100_000),
    }


class Data2VecVisionOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # the class token, then the patches, as the last block leaves them
    prediction: Float[Tensor, "b p d"] | None  # of the teacher's target at each patch
    logits: Float[Tensor, "b classes"] | None


class Data2VecVision(Data2Vec):
    """BEiT's encoder that learns from itself.

    ``masked_patches`` (b, p) is True where a patch is masked.
    """

    def __init__(self, config: Data2VecVisionConfig):
        super().__init__()
        self.config = config
        width, self.classifier = config.image.width, None
        self.encoder = RelativeEncoder(config.image)
        if config.num_classes:
            self.pool_norm = nn.LayerNorm(width, eps=config.image.norm_epsilon)
            self.classifier = nn.Linear(width, config.num_classes)
            nn.init.zeros_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
        self.add_teacher(width, config.image.depth, norm_first=True)

    def blocks_of(self, encoder: RelativeEncoder) -> nn.ModuleList:
        return encoder.transformer.blocks

    def forward(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> Data2VecVisionOutput:
        tokens = self.encoder(image, masked_patches)  # (b, 1 + p, d)
        prediction = self.head(tokens[:, 1:]) if self.head is not None else None
        logits = self.classifier(self.pool_norm(tokens[:, 1:].mean(1))) if self.classifier is not None else None
        return Data2VecVisionOutput(tokens, prediction, logits)

    def predictions_and_targets(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The student's predictions from a masked picture, the teacher's features of the unmasked one, and the mask."""
        masked = batch["masked_patches"]
        return self(batch["image"], masked).prediction, self.targets(batch["image"])[:, 1:], masked

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``regression`` to the teacher; without one ``classification``, where there is a classifier.

        ``ValueError`` without a picture, or with nothing to learn by.
        """
        if not len(batch["image"]):
            raise ValueError("A batch holds at least one picture.")
        if self.teacher is not None:
            return self.regression(*self.predictions_and_targets(batch))
        if self.classifier is None or "label" not in batch:
            raise ValueError("Nothing to learn: this Data2VecVision needs pretrain=True, or label and num_classes.")
        return {"classification": class_cross_entropy(self(batch["image"]).logits, batch["label"])}
