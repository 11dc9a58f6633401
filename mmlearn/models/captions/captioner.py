"""What all systems of this family can do: write a caption, word by word, with a cache."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import ScoreNext, continue_prompts
from mmlearn.generation.decoding import greedy


class Captioner(nn.Module):
    """A system that writes captions. Its ``config`` has a ``start_token``, an ``end_token`` and a ``pad_token``."""

    def step_function(self, image: Float[Tensor, "b c height width"]) -> ScoreNext:
        """The function that decoding calls: it scores the next word of captions of these images."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b c height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Captions that continue the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded at their left, where ``prompt_mask`` is False.
        """
        prompt = empty_prompt(image) if prompt is None else prompt
        return self.continue_prompts(self.step_function(image), prompt, prompt_mask, decode, max_length)

    def continue_prompts(
        self,
        read: ScoreNext,
        prompt: Int[Tensor, "b prompt"],
        prompt_mask: Bool[Tensor, "b prompt"] | None,
        decode: Callable[..., Tensor],
        max_length: int,
    ) -> Int[Tensor, "b t"]:
        """These prompts and what is written after them."""
        ids = dict(end_token=self.config.end_token, pad_token=self.config.pad_token)
        return continue_prompts(self, read, self.config.start_token, prompt, prompt_mask, decode, max_length, **ids)


def empty_prompt(image: Float[Tensor, "b *rest"]) -> Int[Tensor, "b 0"]:
    """An empty prompt for each image."""
    return torch.zeros(len(image), 0, dtype=torch.long, device=image.device)


def check_pairs(batch: dict[str, Tensor]) -> None:
    """``ValueError`` for a batch without a text."""
    if not len(batch["tokens"]):
        raise ValueError("A batch holds at least one picture with its caption.")
