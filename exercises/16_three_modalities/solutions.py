"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import math

import torch
import torch.nn.functional as F


def drop_tokens(x, mask, rate, generator):
    b, n, _ = x.shape
    # Without a mask all tokens are real; at rate 0 all comes back as it was.
    if mask is None:
        mask = torch.ones(b, n, dtype=torch.bool)
    if rate == 0:
        return x, mask, torch.arange(n).repeat(b, 1)
    # How many of so many are kept; a little less before rounding up, so that 3 and a bit of rounding error stays 3.
    share = [math.ceil((1 - rate) * count - 1e-9) for count in range(n + 1)]
    # A random order of each row in which real tokens come before padding: random numbers, and 2 for padding.
    order = torch.rand(b, n, generator=generator).masked_fill(~mask, 2).argsort(1)[:, : share[n]]
    # The first of them are kept, as many as the row's own share of its real tokens.
    kept = torch.arange(share[n]) < torch.tensor(share)[mask.sum(1)][:, None]
    # Back to the order of the text: sort the positions of what is kept, and leave the rest behind them.
    ordered = torch.where(kept, order, order + n).sort(1).values
    position = ordered % n
    # Gather the tokens at these positions.
    return x.gather(1, position[..., None].expand(-1, -1, x.shape[2])), ordered < n, position


def mil_nce(video_embedding, text_embedding, logit_scale, candidate_mask=None):
    b = len(video_embedding)
    # Every video with every candidate of every text: (b videos, b texts, candidates).
    logits = logit_scale * torch.einsum("id,jcd->ijc", video_embedding, text_embedding)
    # A text that does not exist gets a very low logit, so that it has no part in a sum.
    if candidate_mask is None:
        candidate_mask = torch.ones(text_embedding.shape[:2], dtype=torch.bool)
    logits = logits.masked_fill(~candidate_mask, -1e30)
    # The sum over candidates, in logarithms.
    pairs = logits.logsumexp(-1)
    # Above the line stands the diagonal; below it the row and the column, with the diagonal only once.
    other = pairs.T.masked_fill(torch.eye(b, dtype=torch.bool), -1e30)
    loss = torch.cat([pairs, other], dim=1).logsumexp(1) - pairs.diagonal()
    # The mean over videos that have a text, and 0 where none has.
    rows = candidate_mask.any(1)
    return loss.masked_fill(~rows, 0).sum() / rows.sum().clamp(min=1)


def binding_loss(image_embedding, other_embedding, logit_scale, present, positives=None):
    # Where nothing is present the loss is 0, and still has a graph.
    if not present.any():
        return 0 * (image_embedding.sum() + other_embedding.sum())
    # Leave out the absent rows first: they are no questions, and no wrong answers.
    logits = logit_scale * image_embedding[present] @ other_embedding[present].T
    # Without positives only i fits i; otherwise take the present rows, and of these the present columns.
    fits = torch.eye(len(logits), dtype=torch.bool) if positives is None else positives[present][:, present]
    # Each row spreads its target over all that fit, and so does each column.
    by_image, by_other = fits / fits.sum(1, keepdim=True), fits.T / fits.T.sum(1, keepdim=True)
    return (F.cross_entropy(logits, by_image) + F.cross_entropy(logits.T, by_other)) / 2


def read_others(target, sources, masks, layers):
    # Each layer gets the target as it was, its own source and its own mask.
    read = [layer(target, source, mask) for layer, source, mask in zip(layers, sources, masks)]
    # Side by side along the last axis.
    return torch.cat(read, dim=-1)
