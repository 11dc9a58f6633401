"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def gated(x, branch, gate):
    # The gate is one number. Its tanh is 0 where it is 0, and stays between -1 and 1.
    opening = torch.tanh(gate)
    # What was stays whole, and so much of what is found is added.
    return x + opening * branch


def low_rank(x, down, up, alpha):
    # r is the number of rows of A, which is called down.
    rank = len(down)
    # A takes each token to r numbers. F.linear multiplies by the transposed matrix, whatever axes stand before.
    few = F.linear(x, down)
    # B, which is called up, takes these to the width of the layer's output; α / r scales it.
    return alpha / rank * F.linear(few, up)


def response_language_modelling(logits, tokens, response, mask=None):
    # Logits at position i belong to token i + 1: cut off the last logits, the first token, and what says if that
    # answers.
    logits, tokens, response = logits[:, :-1], tokens[:, 1:], response[:, 1:]
    # Padding never counts.
    if mask is not None:
        response = response & mask[:, 1:]
    # Take those that answer, of all texts in one row, and the mean of their cross-entropies.
    return F.cross_entropy(logits[response], tokens[response])


def query_text_similarity(query_embedding, text_embedding):
    # The cosine of every query of every picture with every text: (b, q, m).
    cosine = query_embedding @ text_embedding.T
    # Of each picture the query that fits best, for each text of its own.
    return cosine.amax(1)


def last_image_mask(images_before, images, each):
    # To which picture does each of the n embeddings belong, counted from 0.
    image = torch.arange(images * each) // each
    # Where k pictures stand before a token, the last of them has the number k - 1.
    return image == images_before[..., None] - 1


def query_text_mask(task, queries, mask):
    b, t = mask.shape
    # Start with a matrix for all n tokens, where nothing is seen, and let queries see queries.
    sees = torch.zeros(queries + t, queries + t, dtype=torch.bool)
    sees[:queries, :queries] = True
    # The text sees all of the text, or its own past where it is to be written.
    text = torch.ones(t, t, dtype=torch.bool)
    sees[queries:, queries:] = text.tril() if task == "writing" else text
    # The text sees queries unless the two are to be compared.
    sees[queries:, :queries] = task != "contrast"
    # Queries see the text only where they judge it.
    sees[:queries, queries:] = task == "matching"
    # Nobody sees padding. Queries are always real.
    real = torch.cat([torch.ones(b, queries, dtype=torch.bool), mask], dim=1)
    return sees & real[:, None]


def interleaved_positions(mask, n, takes):
    b, s, _ = mask.shape
    # What takes a position: real words, and pictures if they take some. A picture stands before its text.
    images = torch.full((b, s, n), takes)
    counted = torch.cat([images, mask], dim=2).flatten(1)
    # Count along the whole row, and begin with 0.
    position = counted.cumsum(1) - 1
    # What is not counted has no position.
    return position.masked_fill(~counted, -1)


def query_text_contrast(query_embedding, text_embedding, logit_scale, positives, rows=slice(None), label_smoothing=0.1):
    # The similarity of every picture and text, by the best query, times logit_scale.
    logits = logit_scale * (query_embedding @ text_embedding.T).amax(1)
    # All texts that fit a picture share its target. A part ε of it goes to all columns alike.
    target = positives / positives.sum(1, keepdim=True)
    target = (1 - label_smoothing) * target + label_smoothing / len(positives)
    # Soft cross-entropy: minus the log-probabilities, weighed by the target. The mean over rows.
    there = -(target * logits.log_softmax(1)).sum(1).mean()
    # The other way texts pick pictures; positives are the same, because equal captions fit each other's pictures.
    back = -(target * logits.T.log_softmax(1)).sum(1).mean()
    return (there + back) / 2


def responses_in_turn(lengths, t):
    # Where each turn ends: the first position behind it.
    ends = lengths.cumsum(1)
    # How many turns have ended before each of the t positions. That is the number of the turn that a token stands in.
    turn = (torch.arange(t) >= ends[:, :, None]).sum(1)
    # Turns 1, 3 and so on respond. Padding stands behind all of them: there as many have ended as there are.
    return (turn % 2 == 1) & (turn < lengths.shape[1])


def shuffled_labels(label, generator):
    shuffled = label.clone()
    for row, new in zip(label, shuffled):
        # The different labels of this row, in random order, are a circle.
        known = row.unique()
        circle = known[torch.randperm(len(known), generator=generator)]
        # Each becomes the one before it on the circle, wherever it stands. So none becomes itself, and none is lost.
        for i in range(len(circle)):
            new[row == circle[i]] = circle[i - 1]
    return shuffled
