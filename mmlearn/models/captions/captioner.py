"""What all systems of this family can do: write about a picture, word by word, with a cache."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmlearn.generation.cache import Read, go_on
from mmlearn.generation.decoding import greedy


class Captioner(nn.Module):
    """A system that writes captions. Its ``config`` has a ``start_token``, an ``end_token`` and a ``pad_token``."""

    def reader(self, image: Float[Tensor, "b 3 height width"]) -> Read:
        """What reads captions of these pictures, and scores the word after them."""
        raise NotImplementedError

    @torch.no_grad()
    def generate(
        self,
        image: Float[Tensor, "b 3 height width"],
        decode: Callable[..., Tensor] = greedy,  # of mmlearn.generation.decoding
        *,
        prompt: Int[Tensor, "b prompt"] | None = None,
        prompt_mask: Bool[Tensor, "b prompt"] | None = None,
        max_length: int = 20,
    ) -> Int[Tensor, "b t"]:
        """Captions that go on from the ``prompt``, of up to ``max_length`` tokens with it and with the end token.

        Shorter prompts are padded at their left, where ``prompt_mask`` is False.
        """
        prompt = no_words(image) if prompt is None else prompt
        return self.go_on(self.reader(image), prompt, prompt_mask, decode, max_length)

    def go_on(
        self,
        read: Read,
        prompt: Int[Tensor, "b prompt"],
        prompt_mask: Bool[Tensor, "b prompt"] | None,
        decode: Callable[..., Tensor],
        max_length: int,
    ) -> Int[Tensor, "b t"]:
        """What is written behind these prompts, with them."""
        ids = dict(end_token=self.config.end_token, pad_token=self.config.pad_token)
        return go_on(self, read, self.config.start_token, prompt, prompt_mask, decode, max_length, **ids)


def no_words(picture: Float[Tensor, "b *rest"]) -> Int[Tensor, "b 0"]:
    """An empty prompt for each picture."""
    return torch.zeros(len(picture), 0, dtype=torch.long, device=picture.device)


def check_pairs(batch: dict[str, Tensor]) -> None:
    """``ValueError`` for a batch without a text."""
    if not len(batch["tokens"]):
        raise ValueError("A batch holds at least one picture with its caption.")
