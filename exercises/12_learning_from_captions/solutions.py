"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def backwards(tokens, mask=None):
    turned = tokens.clone()
    for i in range(len(tokens)):
        # How many tokens of this text are real; without a mask all of them are.
        n = tokens.shape[1] if mask is None else int(mask[i].sum())
        # Turn these alone. What stands behind them is padding, and stays.
        turned[i, :n] = tokens[i, :n].flip(0)
    return turned


def bicaptioning(forward_logits, backward_logits, tokens, mask):
    # The backward writer reads the turned text, and is asked for it. Padding stays at the end, so the mask is the same.
    turned = tokens.clone()
    for i, n in enumerate(mask.sum(1).tolist()):
        turned[i, :n] = tokens[i, :n].flip(0)
    # Logits at position i belong to token i + 1: cut off the last logits and the first token, and take what is real.
    real = mask[:, 1:]
    there = F.cross_entropy(forward_logits[:, :-1][real], tokens[:, 1:][real])
    back = F.cross_entropy(backward_logits[:, :-1][real], turned[:, 1:][real])
    # Both writers pay.
    return there + back


def caption_language_modelling(logits, tokens, mask=None, label_smoothing=0.1):
    # Logits at position i belong to token i + 1.
    logits, tokens = logits[:, :-1], tokens[:, 1:]
    # Padding does not count.
    if mask is not None:
        real = mask[:, 1:]
        logits, tokens = logits[real], tokens[real]
    # The target: 1 - ε for the true word, and ε / v for each word.
    v = logits.shape[-1]
    target = (1 - label_smoothing) * F.one_hot(tokens, v) + label_smoothing / v
    # Soft cross-entropy, and the mean over tokens.
    return -(target * logits.log_softmax(-1)).sum(-1).mean()


def seq2seq_mask(seq2seq, region_mask, mask):
    b, p = region_mask.shape
    t = mask.shape[1]
    # Read both ways, all see all.
    sees = torch.ones(b, p + t, p + t, dtype=torch.bool)
    # In rows that write, regions see no word, and words see the words before them and themselves.
    sees[seq2seq, :p, p:] = False
    sees[seq2seq, p:, p:] = torch.ones(t, t, dtype=torch.bool).tril()
    # Nobody sees padding, of regions or of words.
    return sees & torch.cat([region_mask, mask], dim=1)[:, None]


def pool_by_attention(queries, x, mask):
    # The score of each query with each token: (b, q, n), divided by the root of the width.
    scores = queries @ x.transpose(1, 2) / x.shape[-1] ** 0.5
    # Padding gets minus infinity, so that its weight is 0 and the others sum to 1.
    weights = scores.masked_fill(~mask[:, None], float("-inf")).softmax(dim=-1)
    # The mean of the tokens by these weights.
    return weights @ x


def contrast_and_caption(
    image_embedding, text_embedding, logits, tokens, mask, logit_scale, contrast_weight=1.0, caption_weight=2.0
):
    # Every picture with every text, times 1 / τ. The right ones stand on the diagonal.
    similarity = logit_scale * image_embedding @ text_embedding.T
    own = torch.arange(len(similarity))
    # Pictures pick texts and texts pick pictures; the mean of both.
    contrast = (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2
    # Captioning: logits at position i belong to token i + 1, and padding does not count.
    real = mask[:, 1:]
    caption = F.cross_entropy(logits[:, :-1][real], tokens[:, 1:][real])
    # Each loss with its weight.
    return contrast_weight * contrast + caption_weight * caption


def forget_gate(text, seen, weight, bias):
    # The gate knows both: text first, then what is seen.
    both = torch.cat([text, seen], dim=-1)
    # A number between 0 and 1 for each feature.
    gate = torch.sigmoid(F.linear(both, weight, bias))
    # What is seen, as far as the gate is open.
    return gate * seen


def what_learns(part, phase):
    # First texts: the text encoder, 0, and the decoder, 1.
    if phase == 1:
        return part <= 1
    # Then pictures, 2, and tables, 3, in front of a decoder that stays as it is.
    if phase == 2:
        return part >= 2
    # At last everything.
    return torch.ones_like(part, dtype=torch.bool)


def leave_one_out(reviews):
    rows = torch.arange(len(reviews))
    # For target i all reviews but i are read, in their order.
    sources = torch.stack([reviews[rows != i] for i in rows])
    # The target is the review itself.
    return sources, reviews.clone()
