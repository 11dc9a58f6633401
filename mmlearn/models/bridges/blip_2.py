"""BLIP-2: queries learn to extract from a frozen image encoder what words need, and then prompt a language model.

Paper: Li et al. 2023, "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models". Official code: https://github.com/salesforce/LAVIS (``lavis/models/blip2_models``).

Deviations: the language model is a GPT-2 or, as in the paper, an OPT; with FlanT5 see
:mod:`~mmlearn.models.bridges.blip_2_t5`. The image encoder is a vision transformer of any size. The Q-Former and the
language model share one vocabulary, whose first token is not predicted. The Q-Former starts at random, where the paper
takes BERT's weights. Wrong pairs are drawn by their softmax within a process; the official code adds 1e-4 to it and
draws over all processes. Where the batch has ``caption_id``, all equal captions are positives. The norm after the image
encoder is frozen, in the official code it learns, and τ is kept within bounds. Questions are answered as instructions
are, after the queries; in the paper the Q-Former reads the question too, and the image encoder learns. ``tiny`` is
ours: words keep the positions that they have without an image. A checkpoint of Transformers is one half of this model,
without the temperature and the language head of the first stage.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig, MaskedLanguageHead
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.layers.language import check_text_mask, initialise_as_bert
from mmlearn.models.align.pair_losses import matching_loss, read_pairs
from mmlearn.models.bridges.bridge import (
    TINY_LANGUAGE,
    BridgeOutput,
    GPT2Config,
    PrefixBridge,
    check_special_tokens,
    text_loss,
)
from mmlearn.models.bridges.q_former import TINY_QFORMER, QFormer, QFormerConfig, TextSide
from mmlearn.objectives import gather, hard_negatives, own_rows
from mmlearn.objectives.bridging import query_text_contrast, query_text_mask, query_text_similarity
from mmlearn.objectives.draws import generator_of_step
from mmlearn.objectives.generative import caption_language_modelling
from mmlearn.objectives.matching import positive_pairs

PARTS = {"itc": "contrast", "itm": "matching", "itg": "writing", "lm": "a language model"}
FIRST_STAGE = ("itc", "itm", "itg")


@dataclass(frozen=True)
class BLIP2Config(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(
        1408, 39, 16, mlp_width=6144, patch_size=14, norm_epsilon=1e-6
    )
    query_former: QFormerConfig = QFormerConfig()
    language_model: GPT2Config = GPT2Config()
    embedding_width: int = 256
    objectives: tuple[str, ...] = ("itc", "itm", "itg", "lm")  # for which heads are built
    label_smoothing: float = 0.1  # of contrast and of written texts, in the first stage
    temperature: float = 0.07  # at the start; learned where there are heads for all of the first stage
    prefix_positions: bool = True  # queries take positions of the language model, as words do
    seed: int = 0  # of the wrong pairs

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, query_former=TINY_QFORMER, language_model=TINY_LANGUAGE)
        | dict(embedding_width=64, prefix_positions=False),
        "pretrain": dict(objectives=("itc", "itm", "itg")),  # the first stage, without a language model
        "gpt2": dict(),
        "opt-2.7b": dict(language_model=dict(kind="OPTConfig", width=2560, depth=32, num_heads=32)),
        "opt-6.7b": dict(language_model=dict(kind="OPTConfig", width=4096, depth=32, num_heads=32)),
    }


class RepresentationOutput(NamedTuple):
    """Of the first stage; None of an objective without a head."""

    patches: Float[Tensor, "b p image_width"]
    query_embedding: Float[Tensor, "b q d"] | None  # unit length
    text_embedding: Float[Tensor, "b d"] | None  # unit length
    match_logits: Float[Tensor, "b 2"] | None  # index 1: image and text belong together
    caption_logits: Float[Tensor, "b t words"] | None  # of the Q-Former: at position i, of the token after it


class BLIP2Output(NamedTuple):
    """Of both stages: a :class:`RepresentationOutput` and a :class:`BridgeOutput`."""

    patches: Float[Tensor, "b p image_width"]
    query_embedding: Float[Tensor, "b q d"] | None
    text_embedding: Float[Tensor, "b d"] | None
    match_logits: Float[Tensor, "b 2"] | None
    caption_logits: Float[Tensor, "b t words"] | None
    prefix: Float[Tensor, "b q width"]
    token_logits: Float[Tensor, "b t v"]


class BLIP2(PrefixBridge):
    """A frozen image encoder, the Q-Former, and a frozen language model.

    In the first stage the Q-Former reads images and texts under three masks; in the second its queries, projected, are
    the prefix of a text that the language model reads. Where the Q-Former writes, the first token of ``tokens`` is
    replaced by [Decode]. Padding comes last. ``ValueError`` for unknown objectives, and for one that the model was not
    built for. Source: section 3.
    """

    def __init__(self, config: BLIP2Config):
        super().__init__()
        if not config.objectives or set(config.objectives) - PARTS.keys():
            raise ValueError(
                f"objectives are some of {', '.join(PARTS)}, not {', '.join(config.objectives) or 'none'}."
            )
        self.config, wanted = config, set(config.objectives)
        former, as_bert = config.query_former, partial(initialise_as_bert, std=config.query_former.initial_std)
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.query_former = QFormer(former, config.image_encoder.width)
        if wanted - {"lm"}:
            self.text = TextSide(former)
        self.temperature: float | nn.Parameter = config.temperature
        if "itc" in wanted:
            self.image_projection = nn.Linear(former.width, config.embedding_width)
            self.text_projection = nn.Linear(former.width, config.embedding_width)
        if "itm" in wanted:
            self.match_head = nn.Linear(former.width, 2).apply(as_bert)
        if "itg" in wanted:
            self.language_head = MaskedLanguageHead(replace(former, vocab_size=former.vocab_size + 1)).apply(as_bert)
            self.register_buffer("steps", torch.tensor(0))
            self.temperature = nn.Parameter(torch.tensor(config.temperature))
        if "lm" in wanted:
            check_special_tokens(config)
            self.language_projection = nn.Linear(former.width, config.language_model.width)
            self.language_model = config.language_model.build().requires_grad_(False)

    def _require(self, objective: str) -> None:
        if objective not in self.config.objectives:
            raise ValueError(f"This BLIP-2 was built without {PARTS[objective]}: add {objective!r} to its objectives.")

    def prefix(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b q d"]:
        self._require("lm")
        return self.language_projection(self.query_former(self.image_encoder(image))[0])

    def encode_image(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b q d"]:
        self._require("itc")
        return F.normalize(self.image_projection(self.query_former(self.image_encoder(image))[0]), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        self._require("itc")
        # Under the mask of contrast texts see no query, so that any image will do.
        blank = self.query_former.queries.new_zeros(len(tokens), 1, self.config.image_encoder.width)
        words = self._read_pair("contrast", blank, tokens, mask)[1]
        return F.normalize(self.text_projection(words[:, 0]), dim=-1)

    def match(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether image and text belong together, at index 1: the mean over queries."""
        self._require("itm")
        return self._match(self.image_encoder(image), tokens, mask)

    def _match(self, patches: Tensor, tokens: Tensor, mask: Tensor | None) -> Float[Tensor, "b 2"]:
        queries = self._read_pair("matching", patches, tokens, mask)[0]
        return self.match_head(queries).mean(1)  # (b, q, 2) → (b, 2)

    def _read_pair(
        self, task: str, patches: Tensor, tokens: Tensor, mask: Tensor | None
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b t d"]]:
        """Queries and words after the Q-Former, under the self-attention mask of the task."""
        check_text_mask(mask)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        attention_mask = query_text_mask(task, self.config.query_former.num_queries, mask)  # (b, q + t, q + t)
        return self.query_former(patches, self.text, tokens, attention_mask)

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        objectives: Sequence[str] | None = None,
    ) -> BLIP2Output | RepresentationOutput | BridgeOutput:
        """All objectives that the model was built for, or only these ``objectives``; of one stage or of both."""
        wanted = set(self.config.objectives if objectives is None else objectives)
        patches = self.image_encoder(image)
        if wanted == {"lm"}:
            return self.generate_logits(patches, tokens, mask)
        output = self.represent(patches, tokens, mask, wanted)
        return output if "lm" not in wanted else BLIP2Output(*output, *self.generate_logits(patches, tokens, mask))

    def represent(
        self, patches: Float[Tensor, "b p d"], tokens: Int[Tensor, "b t"], mask: Tensor | None, wanted: set[str]
    ) -> RepresentationOutput:
        """The first stage: queries and words under a mask for each objective."""
        query_embedding = text_embedding = match_logits = caption_logits = None
        if "itc" in wanted:  # queries and words do not see each other
            queries, words = self._read_pair("contrast", patches, tokens, mask)
            query_embedding = F.normalize(self.image_projection(queries), dim=-1)  # (b, q, d)
            text_embedding = F.normalize(self.text_projection(words[:, 0]), dim=-1)  # (b, d)
        if "itm" in wanted:  # all see all
            match_logits = self._match(patches, tokens, mask)
        if "itg" in wanted:  # words see queries and earlier words
            after_decode = F.pad(tokens[:, 1:], (1, 0), value=self.config.query_former.vocab_size)  # [Decode] is first
            words = self._read_pair("writing", patches, after_decode, mask)[1]  # (b, t, d)
            caption_logits = self.language_head(words, self.text.embedding.tokens.weight)
        return RepresentationOutput(patches, query_embedding, text_embedding, match_logits, caption_logits)

    def generate_logits(
        self, patches: Float[Tensor, "b p d"], tokens: Int[Tensor, "b t"], mask: Tensor | None
    ) -> BridgeOutput:
        """The second stage: the language model reads the queries and the text."""
        prefix = self.language_projection(self.query_former(patches)[0])  # (b, q, width)
        return BridgeOutput(prefix, self.logits_after_prefix(prefix, tokens, mask))

    def representation_loss(
        self, batch: dict[str, Tensor], generator: torch.Generator | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """The first stage: contrast, matching with hard negatives, and writing. All share their queries.

        Negatives are drawn here, so images come with their texts: by ``generator``, or by one of the seed and the step.
        Source: section 3.2.
        """
        self.freeze_modes()
        for objective in FIRST_STAGE:
            self._require(objective)
        image, tokens, mask, caption_id = read_pairs(batch, "BLIP-2")
        output = self(image, tokens, mask, FIRST_STAGE)
        queries, texts, patches = output.query_embedding, output.text_embedding, output.patches
        rows, scale, smoothing = own_rows(caption_id), 1 / self.temperature, self.config.label_smoothing
        positives = positive_pairs(gather(caption_id), rows)
        contrast = query_text_contrast(gather(queries), gather(texts), scale, positives, rows, smoothing)

        generator = generator_of_step(self.config.seed, self.steps) if generator is None else generator
        with torch.no_grad():  # a wrong text for each image, and a wrong image for each text
            similarity, positives = scale * query_text_similarity(queries, texts), positive_pairs(caption_id)  # (b, b)
            text = hard_negatives(similarity, positives, generator)
            image = hard_negatives(similarity.T, positives.T, generator)
        wrong = self._match(
            torch.cat([patches, patches[image]]), torch.cat([tokens[text], tokens]), torch.cat([mask[text], mask])
        )  # (2 b, 2)
        matching = matching_loss(output.match_logits, wrong)
        writing = caption_language_modelling(output.caption_logits, tokens, mask, smoothing)
        return {"itc": contrast, "itm": matching, "itg": writing}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The second stage: the next token of each text after the queries, by the language model."""
        self._require("lm")
        self.freeze_modes()
        check_text_mask(batch.get("mask"))
        output = self(batch["image"], batch["tokens"], batch.get("mask"), ("lm",))
        return text_loss(output.token_logits, batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Count the step, and keep τ between 0.001 and 0.5, as ALBEF does."""
        if isinstance(self.temperature, nn.Parameter):
            self.steps += 1
            self.temperature.clamp_(0.001, 0.5)
