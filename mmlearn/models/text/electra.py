"""ELECTRA: a small generator fills masked words with plausible ones, a large discriminator detects the replaced words.

Paper: Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators". Official code:
https://github.com/google-research/electra.

Deviations: ``small`` has the generator of the paper's table 6, a quarter as wide as the discriminator. A masked token
becomes as in BERT itself in 10 % of cases and a random one in 10 %; in the official code it is the mask token
in 85 % and else its own word. The generator never writes the pad token. A published checkpoint holds one half of
this model. ``tiny`` is ours.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, Transformer
from mmlearn.layers.activations import ACTIVATIONS
from mmlearn.layers.language import TINY_BERT, initialise_as_bert
from mmlearn.layers.steps import StepCounter
from mmlearn.objectives import masked_cross_entropy, replaced_token_detection, sample_replacements
from mmlearn.objectives.draws import generator_of_step
from mmlearn.objectives.masked import IGNORED


@dataclass(frozen=True)
class ELECTRAConfig(BERTEncoderConfig):
    """The sizes of a BERT are the discriminator's."""

    embedding_width: int = 768  # of the shared table; each half projects it to its own width
    generator_width: int = 256
    generator_depth: int = 12
    generator_heads: int = 4
    generator_mlp_width: int | None = None  # 4 · generator_width
    generator: bool = True
    discriminator: bool = True
    rtd_weight: float = 50.0  # of the discriminator's loss
    seed: int = 0  # of what the generator draws

    PRESETS = {
        "tiny": TINY_BERT | dict(embedding_width=64, generator_width=32, generator_depth=2, generator_heads=2),
        "small": dict(width=256, num_heads=4, embedding_width=128, generator_width=64, generator_heads=1),
        "base": dict(),
        "large": dict(width=1024, depth=24, num_heads=16, embedding_width=1024, generator_depth=24),
    }


class ELECTRAOutput(NamedTuple):
    tokens: Float[Tensor, "b t d"] | None  # of the discriminator, which is what tasks use
    replaced_logits: Float[Tensor, "b t"] | None  # above 0: this token is not the original one
    token_logits: Float[Tensor, "b t v"] | Float[Tensor, "masked v"] | None  # of the generator
    corrupted: Int[Tensor, "b t"] | None = None  # the text with the generator's samples
    replaced: Bool[Tensor, "b t"] | None = None  # which of its tokens are not the original ones
    token_label: Int[Tensor, "masked"] | None = None  # the tokens that were masked


class ELECTRAEncoder(nn.Module):
    """A transformer that reads embeddings of another width."""

    def __init__(self, config: BERTEncoderConfig, embedding_width: int):
        super().__init__()
        same = embedding_width == config.width
        self.project = nn.Identity() if same else nn.Linear(embedding_width, config.width)
        self.transformer = Transformer(config)

    def forward(self, x: Float[Tensor, "b t e"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        return self.transformer(self.project(x), mask)


class ELECTRA(StepCounter):
    """Two encoders over one embedding: a generator with a language head, a discriminator with a detection head.

    ``mask`` is True where a token is real; ``token_type`` says to which of two sentences it belongs. ``ValueError``
    where neither half is to be built. Source: section 2, figure 2, and section 3.2 for the shared embedding.
    """

    def __init__(self, config: ELECTRAConfig):
        super().__init__()
        if not (config.generator or config.discriminator):
            raise ValueError(
                "ELECTRA has a generator or a discriminator: set generator=True, discriminator=True, or both."
            )
        self.config = config
        self.embedding = BERTEmbedding(replace(config, width=config.embedding_width))
        self.generator = self.discriminator = None
        if config.generator:
            small = replace(
                config,
                width=config.generator_width,
                depth=config.generator_depth,
                num_heads=config.generator_heads,
                mlp_width=config.generator_mlp_width,
            )
            self.generator = ELECTRAEncoder(small, config.embedding_width)
            self.language_head = MaskedLanguageHead(replace(small, activation="gelu"), config.embedding_width)
        if config.discriminator:
            self.discriminator = ELECTRAEncoder(config, config.embedding_width)
            self.detection_head = DetectionHead(config)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
        original: Int[Tensor, "b t"] | None = None,
    ) -> ELECTRAOutput:
        """Both halves read the text; with ``original`` the generator first replaces its masked tokens.

        ``original`` is the original token where one is masked, and -100 elsewhere. The generator then predicts masked
        tokens alone, and the discriminator reads its samples. ``ValueError`` for ``original`` without a generator.
        """
        if original is not None and self.generator is None:
            raise ValueError("This ELECTRA was built without a generator; set generator=True in its configuration.")
        x = self.embedding(tokens, token_type, mask)  # (b, t, e)
        states = replaced_logits = token_logits = corrupted = replaced = token_label = None
        if self.generator is not None:
            hidden = self.generator(x, mask)  # (b, t, generator_width)
            if original is not None:
                positions = (original != IGNORED).nonzero(as_tuple=True)  # waits for a GPU, so once
                hidden, token_label = hidden[positions], original[positions]  # (masked, generator_width), (masked,)
            token_logits = self.language_head(hidden, self.embedding.tokens.weight)
            if original is not None:
                corrupted, replaced = self.corrupt(tokens, original, token_logits)
                x = self.embedding(corrupted, token_type, mask)
        if self.discriminator is not None:
            states = self.discriminator(x, mask)  # (b, t, d)
            replaced_logits = self.detection_head(states)  # (b, t)
        return ELECTRAOutput(states, replaced_logits, token_logits, corrupted, replaced, token_label)

    def corrupt(
        self, tokens: Int[Tensor, "b t"], original: Int[Tensor, "b t"], logits: Float[Tensor, "masked v"]
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """The text with a sample of the generator for each masked token, and which tokens are not the original ones.

        Samples depend on the seed and the step alone. No gradient goes through them.
        """
        logits, pad = logits.detach().clone(), self.config.pad_token
        if pad is not None:
            logits[:, pad] = -torch.inf  # no sample may look like padding
        return sample_replacements(logits, tokens, original, generator_of_step(self.config.seed, self.steps))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The generator's MLM, and λ times the discriminator's RTD on the corrupted text.

        ``batch["token_label"]`` (b, t) is the true token where one was masked and -100 elsewhere. Without a generator
        ``batch["replaced"]`` (b, t) says which tokens are not the original ones. ``ValueError`` without a text.
        Source: section 2, the combined loss; appendix A for λ = 50.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        tokens, mask, losses = batch["tokens"], batch.get("mask"), {}
        corrupted_before = self.generator is None and "replaced" in batch  # by a generator outside this model
        original = None if corrupted_before else batch["token_label"]
        output = self(tokens, mask, batch.get("token_type"), original)
        if original is not None:
            losses["mlm"] = masked_cross_entropy(output.token_logits, output.token_label)
        if self.discriminator is not None:
            replaced = batch["replaced"] if original is None else output.replaced
            real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
            losses["rtd"] = self.config.rtd_weight * replaced_token_detection(output.replaced_logits, replaced, real)
        return losses


class DetectionHead(nn.Module):
    """One logit for each token: is it replaced?"""

    def __init__(self, config: ELECTRAConfig):
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.output = nn.Linear(config.width, 1)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        return rearrange(self.output(self.activation(self.dense(x))), "b t 1 -> b t")
