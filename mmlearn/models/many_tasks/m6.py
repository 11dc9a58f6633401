"""M6: one stack of blocks that is encoder and decoder in turn, as masks have it, with sparse experts.

Papers: Lin et al. 2021, "M6: A Chinese Multimodal Pretrainer"; Yang et al. 2021, "M6-T: Exploring Sparse Expert Models
and Beyond". Official code: none was published.

Deviations: what could be read of the papers is their ideas, and no sizes, so that every number here is ours. Patches
are projected, where the paper takes features of a convolutional network. A token goes to its likeliest expert, however
many choose the same: experts have no capacity, nothing is dropped, and no noise is added. Words may be of any language;
the paper's are Chinese. Places and picture codes are of the same vocabulary, so that scenes' tasks can be asked. Texts
alone are learned as BART's are: from a caption with gaps.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import ImageEmbedding, Transformer, TransformerBlock, TransformerConfig
from mmlearn.layers.embeddings import look_up
from mmlearn.models.many_tasks.unified_vocabulary import ImageTextSeq2Seq, Vocabulary, check_tokens
from mmlearn.models.unified.sparse import Routing, SparseBlock
from mmlearn.objectives import prefix_mask, shifted_right, text_denoising
from mmlearn.objectives.experts import balance


@dataclass(frozen=True)
class M6Config(Vocabulary, TransformerConfig):
    image_size: int | tuple[int, int] = 224  # pixels
    patch_size: int = 16  # pixels
    vocab_size: int = 30_000  # words
    bins: int = 1000  # places
    codes: int = 8192
    max_length: int = 256  # tokens of a text, and of a target
    text_start: int = 1
    start_token: int = 1  # of a target
    end_token: int = 2
    pad_token: int = 0
    experts: int = 16  # of each sparse block
    chosen: int = 1  # experts that a token goes to
    sparse_every: int = 2  # every so many blocks one is sparse, the last one first
    balance_weight: float = 0.01
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    dropout: float = 0.1

    PRESETS = {
        "tiny": dict(image_size=64, patch_size=8, vocab_size=512, bins=64, codes=64, max_length=64, experts=4)
        | dict(width=64, depth=3, num_heads=4, dropout=0.0),
        "base": dict(),
    }


class M6Output(NamedTuple):
    token_logits: Float[Tensor, "b o v"]  # at place i: what token i of the target is
    context: Float[Tensor, "b n d"]  # what is read, as it goes into the first block
    routings: list[Routing]  # where tokens went in each sparse block


class M6(ImageTextSeq2Seq):
    r"""Picture, text and target are one sequence; what is read is seen both ways, and the target from left to right.

    .. math:: p(y \mid x) = \prod_i p(y_i \mid x_v, x_l, y_{<i}), \quad \text{without } x_v \text{ or } x_l
       \text{ where a mask hides it}

    With ``seen`` (b, 2) a row's picture, or its text, is hidden: text to text, picture to text, or both to text by the
    same weights. Every ``sparse_every``-th block sends a token to one of its experts. ``mask`` is True where a token is
    real. Raises ``ValueError`` for settings, tokens and pictures that do not fit. Source: Lin et al. 2021; Fedus et al.
    2022 (Switch Transformers), section 2.1, for routing to one expert.
    """

    def __init__(self, config: M6Config):
        super().__init__()
        if not config.norm_first or not 1 <= config.chosen <= config.experts or config.sparse_every < 1:
            raise ValueError(
                f"Blocks are pre-norm, sparse_every at least 1, and a token goes to 1 to {config.experts} experts; got "
                f"norm_first={config.norm_first}, sparse_every={config.sparse_every}, chosen={config.chosen}."
            )
        self.config = config
        width, last = config.width, config.depth - 1
        self.image_embedding = ImageEmbedding(config.image_size, config.patch_size, width, class_token=False)
        self.tokens = nn.Embedding(config.all_tokens, width)
        self.text_positions = nn.Parameter(torch.randn(config.max_length, width) * width**-0.5)
        self.target_positions = nn.Parameter(torch.randn(config.max_length, width) * width**-0.5)
        self.blocks = nn.ModuleList(
            SparseBlock(config) if (last - i) % config.sparse_every == 0 else TransformerBlock(config)
            for i in range(config.depth)
        )
        self.image_norm, self.text_norm, self.norm = (nn.LayerNorm(width, config.norm_epsilon) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)
        Transformer.reset_parameters(self, width, config.depth)  # as in every transformer here
        nn.init.normal_(self.tokens.weight, std=width**-0.5)

    def encode(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        seen: Bool[Tensor, "b 2"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """What is read, as it goes into the first block, and which of it may be seen."""
        check_tokens(tokens, self.config, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        mask = mask if seen is None else mask & seen[:, 1:]
        x = self.text_norm(look_up(self.tokens, tokens) + self.text_positions[: tokens.shape[1]])
        if image is not None:
            size = self.config.image_size
            if image.shape[2:] != ((size, size) if isinstance(size, int) else tuple(size)):
                raise ValueError(f"Pictures are of {size} pixels here, got {tuple(image.shape[2:])}: resize them.")
            patches = self.image_norm(self.image_embedding(image))
            shown = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
            mask = torch.cat([shown if seen is None else shown & seen[:, :1], mask], 1)
            x = torch.cat([patches, x], 1)
        return self.dropout(x), mask

    def run(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> tuple[Float[Tensor, "b q v"], list[Routing]]:
        """As :meth:`decode`, with where tokens went in sparse blocks. ``context`` is empty once it is in a cache."""
        real = torch.ones_like(target, dtype=torch.bool) if target_mask is None else target_mask
        x = torch.cat([context, self.dropout(self.text_norm(self.placed(target, position, real)))], 1)
        prefix, real = F.pad(torch.ones_like(mask), (0, real.shape[1]), value=False), torch.cat([mask, real], 1)
        allowed, own = prefix_mask(prefix, real)[:, -x.shape[1] :], real[:, -x.shape[1] :]
        routings = []
        for block in self.blocks:
            if isinstance(block, SparseBlock):
                x, routing = block(x, allowed, own)
                routings.append(routing)
            else:
                x = block(x, allowed)
        return F.linear(self.norm(x[:, -target.shape[1] :]), self.tokens.weight), routings

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of what follows each token of a target, which begins with the start token."""
        return self.run(target, context, mask, position, target_mask)[0]

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        target: Int[Tensor, "b o"],
        mask: Bool[Tensor, "b t"] | None = None,
        seen: Bool[Tensor, "b 2"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> M6Output:
        context, mask = self.encode(image, tokens, mask, seen)
        target = shifted_right(target, self.config.start_token)
        logits, routings = self.run(target, context, mask, None, target_mask)
        return M6Output(logits, context, routings)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``tokens``, and ``balance`` with its weight, the mean over sparse blocks. ``ValueError`` without a text."""
        if not len(batch["tokens"]):
            raise ValueError("A batch holds at least one text.")
        names = ("image", "tokens", "target", "mask", "seen", "target_mask")
        output = self(*(batch.get(name) for name in names))
        even = [balance(one.probability, one.real, self.config.chosen) for one in output.routings]
        return {
            "tokens": text_denoising(output.token_logits, batch["target"], batch.get("target_mask")),
            "balance": self.config.balance_weight * sum(even) / len(even),
        }
