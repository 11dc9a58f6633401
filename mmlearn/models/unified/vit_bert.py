"""ViT-BERT: one transformer learns from unpaired texts and pictures, distilled from one teacher of each modality.

Paper: Li et al. 2021, "Towards a Unified Foundation Model: Jointly Pre-Training Transformers on Unpaired Images and
Text". No code was published.

Deviations: ``tiny`` is ours. Pictures have no labels here: codes of masked patches are predicted, as by their teacher;
in the paper the teachers are BERT and a ViT. Ours are pre-norm transformers of the student's sizes. The paper masks
gradients; the rule of the mask is ours and nobody has compared it with the paper's. It is the iterative pruning of
lottery tickets: text owns all weights but the smallest, and in each of ``mask_rounds`` rounds loses the smallest that
it still has, until ``text_share`` is left. The weight of distillation and its temperature are our choice, too.
Embeddings and heads belong to one modality and need no mask; norms and biases learn from both. In evaluation nothing is
masked. The recipe takes texts and pictures of the same samples, and never joins them. Not compared with released code:
no code was published.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.layers.steps import StepCounter
from mmlearn.models.vision.masked_embedding import MaskedImageEmbedding
from mmlearn.objectives import masked_cross_entropy
from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.masked_image import masked_codes
from mmlearn.objectives.unpaired import keep_largest, masked_divergence, own_gradient


@dataclass(frozen=True)
class ViTBERTConfig(BERTEncoderConfig):
    """The sizes of a BERT are those of the shared transformer and of both teachers."""

    norm_first: bool = True
    dropout: float = 0.0
    image_size: int | tuple[int, int] = 224  # pixels
    patch_size: int = 16  # pixels
    codes: int = 8192  # of the codebook of patches
    mask_share: float = 0.4  # of patches that are masked, at most
    distillation: float = 0.5  # the weight of the teachers' losses; the rest is that of labels
    distillation_temperature: float = 1.0
    text_share: float = 0.5  # of the shared weights that learn from texts in the end; the rest learns from pictures
    mask_rounds: int = 10  # in which the mask reaches that share
    mask_every: int = 1000  # steps of a round
    teachers: bool = True

    PRESETS = {
        "tiny": TINY_BERT | dict(image_size=64, patch_size=8, codes=64, mask_rounds=4, mask_every=25),
        "base": dict(),
    }


class ViTBERTImageOutput(NamedTuple):
    """Of pictures alone."""

    image_tokens: Float[Tensor, "b n d"]  # the class token, then the patches
    code_logits: Float[Tensor, "b p codes"]


class ViTBERTTextOutput(NamedTuple):
    """Of texts alone."""

    text_tokens: Float[Tensor, "b t d"]
    token_logits: Float[Tensor, "b t v"]


class ViTBERTOutput(NamedTuple):
    """Of pictures and of texts, which need not belong together."""

    image_tokens: Float[Tensor, "b n d"]
    code_logits: Float[Tensor, "b p codes"]
    text_tokens: Float[Tensor, "c t d"]
    token_logits: Float[Tensor, "c t v"]


class SharedEncoder(nn.Module):
    """The transformer that both modalities share, with a norm at its end."""

    def __init__(self, config: ViTBERTConfig):
        super().__init__()
        self.transformer = Transformer(config)
        self.norm = nn.LayerNorm(config.width, eps=config.norm_epsilon)

    def forward(self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None = None) -> Float[Tensor, "b n d"]:
        return self.norm(self.transformer(x, mask))


class TextTeacher(nn.Module):
    """A transformer of texts alone, of the student's sizes. Returns (b, t, v)."""

    def __init__(self, config: ViTBERTConfig):
        super().__init__()
        self.embedding, self.encoder = BERTEmbedding(config), SharedEncoder(config)
        self.head = MaskedLanguageHead(config)
        for part in (self.embedding, self.head):
            part.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t v"]:
        return self.head(self.encoder(self.embedding(tokens, mask=mask), mask), self.embedding.tokens.weight)


class ImageTeacher(nn.Module):
    """A transformer of pictures alone, of the student's sizes. Returns (b, p, codes)."""

    def __init__(self, config: ViTBERTConfig):
        super().__init__()
        self.patches = MaskedImageEmbedding(config.image_size, config.patch_size, config.width)
        self.encoder, self.head = SharedEncoder(config), nn.Linear(config.width, config.codes)
        self.head.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> Float[Tensor, "b p codes"]:
        return self.head(self.encoder(self.patches(image, masked_patches))[:, 1:])


