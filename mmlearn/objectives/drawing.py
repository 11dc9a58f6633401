"""Drawing from words: a discriminator that reads the caption as well, captions in between, and word–region scores.

Scores of a discriminator are log-odds that a picture is real and shows its text. Where captions repeat in a batch,
``caption_id`` (b,) or ``positives`` (b, b) say which are one.
"""

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.adversarial import logistic_generation
from mmlearn.objectives.contrastive import pair_cross_entropy


def other_captions(caption_id: Int[Tensor, "b"]) -> tuple[Int[Tensor, "b"], Bool[Tensor, "b"]]:
    """For each row the next one, in a circle, whose caption is another, and whether there is any (else itself)."""
    b = len(caption_id)
    rows = (torch.arange(b, device=caption_id.device)[:, None] + torch.arange(b, device=caption_id.device)) % b
    differs = caption_id[rows] != caption_id[:, None]  # (b rows, b steps along the circle)
    return rows.gather(1, differs.int().argmax(1, keepdim=True))[:, 0], differs.any(1)


def interpolate_texts(
    text: Float[Tensor, "b d"], other: Float[Tensor, "b d"], beta: float = 0.5
) -> Float[Tensor, "b d"]:
    r"""Texts that nobody wrote, between two that somebody did: :math:`\beta t_1 + (1 - \beta) t_2`.

    Source: Reed et al. 2016 (GAN-INT-CLS), equation 5.
    """
    return beta * text + (1 - beta) * other


def matching_aware_discrimination(
    real: Float[Tensor, "*n"],
    wrong: Float[Tensor, "*n"],
    made: Float[Tensor, "*m"],
    is_wrong: Bool[Tensor, "*n"] | None = None,
) -> Float[Tensor, ""]:
    r"""The discriminator's loss on real pictures with their text, real ones with a wrong text, and made ones.

    .. math:: -\log \sigma(D(x, t)) - \frac{1}{2} \log (1 - \sigma(D(x, t')))
       - \frac{1}{2} \log (1 - \sigma(D(\hat x, t)))

    each a mean. Rows where ``is_wrong`` is False had no wrong text to be shown with, and do not count in the second.
    Scores that know nothing give 2 ln 2. Source: Reed et al. 2016 (GAN-INT-CLS), algorithm 1.
    """
    return F.softplus(-real).mean() + (_mean_of_wrong(wrong, is_wrong) + F.softplus(made).mean()) / 2


def _mean_of_wrong(wrong: Float[Tensor, "*n"], is_wrong: Bool[Tensor, "*n"] | None) -> Float[Tensor, ""]:
    """What scores of wrong pairs cost, a mean over rows that do have a wrong text; 0 where there is none."""
    is_wrong = torch.ones_like(wrong, dtype=torch.bool) if is_wrong is None else is_wrong
    return (F.softplus(wrong) * is_wrong).sum() / is_wrong.sum().clamp(min=1)


def joint_discrimination(
    real: tuple[Float[Tensor, "b"], Float[Tensor, "b"]],
    made: tuple[Float[Tensor, "b"], Float[Tensor, "b"]],
    wrong: Float[Tensor, "b"] | None = None,
    is_wrong: Bool[Tensor, "b"] | None = None,
) -> Float[Tensor, ""]:
    r"""The loss of a discriminator that judges images alone and with their text: the mean of what is to be high, and
    the mean of what is to be low.

    .. math:: -\frac{1}{2} \left[\log \sigma(D(x)) + \log \sigma(D(x, t))\right]
       - \frac{1}{3} \left[\log (1 - \sigma(D(\hat x))) + \log (1 - \sigma(D(\hat x, t)))
       + \log (1 - \sigma(D(x, t')))\right]

    ``real`` and ``made`` are scores of the image alone and with its text, ``wrong`` those of real images with a wrong
    text. Without ``wrong`` the second mean is of two. ``is_wrong`` as in :func:`matching_aware_discrimination`. Scores
    that know nothing give 2 ln 2. Source: Xu et al. 2018 (AttnGAN), equation 5, in the form of its official code.
    """
    high = [F.softplus(-score).mean() for score in real]
    low = [F.softplus(score).mean() for score in made]
    if wrong is not None:
        low.append(_mean_of_wrong(wrong, is_wrong))
    return torch.stack(high).mean() + torch.stack(low).mean()


def matching_aware_generation(
    made: Float[Tensor, "*n"], between: Float[Tensor, "*n"] | None = None
) -> Float[Tensor, ""]:
    r"""The generator's loss: what it drew should pass for real and fit its text, also for texts ``between`` two.

    .. math:: -\log \sigma(D(\hat x, t)) - \log \sigma(D(\hat x', \beta t_1 + (1 - \beta) t_2))

    Scores that know nothing give ln 2 for each term. Source: Reed et al. 2016, algorithm 1 and equation 5, in the form
    of Goodfellow et al. 2014 that does not fade.
    """
    passing = logistic_generation(made)
    return passing if between is None else passing + logistic_generation(between)


