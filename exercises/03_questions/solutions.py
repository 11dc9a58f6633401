"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch


def pointwise_fusion(image, question, image_weight, question_weight):
    # Bring both to one width, and each between -1 and 1 by a tanh.
    image = torch.tanh(image @ image_weight.T)
    question = torch.tanh(question @ question_weight.T)
    # Multiply number by number.
    return image * question


def prior_guesses(kind, train_kind, train_answer):
    # The most common answer of all, for kinds that training lacks. argmax takes the lowest of several.
    most = train_answer.bincount().argmax()
    guesses = []
    for name in kind:
        # The rows of training that have this kind.
        rows = [i for i, other in enumerate(train_kind) if other == name]
        # Their most common answer, where there are any.
        guesses.append(train_answer[rows].bincount().argmax() if rows else most)
    return torch.stack(guesses)


def region_weights(u, v, cell_weight, question_weight, bias, score):
    # The question is compared with every cell, so it gets an axis for cells.
    asked = (u @ question_weight.T + bias)[:, None]
    # Add both, and let the sum pass a tanh: (b, p, a).
    hidden = torch.tanh(v @ cell_weight.T + asked)
    # A score for each cell, and a softmax over cells.
    return (hidden @ score).softmax(-1)


def several_looks(u, v, looks):
    maps = []
    for look in looks:
        # Where this look goes, from the question and all that was found before.
        weights = look(u, v)
        maps.append(weights)
        # What it finds is added, and the next look begins with the sum.
        u = u + (weights[..., None] * v).sum(1)
    # The hops are the second axis.
    return u, torch.stack(maps, dim=1)


def position_encoding(mask, width):
    # j counts the real words of a sentence from 1, and J is how many there are, at least 1.
    j = mask.cumsum(-1)[..., None]
    J = mask.sum(-1).clamp(min=1)[..., None, None]
    # k counts the numbers of a vector from 1.
    k = torch.arange(1, width + 1)
    # The formula, and 0 where no word is.
    return ((1 - j / J) - k / width * (1 - 2 * j / J)) * mask[..., None]


def memory_hop(u, m, c, mask):
    # Compare the question with the first embedding of each position, by a product.
    scores = (m * u[:, None]).sum(-1)
    # What is not there gets the lowest score before the softmax, and with it no weight.
    p = scores.masked_fill(~mask, torch.finfo(scores.dtype).min).softmax(-1)
    # Sum up the second embedding, and add it to the question.
    return u + (p[..., None] * c).sum(1), p


def attention_gate(query, found, information, gate):
    # The query and what was found, side by side.
    both = torch.cat([query, found], dim=-1)
    # Information and gate both read them; a sigmoid brings the gate between 0 and 1.
    opened = torch.sigmoid(both @ gate.T)
    # The gate lets through as much of each number as it is open.
    return opened * (both @ information.T)


def weighed_vertex(parts, logits, weight):
    # An efficacy for each part, from 0 to 1.
    strength = torch.sigmoid(logits)
    # Weigh each part by its own, and put all parts one behind the other.
    read = (strength[..., None] * parts).flatten(1)
    # A linear layer, and a tanh.
    return torch.tanh(read @ weight.T)


def graph_efficacies(logits, members):
    # The vertices as sets.
    sets = [set(row.nonzero()[:, 0].tolist()) for row in members]
    count = len(sets)
    # All edges, in order: for each whole its parts, where < says that a set lies in a larger one.
    edges = [(i, j) for j in range(count) for i in range(count) if sets[i] < sets[j]]
    # A table of zeros, and each efficacy at its position.
    table = torch.zeros(len(logits), count, count)
    parts, wholes = torch.tensor(edges).T
    table[:, parts, wholes] = torch.sigmoid(logits)
    return table
