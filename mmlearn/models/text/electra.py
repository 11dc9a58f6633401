"""ELECTRA: a small model fills gaps with words that might stand there, a large one says of each word whether it is new.

Paper: Clark et al. 2020, "ELECTRA: Pre-training Text Encoders as Discriminators Rather Than Generators". Official code:
https://github.com/google-research/electra.

Deviations: ``small`` has the generator of the paper's table 6, a quarter as wide as the discriminator. A gap is shown
as in BERT, in 10 % of cases with its own word and in 10 % with a random one; in the official code it is the mask token
in 85 % and else its own word. The generator never writes the pad token. A published checkpoint is one half of this
model. ``tiny`` is ours.
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
from mmlearn.layers.steps import CountsSteps
from mmlearn.objectives import masked_cross_entropy, replaced_token_detection, sample_replacements
from mmlearn.objectives.draws import generator_of_step
from mmlearn.objectives.masked import IGNORED


@dataclass(frozen=True)
class ELECTRAConfig(BERTEncoderConfig):
    """The sizes of a BERT are the discriminator's."""

    embedding_width: int = 768  # both halves project it to their width, where that is another
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
    token_logits: Float[Tensor, "b t v"] | Float[Tensor, "gaps v"] | None  # of the generator; of gaps alone if it fills
    filled: Int[Tensor, "b t"] | None = None  # the text as the generator has filled it
    replaced: Bool[Tensor, "b t"] | None = None  # which of its tokens are not the original ones


class Half(nn.Module):
    """A transformer that reads embeddings of another width."""

    def __init__(self, config: BERTEncoderConfig, embedding_width: int):
        super().__init__()
        same = embedding_width == config.width
        self.project = nn.Identity() if same else nn.Linear(embedding_width, config.width)
        self.transformer = Transformer(config)

    def forward(self, x: Float[Tensor, "b t e"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b t d"]:
        return self.transformer(self.project(x), mask)


class ELECTRA(CountsSteps):
    """Two encoders over one embedding: the generator with a language head, the discriminator with a yes/no question.

    ``mask`` is True where a token is real; ``token_type`` says to which of two sentences it belongs. ``ValueError``
    where neither half is to be built. Source: section 2, figure 2, and section 3.2 for the shared embedding.
    """

    def __init__(self, config: ELECTRAConfig):
        super().__init__()
        if not (config.generator or config.discriminator):
            raise ValueError("ELECTRA fills gaps or judges words: set generator=True, discriminator=True, or both.")
        self.config = config
        self.embedding = BERTEmbedding(replace(config, width=config.embedding_width))
        self.generator = self.language_head = self.discriminator = self.detection_head = None
        if config.generator:
            small = replace(
                config,
                width=config.generator_width,
                depth=config.generator_depth,
                num_heads=config.generator_heads,
                mlp_width=config.generator_mlp_width,
            )
            self.generator = Half(small, config.embedding_width)
            self.language_head = MaskedLanguageHead(replace(small, activation="gelu"), config.embedding_width)
        if config.discriminator:
            self.discriminator = Half(config, config.embedding_width)
            self.detection_head = DetectionHead(config)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        token_type: Int[Tensor, "b t"] | None = None,
        truth: Int[Tensor, "b t"] | None = None,
    ) -> ELECTRAOutput:
        """Both halves read the text; or, where the ``truth`` of its gaps is given, the generator fills them first.

        ``truth`` is the true token of a gap and -100 elsewhere. The generator then speaks of gaps alone, and the
        discriminator reads what it wrote. ``ValueError`` for a truth without a generator.
        """
        if truth is not None and self.generator is None:
            raise ValueError("This ELECTRA was built without a generator; set generator=True in its configuration.")
        x = self.embedding(tokens, token_type, mask)
        states = replaced_logits = token_logits = filled = replaced = None
        if self.generator is not None:
            small = self.generator(x, mask)
            small = small if truth is None else small[truth != IGNORED]
            token_logits = self.language_head(small, self.embedding.tokens.weight)
            if truth is not None:
                filled, replaced = self.fill(tokens, truth, token_logits)
                x = self.embedding(filled, token_type, mask)
        if self.discriminator is not None:
            states = self.discriminator(x, mask)
            replaced_logits = self.detection_head(states)
        return ELECTRAOutput(states, replaced_logits, token_logits, filled, replaced)

    def fill(
        self, tokens: Int[Tensor, "b t"], truth: Int[Tensor, "b t"], logits: Float[Tensor, "gaps v"]
    ) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
        """The text with a word drawn for each gap, and which tokens are not the true ones. Draws go by the step."""
        odds, pad = logits.detach().clone(), self.config.pad_token
        if pad is not None:
            odds[:, pad] = -torch.inf  # nothing is to look like padding
        return sample_replacements(odds, tokens, truth, generator_of_step(self.config.seed, self.steps))

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """The generator's MLM, and λ times the discriminator's RTD on what the generator wrote.

        ``batch["token_label"]`` (b, t) is the true token where there is a gap and -100 elsewhere. Without a generator
        ``batch["replaced"]`` (b, t) says which tokens are not the original ones. ``ValueError`` without a text.
        Source: section 2, the combined loss; appendix A for λ = 50.
        """
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        tokens, mask, losses = batch["tokens"], batch.get("mask"), {}
        judged = self.generator is None and "replaced" in batch  # words that somebody else has replaced
        truth = None if judged else batch["token_label"]
        output = self(tokens, mask, batch.get("token_type"), truth)
        if truth is not None:
            losses["mlm"] = masked_cross_entropy(output.token_logits, truth[truth != IGNORED])
        if self.discriminator is not None:
            replaced = batch["replaced"] if truth is None else output.replaced
            real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
            losses["rtd"] = self.config.rtd_weight * replaced_token_detection(output.replaced_logits, replaced, real)
        return losses


class DetectionHead(nn.Module):
    """Is this token new? A layer and one number."""

    def __init__(self, config: ELECTRAConfig):
        super().__init__()
        self.dense = nn.Linear(config.width, config.width)
        self.activation = ACTIVATIONS[config.activation]
        self.output = nn.Linear(config.width, 1)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t"]:
        return rearrange(self.output(self.activation(self.dense(x))), "b t 1 -> b t")
