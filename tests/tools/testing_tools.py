"""What several tests share. Pytest puts this folder on the path, here and in the processes that tests start."""

import io
import socket
import tarfile
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Self

import jaxtyping
import pytest
import torch
from beartype import BeartypeConf, BeartypeHintOverrides, beartype
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

# Jaxtyping decorates methods one by one, where beartype cannot know what ``Self`` is. An int is a float, as in PEP 484.
typecheck = beartype(conf=BeartypeConf(hint_overrides=BeartypeHintOverrides({Self: Any}), is_pep484_tower=True))

END = 511  # the highest token id of the tiny presets, and the end of every text below


class Listed(Dataset):
    """The samples of a list as a data set."""

    def __init__(self, samples):
        self.samples = samples

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]


def write_tar(path, files):
    """A plain tar of (name, content)."""
    with tarfile.open(path, "w") as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def image_file(size, colour, form="PNG"):
    """The content of a file: a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


def captioned(pairs):
    """The files of a shard for ``write_tar``, from (key, content of a PNG, caption)."""
    return [file for key, png, caption in pairs for file in ((f"{key}.png", png), (f"{key}.txt", caption.encode()))]


def free_port():
    """A number of a port that nothing listens to."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        return one.getsockname()[1]


def close(got, expected, tolerance=1e-5):
    """Equal to an absolute and relative tolerance."""
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def refused(says, call, *given, **named):
    """``call`` raises a ``ValueError`` that says so, in one line."""
    with pytest.raises(ValueError, match=says) as error:
        call(*given, **named)
    assert "\n" not in str(error.value)


def shaken(model, scale=0.1):
    """With noise on all parameters: norms and biases start at 1 and 0, where they would prove nothing."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pairs(b=8, length=12, seed=0):
    """Random pictures and texts for the tiny presets; each text ends with ``END`` and is padded with 0."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(b, 3, 64, 64, generator=generator)
    tokens = torch.randint(3, END, (b, length), generator=generator)
    end = 2 + torch.arange(b) % (length - 2)
    mask = torch.arange(length) <= end[:, None]
    tokens[torch.arange(b), end] = END
    return {"image": image, "tokens": tokens.masked_fill(~mask, 0), "mask": mask}


def other_padding(batch, seed=0):
    """The texts of a batch with other numbers where the mask is False."""
    generator = torch.Generator().manual_seed(seed)
    return torch.where(
        batch["mask"], batch["tokens"], torch.randint(1, END, batch["tokens"].shape, generator=generator)
    )


def assert_rows_are_independent(encode, *rows):
    """Row 0 stays as it is, bit for bit, when all others change, and is the same alone; the others do change."""
    whole = encode(*rows)
    mixed = encode(*(torch.cat([x[:1], x[1:].flip(0)]) for x in rows))
    assert torch.equal(mixed[0], whole[0])
    assert not torch.allclose(mixed[1], whole[1], atol=1e-3)
    close(encode(*(x[:1] for x in rows))[0], whole[0])


def assert_unit_length(x):
    close(x.square().sum(-1), torch.ones(x.shape[:-1]))


@contextmanager
def unchecked(here=True):
    """Annotations are not checked within, as for a user."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", here or before)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def fit(system, data, collate, **settings):
    """``mmlearn.training.fit`` with all settings by their names, also those of its ``options``."""
    from mmlearn import training

    names = {item.name for item in fields(training.TrainingOptions)} & settings.keys()
    options = training.TrainingOptions(**{name: settings.pop(name) for name in names})
    return training.fit(system, data, collate, **settings, options=options)


def overfit(model: nn.Module, batch, steps, learning_rate=1e-3):
    """The loss of one batch after so many steps of AdamW on nothing else; annotations are checked in the first."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=learning_rate)
    for step in range(steps):
        with unchecked(step > 0):
            optimizer.zero_grad()
            sum(model.loss(batch).values()).backward()
            optimizer.step()
            if hasattr(model, "after_step"):
                model.after_step()
    return sum(model.loss(batch).values()).item()


def mean_loss(build, batch, seeds=12):
    """The loss at initialisation, averaged over seeds for weights and data."""
    total = 0
    for seed in range(seeds):
        torch.manual_seed(seed)
        total += sum(build().loss(batch(seed=seed)).values()).item()
    return total / seeds


def count_parameters(model, config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in model(config).parameters())


def gradient_of_states(model, batch, name, *parts):
    """Of a loss, with respect to these parts of the model's output, on which it is computed."""
    outputs = []
    with model.register_forward_hook(lambda module, inputs, output: outputs.append(output)):
        loss = model.loss(batch)[name]
    return torch.autograd.grad(loss, [getattr(outputs[-1], part) for part in parts])


def assert_gradients(model, expected, but=()):
    """Each parameter has this gradient, to 1e-5, but for those named; none counts as 0."""
    for name, parameter in model.named_parameters():
        if name not in but:
            got = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            torch.testing.assert_close(
                got, expected[name], atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )
