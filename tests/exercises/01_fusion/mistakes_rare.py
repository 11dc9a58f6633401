"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch
import torch.nn.functional as F

from mmlearn.objectives.cues import keep_modalities


def _votes(ways):
    """All votes of these sizes for the rows, with the best bound for each column."""

    def best(label, share):
        votes = torch.cartesian_prod(*[ways] * len(label)).view(-1, len(label))
        right = ((votes[:, :, None, None] > ways - 0.5) == label[:, :, None]) * share[:, :, None]
        return right.sum(1).amax(-1).sum(-1).max().item()

    return best


def _hill(label, share):
    """From the best order of two rows, one row after the other where it is best."""
    order = [0]
    for row in range(1, len(label)):
        ways = [[*order[:i], row, *order[i:]] for i in range(len(order) + 1)]
        order = max(ways, key=lambda way: _right(label[way], share[way]))
    return _right(label[order], share[order])


def _right(label, share):
    no = F.pad((share * ~label).cumsum(0), (0, 0, 1, 0))
    yes = F.pad((share * label).flip(0).cumsum(0).flip(0), (0, 0, 0, 1))
    return float((no + yes).amax(0).sum())


RARE = {
    "pair_similarity": {
        "For a batch of one: Its result must have shape": {
            "squeezed": lambda t, p: (1 + (F.normalize(t, dim=1) * F.normalize(p, dim=1)).sum(1).squeeze()) / 2
        }
    },
    "keep_modalities": {
        "one row, whose last modality is not there: Its result must have shape": {
            "squeezed": lambda mask, chance, p: keep_modalities(mask, chance, p).squeeze()
        },
        "With one row, whose last modality is not there: It stops in line": {
            "as many as the last that stays": lambda mask, chance, p: (
                mask & ((chance >= p) | F.one_hot(chance.masked_fill(~mask, -1).argmax(1)).bool())
            )
        },
        "It must stay, because it is the last; here it does not": {
            "0 where it is not there": lambda mask, chance, p: (
                mask & ((chance >= p) | F.one_hot((chance * mask).argmax(1), mask.shape[1]).bool())
            )
        },
        "is just p: It must stay: it is dropped where its chance is below p": {
            "above p": lambda mask, chance, p: (
                keep_modalities(mask, chance.where(chance != p, chance - 1e-3), p)
                if 0 < p < 1
                else keep_modalities(mask, chance, p)
            )
        },
    },
    "most_right_by_votes": {
        "of labels: Votes of all sizes must be tried: all can be right.": {
            "three sizes": _votes(torch.arange(-1.0, 2.0))
        },
        "must be ordered all at once: It must be the best": {"one row after the other": _hill},
    },
}
