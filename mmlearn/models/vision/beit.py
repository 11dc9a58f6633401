"""BEiT: hide blocks of patches, and predict which visual word of a codebook each was.

Paper: Bao et al. 2022, "BEiT: BERT Pre-Training of Image Transformers".
Official code: https://github.com/microsoft/unilm/tree/master/beit.

Deviations: ``tiny`` is ours. Codes are data here, a number for each patch: in the paper those of DALL·E's discrete VAE,
which reads 112 pixels a side. The recipe takes a much simpler tokenizer that needs no training of a network, and which
is none of the paper's: k-means of the colours of a patch's four quarters (:class:`~mmlearn.data.fields.PatchCodes`);
give that field a function of your own for others. Weights of blocks start scaled by width and depth, and no blocks are
dropped at random. Norms add 1e-12 to variances, as released files of Transformers do, in the official code 1e-6. Of 196
patches at most 78 are hidden, there 75. The table of relative positions is read by rows and columns also where a
picture is oblong; Transformers exchanges the two there. The classifier is that of fine-tuning: it reads the mean of the
patches.
"""

from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.layers import Config, small_linear
from mmlearn.models.vision.relative_encoder import LARGE_RELATIVE, RelativeEncoder, RelativeEncoderConfig
from mmlearn.objectives.classes import class_cross_entropy
from mmlearn.objectives.masked_image import masked_codes


@dataclass(frozen=True)
class BEiTConfig(Config):
    image: RelativeEncoderConfig = RelativeEncoderConfig()
    codes: int = 8192  # of the codebook; 0: no head for them
    mask_share: float = 0.4  # of patches that are hidden, at most
    num_classes: int = 0  # 0: no classifier

    PRESETS = {
        "tiny": dict(image=RelativeEncoderConfig(64, 3, 4, image_size=64, patch_size=8), codes=64),
        "base": dict(),
        "large": dict(image=LARGE_RELATIVE),
    }


class BEiTOutput(NamedTuple):
    tokens: Float[Tensor, "b n d"]  # the class token, then the patches, after the last block
    representation: Float[Tensor, "b d"] | None  # what the classifier reads
    code_logits: Float[Tensor, "b p codes"] | None
    logits: Float[Tensor, "b classes"] | None


class BEiT(nn.Module):
    r"""A vision transformer with relative positions that predicts the codes of hidden patches.

    .. math:: p(z \mid x^M) = \mathrm{softmax}(W_c h_i^L + b_c)

    ``masked_patches`` (b, p) is True where a patch is hidden. Source: official code, ``modeling_pretrain.py``.
    """

    def __init__(self, config: BEiTConfig):
        super().__init__()
        self.config = config
        width, epsilon = config.image.width, config.image.norm_epsilon
        self.image_encoder = RelativeEncoder(config.image)
        self.code_head = self.classifier = None
        if config.codes:
            self.code_norm, self.code_head = nn.LayerNorm(width, eps=epsilon), small_linear(width, config.codes)
        if config.num_classes:
            self.pool_norm, self.classifier = nn.LayerNorm(width, eps=epsilon), nn.Linear(width, config.num_classes)
            nn.init.zeros_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)

    def forward(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> BEiTOutput:
        tokens = self.image_encoder(image, masked_patches)  # (b, 1 + p, d)
        code_logits = representation = logits = None
        if self.code_head is not None:
            code_logits = self.code_head(self.code_norm(tokens[:, 1:]))  # (b, p, codes)
        if self.classifier is not None:
            representation = self.pool_norm(tokens[:, 1:].mean(1))  # (b, d): the mean of the patches
            logits = self.classifier(representation)
        return BEiTOutput(tokens, representation, code_logits, logits)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``codes`` of hidden patches where the batch has them, else ``classification`` by ``batch["label"]``.

        ``code`` (b, p) is the number of each patch, ``masked_patches`` (b, p) is True where one is hidden.
        ``ValueError`` without an image, without a head for the labels of the batch, and for a code outside the
        codebook.
        """
        if not len(batch["image"]):
            raise ValueError("A batch holds at least one picture.")
        if self.code_head is not None and "code" in batch:
            output = self(batch["image"], batch["masked_patches"])
            return {"codes": masked_codes(output.code_logits, batch["code"], batch["masked_patches"])}
        if self.classifier is None or "label" not in batch:
            raise ValueError("Nothing to learn: this BEiT needs code in the batch and codes, or label and num_classes.")
        return {"classification": class_cross_entropy(self(batch["image"]).logits, batch["label"])}
