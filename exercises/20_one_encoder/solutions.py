"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import math

import torch
import torch.nn.functional as F


def normalised_patches(patches):
    # The mean and the variance of each patch, over its pixels; keepdim=True keeps an axis of 1 to compute with.
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    # Less the mean, over the deviation. The 1e-6 stands under the root, for patches of one colour.
    return (patches - mean) / (variance + 1e-6).sqrt()


def masked_pixels(prediction, target, masked):
    # The mean squared error of each patch: (b, p).
    error = (prediction - target).square().mean(-1)
    # Only hidden patches count.
    total = (error * masked).sum()
    # Their mean. With none hidden the sum is 0, and it is divided by 1.
    return total / masked.sum().clamp(min=1)


def by_modality(x, words, text, image, pair=None):
    # A pair has words and patches, and goes its own way where there is one.
    if pair is not None and 0 < words < x.shape[1]:
        return pair(x)
    # Otherwise the row is cut, and each way gets its own tokens.
    said, seen = text(x[:, :words]), image(x[:, words:])
    # They come back in the order in which they stood.
    return torch.cat([said, seen], dim=1)


def restore_order(tokens, visible, mask_token, patches):
    b, _, d = tokens.shape
    # Begin with the mask token everywhere. clone() makes it a tensor of its own.
    whole = mask_token.expand(b, patches, d).clone()
    # The numbers of rows, (b, 1), go with the numbers of positions, (b, kept).
    rows = torch.arange(b)[:, None]
    # Token k of row b belongs to place visible[b, k].
    whole[rows, visible] = tokens
    return whole


def own_gradient(weight, mask):
    # The same numbers without a gradient.
    constant = weight.detach()
    # Where the mask is True the weight itself, elsewhere the constant.
    return torch.where(mask, weight, constant)


def contextual_targets(layers, top):
    # A teacher's word is a constant.
    with torch.no_grad():
        # The last layers, each token brought to mean 0 and variance 1 over its features.
        last = [F.layer_norm(layer, layer.shape[-1:]) for layer in layers[-top:]]
        # Their mean.
        return torch.stack(last).mean(0)


def send_to_experts(tokens, weight, choice, experts, real):
    # Answers are added to zeros, and so padding is 0 in the end.
    y = torch.zeros_like(tokens)
    for number, expert in enumerate(experts):
        # Which tokens chose this expert, and as which of their k choices? Padding chooses none.
        token, rank = torch.where((choice == number) & real[:, None])
        # The expert computes these rows alone, and what it says is weighed.
        answer = weight[token, rank][:, None] * expert(tokens[token])
        # It is added at the rows of these tokens.
        y = y.index_add(0, token, answer)
    return y


def balance(probability, real, k=1):
    e = probability.shape[1]
    # The k likeliest experts of each token, as ones in (n, e).
    chosen = F.one_hot(probability.topk(k).indices, e).sum(1)
    # f: the share of all choices of real tokens that goes to each expert. What is counted has no gradient.
    count = real.sum().clamp(min=1)
    share = (chosen * real[:, None]).sum(0) / (k * count)
    # P: how likely each expert is for real tokens on the whole.
    likely = (probability * real[:, None]).sum(0) / count
    # N times the sum of products.
    return e * (share * likely).sum()


def global_entropy(probability, real, experts):
    # The mean over the real tokens: how likely each expert is on the whole.
    mean = (probability * real[:, None]).sum(0) / real.sum().clamp(min=1)
    # Its entropy. 0 · ln 0 is 0, and the clamp keeps the logarithm finite.
    entropy = -(mean * mean.clamp(min=1e-30).log()).sum()
    # How far it is below the entropy of so many experts that are used alike. More costs nothing.
    missing = (math.log(experts) - entropy).clamp(min=0)
    # Without a real token there is nothing to ask for.
    return missing * real.any()


def matched_info_nce(image_embedding, text_embedding, logit_scale, matched):
    # All pictures with all texts, (b, b): those of wrong pairs stay among the answers.
    logits = logit_scale * image_embedding @ text_embedding.T
    # The rows of true pairs ask. Where there is none, all do.
    asks = matched | ~matched.any()
    # What each picture pays for its own text, and each text for its own picture.
    there, back = -logits.log_softmax(1).diagonal(), -logits.T.log_softmax(1).diagonal()
    # The mean over those that ask, of both directions.
    return (there[asks].mean() + back[asks].mean()) / 2
