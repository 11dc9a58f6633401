"""``zoo/llama-collages``: a small Llama that reads notes about collages, and has never seen a picture.

``python -m mmlearn.data.build.collage_language`` trains it, in two minutes of one core, and writes it to the zoo. The
weights in the package are of an earlier loop: the same model, data and steps, other random numbers.
``zoo/llava-collages`` writes its notes in the vectors of this model's words, so it is trained anew behind it:
``mmlearn run 22a --scale long --keep``.
"""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.data import Dataset

from mmlearn.data.synthetic.collage_talk import Turn, encode, written
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.objectives.generative import causal_language_modelling, response_language_modelling
from mmlearn.training import fit
from mmlearn.training.options import TrainingOptions

TEXTS, VOCABULARY, LONGEST = 2048, 640, 128  # that the tokenizer learns from; tokens of a text
WIDTH, DEPTH, HEADS = 64, 3, 4
STEPS, BATCH, RATE, TEXT_WEIGHT = 1500, 16, 8e-3, 0.05


class Talks(Dataset):
    """So many notes, each with a conversation about them; number k is always the same for a seed."""

    def __init__(self, count: int, seed: int):
        self.count, self.seed = count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, k: int) -> tuple[str, list[Turn]]:
        return written(np.random.default_rng((self.seed, k)))


class NoteReader(nn.Module):
    """A language model whose loss counts all tokens of a text a little, and those of its answers most."""

    def __init__(self, language_model: Llama, pad_token: int):
        super().__init__()
        self.language_model, self.pad_token = language_model, pad_token

    def loss(self, batch: dict[str, Int[Tensor, "b t"] | Bool[Tensor, "b t"]]) -> dict[str, Float[Tensor, ""]]:
        """``tokens`` and ``is_answer``, both (b, t)."""
        tokens = batch["tokens"]
        logits = self.language_model(tokens).token_logits  # (b, t, v)
        return {
            "answers": response_language_modelling(logits, tokens, batch["is_answer"]),
            "texts": TEXT_WEIGHT * causal_language_modelling(logits, tokens, tokens != self.pad_token),
        }


def learn_tokenizer(seed: int) -> Tokenizer:
    """From notes and conversations that the model does not learn from."""
    rng = np.random.default_rng(seed)
    drawn = [written(rng) for _ in range(TEXTS)]
    texts = [" ".join((before, *(part for turn in turns for part in turn))) for before, turns in drawn]
    return Tokenizer.train(texts, vocab_size=VOCABULARY, max_length=LONGEST)


def new_model(tokenizer: Tokenizer, seed: int) -> Llama:
    """The language model as it is at the start."""
    special: dict[str, Any] = dict(
        start_token=tokenizer.start_token, end_token=tokenizer.end_token, pad_token=tokenizer.pad_token
    )
    torch.manual_seed(seed)
    model = Llama(LlamaConfig(vocab_size=tokenizer.vocab_size, max_length=LONGEST + 32, width=WIDTH, depth=DEPTH,
                              num_heads=HEADS, mlp_width=3 * WIDTH, tied=True, **special))  # fmt: skip
    nn.init.normal_(model.embedding.weight, std=0.1, generator=torch.Generator().manual_seed(seed))
    return model


def train(steps: int = STEPS, seed: int = 0) -> tuple[Llama, Tokenizer, list[float]]:
    """The language model, its tokenizer, and the loss of the answers in each step."""
    tokenizer = learn_tokenizer(seed)
    model = new_model(tokenizer, seed)

    def collate(talks: Sequence[tuple[str, list[Turn]]]) -> dict[str, Tensor]:
        befores = [tokenizer.prompt(before).tolist() if before else [] for before, _ in talks]
        tokens, is_answer = encode(tokenizer, befores, [turns for _, turns in talks])
        return {"tokens": tokens, "is_answer": is_answer}

    settings: dict[str, Any] = dict(learning_rate=RATE, optimizer="muon", weight_decay=0.01, warmup=50, seed=seed)
    talks, options = Talks(steps * BATCH, seed), TrainingOptions(decay="cosine")  # each is read once
    reader = NoteReader(model, tokenizer.pad_token)
    rows = fit(reader, talks, collate, steps=steps, batch_size=BATCH, options=options, **settings)
    return model.cpu().eval(), tokenizer, [row["answers"] for row in rows]


def main() -> None:
    """Train and keep it."""
    from mmlearn.chapters import machine
    from mmlearn.pretrained.zoo import check_writable, keep

    check_writable()
    started = time.perf_counter()
    model, tokenizer, history = train()
    record = dict(steps=STEPS, seed=0, lesson="22a", data="notes about collages, in words", licence="Apache-2.0")
    record |= dict(seconds=round(time.perf_counter() - started))
    keep("llama-collages", model, record | dict(history=history[::10]) | machine(), system="llama", tokenizer=tokenizer)


if __name__ == "__main__":
    main()
