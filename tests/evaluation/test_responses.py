"""Instructions answered word for word, against a system whose answers are known."""

from types import SimpleNamespace

import torch
from torch import nn

from mmlearn.data import load
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.evaluation.responses import response_accuracy
from mmlearn.recipes import REPLY


class Known(nn.Module):
    """Says of each picture what it was told to, behind the prompt; ``right`` of them what is true."""

    def __init__(self, said):
        super().__init__()
        self.said = said

    def generate(self, image, prompt, prompt_mask, max_length):
        rows = [torch.tensor(self.said[float(one.sum())]) for one in image]
        written = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return torch.cat([prompt, written], 1)[:, :max_length]


def test_replies():
    data = load("scenes", "val", size=32)
    samples = [data[i] for i in range(40)]
    asked = [REPLY.ask(sample) for sample in samples]
    tokenizer = Tokenizer.train([one.caption for one in asked], vocab_size=400, max_length=48)
    said = {}
    for i, (sample, one) in enumerate(zip(samples, asked)):
        text = one.response if i % 4 else "something else"
        said[float(sample.image.sum())] = [*tokenizer.prompt(text).tolist(), tokenizer.end_token]
    run = SimpleNamespace(
        system=Known(said),
        tokenizer=tokenizer,
        device=torch.device("cpu"),
        stage=SimpleNamespace(objectives=lambda: {"reply": REPLY}),
        plain=lambda samples: {"image": torch.stack([sample.image for sample in samples])},
    )
    rows = response_accuracy(run, samples)
    assert rows["instructions answered"]["obtained"] == 0.75
    tasks = [one.task for one in asked]
    for task in ("answer", "describe"):
        own = [i for i in range(40) if tasks[i] == task]
        found = rows[f"instructions answered, {task}"]
        assert found["obtained"] == sum(i % 4 > 0 for i in own) / len(own)
        texts = [asked[i].response for i in own]
        assert found["chance"] == max(map(texts.count, texts)) / len(own)
    assert rows["instructions answered, another picture"]["obtained"] < 0.5
    assert rows["instructions answered"]["chance"] < 0.5
