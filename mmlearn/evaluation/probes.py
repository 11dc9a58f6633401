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


def linear_probe(
    train: Float[Tensor, "n d"],
    train_label: Int[Tensor, "n"],
    test: Float[Tensor, "m d"],
    test_label: Int[Tensor, "m"],
    *,
    penalty: float = 1e-3,
    iterations: int = 100,
) -> float:
    """The accuracy of :func:`read_linearly`."""
    found = read_linearly(train, train_label, test, penalty=penalty, iterations=iterations)
    return float((found == test_label).float().mean())


def read_linearly(
    train: Float[Tensor, "n d"],
    train_label: Int[Tensor, "n"],
    test: Float[Tensor, "m d"],
    *,
    penalty: float = 1e-3,
    iterations: int = 100,
) -> Int[Tensor, "m"]:
    """What a logistic regression answers, fitted by L-BFGS from zero on frozen, standardised features.

    ``penalty`` weighs half the squared norm of the weights. Source: Radford et al. 2021 (CLIP), appendix A.3.
    """
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    classes = int(train_label.max()) + 1
    weight, bias = torch.zeros(classes, train.shape[1], requires_grad=True), torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(train, weight, bias), train_label) + penalty / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return F.linear(test, weight, bias).argmax(-1)


def bag_of_words(
    tokens: Int[Tensor, "n t"], mask: Bool[Tensor, "n t"], vocab_size: int, special: int = 4
) -> Float[Tensor, "n words"]:
    """How often each token of the vocabulary comes in a text, whatever the order: what a probe needs no model for.

    The first ``special`` numbers of the vocabulary are left out.
    """
    return torch.zeros(len(tokens), vocab_size).scatter_add_(1, tokens, mask.float())[:, special:]
