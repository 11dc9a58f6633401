"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch
import torch.nn.functional as F


def mask_tokens(tokens, mask, *, vocab_size, mask_token, special, generator, probability=0.15, words=None):
    # Where something may be hidden: real, not special, and not mask_token itself.
    reserved = torch.tensor([*special, mask_token])
    possible = mask & ~torch.isin(tokens, reserved)
    # One random number for each position, (b, t), from the generator.
    chance = torch.rand(tokens.shape, generator=generator)
    if words is not None:
        # Every piece takes the number of the first piece of its word: the first place of the text with its word number.
        first = (words[:, :, None] == words[:, None, :]).int().argmax(-1)
        chance = chance.gather(1, first)
    # Hidden is what drew less than the probability, or the lowest number of its text among what is possible.
    lowest = chance.masked_fill(~possible, 2).amin(1, keepdim=True)
    hidden = possible & ((chance < probability) | (chance == lowest))
    # A second random number for each position decides what is shown: below 0.8 mask_token, from 0.9 on a random token.
    kind = torch.rand(tokens.shape, generator=generator)
    # Random tokens come from a list of all ordinary ones: draw a place in that list.
    ordinary = torch.tensor([token for token in range(vocab_size) if token not in reserved.tolist()])
    drawn = ordinary[torch.randint(len(ordinary), tokens.shape, generator=generator)]
    read = torch.where(hidden & (kind < 0.8), mask_token, tokens)
    read = torch.where(hidden & (kind >= 0.9), drawn, read)
    # The labels are the tokens of the text where it is hidden, and -100 elsewhere.
    return read, tokens.masked_fill(~hidden, -100)


def masked_cross_entropy(logits, label):
    # One list of positions, whatever the axes were.
    logits, label = logits.reshape(-1, logits.shape[-1]), label.reshape(-1)
    # ignore_index leaves out -100. Take the sum: it is 0 with a graph where nothing is hidden.
    total = F.cross_entropy(logits, label, ignore_index=-100, reduction="sum")
    # Divide by the number of hidden positions, but at least by 1.
    return total / (label != -100).sum().clamp(min=1)


def masked_region_regression(prediction, target, masked):
    # Only hidden regions: x[masked] is a list of them, (hidden, f).
    difference = prediction[masked] - target[masked]
    # The sum over features and regions of the squares, divided by the number of hidden regions, but at least by 1.
    return difference.square().sum() / masked.sum().clamp(min=1)


def masked_region_classification(logits, classes, masked):
    # The label is the detector's first choice.
    label = classes.argmax(-1)
    # The cross-entropy of hidden regions, as a sum, divided by their number, but at least by 1.
    total = F.cross_entropy(logits[masked], label[masked], reduction="sum")
    return total / masked.sum().clamp(min=1)


def masked_region_kl(logits, classes, masked):
    # The model's logarithms come from log_softmax, which stays finite.
    model, detector = logits[masked].log_softmax(-1), classes[masked]
    # Σ c (log c - log softmax), in which 0 log 0 is 0: torch.xlogy knows that, and so does F.kl_div.
    total = (torch.xlogy(detector, detector) - detector * model).sum()
    # Divide by the number of hidden regions, but at least by 1.
    return total / masked.sum().clamp(min=1)
