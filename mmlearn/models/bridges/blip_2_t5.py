"""BLIP-2 on FlanT5: the queries of a Q-Former are what an encoder reads first, and a decoder writes about them.

Paper: Li et al. 2023, "BLIP-2: Bootstrapping Language-Image Pre-training with Frozen Image Encoders and Large Language
Models", the second stage with an encoder-decoder. Official code: https://github.com/salesforce/LAVIS
(``lavis/models/blip2_models/blip2_t5.py``).

A GPT-2 or an OPT goes on where its prompt ends, so image, prompt and answer are one sequence. A T5 has two: its encoder
reads the queries and the prompt both ways, and its decoder writes the answer. The Q-Former comes from the first stage,
which is in :mod:`~mmlearn.models.bridges.blip_2`.

Deviations: a caption is written as a whole, from the queries alone; the paper cuts it in two, and its first half is
read. Questions are read after the queries, and not by the Q-Former as well. ``tiny`` is ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import DecodingStep, cached
from mmlearn.generation.decoding import greedy
from mmlearn.layers import Config, ImageEncoder, ImageEncoderConfig
from mmlearn.layers.encoders import TINY_IMAGE
from mmlearn.models.bridges.bridge import BridgeOutput, text_loss
from mmlearn.models.bridges.projector import FrozenParts
from mmlearn.models.bridges.q_former import TINY_QFORMER, QFormer, QFormerConfig
from mmlearn.models.text.t5 import T5, T5Config
from mmlearn.models.text.writing import source_texts


@dataclass(frozen=True)
class BLIP2T5Config(Config):
    image_encoder: ImageEncoderConfig = ImageEncoderConfig(
        1408, 39, 16, mlp_width=6144, patch_size=14, norm_epsilon=1e-6
    )
    query_former: QFormerConfig = QFormerConfig()
    language_model: T5Config = T5Config(**T5Config.PRESETS["flan-t5-xl"])

    PRESETS = {
        "tiny": dict(image_encoder=TINY_IMAGE, query_former=TINY_QFORMER, language_model=T5Config.tiny()),
        "flan-t5-xl": dict(),
        "flan-t5-xxl": dict(language_model=T5Config(**T5Config.PRESETS["flan-t5-xxl"])),
    }


class BLIP2T5(FrozenParts):
    r"""The encoder reads q projected queries and the prompt; the decoder writes. Only the Q-Former and W learn.

    .. math:: c = \mathrm{Encoder}(W\, \mathrm{QFormer}(\mathrm{ViT}(I)) + b,\; E[x_{prompt}]), \quad
       p(y_i \mid I, x_{prompt}, y_{<i}) = \mathrm{Decoder}(y_{<i}, c)

    Padding comes last. Source: section 3.3 and figure 3, bottom.
    """

    def __init__(self, config: BLIP2T5Config):
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config.image_encoder).requires_grad_(False)
        self.query_former = QFormer(config.query_former, config.image_encoder.width)
        self.language_projection = nn.Linear(config.query_former.width, config.language_model.width)
        self.language_model = T5(config.language_model).requires_grad_(False)

    def prefix(self, image: Float[Tensor, "b c height width"]) -> Float[Tensor, "b q d"]:
        """The queries of each image, as wide as the embeddings of words."""
        return self.language_projection(self.query_former(self.image_encoder(image))[0])  # (b, q, image) → (b, q, d)

    def read(
        self, prefix: Float[Tensor, "b q d"], prompt: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"]
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """What the encoder makes of queries and prompts, and which of it is real. An end token follows each prompt."""
        column, length = torch.arange(prompt.shape[1] + 1, device=prompt.device), mask.sum(1, keepdim=True)
        prompt = F.pad(prompt, (0, 1)).masked_fill(column == length, self.language_model.config.end_token)
        x = torch.cat([prefix, self.language_model.embedding(prompt)], dim=1)  # (b, q + t + 1, d)
        real = F.pad(column <= length, (prefix.shape[1], 0), value=True)  # (b, q + t + 1)
        return self.language_model.encoder(x, real), real

    def forward(
        self,
        image: Float[Tensor, "b c height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        response: Bool[Tensor, "b t"] | None = None,
    ) -> BridgeOutput:
        """Logits of the token after each one that the decoder reads: the start, and the ``response``.

        What comes before a response is its prompt, which the encoder reads. Without a ``response`` it is the whole text
        but its start token, and there is no prompt.
        """
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        first = torch.arange(tokens.shape[1], device=tokens.device) == 0  # the start token, which a T5 has not
        response = mask & ~first if response is None else mask & response
        prefix = self.prefix(image)  # (b, q, d)
        context, real = self.read(prefix, tokens[:, 1:], (mask & ~response)[:, 1:])  # (b, q + t, d)
        answers = F.pad(response[:, 1:], (0, 1))  # after this token comes one of the response
        written = torch.where(answers & ~response, self.language_model.config.pad_token, tokens)  # begins with the pad
        return BridgeOutput(prefix, self.language_model.decode(written, context, real, answers | response))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of each caption; with a ``response`` in the batch, of that alone, after its prompt was read."""
        self.freeze_modes()
        output = self(batch["image"], batch["tokens"], batch.get("mask"), batch.get("response"))
        return text_loss(output.token_logits, batch)

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b c height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b length"]:
        """The ``prompt`` and what is written about it: up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded, at either side, where ``prompt_mask`` is False.
        """
        model = self.language_model
        prompt = torch.zeros(len(image), 0, dtype=torch.long, device=image.device) if prompt is None else prompt
        prompts = source_texts(prompt, prompt_mask, [], [], model.config.pad_token)  # padded at their right
        context, real = self.read(self.prefix(image), *prompts)
        start = prompt.new_full((len(prompt), 1), model.config.pad_token)
        longest = max_length - prompt.shape[1] + 1  # with the start, which is cut off again
        ids = dict(end_token=model.config.end_token, pad_token=model.config.pad_token)

        def score(step: DecodingStep) -> Float[Tensor, "n v"]:
            return model.decode(step.tokens, step.context(context), step.rows(real), step.mask)[:, -1]

        with cached(model, score, torch.ones_like(start, dtype=torch.bool)) as next_logits:
            return torch.cat([prompt, decode(next_logits, start, max_length=longest, **ids)[:, 1:]], dim=1)
