"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def interpolate_texts(text, other, beta=0.5):
    # Both weights add up to 1, so that the result is on the line between the two.
    return beta * text + (1 - beta) * other


def conditioning_augmentation(mean, log_variance, noise):
    # The standard deviation is the root of the variance: half of the logarithm, and then exp.
    deviation = torch.exp(log_variance / 2)
    # Noise that is standard normal becomes as wide as that, around the mean.
    return mean + deviation * noise


def standard_normal_divergence(mean, log_variance):
    # For each number μ² + σ² − 1 − ln σ², where σ² is the exp of its logarithm.
    each = mean**2 + log_variance.exp() - 1 - log_variance
    # Numbers of a row add up, rows are averaged, and half of it is the divergence.
    return each.sum(dim=1).mean() / 2


def matching_aware_generation(made, between=None):
    # −log σ(s) is softplus(−s), for scores of any size. It is high where the discriminator says no.
    loss = F.softplus(-made).mean()
    # Pictures of texts between two must pass as well, if there are any.
    return loss if between is None else loss + F.softplus(-between).mean()


def matching_aware_discrimination(real, wrong, made, is_wrong=None):
    # Without is_wrong every row has a wrong text.
    if is_wrong is None:
        is_wrong = torch.ones(len(wrong), dtype=torch.bool)
    # Real pictures with their text must score high: −log σ(s) is softplus(−s).
    loss = F.softplus(-real).mean()
    # With a wrong text they must score low: −log(1 − σ(s)) is softplus(s). Take the mean of rows that have one.
    mismatched = (F.softplus(wrong) * is_wrong).sum() / max(int(is_wrong.sum()), 1)
    # What was drawn must score low. Both kinds of what is wrong weigh a half.
    return loss + (mismatched + F.softplus(made).mean()) / 2


def other_captions(caption_id):
    b = len(caption_id)
    # For each row all rows along a circle, itself first: i, i + 1, …, back to i − 1.
    along = (torch.arange(b)[:, None] + torch.arange(b)) % b
    # Which of them have another caption.
    is_other = caption_id[along] != caption_id[:, None]
    # The first of these; argmax finds the first largest. Where there is none it finds step 0, the row itself.
    step = is_other.int().argmax(dim=1)
    return along[torch.arange(b), step], is_other.any(dim=1)


def word_attention(queries, words, mask):
    # The product of each position with each word: (b, p, t).
    scores = queries @ words.transpose(1, 2)
    # What is no word gets a score so low that softmax leaves it nothing.
    scores = scores.masked_fill(~mask[:, None], torch.finfo(scores.dtype).min)
    # Softmax over words. Where a text has no word all scores are equal, so multiply by the mask once more.
    weights = scores.softmax(dim=-1) * mask[:, None]
    # Mix the words by their weights.
    return weights @ words, weights


def word_region_scores(regions, words, mask, sharpness=(5.0, 5.0)):
    # Every word of every text with every region of every picture: (images, texts, t, p).
    product = torch.einsum("mtd,npd->nmtp", words, regions)
    # Softmax over the words of a text, without its padding: of which word a region says most.
    real = mask[None, :, :, None]
    normed = product.masked_fill(~real, torch.finfo(product.dtype).min).softmax(dim=2) * real
    # Sharpen by γ₁, and softmax over regions: where a word looks.
    weights = (sharpness[0] * normed).softmax(dim=-1)
    # What it sees there: (images, texts, t, d).
    context = weights @ regions[:, None]
    # How well that fits the word, sharpened by γ₂. Padding fits nothing.
    cosine = F.cosine_similarity(context, words[None], dim=-1)
    fits = (sharpness[1] * cosine).masked_fill(~mask[None], -1e4)
    # A soft maximum over words; dividing by γ₂ undoes the sharpening.
    return fits.logsumexp(dim=-1) / sharpness[1], weights


def damsm_loss(regions, image, words, sentence, mask, sharpness=(5.0, 5.0, 10.0)):
    # How well each picture shows the words of each text: (pictures, texts).
    by_words = word_region_scores(regions, words, mask, sharpness[:2])[0]
    # How well each whole picture fits each whole sentence: the cosine.
    by_sentence = F.normalize(image, dim=-1) @ F.normalize(sentence, dim=-1).T
    # Picture i and text i are a pair.
    own, loss = torch.arange(len(image), device=image.device), 0
    for scores in (by_words, by_sentence):
        # Sharpened by γ₃ they are logits. Each row is a picture that picks its text, each column a text that picks its
        # picture; the mean of both.
        logits = sharpness[2] * scores
        loss = loss + (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    return loss
