"""What a representation knows: zero-shot, nearest-neighbour and linear classification."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def zero_shot(
    image_embedding: Float[Tensor, "n d"], class_embedding: Float[Tensor, "classes d"], label: Int[Tensor, "n"]
) -> float:
    """The share of pictures whose nearest class name is right. Average the prompts of a class beforehand.

    Source: Radford et al. 2021 (CLIP), section 3.1.
    """
    return float(((image_embedding @ class_embedding.T).argmax(-1) == label).float().mean())


def nearest_neighbours(
    train: Float[Tensor, "n d"],
    train_label: Int[Tensor, "n"],
    test: Float[Tensor, "m d"],
    test_label: Int[Tensor, "m"],
    *,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    r"""The accuracy of a vote of the k nearest training samples, each counting :math:`e^{\cos/\tau}`.

    Source: Wu et al. 2018, "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4.
    """
    cosine = F.normalize(test, dim=-1) @ F.normalize(train, dim=-1).T
    near, index = cosine.topk(min(k, len(train)), dim=-1)
    votes = torch.zeros(len(test), int(train_label.max()) + 1)
    votes.scatter_add_(1, train_label[index], ((near - 1) / temperature).exp())
    return float((votes.argmax(-1) == test_label).float().mean())


def linear_probe(
    train: Float[Tensor, "n d"],
    train_label: Int[Tensor, "n"],
    test: Float[Tensor, "m d"],
    test_label: Int[Tensor, "m"],
    *,
    penalty: float = 1e-3,
    iterations: int = 100,
) -> float:
    """The accuracy of a logistic regression on frozen, standardised features, fitted by L-BFGS from zero.

    ``penalty`` weighs half the squared norm of the weights. Source: Radford et al. 2021 (CLIP), appendix A.3.
    """
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    classes = int(max(train_label.max(), test_label.max())) + 1
    weight, bias = torch.zeros(classes, train.shape[1], requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), train_label) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return float((F.linear(test, weight, bias).argmax(-1) == test_label).float().mean())


def bag_of_words(
    tokens: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"], vocab_size: int, special: int = 4
) -> Float[Tensor, "n words"]:
    """How often each token of the vocabulary comes in a text, whatever the order: what a probe needs no model for.

    The first ``special`` numbers of the vocabulary are left out.
    """
    return torch.zeros(len(tokens), vocab_size).scatter_add_(1, tokens, mask.float())[:, special:]


def leave_one_out_prediction(vectors: Float[Tensor, "n d"], penalty: float = 1.0) -> Float[Tensor, "n n"]:
    r"""A ridge regression that predicts each row from all the others: by which weights it takes their targets.

    .. math:: w_i = (K + \lambda I)^{-1} k_i

    of the others' products K and theirs with row i, both about the others' mean; λ is ``penalty`` times the mean of K's
    diagonal. A row has weight 0 for itself. ``leave_one_out_prediction(x) @ target`` are the predictions, without the
    mean of the targets. Raises ``ValueError`` for fewer than three rows.
    """
    n = len(vectors)
    if n < 3:
        raise ValueError(f"Each row is predicted from at least two others, so there are three or more; got {n}.")
    weights = torch.zeros(n, n, dtype=vectors.dtype)
    for i in range(n):
        others = [j for j in range(n) if j != i]
        known = vectors[others] - vectors[others].mean(0)
        alike = known @ known.T
        ridge = penalty * alike.diagonal().mean() * torch.eye(n - 1, dtype=vectors.dtype)
        weights[i, others] = torch.linalg.solve(alike + ridge, known @ (vectors[i] - vectors[others].mean(0)))
    return weights


def angle_errors(said: Float[Tensor, "*n 2"], true: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n"]:
    """Degrees between two directions, given as cosine and sine up to a factor: 90 on average for guesses."""
    return F.cosine_similarity(said, true, dim=-1).clamp(-1, 1).acos().rad2deg()
