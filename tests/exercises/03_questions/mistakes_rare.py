"""Wrong answers that only rare inputs give away, and what each is told: ``RARE[task][what it says][name]``."""

import torch

from mmlearn.evaluation.answers import prior_guesses


def _hop(u, m, c, mask, *, least=-1e4, soft=lambda s: s.softmax(1)):
    p = soft((u[:, None] * m).sum(-1).masked_fill(~mask, least))
    return u + (p[..., None] * c).sum(1), p


def _hop_by_exp(u, m, c, mask):
    p = (u[:, None] * m).sum(-1).exp() * mask
    p = p / p.sum(1, keepdim=True)
    return u + (p[..., None] * c).sum(1), p


def _hop_from_zero(u, m, c, mask):
    scores = (u[:, None] * m).sum(-1)
    p = (scores - scores.masked_fill(~mask, 0).amax(1, keepdim=True)).exp() * mask
    p = p / p.sum(1, keepdim=True)
    return u + (p[..., None] * c).sum(1), p


def _hop_clamped(u, m, c, mask):
    p = (u[:, None] * m).sum(-1).clamp(-50, 50).exp() * mask
    p = p / p.sum(1, keepdim=True)
    return u + (p[..., None] * c).sum(1), p


def _by_size(logits, members):
    """Smaller vertices first, whatever the order of members."""
    size = members.sum(1)
    order = sorted(range(len(members)), key=lambda i: int(size[i]))
    edges = [(i, j) for j in order for i in order if members[j][members[i]].all() and size[i] < size[j]]
    table = torch.zeros(len(logits), len(members), len(members))
    i, j = torch.tensor(edges).view(-1, 2).T
    table[:, i, j] = logits.sigmoid()
    return table


def _above(logits, members):
    """Parts before their whole alone."""
    edge = (members[:, None] <= members).all(-1).triu(1)
    j, i = edge.T.nonzero().T
    table = torch.zeros(len(logits), len(members), len(members))
    table[:, i, j] = logits.sigmoid()[:, : len(i)]
    return table


RARE = {
    "prior_guesses": {
        "For one question, after one of training: Its result must have shape": {
            "squeezed": lambda kind, train_kind, answer: prior_guesses(kind, train_kind, answer).squeeze()
        },
        "with TypeError: unsupported operand type": {
            "kinds as texts": lambda kind, train_kind, answer: prior_guesses(
                [one + "" for one in kind], [one + "" for one in train_kind], answer
            )
        },
        "For one question, after one of training: Its answer must be": {
            "bytes": lambda kind, train_kind, answer: prior_guesses(kind, train_kind, answer % 256)
        },
    },
    "memory_hop": {
        "What is not there must have no weight": {"-10000": _hop, "clamped": _hop_clamped},
        "Its result must be finite; this one holds NaN or infinity": {"exp": _hop_by_exp, "from zero": _hop_from_zero},
        "For a batch of one: Its result must have shape": {
            "squeezed": lambda u, m, c, mask: tuple(x.squeeze() for x in _hop(u, m, c, mask, least=-torch.inf))
        },
    },
    "graph_efficacies": {
        "with vertices in another order: It must follow the rows of members": {
            "by size": _by_size,
            "above": _above,
            "positive": lambda logits, members: _by_size(logits.clamp(min=0), members),
        }
    },
}
