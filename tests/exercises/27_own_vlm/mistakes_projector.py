"""Wrong answers to the task that trains a projector, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
from common_mistakes import then


def _train(llama, features, answer, question, unseen, steps, *, most=99, looks=lambda seen: seen, also=False, at=-1):
    """Row by row, with another optimizer, or so that something differs."""
    llama.requires_grad_(also)
    first, second = torch.nn.Linear(features.shape[1], 256), torch.nn.Linear(256, llama.config.width)
    learned = [*first.parameters(), *second.parameters(), *(llama.parameters() if also else ())]
    optimizer = torch.optim.Adam(learned, lr=3e-3)
    with torch.no_grad():
        start, asked = llama.embed(torch.tensor([[llama.config.start_token]]))[0], llama.embed(question[None])[0]

    def log_p(x):
        rows = [torch.cat([start, one[None], asked]) for one in looks(second(torch.relu(first(x))))]
        return llama.logits(llama.read(torch.stack(rows)))[:, at].log_softmax(-1)

    for _ in range(min(steps, most)):
        some = torch.randint(len(features), (24,))
        optimizer.zero_grad()
        wanted = answer[some]
        (-log_p(features[some]).gather(1, wanted[:, None]).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        return log_p(unseen).argmax(-1)


RIGHT = {"train_projector": _train}

MISTAKES = {
    "train_projector": {
        "here its weights changed": {"all learns": partial(_train, also=True, most=2)},
        "here all get the same one": {
            "a mean of pictures": partial(_train, looks=lambda seen: seen.mean(0).expand_as(seen)),
            "the start token answers": partial(_train, at=0, most=5),
        },
        "about as many as by chance": {"answers are those of other rows": then(_train, lambda got: got.roll(1))},
        "here it answers with other tokens": {"the next row of the table": then(_train, lambda got: (got + 1) % 7)},
        "at least 70% of new drawings": {
            "half of the rows": then(_train, lambda got: torch.cat([got[:12], got[12:].roll(1)]))
        },
        "must have shape": {
            "what it learned from": lambda llama, features, answer, question, unseen, steps: answer,
            "one answer": then(_train, lambda got: got[0]),
        },
        "must hold whole numbers": {"floats": then(_train, torch.Tensor.float)},
        "It stops in line": {
            "no gradient": lambda llama, *given: torch.no_grad()(_train)(llama, *given),
            "the projector is cut off": partial(_train, looks=torch.Tensor.detach),
        },
    }
}
