"""``zoo/llama-collages``: a small Llama that reads notes about collages, and has never seen a picture.

``python -m mmlearn.collage_language`` trains it, in some minutes of one core, and writes it to the zoo.
"""

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from mmlearn.data.synthetic.collage_talk import encode, written
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.models.text.llama import Llama, LlamaConfig
from mmlearn.objectives.generative import causal_language_modelling, response_language_modelling
from mmlearn.training.optimizers import build_optimizers, schedule

TEXTS, VOCABULARY, LONGEST = 2048, 640, 128  # that the tokenizer learns from; tokens of a text
WIDTH, DEPTH, HEADS = 64, 3, 4
STEPS, BATCH, RATE, TEXT_WEIGHT = 1500, 16, 8e-3, 0.05


def train(steps: int = STEPS, seed: int = 0) -> tuple[Llama, Tokenizer, list[float]]:
    """The language model, its tokenizer, and the loss of each step. All tokens count a little, answers most."""
    rng = np.random.default_rng(seed)
    drawn = [written(rng) for _ in range(TEXTS)]
    texts = [" ".join((before, *(part for turn in turns for part in turn))) for before, turns in drawn]
    tokenizer = Tokenizer.train(texts, vocab_size=VOCABULARY, max_length=LONGEST)
    special: dict[str, Any] = dict(
        start_token=tokenizer.start_token, end_token=tokenizer.end_token, pad_token=tokenizer.pad_token
    )
    torch.manual_seed(seed)
    model = Llama(LlamaConfig(vocab_size=tokenizer.vocab_size, max_length=LONGEST + 32, width=WIDTH, depth=DEPTH,
                              num_heads=HEADS, mlp_width=3 * WIDTH, tied=True, **special))  # fmt: skip
    nn.init.normal_(model.embedding.weight, std=0.1, generator=torch.Generator().manual_seed(seed))
    torch.manual_seed(seed)
    optimizers, history = build_optimizers(model, "muon", learning_rate=RATE, weight_decay=0.01), []
    for step in range(steps):
        befores, conversations = zip(*(written(rng) for _ in range(BATCH)))
        prompts = [tokenizer.prompt(before).tolist() if before else [] for before in befores]
        tokens, is_answer = encode(tokenizer, prompts, conversations)
        logits, real = model(tokens).token_logits, tokens != tokenizer.pad_token
        answers = response_language_modelling(logits, tokens, is_answer)
        loss = answers + TEXT_WEIGHT * causal_language_modelling(logits, tokens, real)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = RATE * schedule(step, steps, warmup=50)
            optimizer.step()
        history.append(answers.item())
    return model.eval(), tokenizer, history


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
