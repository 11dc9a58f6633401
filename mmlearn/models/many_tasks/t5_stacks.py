"""T5's blocks for systems that read more than a text: from :mod:`mmlearn.models.text.t5`."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.models.text.t5 import T5Config, T5Stack

__all__ = ["T5Config", "T5Stack", "initialise_as_t5", "word_position_bias"]


def word_position_bias(stack: T5Stack, words: int, others: int) -> Float[Tensor, "1 h n n"]:
    """T5's relative position bias between words, and 0 for ``others``, tokens of an image after the words."""
    return F.pad(stack.position_bias(words, words), (0, others, 0, others))


def initialise_as_t5(system: nn.Module, head_width: int) -> None:
    """Normal weights of standard deviation 1/√inputs; of queries 1/√(inputs · k); of embeddings 1/√width."""
    for name, module in system.named_modules():
        if isinstance(module, nn.Linear):
            scale = head_width if name.endswith(".query") else 1
            nn.init.normal_(module.weight, std=(module.in_features * scale) ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
