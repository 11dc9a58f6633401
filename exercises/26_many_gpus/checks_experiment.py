"""An experiment of this exercise: what happens, and why. The cell in the notebook is where it is made."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlearn.exercises import expect_observed, experiment
from mmlearn.objectives import info_nce

PAIRS, WIDTH, PARTS = 64, 16, 8


def _cosines(parts: int) -> list[Tensor]:
    """As in the notebook: between the gradient of the whole batch and that of its parts, for both losses."""
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(PAIRS, WIDTH, generator=generator), dim=-1) for _ in range(2))
    label = torch.arange(PAIRS) % WIDTH

    def gradient(loss: object, parts: int) -> Tensor:
        weight = torch.eye(WIDTH, requires_grad=True)
        for part in torch.arange(PAIRS).chunk(parts):
            (loss(image[part] @ weight, part) / parts).backward()
        return weight.grad.flatten()

    losses = (
        lambda x, part: F.cross_entropy(10 * x, label[part]),
        lambda x, part: info_nce(x, text[part], torch.tensor(10.0)),
    )
    return [F.cosine_similarity(gradient(loss, 1), gradient(loss, parts), dim=0) for loss in losses]


@experiment("both", "the contrastive one", "neither")
def check_in_eight_parts(observed: list[float]) -> str:
    """The mean of classes' losses is the same in parts; a contrastive part has 8 answers to choose from, and not 64."""
    expect_observed(observed, _cosines(PARTS), _cosines(1))
    return "the contrastive one"
