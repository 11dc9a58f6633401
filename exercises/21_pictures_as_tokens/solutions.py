"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import math

import torch


def copied_gradient(z, entry):
    # What z lacks, so that the entry comes out.
    difference = entry - z
    # A constant: going back, only z itself is left, with a derivative of 1.
    return z + difference.detach()


def commitment(z, entry):
    # The entry is a constant here, because only the encoder is to move.
    target = entry.detach()
    # The mean over all numbers of the squared difference.
    return (z - target).square().mean()


def moving_entries(count, total, new_count, new_total, decay):
    # The old share is decay, and the new one the rest, for counts and for sums.
    count = decay * count + (1 - decay) * new_count
    total = decay * total + (1 - decay) * new_total
    # An entry is the mean of what chose it: its sum over its count, (k, 1) beside (k, d).
    return count, total, total / count[:, None]


def dead_entries(count, least):
    # If all were chosen alike, each would have the mean of the counts.
    even = count.mean()
    # Dead is what is chosen less often than a part of that.
    return count < least * even


def relaxed_choice(logits, noise, temperature):
    # With the noise the largest logit is a sample.
    noisy = logits + noise
    # A softmax in place of the argmax; all is divided by the temperature, the noise too.
    return (noisy / temperature).softmax(-1)


def divergence_from_even(logits):
    # Logarithms first: a probability may be so small that it becomes 0, and its logarithm infinite.
    log_p = logits.log_softmax(-1)
    # Even odds are 1 / k, so that log(p / (1 / k)) = log p + ln k.
    told = log_p + math.log(logits.shape[-1])
    # Its mean under the odds themselves.
    return (log_p.exp() * told).sum(-1)


def adaptive_weight(reconstruction, adversarial, last_layer):
    # Each loss has a gradient at the last layer; the graph is kept, because both losses are learned from later.
    (of_pixels,) = torch.autograd.grad(reconstruction, last_layer, retain_graph=True)
    (of_passing,) = torch.autograd.grad(adversarial, last_layer, retain_graph=True)
    # How long is the one, over how long is the other, which may be 0.
    weight = of_pixels.norm() / (of_passing.norm() + 1e-4)
    # At most 10,000, and a constant.
    return weight.clamp(max=1e4).detach()


def put_back(moved, sentinels, end):
    # Plain lists are easiest, because lengths differ.
    rows = moved.tolist()
    # Every sentinel stands twice. The first of those that stand for the second time is where the document ends.
    found = [token for token in sentinels if token in rows]
    seconds = [rows.index(token, rows.index(token) + 1) for token in found]
    body = min(seconds, default=len(rows))
    # From there on: a sentinel, its span, the end; a sentinel, its span, the end.
    spans, at = {}, body
    while at < len(rows):
        stop = rows.index(end, at)
        spans[rows[at]] = rows[at + 1 : stop]
        at = stop + 1
    # In the document each sentinel gives way to its span.
    document = []
    for token in rows[:body]:
        document += spans.get(token, [token])
    return torch.tensor(document, dtype=moved.dtype)


def words_then_codes(mask, p, words, codes):
    # Which of all n positions are real: words where mask says so, and every code.
    b, t = mask.shape
    real = torch.cat([mask, torch.ones(b, p, dtype=torch.bool)], dim=1)
    # Itself and what is before, whatever kind it is; row i is True up to column i.
    n = t + p
    past = torch.ones(n, n, dtype=torch.bool).tril()
    # Columns of padding are seen by nobody: (n, n) & (b, 1, n).
    sees = past & real[:, None]
    # Place i says token i + 1, so a code follows from the last place of the text on; behind the last code nothing does.
    code_follows = torch.arange(n - 1) >= t - 1
    # Codes have the numbers from words on: a token may follow where its kind is the one that follows.
    is_code = torch.arange(words + codes) >= words
    return sees, code_follows[:, None] == is_code
