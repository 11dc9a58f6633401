"""MED, BLIP's text transformer: encoder of text, encoder of text with an image, and decoder.

Source: Li et al. 2022 (BLIP), section 3.1.
"""

from functools import partial

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.layers import BERTEmbedding, BERTEncoderConfig, Transformer
from mmlearn.layers.language import initialise_as_bert


class MED(nn.Module):
    """Multimodal mixture of encoder-decoder: one text transformer, BERT's without token types, in three roles.

    Without ``patches`` it is the unimodal encoder; with them, the image-grounded text encoder, because every block then
    attends to the image; with a causal ``self_attention`` of its own, for each block an attention and its norm, the
    image-grounded text decoder, which shares everything else. Source: section 3.1, figure 2 and table 3.
    """

    def __init__(self, config: BERTEncoderConfig, image_width: int):
        super().__init__()
        self.embedding = BERTEmbedding(config)
        self.transformer = Transformer(config, context_width=image_width)
        self.apply(partial(initialise_as_bert, std=config.initial_std))

    def forward(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b t"] | None = None,
        patches: Float[Tensor, "b p image_width"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        return self.transformer(self.embedding(tokens, mask=mask), mask, context=patches)

    def decode(
        self,
        tokens: Int[Tensor, "b t"],
        mask: Bool[Tensor, "b all"] | None,
        patches: Float[Tensor, "b p image_width"],
        self_attention: nn.ModuleList | None = None,
        position: Int[Tensor, "b t"] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """Each token sees earlier ones and the image. Without a ``self_attention`` it is the encoder's."""
        x, blocks = self.embedding(tokens, position=position), self.transformer.blocks
        for block, layer in zip(blocks, blocks if self_attention is None else self_attention):
            # Causal, by the decoder's self-attention if it has one; the rest is the encoder's.
            x = block.residual(x, layer.attention_norm, partial(layer.attention, mask=mask, causal=True))
            x = block.residual(x, block.cross_attention_norm, partial(block.cross_attention, context=patches))
            x = block.residual(x, block.mlp_norm, block.mlp)
        return x
