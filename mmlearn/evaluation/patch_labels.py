"""A picture encoder that learns from labels of its patches: what bridges take as an eye that others have trained.

Published bridges take an encoder that was trained with millions of texts, such as CLIP's. This one learns within a
minute, because scenes say of each patch which colour and which shape stands there, and in which cell.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmlearn.data.synthetic.layouts import COLOURS, SHAPES
from mmlearn.data.synthetic.scenes import SceneSample


class PatchLabels(nn.Module):
    r"""An encoder, and a linear layer for each kind of label that reads one patch.

    .. math:: \ell_k = -\frac{1}{bp} \sum_{i, j} \log \mathrm{softmax}(W_k h_{ij} + c_k)_{y_{ijk}}

    :math:`h_{ij}` is the state of patch j of picture i, and label 0 of each kind is *nothing*. ``image_encoder`` gives
    states (b, p, ``width``), and ``kinds`` tells how many other labels a kind has.
    """

    def __init__(self, image_encoder: nn.Module, width: int, kinds: Mapping[str, int]):
        super().__init__()
        self.kinds = tuple(kinds)
        self.image_encoder = image_encoder
        self.heads = nn.ModuleList(nn.Linear(width, count + 1) for count in kinds.values())

    def forward(self, image: Float[Tensor, "b 3 height width"]) -> Int[Tensor, "b p kinds"]:
        """The likeliest label of each kind for each patch."""
        states = self.image_encoder(image)
        return torch.stack([head(states).argmax(-1) for head in self.heads], dim=-1)

    def loss(self, batch: dict[str, Tensor]) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy of each kind, from ``image`` and ``label`` (b, p, kinds).

        ``ValueError`` where the encoder has more or fewer tokens than patches have labels.
        """
        states, label = self.image_encoder(batch["image"]), batch["label"]
        if states.shape[1] != label.shape[1]:
            raise ValueError(
                f"{label.shape[1]} patches have labels, but the encoder has {states.shape[1]} tokens; "
                "a class token is no patch: set class_token=False."
            )
        states, label = states.flatten(0, 1), label.flatten(0, 1)
        return {
            kind: F.cross_entropy(head(states), label[:, i])
            for i, (kind, head) in enumerate(zip(self.kinds, self.heads))
        }


def patch_labels(samples: Sequence[SceneSample], side: int) -> Int[Tensor, "b p 3"]:
    """Colour, shape and cell of what stands where a patch lies, counted from 1; 0 where nothing does.

    Colours and shapes are numbered as in ``scenes``. A picture has ``side`` x ``side`` patches, and each lies in one
    cell: ``ValueError`` where the cells of the grid do not divide into patches.
    """
    grid = samples[0].layout.grid
    if side % grid:
        raise ValueError(f"{side} patches a side do not divide into {grid} cells a side.")
    cells = torch.zeros(len(samples), grid**2, 3, dtype=torch.long)
    for own, sample in zip(cells, samples):
        for item in sample.objects:
            own[item.cell] = 1 + torch.tensor([COLOURS.index(item.colour), SHAPES.index(item.shape), item.cell])
    square = cells.unflatten(1, (grid, grid))
    return square.repeat_interleave(side // grid, 1).repeat_interleave(side // grid, 2).flatten(1, 2)
