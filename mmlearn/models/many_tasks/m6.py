"""M6: one stack of blocks that is both encoder and decoder, by its attention mask, with sparse experts.

Papers: Lin et al. 2021, "M6: A Chinese Multimodal Pretrainer"; Yang et al. 2021, "M6-T: Exploring Sparse Expert Models
and Beyond". Official code: none was published.

Deviations: only the ideas of the papers are used, and no sizes, so that every number here is ours: ``small`` is 768
wide and 12 blocks deep, the paper's M6-base 1,024 and 24. Patches are projected, where the paper takes features of a
convolutional network. A token goes to its most likely expert, however many choose the same: experts have no capacity,
no token is dropped, and no noise is added. Words may be of any language; the paper's are Chinese. Locations and image
codes are in the same vocabulary, for the tasks of scenes. Texts alone are learned as BART's are: from a masked caption.
Not compared with released code: no code was published.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import ImageEmbedding, Transformer, TransformerBlock, TransformerConfig
from mmlearn.layers.embeddings import look_up
from mmlearn.models.many_tasks.unified_vocabulary import (
    ImageTextSeq2Seq,
    Vocabulary,
    check_texts,
    check_tokens,
    token_loss,
)
from mmlearn.models.unified.sparse import Routing, SparseBlock
from mmlearn.objectives import prefix_mask, shifted_right
from mmlearn.objectives.experts import balance


@dataclass(frozen=True)
class M6Config(Vocabulary, TransformerConfig):
    image_size: int | tuple[int, int] = 224  # pixels
    patch_size: int = 16  # pixels
    vocab_size: int = 30_000  # words
    bins: int = 1000  # locations
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
        "small": dict(),
    }


class M6Output(NamedTuple):
    token_logits: Float[Tensor, "b o v"]  # at position i: of token i of the target
    context: Float[Tensor, "b n d"]  # image and text, as they go into the first block
    routings: list[Routing]  # to which experts tokens went, in each sparse block


class M6(ImageTextSeq2Seq):
    r"""Image, text and target are one sequence: attention is bidirectional over the prefix, and causal over the target.

    .. math:: p(y \mid x) = \prod_i p(y_i \mid x_v, x_l, y_{<i}), \quad \text{without } x_v \text{ or } x_l
       \text{ where a mask hides it}

    ``modality_mask`` (b, 2) is False where a row's image, or its text, is hidden: text to text, image to text, or both
    to text by the same weights. Every ``sparse_every``-th block sends a token to one of its experts. ``mask`` is True
    where a token is real. Raises ``ValueError`` for settings, tokens and pictures that do not fit. Source: Lin et al.
    2021; Fedus et al. 2022 (Switch Transformers), section 2.1, for routing to one expert.
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
        modality_mask: Bool[Tensor, "b 2"] | None = None,
    ) -> tuple[Float[Tensor, "b n d"], Bool[Tensor, "b n"]]:
        """Image and text as they go into the first block, and which of their tokens may be attended to."""
        check_tokens(tokens, self.config, self.config.max_length)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
        mask = mask if modality_mask is None else mask & modality_mask[:, 1:]
        x = self.text_norm(look_up(self.tokens, tokens) + self.text_positions[: tokens.shape[1]])
        if image is not None:
            size = self.config.image_size
            if image.shape[2:] != ((size, size) if isinstance(size, int) else tuple(size)):
                raise ValueError(f"Pictures are of {size} pixels here, got {tuple(image.shape[2:])}: resize them.")
            patches = self.image_norm(self.image_embedding(image))
            image_mask = torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
            mask = torch.cat([image_mask if modality_mask is None else image_mask & modality_mask[:, :1], mask], 1)
            x = torch.cat([patches, x], 1)  # (b, p + t, d)
        return self.dropout(x), mask

    def read_target(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> tuple[Float[Tensor, "b q v"], list[Routing]]:
        """As :meth:`decode`, with the routings of sparse blocks. ``context`` is empty once it is in a cache."""
        target_mask = torch.ones_like(target, dtype=torch.bool) if target_mask is None else target_mask
        x = self.dropout(self.text_norm(self.embed_target(target, position, target_mask)))  # (b, q, d)
        x = torch.cat([context, x], 1)  # (b, n + q, d)
        is_prefix = F.pad(torch.ones_like(mask), (0, target_mask.shape[1]), value=False)
        mask = torch.cat([mask, target_mask], 1)
        attention_mask = prefix_mask(is_prefix, mask)[:, -x.shape[1] :]  # rows of earlier steps are in the cache
        token_mask, routings = mask[:, -x.shape[1] :], []
        for block in self.blocks:
            if isinstance(block, SparseBlock):
                x, routing = block(x, attention_mask, token_mask)  # padding goes to no expert
                routings.append(routing)
            else:
                x = block(x, attention_mask)
        return F.linear(self.norm(x[:, -target.shape[1] :]), self.tokens.weight), routings

    def decode(
        self,
        target: Int[Tensor, "b q"],
        context: Float[Tensor, "b n_or_0 d"],
        mask: Bool[Tensor, "b n"],
        position: Int[Tensor, "b q"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> Float[Tensor, "b q v"]:
        """Logits of the next token after each token of a target, which begins with the start token."""
        return self.read_target(target, context, mask, position, target_mask)[0]

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"] | None,
        tokens: Int[Tensor, "b t"],
        target: Int[Tensor, "b o"],
        mask: Bool[Tensor, "b t"] | None = None,
        modality_mask: Bool[Tensor, "b 2"] | None = None,
        target_mask: Bool[Tensor, "b o"] | None = None,
    ) -> M6Output:
        context, mask = self.encode(image, tokens, mask, modality_mask)
        target = shifted_right(target, self.config.start_token)
        logits, routings = self.read_target(target, context, mask, None, target_mask)
        return M6Output(logits, context, routings)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``tokens``, and ``balance`` with its weight, the mean over sparse blocks. ``ValueError`` without a text."""
        check_texts(batch)
        names = ("image", "tokens", "target", "mask", "modality_mask", "target_mask")
        output = self(*(batch.get(name) for name in names))
        losses = [balance(routing.probability, routing.real, self.config.chosen) for routing in output.routings]
        balance_loss = self.config.balance_weight * sum(losses[1:], losses[0]) / len(losses)
        return token_loss(output.token_logits, batch) | {"balance": balance_loss}
