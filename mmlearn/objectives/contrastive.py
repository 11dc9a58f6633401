"""Contrastive objectives: matching pairs in a batch are pulled together, all others pushed apart.

Embeddings have unit length, ``logit_scale`` is 1/τ, already exponentiated, and row i of one modality belongs to row i
of the other; ``ValueError`` where they are not as many, or none. Where a caption occurs twice in the batch,
``positives`` says so: its entry (i, j) is True if text j fits image i.

Processes share one batch by :func:`~mmlearn.objectives.all_gather.gather` first. With ``rows``, those of this process
(:func:`~mmlearn.objectives.own_rows`), a loss is the mean of these b rows against all columns, and the mean of the
processes is the loss of the whole batch; ``positives`` then has these rows only, and reads alike from both sides.
Losses in which some rows have no part take the whole batch in each process: :func:`binding_loss`, :func:`mil_nce`.
"""

import torch
import torch.nn.functional as F
from einops import einsum, reduce
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmlearn.objectives.all_gather import EVERY, gather


def info_nce(
    image_embedding: Float[Tensor, "all d"],
    text_embedding: Float[Tensor, "all d"],
    logit_scale: Float[Tensor, ""],
    positives: Bool[Tensor, "b all"] | None = None,
    rows: slice = EVERY,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    r"""Each image picks its text among the b in the batch, and each text its image.

    .. math:: \ell = -\frac{1}{2b} \sum_i \left[\log \mathrm{softmax}_j (s\, u_i^\top v_j)\big|_{j=i}
       + \log \mathrm{softmax}_j (s\, v_i^\top u_j)\big|_{j=i}\right]

    Embeddings that know nothing give ln b. ``positives`` and ``label_smoothing`` as in :func:`pair_cross_entropy`.
    Source: Radford et al. 2021 (CLIP), figure 3; van den Oord et al. 2018 (CPC), equation 4.
    """
    logits = logits_both_ways(logit_scale * image_embedding, text_embedding, rows)
    return pair_cross_entropy(*logits, positives, rows, label_smoothing)


def logits_both_ways(
    u: Float[Tensor, "all d"], v: Float[Tensor, "all d"], rows: slice = EVERY
) -> tuple[Float[Tensor, "b all"], Float[Tensor, "b all"]]:
    """The products of these rows of u with all of v, and of these rows of v with all of u: of all rows one product."""
    there = u[rows] @ v.T
    return there, there.T if rows == EVERY else v[rows] @ u.T


def binding_loss(
    image_embedding: Float[Tensor, "b d"],
    other_embedding: Float[Tensor, "b d"],
    logit_scale: Float[Tensor, ""],
    present: Bool[Tensor, "b"],
    positives: Bool[Tensor, "b b"] | None = None,
) -> Float[Tensor, ""]:
    r"""InfoNCE of pictures with what only some of them have: a sound, a depth, a motion.

    .. math:: \ell_{I, M} = \mathrm{InfoNCE}(q_R, k_R), \quad R = \{i : \text{picture } i \text{ has an } M\}

    A row where ``present`` is False has no part in it, neither as a question nor as a wrong answer; where no row is
    present the loss is 0. ``positives`` as in :func:`info_nce`, for all b rows.
    Source: Girdhar et al. 2023 (ImageBind), section 3.1 and equation 1.
    """
    _check_pairs(len(image_embedding), len(other_embedding))
    both = present[:, None] & present  # (b, b)
    fits = both & (torch.eye(len(both), dtype=torch.bool, device=both.device) if positives is None else positives)
    logits = logit_scale * image_embedding @ other_embedding.T  # (b, b)
    # Absent rows stay in the matrix and weigh nothing, because to take them out would wait for a GPU. Their logits are
    # low and finite: 0 times -inf is NaN.
    logits = logits.masked_fill(~both, torch.finfo(logits.dtype).min / 2)
    losses = []
    for one_way, fit in ((logits, fits), (logits.T, fits.T)):
        target = fit.to(logits.dtype) / fit.sum(1, keepdim=True).clamp(min=1)
        losses.append(F.cross_entropy(one_way, target, reduction="sum"))
    return torch.stack(losses).sum() / (2 * present.sum().clamp(min=1))


def pair_cross_entropy(
    image_to_text: Float[Tensor, "b all"],
    text_to_image: Float[Tensor, "b all"],
    positives: Bool[Tensor, "b all"] | None = None,
    rows: slice = EVERY,
    label_smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    r"""The mean cross-entropy of both directions: row i of either matrix of logits should pick column i.

    With ``positives`` a row spreads its target evenly over all columns that fit,

    .. math:: -\frac{1}{|P_i|} \sum_{j \in P_i} \log \mathrm{softmax}_j(z_i)

    A ``label_smoothing`` of ε takes ε of this target away and spreads it evenly over all columns.
    Source: Radford et al. 2021 (CLIP), figure 3; Yang et al. 2022 (UniCL), equations 2 to 4, for several positives;
    Jia et al. 2021 (ALIGN), section 5.1, for smoothing.
    """
    matching = torch.arange(image_to_text.shape[1], device=image_to_text.device)[rows]
    _check_pairs(len(image_to_text), len(matching))
    if positives is None:
        by_image = by_text = matching
    else:
        by_image = positives.to(image_to_text.dtype)
        by_text = by_image.T if rows == EVERY else by_image
        by_image, by_text = by_image / by_image.sum(1, keepdim=True), by_text / by_text.sum(1, keepdim=True)
    image_loss = F.cross_entropy(image_to_text, by_image, label_smoothing=label_smoothing)
    text_loss = F.cross_entropy(text_to_image, by_text, label_smoothing=label_smoothing)
    return (image_loss + text_loss) / 2


def pairwise_sigmoid(
    image_embedding: Float[Tensor, "all d"],
    text_embedding: Float[Tensor, "all d"],
    logit_scale: Float[Tensor, ""],
    logit_bias: Float[Tensor, ""],
    positives: Bool[Tensor, "b all"] | None = None,
    chunk_size: int | None = None,
    rows: slice = EVERY,
) -> Float[Tensor, ""]:
    r"""Each of the b² pairs is a yes/no question of its own, so the loss can be summed in chunks.

    .. math:: \ell = -\frac{1}{b} \sum_{ij} \log \sigma\big(z_{ij} (s\, u_i^\top v_j + \beta)\big), \quad
       z_{ij} = 1 \text{ if they match, else } -1

    With ``chunk_size`` only that many images at a time meet all texts, forward and backward: the same number in
    ``chunk_size · b`` memory instead of b². Raises ``ValueError`` for a chunk size below 1.
    Source: Zhai et al. 2023 (SigLIP), equation 1 and section 3.3.
    """
    _check_pairs(len(image_embedding), len(text_embedding))
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1, got {chunk_size}.")
    if positives is None:
        positives = torch.eye(len(text_embedding), dtype=torch.bool, device=image_embedding.device)[rows]
    image_embedding = image_embedding[rows]
    b = len(image_embedding)

    def negative_log_likelihood(image_embedding: Tensor, positives: Tensor) -> Tensor:
        logits = logit_scale * image_embedding @ text_embedding.T + logit_bias
        return -F.logsigmoid(torch.where(positives, logits, -logits)).sum()

    if chunk_size is None:
        return negative_log_likelihood(image_embedding, positives) / b
    chunks = zip(image_embedding.split(chunk_size), positives.split(chunk_size))
    return sum(checkpoint(negative_log_likelihood, *chunk, use_reentrant=False) for chunk in chunks) / b


def late_interaction(
    image_tokens: Float[Tensor, "images p d"],
    text_tokens: Float[Tensor, "texts t d"],
    text_mask: Bool[Tensor, "texts t"] | None = None,
) -> tuple[Float[Tensor, "images texts"], Float[Tensor, "texts images"]]:
    r"""Similarity by tokens: every patch finds its best word, every word its best patch.

    .. math:: s^I_{ij} = \frac{1}{p} \sum_k \max_r u_{ik}^\top v_{jr}, \qquad
       s^T_{ji} = \frac{1}{|t_j|} \sum_{r} \max_k u_{ik}^\top v_{jr}

    Padding is never a maximum and never counts in a mean; a text without tokens has similarity 0.
    Source: Yao et al. 2022 (FILIP), equations 3 to 5.
    """
    if text_mask is None:
        text_mask = torch.ones(text_tokens.shape[:2], dtype=torch.bool, device=text_tokens.device)
    pairs = einsum(image_tokens, text_tokens, "i p d, j t d -> i j p t")
    best_word = pairs.masked_fill(~text_mask[:, None], -torch.inf).amax(-1)  # (images, texts, p)
    best_word = best_word.masked_fill(~text_mask.any(-1)[:, None], 0)
    best_patch = pairs.amax(-2) * text_mask  # (images, texts, t)
    image_to_text = reduce(best_word, "i j p -> i j", "mean")
    text_to_image = reduce(best_patch, "i j t -> j i", "sum") / text_mask.sum(-1, keepdim=True).clamp(min=1)
    return image_to_text, text_to_image


def late_interaction_info_nce(
    image_tokens: Float[Tensor, "all p d"],
    text_tokens: Float[Tensor, "all t d"],
    logit_scale: Float[Tensor, ""],
    text_mask: Bool[Tensor, "all t"] | None = None,
    positives: Bool[Tensor, "b all"] | None = None,
    rows: slice = EVERY,
) -> Float[Tensor, ""]:
    """InfoNCE on the similarities of :func:`late_interaction`, which differ between the two directions.

    Source: Yao et al. 2022 (FILIP), equations 1, 2 and 5.
    """
    image_to_text, text_to_image = late_interaction(image_tokens[rows], text_tokens, text_mask)
    if rows != EVERY:
        text_mask = None if text_mask is None else text_mask[rows]
        text_to_image = late_interaction(image_tokens, text_tokens[rows], text_mask)[1]
    return pair_cross_entropy(logit_scale * image_to_text, logit_scale * text_to_image, positives, rows)


def mil_nce(
    video_embedding: Float[Tensor, "b d"],
    text_embedding: Float[Tensor, "b candidates d"],
    logit_scale: Float[Tensor, ""],
    candidate_mask: Bool[Tensor, "b candidates"] | None = None,
    positives: Bool[Tensor, "b b"] | None = None,
) -> Float[Tensor, ""]:
    r"""A video has several texts that may fit it; it is enough that some of them are near.

    .. math:: \ell = -\frac{1}{b} \sum_i \log \frac{\sum_{(x, y) \in P_i} e^{s\, x^\top y}}
       {\sum_{(x, y) \in P_i} e^{s\, x^\top y} + \sum_{(x, y) \in N_i} e^{s\, x^\top y}}

    :math:`P_i` holds video i with each of its candidates; :math:`N_i` video i with those of all others, and all other
    videos with the candidates of i. With one candidate each it is the NCE of one positive. Embeddings that know nothing
    give ln(2b - 1). ``candidate_mask`` is True where a candidate exists: a row without any takes no part, and where no
    row has one the loss is 0. ``positives`` (i, j) is True where the texts of row j fit video i as well. The official
    codes count a video's own candidates twice below the line, once from each side, so that nothing known gives ln 2b.
    Source: Miech et al. 2020 (MIL-NCE), equations 1 and 2; Akbari et al. 2021 (VATT), equations 4 and 5.
    """
    b = len(video_embedding)
    _check_pairs(b, len(text_embedding))
    logits = logit_scale * einsum(video_embedding, text_embedding, "i d, j candidates d -> i j candidates")
    if positives is None:
        positives = torch.eye(b, dtype=torch.bool, device=logits.device)
    low = torch.finfo(logits.dtype).min / 2  # finite, so that a sum over nothing is no special case
    if candidate_mask is None:
        candidate_mask = torch.ones(text_embedding.shape[:2], dtype=torch.bool, device=logits.device)
    pairs = logits.masked_fill(~candidate_mask, low).logsumexp(-1)  # (b videos, b texts), still low where none exists
    reverse = pairs.T.masked_fill(positives.T, low)  # (i, j): video j with the texts of i
    matching = pairs.masked_fill(~positives, low).logsumexp(1)
    loss = torch.cat([pairs, reverse], dim=1).logsumexp(1) - matching
    rows = (positives & candidate_mask.any(1)).any(1)
    return loss.masked_fill(~rows, 0).sum() / rows.sum().clamp(min=1)


def ranking_hinge(
    image_embedding: Float[Tensor, "all d"],
    text_embedding: Float[Tensor, "all d"],
    margin: float = 0.2,
    hardest: bool = False,
    positives: Bool[Tensor, "b all"] | None = None,
    rows: slice = EVERY,
) -> Float[Tensor, ""]:
    r"""A matching pair should beat every other pair of its row and of its column by ``margin``.

    .. math:: \ell = \frac{1}{b} \sum_i \Big(\sum_{j \neq i} [\alpha + s_{ij} - s_{ii}]_+
       + \sum_{j \neq i} [\alpha + s_{ji} - s_{ii}]_+\Big)

    ``hardest`` keeps the largest term of each inner sum only. Texts that ``positives`` marks are no negatives.
    Source: Faghri et al. 2018 (VSE++), equation 5 and, for ``hardest``, equation 6.
    """
    _check_pairs(len(image_embedding), len(text_embedding))
    by_image, by_text = logits_both_ways(image_embedding, text_embedding, rows)  # (b, all) each
    if positives is None:
        positives = torch.eye(len(text_embedding), dtype=torch.bool, device=text_embedding.device)[rows]
    matching = by_image[:, rows].diagonal()[:, None]
    over = [
        (margin + similarity - matching).clamp(min=0).masked_fill(own, 0)
        for similarity, own in ((by_image, positives), (by_text, positives.T if rows == EVERY else positives))
    ]
    worst = [violation.amax(1) if hardest else violation.sum(1) for violation in over]
    return torch.stack(worst).sum(0).mean()


def same_caption(caption_id: Int[Tensor, "b"]) -> Bool[Tensor, "b b"]:
    """The ``positives`` of a batch whose captions carry these ids: True where two captions are one."""
    return caption_id[:, None] == caption_id


def gathered_positives(caption_id: Int[Tensor, "b"] | None) -> Bool[Tensor, "b all"] | None:
    """The ``positives`` of these rows in the batch of all processes; None where captions have no ids."""
    return None if caption_id is None else caption_id[:, None] == gather(caption_id)


def _check_pairs(images: int, texts: int) -> None:
    if not 1 <= images == texts:
        raise ValueError(f"Images and texts come in pairs, and at least one: got {images} images and {texts} texts.")
