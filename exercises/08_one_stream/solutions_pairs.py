"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch
import torch.nn.functional as F


def random_negatives(caption_id, generator):
    # Which rows have another caption, (b, b): True may be drawn.
    different = caption_id[:, None] != caption_id[None, :]
    # torch.multinomial draws from the weights of each row, which here are 1 or 0.
    return torch.multinomial(different.float(), 1, generator=generator)[:, 0]


def cosine_cost(x, y):
    # Each vector is divided by its own length; F.normalize leaves a vector of zeros as it is.
    x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    # All products of a pair at once, (b, t, p).
    return 1 - x @ y.transpose(1, 2)


@torch.no_grad()
def ipot(cost, x_mask, y_mask, beta=0.5, iterations=50):
    # What each word sends, 1/n, and each region receives, 1/m, as a column and a row; 0 at padding.
    n, m = (mask.sum(1).clamp(min=1)[:, None, None] for mask in (x_mask, y_mask))
    sends, receives = x_mask[:, :, None] / n, y_mask[:, None, :] / m
    # exp(-C / β), and 0 wherever the word or the region is padding.
    kernel = torch.exp(-cost / beta) * (x_mask[:, :, None] & y_mask[:, None, :])
    # It begins with T = 1 and σ = 1/m.
    plan, sigma = torch.ones_like(cost), receives
    tiny = torch.finfo(cost.dtype).tiny
    for _ in range(iterations):
        # Each step starts from the plan before.
        q = kernel * plan
        # δ scales the rows, with the σ of the step before; dividing by at least a tiny number makes 0 of 0 / 0.
        delta = sends / (q * sigma).sum(2, keepdim=True).clamp(min=tiny)
        # σ scales the columns, with the new δ.
        sigma = receives / (q * delta).sum(1, keepdim=True).clamp(min=tiny)
        plan = delta * q * sigma
    return plan


def word_region_alignment(words, regions, word_mask, region_mask, beta=0.5, iterations=50):
    # The cost of bringing each word to each region, which has a gradient.
    cost = cosine_cost(words, regions)
    # The plan of ipot for this cost, a constant.
    plan = ipot(cost, word_mask, region_mask, beta, iterations)
    # For each pair the sum over words and regions of mass times cost.
    return (plan * cost).sum((1, 2))
