"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def pair_similarity(text, image):
    # The cosine of each row with its own row: the product of both, divided by both lengths. From -1 to 1.
    cosine = F.cosine_similarity(text, image, dim=1)
    # Half of 1 + the cosine is from 0 to 1.
    return (1 + cosine) / 2


def similarity_of_pairs(similarity, true):
    # Keep similarities away from 0 and 1, where a logarithm is infinite.
    similarity = similarity.clamp(1e-6, 1 - 1e-6)
    # A true pair costs -log s, and a false one -log(1 - s).
    probability = torch.where(true == 1, similarity, 1 - similarity)
    # The mean over all pairs.
    return -probability.log().mean()


def outer_product(x):
    # Put a 1 behind each vector, so that a number alone, and 1 itself, are among the products.
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    # Begin with the first vector, and multiply all that there is by each number of the next one.
    product = x[:, 0]
    for other in x.unbind(1)[1:]:
        product = (product[:, :, None] * other[:, None, :]).flatten(1)
    return product


def low_rank_product(x, factors):
    # Put a 1 behind each vector, as in the outer product.
    x = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    # Of each modality and rank its own vector of weights, for each output: a linear layer each.
    parts = torch.einsum("bmd,mrdo->bmro", x, factors)
    # Multiply over modalities, one product for each rank, and then add over ranks.
    return parts.prod(1).sum(1)


def gated_unit(first, second, first_weight, second_weight, gate_weight):
    # Each modality is projected on its own, and passes a tanh.
    one, two = torch.tanh(first @ first_weight.T), torch.tanh(second @ second_weight.T)
    # The gate reads both side by side; a sigmoid brings each of its numbers between 0 and 1.
    gate = torch.sigmoid(torch.cat([first, second], dim=1) @ gate_weight.T)
    # What the gate leaves of the first is taken from the second.
    return gate * one + (1 - gate) * two


def destroy_numbers(x, chance, share):
    # How many numbers each row loses.
    count = round(share * x.shape[1])
    # The place of each chance among those of its row, counted from 0: argsort of argsort.
    position = chance.argsort(dim=1).argsort(dim=1)
    # Those in the first positions are lost.
    return x.masked_fill(position < count, 0)


def cue_reconstruction(reconstruction, cues, mask):
    # The mean squared error of each modality of each row.
    error = (reconstruction - cues).square().mean(-1)
    # Add up those that were there, and divide by how many they are, which is at least 1.
    return (error * mask).sum() / mask.sum().clamp(min=1)


def keep_modalities(mask, chance, probability):
    # What is there stays where its chance is p or more.
    kept = mask & (chance >= probability)
    # In each row the one that is there with the highest chance stays in any case. What is not there is never highest.
    highest = chance.masked_fill(~mask, -1).argmax(1)
    kept = kept | F.one_hot(highest, mask.shape[1]).bool()
    # In a row without any this brought in one that is not there.
    return kept & mask


def most_right_by_votes(label, share):
    r = len(label)
    # Only the order of votes matters, so whole numbers from 0 to r are enough for the rows: all ways to give them.
    votes = torch.cartesian_prod(*[torch.arange(r + 1.0)] * r).view(-1, r)
    # A column says yes from some vote on. Try each bound: (ways, r, 1, bounds).
    bounds = torch.arange(r + 1.0) - 0.5
    says_yes = votes[:, :, None, None] > bounds
    # Where this is the label of the row and column, it is right as often as the pair occurs. Add up over rows.
    right = ((says_yes == label[:, :, None]) * share[:, :, None]).sum(1)
    # Each column takes its best bound, and all together the best way to vote.
    return right.amax(-1).sum(-1).max().item()
