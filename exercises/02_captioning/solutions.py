"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import math

import torch
import torch.nn.functional as F


def until_end(tokens, end_token):
    # Where an end token stands.
    ends = tokens == end_token
    # How many end tokens stand before each position, without its own.
    before = ends.cumsum(1) - ends.long()
    # It is written if there is none before it. So the first end token is written as well.
    return before == 0


def caption_loss(logits, tokens, mask):
    # The picture is read first: logits at position i + 1 were computed once token i had been read.
    after = logits[:, 1:]
    # They say the next token. Behind the last one nothing is to be said, and nobody says the first.
    said, wanted, counts = after[:, :-1], tokens[:, 1:], mask[:, 1:]
    # Padding never counts. One mean over all words of all captions.
    return F.cross_entropy(said[counts], wanted[counts])


def channel_attention(features, hidden, key, bias, query, score):
    # Of each channel its mean over all positions: (b, c).
    mean = features.mean((2, 3))
    # Each is one number, which key and bias bring to the width of the attention: (b, c, a).
    keys = mean[:, :, None] * key + bias
    # What has been written asks all channels the same.
    asked = hidden @ query.T
    # Add both, a tanh, and one score for each channel; softmax over channels.
    return ((keys + asked[:, None]).tanh() @ score).softmax(1)


def spatial_attention(features, hidden, key, bias, query, score):
    # Places row by row, each with all its channels: (b, p, c).
    positions = features.flatten(2).transpose(1, 2)
    # Keys of all positions, and what has been written, which asks all of them the same.
    keys, asked = F.linear(positions, key, bias), F.linear(hidden, query)
    # Add both, a tanh, and one score for each position; softmax over positions.
    return ((keys + asked[:, None]).tanh() @ score).softmax(1)


def in_order(features, order, channel, spatial):
    _, c, rows, columns = features.shape
    # The order is two names with a hyphen between them: take them in turn.
    for kind in order.split("-"):
        # Ask about the features as they are now. Times the number of weights, even ones change nothing.
        if kind == "channel":
            features = features * (c * channel(features))[:, :, None, None]
        # Weights of positions get back their rows and columns.
        else:
            where = spatial(features)
            features = features * (rows * columns * where).view(-1, 1, rows, columns)
    return features, where


def bleu(candidates, references, n=4):
    # Over all captions: how many words were written, and how many were wanted.
    length, wanted, score = 0, 0, 1.0
    for candidate, texts in zip(candidates, references):
        own, lengths = len(candidate.split()), [len(text.split()) for text in texts]
        # The reference whose length is nearest says how many are wanted; of two as near, the shorter.
        length, wanted = length + own, wanted + min(lengths, key=lambda r: (abs(r - own), r))
    for k in range(1, n + 1):
        right = written = 0
        for candidate, texts in zip(candidates, references):
            for ngram, count in count_ngrams(candidate, k).items():
                # A k-gram counts as often as it is said, but no more often than in the reference that has it most.
                right += min(count, max(count_ngrams(text, k).get(ngram, 0) for text in texts))
                written += count
        # Counts were added over all captions, and are divided once. The product of the shares, each to the power 1/n.
        score *= (right / max(written, 1)) ** (1 / n)
    # Captions that are too short pay. Those that are longer gain nothing.
    return score * min(1.0, math.exp(1 - wanted / length))


def tf_idf(count, in_references):
    # A picture has an n-gram if one of its references does. Count the pictures that have each.
    images = (in_references > 0).any(1).sum(0)
    # The logarithm of the number of pictures over those. An n-gram of no picture counts as one of a single picture.
    rare = math.log(len(in_references)) - images.clamp(min=1).log()
    # How often it occurs, times how rare it is.
    return count * rare


def count_ngrams(text, k):
    words, counts = text.split(), {}
    for i in range(len(words) - k + 1):
        ngram = tuple(words[i : i + k])
        counts[ngram] = counts.get(ngram, 0) + 1
    return counts


def cider_d(candidates, references, n=4, sigma=6.0):
    total = 0.0
    for k in range(1, n + 1):
        # In how many pictures some reference has each k-gram: a set of k-grams for each picture, however many texts.
        images = {}
        for texts in references:
            for ngram in {one for text in texts for one in count_ngrams(text, k)}:
                images[ngram] = images.get(ngram, 0) + 1
        rare = {ngram: math.log(len(references) / have) for ngram, have in images.items()}
        for candidate, texts in zip(candidates, references):
            # Weights of a text: how often it has each k-gram, times the logarithm of how rare that is.
            unknown = math.log(len(references))
            one = {g: count * rare.get(g, unknown) for g, count in count_ngrams(candidate, k).items()}
            for text in texts:
                other = {g: count * rare[g] for g, count in count_ngrams(text, k).items()}
                # The cosine of both, but to say a k-gram more often than the reference gains nothing: min above.
                shared = sum(min(weight, other[g]) * other[g] for g, weight in one.items() if g in other)
                lengths = [math.sqrt(sum(weight**2 for weight in weights.values())) for weights in (one, other)]
                # Without any rare k-gram the cosine is 0.
                cosine = shared / (lengths[0] * lengths[1]) if min(lengths) > 0 else 0.0
                # The more another length the less it is worth. A mean over references, over k and over pictures.
                apart = len(candidate.split()) - len(text.split())
                total += cosine * math.exp(-(apart**2) / (2 * sigma**2)) / len(texts)
    # From 0 to 10.
    return 10 * total / n / len(candidates)


def self_critical(log_probs, written, reward, baseline):
    # The log-probability of a drawn text is the sum over its tokens; what stands behind the end does not count.
    likelihood = log_probs.masked_fill(~written, 0).sum(1)
    # How much better it is than the greedy text of its picture. That is no function of the weights.
    better = (reward - baseline).detach()
    # Texts that are better are to become likelier, so the loss has a minus. The mean over texts.
    return -(better * likelihood).mean()


def worker_step(seen, word, hidden, goal, proposed, weight, head, done):
    # The manager's proposal comes into force where the last goal has been reached; else that stays.
    goal = torch.where(done[:, None], proposed, goal)
    # The worker reads what is seen, its goal, the last word and its state, in this order.
    read = torch.cat([seen, goal, word, hidden], dim=1)
    # Its new state.
    hidden = torch.tanh(read @ weight.T)
    # The next word is written from the new state.
    return goal, hidden, (hidden @ head.T).log_softmax(dim=1)