class ViTBERT(StepCounter):
    """Embeddings and heads of each modality, a shared transformer, and two teachers that are trained first.

    ``mask`` is True where a token is real, ``masked_patches`` (b, p) where a patch is masked. Texts and pictures are
    unpaired: rows of one have nothing to do with rows of the other. Raises ``ValueError`` where neither is given, and
    for shares outside [0, 1].
    """

    def __init__(self, config: ViTBERTConfig):
        super().__init__()
        if not (0 <= config.text_share <= 1 and 0 <= config.distillation <= 1):
            got = f"{config.text_share} and {config.distillation}"
            raise ValueError(f"text_share and distillation are from 0 to 1, got {got}.")
        self.config, self.student_learns = config, True
        self.embedding = BERTEmbedding(config)
        self.patches = MaskedImageEmbedding(config.image_size, config.patch_size, config.width)
        self.encoder = SharedEncoder(config)
        self.language_head = MaskedLanguageHead(config)
        self.code_head = nn.Linear(config.width, config.codes)
        for part in (self.embedding, self.language_head, self.code_head):
            part.apply(partial(initialise_as_bert, std=config.initial_std))
        if config.teachers:
            self.text_teacher, self.image_teacher = TextTeacher(config), ImageTeacher(config)
        self.shared = {name: name.replace(".", "_") for name, x in self.encoder.named_parameters() if x.ndim > 1}
        for name, flat in self.shared.items():
            weight = self.encoder.get_parameter(name)
            owned = torch.ones_like(weight, dtype=torch.bool)
            self.register_buffer(f"text_owns_{flat}", keep_largest(weight, owned, self.owned_share(0)))

    def owned_share(self, step: int) -> float:
        """How much of each shared weight learns from texts after so many steps: less from round to round."""
        config = self.config
        rounds = min(step // max(config.mask_every, 1) + 1, max(config.mask_rounds, 1))
        return 1 - (1 - config.text_share) * rounds / max(config.mask_rounds, 1)

    def masks(self, modality: str) -> dict[str, Bool[Tensor, "..."]]:
        """For each shared weight which of its entries learn from this modality, "text" or "image"."""
        owned = {name: getattr(self, f"text_owns_{flat}") for name, flat in self.shared.items()}
        return owned if modality == "text" else {name: ~mask for name, mask in owned.items()}

    def encode(self, x: Float[Tensor, "b n d"], mask: Tensor | None, modality: str) -> Float[Tensor, "b n d"]:
        """Through the shared transformer; in training only the modality's own weights get a gradient."""
        if not self.training:
            return self.encoder(x, mask)
        weights: dict[str, Tensor] = dict(self.encoder.named_parameters())
        weights |= {name: own_gradient(weights[name], owned) for name, owned in self.masks(modality).items()}
        return functional_call(self.encoder, weights, (x, mask))

    def read_image(
        self, image: Float[Tensor, "b 3 height width"], masked_patches: Bool[Tensor, "b p"] | None = None
    ) -> ViTBERTImageOutput:
        x = self.encode(self.patches(image, masked_patches), None, "image")  # (b, n, d)
        return ViTBERTImageOutput(x, self.code_head(x[:, 1:]))

    def read_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> ViTBERTTextOutput:
        x = self.encode(self.embedding(tokens, mask=mask), mask, "text")  # (b, t, d)
        return ViTBERTTextOutput(x, self.language_head(x, self.embedding.tokens.weight))

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None = None,
        tokens: Int[Tensor, "c t"] | None = None,
        mask: Bool[Tensor, "c t"] | None = None,
        masked_patches: Bool[Tensor, "b p"] | None = None,
    ) -> ViTBERTImageOutput | ViTBERTTextOutput | ViTBERTOutput:
        if image is None:
            if tokens is None:
                raise ValueError("Nothing to read: give tokens, an image, or both, which need not belong together.")
            return self.read_text(tokens, mask)
        if tokens is None:
            return self.read_image(image, masked_patches)
        text = self.read_text(tokens, mask)
        return ViTBERTOutput(*self.read_image(image, masked_patches), *text)

    def teacher_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The losses of both teachers, which are trained first. ``ValueError`` as for :meth:`loss`."""
        self.check_batch(batch)
        self.student_learns = False
        token_logits = self.text_teacher(batch["tokens"], batch.get("mask"))  # (b, t, v)
        code_logits = self.image_teacher(batch["image"], batch["masked_patches"])  # (b, p, codes)
        return {
            "teacher_mlm": masked_cross_entropy(token_logits, batch["token_label"]),
            "teacher_mim": masked_codes(code_logits, batch["code"], batch["masked_patches"]),
        }

    def check_batch(self, batch: dict[str, Tensor]) -> None:
        """``ValueError`` for a batch that lacks a modality, or has no row of one, and without teachers."""
        for name in ("tokens", "image"):
            if name not in batch or not len(batch[name]):
                raise ValueError(f"Each batch has texts and pictures, and this one has no {name}.")
        if not self.config.teachers:
            raise ValueError("This ViT-BERT has no teachers to learn from: set teachers in its configuration.")

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The losses of labels and of teachers, for texts and pictures: ``mlm``, ``text_kd``, ``mim`` and ``image_kd``.

        ``token_label`` (b, t) is the true token where one was masked and -100 elsewhere, ``code`` (b, p) the number of
        each patch. ``ValueError`` without texts, pictures or teachers, and for a code outside the codebook.
        """
        self.check_batch(batch)
        self.student_learns = True
        image, tokens, mask = batch["image"], batch["tokens"], batch.get("mask")
        label, masked_patches = batch["token_label"], batch["masked_patches"]
        output = self(image, tokens, mask, masked_patches)
        with torch.no_grad():
            teacher_tokens = self.text_teacher(tokens, mask)  # (b, t, v)
            teacher_codes = self.image_teacher(image, masked_patches)  # (b, p, codes)
        weight, temperature = self.config.distillation, self.config.distillation_temperature
        return {
            "mlm": (1 - weight) * masked_cross_entropy(output.token_logits, label),
            "text_kd": weight * masked_divergence(output.token_logits, teacher_tokens, label != IGNORED, temperature),
            "mim": (1 - weight) * masked_codes(output.code_logits, batch["code"], masked_patches),
            "image_kd": weight * masked_divergence(output.code_logits, teacher_codes, masked_patches, temperature),
        }

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, and at the end of a round give the smallest weights of texts to pictures.

        Steps of the teachers do not count, because the student's weights are random until it learns.
        """
        if not self.student_learns:
            return
        super().after_step()
        step, every = int(self.steps), max(self.config.mask_every, 1)
        if step % every == 0 and step // every < self.config.mask_rounds:
            for name, owned in self.masks("text").items():
                owned.copy_(keep_largest(self.encoder.get_parameter(name), owned, self.owned_share(step)))
