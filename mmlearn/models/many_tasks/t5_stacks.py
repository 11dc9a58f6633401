"""T5's blocks for systems that read more than a text: from :mod:`mmlearn.models.text.t5`."""

from torch import nn

from mmlearn.models.text.t5 import T5Config, T5Stack, distance_buckets

__all__ = ["T5Config", "T5Stack", "distance_buckets", "start_as_t5"]


def start_as_t5(system: nn.Module, head_width: int) -> None:
    """A normal of 1 over the root of what a layer reads; of queries also over √k; of a table over its width."""
    for name, module in system.named_modules():
        if isinstance(module, nn.Linear):
            scale = head_width if name.endswith(".query") else 1
            nn.init.normal_(module.weight, std=(module.in_features * scale) ** -0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
