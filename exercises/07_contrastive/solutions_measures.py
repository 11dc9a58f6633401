"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch


def modality_gap(image_embedding, text_embedding):
    # The mean over rows, of pictures and of texts.
    difference = image_embedding.mean(0) - text_embedding.mean(0)
    # The length of their difference.
    return difference.norm().item()


def zero_shot(image_embedding, class_embedding, label):
    # The cosine of each picture with each class name, (n, classes).
    similarity = image_embedding @ class_embedding.T
    # The nearest name is the highest in a row.
    nearest = similarity.argmax(1)
    # The share that is right.
    return (nearest == label).float().mean().item()


def ranks(similarity, positives=None):
    # Without positives item i is right for query i: an identity that need not be square.
    if positives is None:
        positives = torch.eye(*similarity.shape, dtype=torch.bool)
    # The best right item of each query: hide wrong ones with -inf, then take the maximum.
    best = similarity.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)
    # Count wrong items above it, wrong ones level with it, and right ones level with it.
    better = ((similarity > best) & ~positives).sum(1)
    wrong = ((similarity == best) & ~positives).sum(1)
    right = ((similarity == best) & positives).sum(1)
    return better.float(), wrong.float(), right.float()


def recall_at(k, similarity, positives=None):
    # better, wrong and right of each query.
    better, wrong, right = ranks(similarity, positives)
    found = []
    for above, bad, good in zip(better.tolist(), wrong.tolist(), right.tolist()):
        # So many positions are left for the level items.
        positions = max(int(k - above), 0)
        # The probability to miss with every one of them: each position takes one wrong item away, without putting back.
        missed = 1.0
        for m in range(positions):
            missed *= max(bad - m, 0) / max(bad + good - m, 1)
        found.append(1 - missed)
    # The mean over queries.
    return sum(found) / len(found)


def median_rank(similarity, positives=None):
    better, wrong, right = ranks(similarity, positives)
    # From 1, and level wrong ones fall evenly into right + 1 gaps.
    rank = 1 + better + wrong / (right + 1)
    # quantile(0.5) takes the mean of the middle two; torch.median takes the lower.
    return rank.quantile(0.5).item()
