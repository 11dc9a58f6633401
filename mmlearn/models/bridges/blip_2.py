"""BLIP-2: queries learn to ask a frozen picture encoder what words need, and then speak to a frozen language model.

Paper: Li et al. 2023, "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models". Official code: https://github.com/salesforce/LAVIS (``lavis/models/blip2_models``).

Deviations: the language model is GPT-2, where the paper takes OPT and FlanT5, and the picture encoder a vision
transformer of any kind. One vocabulary serves the Q-Former and the language model, whose first token is not asked. The
Q-Former starts at random, where the paper takes BERT's weights. Wrong pairs are drawn by their softmax, to which the
official code adds 1e-4 and which it takes of all processes. Where the batch says which captions are equal, all of them
are positives. The norm behind the picture encoder stays as it is, there it learns, and τ is kept within bounds.
Questions are answered as instructions are, behind the queries; in the paper the Q-Former reads the question too, and
the picture encoder learns. ``tiny`` is ours: words keep the places that they have without a picture. A checkpoint of
Transformers is one half of this model, without the temperature and the head that writes in the first stage.
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
from mmlearn.layers.language import check_text_mask, initialise_as_bert
from mmlearn.models.align.pair_losses import match_right_and_wrong, read_pairs
from mmlearn.models.bridges.bridge import (
    GPT2,
    TINY_IMAGE,
    TINY_LANGUAGE,
    GPT2Config,
    PrefixBridge,
    check_specials,
    text_loss,
)
from mmlearn.models.bridges.q_former import TINY_QFORMER, QFormer, QFormerConfig, TextSide
from mmlearn.objectives import gather, hard_negatives, own_rows
from mmlearn.objectives.align import positive_pairs
from mmlearn.objectives.bridging import query_text_contrast, query_text_mask, query_text_similarity
from mmlearn.objectives.generative import caption_language_modelling

PARTS = {"itc": "contrast", "itm": "matching", "itg": "writing", "lm": "a language model"}


@dataclass(frozen=True)
class BLIP2Config(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(
        1408, 39, 16, mlp_width=6144, patch_size=14, norm_epsilon=1e-6
    )
    query_former: QFormerConfig = QFormerConfig()
    language_model: GPT2Config = GPT2Config()
    embedding_width: int = 256
    objectives: tuple[str, ...] = ("itc", "itm", "itg", "lm")  # what there are heads for
    label_smoothing: float = 0.1  # of contrast and of written texts, in the first stage
    temperature: float = 0.07  # at the start; learned where there are heads for all of the first stage
    prefix_positions: bool = True  # queries take places of the language model, as words do

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, query_former=TINY_QFORMER, language_model=TINY_LANGUAGE)
        | dict(embedding_width=64, prefix_positions=False),
        "pretrain": dict(objectives=("itc", "itm", "itg")),  # the first stage, without a language model
        "gpt2": dict(),
    }


class BLIP2Output(NamedTuple):
    prefix: Float[Tensor, "b q width"] | None  # what the language model reads of the picture
    token_logits: Float[Tensor, "b t v"] | None  # of the language model: at place i, what comes after token i
    query_embedding: Float[Tensor, "b q d"] | None  # unit length
    text_embedding: Float[Tensor, "b d"] | None  # unit length
    match_logits: Float[Tensor, "b 2"] | None  # index 1: picture and text belong together
    written_logits: Float[Tensor, "b t words"] | None  # of the Q-Former: at place i, what comes after token i


class BLIP2(PrefixBridge):
    """A picture encoder that is frozen, the Q-Former, and a language model that is frozen, too.

    In the first stage the Q-Former reads pictures and texts under three masks; in the second its queries, projected,
    stand before a text that the language model reads. What stands first in ``tokens`` gives way to [Decode] where the
    Q-Former writes. Padding comes last. ``ValueError`` for objectives that there are not, and for what is asked of a
    model that was built without it. Source: section 3.
    """

    def __init__(self, config: BLIP2Config):
        super().__init__()
        if not config.objectives or set(config.objectives) - PARTS.keys():
            raise ValueError(
                f"objectives are some of {', '.join(PARTS)}, not {', '.join(config.objectives) or 'none'}."
            )
        self.config, wanted = config, set(config.objectives)
        former, start = config.query_former, partial(initialise_as_bert, std=config.query_former.initial_std)
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.query_former = QFormer(former, config.image_encoder.width)
        self.text = TextSide(former) if wanted - {"lm"} else None
        self.image_projection = self.text_projection = self.match_head = self.language_head = None
        self.temperature = config.temperature
        if "itc" in wanted:
            self.image_projection = nn.Linear(former.width, config.embedding_width)
            self.text_projection = nn.Linear(former.width, config.embedding_width)
        if "itm" in wanted:
            self.match_head = nn.Linear(former.width, 2).apply(start)
        if "itg" in wanted:
            self.language_head = MaskedLanguageHead(replace(former, vocab_size=former.vocab_size + 1)).apply(start)
            self.temperature = nn.Parameter(torch.tensor(config.temperature))
        self.language_model = self.language_projection = None
        if "lm" in wanted:
            check_specials(config)
            self.language_projection = nn.Linear(former.width, config.language_model.width)
            self.language_model = GPT2(config.language_model).requires_grad_(False)

    def _require(self, objective: str) -> None:
        if objective not in self.config.objectives:
            raise ValueError(f"This BLIP-2 was built without {PARTS[objective]}: add {objective!r} to its objectives.")

    def prefix(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b q d"]:
        self._require("lm")
        return self.language_projection(self.query_former(self.image_encoder(image))[0])

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b q d"]:
        self._require("itc")
        return F.normalize(self.image_projection(self.query_former(self.image_encoder(image))[0]), dim=-1)

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b d"]:
        self._require("itc")
        nothing = self.query_former.queries.new_zeros(len(tokens), 1, self.config.image_encoder.width)
        states = self._meet("contrast", nothing, tokens, mask)[1]
        return F.normalize(self.text_projection(states[:, 0]), dim=-1)

    def match(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b 2"]:
        """Logits of whether picture and text belong together, which they do at index 1: the mean of all queries'."""
        self._require("itm")
        return self._match(self.image_encoder(image), tokens, mask)

    def _match(self, patches: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        return self.match_head(self._meet("matching", patches, tokens, mask)[0]).mean(1)

    def _write(self, patches: Tensor, tokens: Tensor, mask: Tensor | None) -> Tensor:
        begun = F.pad(tokens[:, 1:], (1, 0), value=self.config.query_former.vocab_size)  # [Decode]
        states = self._meet("writing", patches, begun, mask)[1]
        return self.language_head(states, self.text.embedding.tokens.weight)

    def _meet(
        self, task: str, patches: Tensor, tokens: Tensor, mask: Tensor | None
    ) -> tuple[Float[Tensor, "b q d"], Float[Tensor, "b t d"]]:
        """Queries and text where they see each other as the task has it."""
        check_text_mask(mask)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        sees = query_text_mask(task, self.config.query_former.num_queries, mask)
        return self.query_former(patches, self.text, tokens, sees)

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        objectives: Sequence[str] | None = None,
    ) -> BLIP2Output:
        """What these ``objectives`` are about: all that it was built for, or some of them."""
        wanted = self.config.objectives if objectives is None else objectives
        patches, prefix = self.image_encoder(image), None
        token_logits = query_embedding = text_embedding = match_logits = written_logits = None
        if "itc" in wanted:
            asked, said = self._meet("contrast", patches, tokens, mask)
            query_embedding = F.normalize(self.image_projection(asked), dim=-1)
            text_embedding = F.normalize(self.text_projection(said[:, 0]), dim=-1)
        if "itm" in wanted:
            match_logits = self._match(patches, tokens, mask)
        if "itg" in wanted:
            written_logits = self._write(patches, tokens, mask)
        if "lm" in wanted:
            prefix = self.language_projection(self.query_former(patches)[0])
            token_logits = self.logits_behind(prefix, tokens, mask)
        return BLIP2Output(prefix, token_logits, query_embedding, text_embedding, match_logits, written_logits)

    def representation_loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The first stage: contrast, matching with wrong pairs that look right, and writing. All share their queries.

        Wrong pairs are a function of the batch, so pictures come with their texts. Source: section 3.2.
        """
        self.settle()
        for objective in ("itc", "itm", "itg"):
            self._require(objective)
        image, tokens, mask, caption_id = read_pairs(batch, "BLIP-2")
        patches, rows, scale = self.image_encoder(image), own_rows(caption_id), 1 / self.temperature
        asked, said = self._meet("contrast", patches, tokens, mask)
        queries = F.normalize(self.image_projection(asked), dim=-1)
        texts = F.normalize(self.text_projection(said[:, 0]), dim=-1)
        positives, smoothing = positive_pairs(gather(caption_id), rows), self.config.label_smoothing
        contrast = query_text_contrast(gather(queries), gather(texts), scale, positives, rows, smoothing)
        with torch.no_grad():
            chance = torch.Generator().manual_seed(int((tokens * mask).sum()))
            similarity, same = scale * query_text_similarity(queries, texts), positive_pairs(caption_id)
            text, picture = hard_negatives(similarity, same, chance), hard_negatives(similarity.T, same.T, chance)
        wrong = self._match(
            torch.cat([patches, patches[picture]]), torch.cat([tokens[text], tokens]), torch.cat([mask[text], mask])
        )
        matching = match_right_and_wrong(self._match(patches, tokens, mask), wrong)
        writing = caption_language_modelling(self._write(patches, tokens, mask), tokens, mask, smoothing)
        return {"itc": contrast, "itm": matching, "itg": writing}

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The second stage: the language model reads the queries, and each token of the text behind them is asked."""
        self._require("lm")
        self.settle()
        check_text_mask(batch.get("mask"))
        output = self(batch["image"], batch["tokens"], batch.get("mask"), ("lm",))
        return text_loss(output.token_logits, batch)

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep τ between 0.001 and 0.5, as ALBEF does."""
        if isinstance(self.temperature, nn.Parameter):
            self.temperature.clamp_(0.001, 0.5)


FIRST = ("query_former", "text", "image_projection", "match_head", "language_head", "temperature")