def conditioning_augmentation(
    mean: Float[Tensor, "b d"], log_variance: Float[Tensor, "b d"], noise: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    r"""A caption's condition, drawn from around its mean: :math:`\mu + \sigma \odot \epsilon`.

    ``noise`` is standard normal; where it is 0 the mean comes out. Source: Zhang et al. 2017 (StackGAN), section 3.2.
    """
    return mean + (log_variance / 2).exp() * noise


def standard_normal_divergence(mean: Float[Tensor, "b d"], log_variance: Float[Tensor, "b d"]) -> Float[Tensor, ""]:
    r"""How far conditions are from standard normal ones, so that they stay near each other: the mean over rows of

    .. math:: D_\mathrm{KL}(\mathcal{N}(\mu, \sigma^2) \,\|\, \mathcal{N}(0, 1))
       = \frac{1}{2} \sum_d (\mu_d^2 + \sigma_d^2 - 1 - \log \sigma_d^2)

    in nats. Standard normal conditions give 0. The official code of AttnGAN takes a mean over the width as well, so it
    weighs one over the width there. Source: Zhang et al. 2017 (StackGAN), equation 2.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


def word_attention(
    queries: Float[Tensor, "b p d"], words: Float[Tensor, "b t d"], mask: Bool[Tensor, "b t"]
) -> tuple[Float[Tensor, "b p d"], Float[Tensor, "b p t"]]:
    r"""For each place of a picture a mixture of the words, and how much it took of each.

    .. math:: c_j = \sum_i \beta_{ji} e_i, \quad \beta_{ji} = \mathrm{softmax}_i (h_j^\top e_i)

    Of a text without a real word nothing is taken. Source: Xu et al. 2018 (AttnGAN), equation 2.
    """
    scores = einsum(queries, words, "b p d, b t d -> b p t")
    least = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask[:, None], least).softmax(-1) * mask[:, None]
    return einsum(weights, words.masked_fill(~mask[..., None], 0), "b p t, b t d -> b p d"), weights


def word_region_scores(
    regions: Float[Tensor, "images p d"],
    words: Float[Tensor, "texts t d"],
    mask: Bool[Tensor, "texts t"],
    sharpness: tuple[float, float] = (5.0, 5.0),
) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "images texts t p"]]:
    r"""How well each picture shows the words of each text, and where: every word has the regions that it attends to.

    .. math:: \bar s_{ij} = \mathrm{softmax}_i (e_i^\top v_j), \quad
       \alpha_{ij} = \mathrm{softmax}_j (\gamma_1 \bar s_{ij}), \quad c_i = \sum_j \alpha_{ij} v_j

    .. math:: R = \frac{1}{\gamma_2} \log \sum_i \exp (\gamma_2 \cos (c_i, e_i))

    ``sharpness`` is (γ₁, γ₂). Padding is no word. Source: Xu et al. 2018 (AttnGAN), equations 7 to 10.
    """
    least = torch.finfo(regions.dtype).min
    real = mask[None, :, :, None]
    scores = einsum(words, regions, "texts t d, images p d -> images texts t p")
    normed = scores.masked_fill(~real, least).softmax(2) * real
    weights = (sharpness[0] * normed).softmax(-1)
    context = einsum(weights, regions, "images texts t p, images p d -> images texts t d")
    found = sharpness[1] * F.cosine_similarity(context, words[None], dim=-1, eps=1e-6)
    return found.masked_fill(~mask[None], -1e4).logsumexp(-1) / sharpness[1], weights


def damsm(
    regions: Float[Tensor, "b p d"],
    image: Float[Tensor, "b d"],
    words: Float[Tensor, "b t d"],
    sentence: Float[Tensor, "b d"],
    mask: Bool[Tensor, "b t"],
    positives: Bool[Tensor, "b b"] | None = None,
    sharpness: tuple[float, float, float] = (5.0, 5.0, 10.0),
    root: bool = True,
) -> dict[str, Float[Tensor, ""]]:
    r"""Pictures pick their texts and texts their pictures, once by ``words`` and regions, once by the ``sentence``.

    .. math:: \mathcal{L}_1 = -\sum_i \log \frac{\exp(\gamma_3 R_{ii})}{\sum_j \exp(\gamma_3 R_{ij})}, \quad
       \mathcal{L}_2 = -\sum_i \log \frac{\exp(\gamma_3 R_{ii})}{\sum_j \exp(\gamma_3 R_{ji})}

    for both kinds of R: that of :func:`word_region_scores`, and the cosine of whole picture and whole sentence. Each is
    the mean of both directions and of rows here, the sum there. ``sharpness`` is (γ₁, γ₂, γ₃). Without ``root`` the
    scores of words are γ₂ R, because the official code leaves out 1/γ₂ of equation 10. Scores that know nothing give
    ln b. Source: Xu et al. 2018 (AttnGAN), section 3.2, equations 11 to 13.
    """
    by_words = word_region_scores(regions, words, mask, sharpness[:2])[0] * (1.0 if root else sharpness[1])
    by_sentence = F.normalize(image, dim=-1, eps=1e-6) @ F.normalize(sentence, dim=-1, eps=1e-6).T
    scores = {"words": sharpness[2] * by_words, "sentence": sharpness[2] * by_sentence}
    return {name: pair_cross_entropy(score, score.T, positives) for name, score in scores.items()}
