"""What a bridge says of pictures that it has not seen, through a language model that has never seen any.

The language model has learned that a word decides one that comes later; a bridge can only use what is there.
"""

import pytest
import torch
from torch.nn.functional import pad

from mmlearn.models import GPT2, GPT2Config
from mmlearn.recipes.discovery import find_recipe

COLOURS, FIRST = 6, 20  # tokens 20 to 25


def texts(colour):
    """``<start> a COLOUR field <end>``."""
    before, behind = (torch.tensor(part).expand(len(colour), -1) for part in ((1, 10), (30, 2)))
    return torch.cat([before, FIRST + colour[:, None], behind], dim=1)


def repeating(generator):
    """The same behind other words, the colour among them."""
    colour, n = torch.randint(COLOURS, (32,), generator=generator), int(torch.randint(5, (), generator=generator))
    position = int(torch.randint(n + 1, (), generator=generator))
    others = torch.randint(40, 60, (32, n), generator=generator)
    tokens = texts(colour)
    said = FIRST + colour[:, None]
    return torch.cat([tokens[:, :1], others[:, :position], said, others[:, position:], tokens[:, 1:]], dim=1)


def images(colour, generator):
    """Noise around one colour of the corners of the cube."""
    corners = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 0, 2], [2, 2, 0], [0, 2, 2], [2, 0, 2]])
    return corners[colour][:, :, None, None] + torch.randn(len(colour), 3, 64, 64, generator=generator) / 2


def learn(loss, parameters, batches, learning_rate=3e-3):
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate)
    for batch in batches:
        optimizer.zero_grad()
        loss(batch)["lm"].backward()
        optimizer.step()


@pytest.fixture(scope="module")
def language():
    torch.manual_seed(0)
    generator, model = torch.Generator().manual_seed(0), GPT2(GPT2Config.tiny())
    learn(model.loss, model.parameters(), ({"tokens": repeating(generator)} for _ in range(300)))
    return model


@pytest.mark.parametrize(("name", "steps", "least"), [("frozen", 140, 0.8), ("llava", 120, 0.5), ("flamingo", 80, 0.8)])
def test_the_colour_of_a_image_is_said(language, name, steps, least):
    torch.manual_seed(0)
    recipe, generator = find_recipe(name), torch.Generator().manual_seed(1)
    system = recipe.make(recipe.tiny())
    system.language_model.load_state_dict(language.state_dict())
    moved = {each for turn in recipe.stages[0].optimizer_steps for each in turn.trained_names(system)}
    for key, parameter in system.named_parameters():
        parameter.requires_grad_(key in moved)

    def batches():
        for _ in range(steps):
            colour = torch.randint(COLOURS, (32,), generator=generator)
            yield {"image": images(colour, generator), "tokens": texts(colour)}

    system.train()
    learn(system.loss, [parameter for parameter in system.parameters() if parameter.requires_grad], batches())
    colour = torch.arange(60) % COLOURS
    image = images(colour, generator)
    written = pad(system.eval().generate(image, max_length=6), (0, 2))
    right = (written[:, 1] == FIRST + colour).float().mean()
    other = (written[:, 1] == FIRST + (colour + 1) % COLOURS).float().mean()
    assert right > least, (right, other)
    assert other < 0.25  # another picture's; chance is a sixth
    for key, value in language.state_dict().items():
        assert torch.equal(value, system.language_model.state_dict()[key])
