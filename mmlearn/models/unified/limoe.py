"""LIMoE: one transformer for pictures and texts, whose router sends each token to a few of many experts.

Paper: Mustafa et al. 2022, "Multimodal Contrastive Learning with LIMoE: the Language-Image Mixture of Experts".
Official code: https://github.com/google-research/vmoe has its sparse layers, not LIMoE itself.

Deviations: ``tiny`` is ours. Every token reaches its experts, however many choose the same: experts have no capacity,
and so nothing is dropped and rows do not depend on each other. Routers have no noise, which the official ones add. The
classic losses are Switch's balance and the squared log-sum of logits, in place of importance and load. Thresholds of
the global entropy, for each modality a number of experts, the weight of losses, the number of experts and the sizes of
the text's tables are settings that nobody has compared with the paper's. Pictures and texts are read one after the
other: nothing attends across. Not compared with released code: no code of it was published, only of its sparse layers,
in JAX.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import ImageEmbedding, TextEmbedding, Transformer, TransformerBlock, TransformerConfig
from mmlearn.layers.language import initialise_as_bert
from mmlearn.models.unified.sparse import Routing, SparseBlock
from mmlearn.objectives import gather, gathered_positives, info_nce, own_rows
from mmlearn.objectives.experts import balance, global_entropy, local_entropy, router_z


@dataclass(frozen=True)
class LIMoEConfig(TransformerConfig):
    width: int = 768
    depth: int = 12
    num_heads: int = 12
    image_size: int | tuple[int, int] = 224  # pixels
    patch_size: int = 16  # pixels
    vocab_size: int = 32_000
    max_length: int = 16  # tokens
    experts: int = 32  # of each sparse block
    chosen: int = 1  # experts of each token
    sparse_every: int = 2  # every so many blocks one is sparse, the last one first
    embedding_width: int = 768  # where pictures and texts are compared
    logit_scale: float = 2.3026  # ln(1/τ) at the start
    auxiliary_weight: float = 0.04  # of each loss of routing
    image_experts: float = 20.0  # that pictures use at least
    text_experts: float = 9.0  # that texts use at least

    PRESETS = {
        "tiny": dict(width=64, depth=2, num_heads=4, image_size=64, patch_size=16, vocab_size=512, max_length=32)
        | dict(experts=4, embedding_width=64, image_experts=4.0, text_experts=2.0),
        "B/16": dict(),
        "L/16": dict(width=1024, depth=24, num_heads=16, embedding_width=1024),
    }


class LIMoEOutput(NamedTuple):
    image_embedding: Float[Tensor, "b e"]  # unit length
    text_embedding: Float[Tensor, "b e"]  # unit length
    logit_scale: Float[Tensor, ""]  # 1/τ, already exponentiated
    patch_routing: list[Routing]  # of patches, in each sparse block
    word_routing: list[Routing]  # of tokens of texts


class LIMoE(nn.Module):
    """One encoder of both modalities, which share all but their embeddings and projections, and are pooled by a mean.

    ``mask`` is True where a token is real. Raises ``ValueError`` for settings that cannot be.
    """

    def __init__(self, config: LIMoEConfig):
        super().__init__()
        if not config.norm_first or not 1 <= config.chosen <= config.experts or config.sparse_every < 1:
            raise ValueError(
                f"Blocks are pre-norm, sparse_every at least 1, and a token goes to 1 to {config.experts} experts; got "
                f"norm_first={config.norm_first}, sparse_every={config.sparse_every}, chosen={config.chosen}."
            )
        self.config = config
        width = config.width
        self.image_embedding = ImageEmbedding(config.image_size, config.patch_size, width, class_token=False)
        self.text_embedding = TextEmbedding(config.vocab_size, width, config.max_length)
        last = config.depth - 1
        self.blocks = nn.ModuleList(
            SparseBlock(config) if (last - i) % config.sparse_every == 0 else TransformerBlock(config)
            for i in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=config.norm_epsilon)
        self.image_projection = nn.Linear(width, config.embedding_width, bias=False)
        self.text_projection = nn.Linear(width, config.embedding_width, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(config.logit_scale))
        Transformer.reset_parameters(self, width, config.depth)  # as in every transformer here
        self.text_embedding.apply(partial(initialise_as_bert, std=width**-0.5))

    def read(
        self, x: Float[Tensor, "b n d"], mask: Bool[Tensor, "b n"] | None
    ) -> tuple[Float[Tensor, "b d"], list[Routing]]:
        """The mean of the real tokens after all blocks, and their routing in each sparse one."""
        routings = []
        for block in self.blocks:
            if isinstance(block, SparseBlock):
                x, routing = block(x, mask)
                routings.append(routing)
            else:
                x = block(x, mask)
        x = self.norm(x)  # (b, n, d)
        if mask is None:
            return x.mean(1), routings
        return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1), routings

    def read_image(self, image: Float[Tensor, "b 3 height width"]) -> tuple[Float[Tensor, "b e"], list[Routing]]:
        """A picture's embedding, and the routing of its patches."""
        x, routings = self.read(self.image_embedding(image), None)
        return F.normalize(self.image_projection(x), dim=-1), routings

    def read_text(
        self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None
    ) -> tuple[Float[Tensor, "b e"], list[Routing]]:
        """A text's embedding, and the routing of its tokens."""
        x, routings = self.read(self.text_embedding(tokens), mask)
        return F.normalize(self.text_projection(x), dim=-1), routings

    def encode_image(self, image: Float[Tensor, "b 3 height width"]) -> Float[Tensor, "b e"]:
        return self.read_image(image)[0]

    def encode_text(self, tokens: Int[Tensor, "b t"], mask: Bool[Tensor, "b t"] | None = None) -> Float[Tensor, "b e"]:
        return self.read_text(tokens, mask)[0]

    def forward(
        self,
        image: Float[Tensor, "b 3 height width"],
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
    ) -> LIMoEOutput:
        image_embedding, patch_routing = self.read_image(image)
        text_embedding, word_routing = self.read_text(tokens, mask)
        return LIMoEOutput(image_embedding, text_embedding, self.logit_scale.exp(), patch_routing, word_routing)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """``itc``, and of routing, as means over sparse blocks, ``balance``, ``z``, ``local`` and ``global``.

        Balance and z are of both modalities together, the local entropy of texts, the global entropy of each modality.
        ``caption_id`` (b,) says which captions are equal. ``ValueError`` without a pair, or for a modality that is
        missing.
        """
        for name in ("image", "tokens"):
            if name not in batch or not len(batch[name]):
                raise ValueError(f"LIMoE compares pictures with texts, and this batch has no {name}.")
        output = self(batch["image"], batch["tokens"], batch.get("mask"))
        image, text = gather(output.image_embedding), gather(output.text_embedding)
        rows, positives = own_rows(output.image_embedding), gathered_positives(batch.get("caption_id"))
        contrast = info_nce(image, text, output.logit_scale, positives, rows)
        routing_losses = self.routing_losses(output.patch_routing, output.word_routing)
        return {"itc": contrast} | {name: self.config.auxiliary_weight * loss for name, loss in routing_losses.items()}

    def routing_losses(self, patch_routing: list[Routing], word_routing: list[Routing]) -> dict[str, Float[Tensor, ""]]:
        """The unweighted auxiliary losses of :meth:`loss`. Source: the paper's auxiliary losses."""
        config, losses = self.config, []  # of each sparse block
        for patches, words in zip(patch_routing, word_routing):
            logits, probability, real = (torch.cat(parts) for parts in zip(patches, words))  # of both modalities
            image_entropy = global_entropy(patches.probability, patches.real, config.image_experts)
            text_entropy = global_entropy(words.probability, words.real, config.text_experts)
            losses.append(
                {
                    "balance": balance(probability, real, config.chosen),
                    "z": router_z(logits, real),
                    "local": local_entropy(words.probability, words.real),
                    "global": image_entropy + text_entropy,
                }
            )
        first, *later = losses
        return {name: sum((block[name] for block in later), first[name]) / len(losses) for name in first}

    @torch.no_grad()
    def after_step(self) -> None:
        """Keep the temperature at 0.01 or more, as CLIP's."""
        self.logit_scale.clamp_(max=4.6052)
