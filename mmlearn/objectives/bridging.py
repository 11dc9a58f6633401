"""What bridges to a language model learn: who may see whom, and how alike a picture's queries and a text are.

Source: Li et al. 2023 (BLIP-2), section 3.2; Alayrac et al. 2022 (Flamingo), section 2.3.
"""

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.all_gather import EVERY
from mmlearn.objectives.distillation import soft_cross_entropy

TASKS = ("contrast", "matching", "writing")


def query_text_mask(task: str, queries: int, mask: Bool[Tensor, "b t"]) -> Bool[Tensor, "b n n"]:
    """Who sees whom where n = queries + t tokens share self-attention: queries first, then the text.

    For ``contrast`` queries see queries and text sees text, so that neither learns what the other holds. For
    ``matching`` all see all. For ``writing`` queries see queries, and each token sees them, itself and the tokens
    before it, so that all that is said of the picture goes through the queries. ``mask`` is True where a token is real;
    padding is never seen. Raises ``ValueError`` for another task. Source: Li et al. 2023 (BLIP-2), figure 2, right.
    """
    if task not in TASKS:
        raise ValueError(f"The mask is for {', '.join(TASKS[:-1])} or {TASKS[-1]}, not for {task!r}.")
    b, t = mask.shape
    n, device = queries + t, mask.device
    is_text = torch.arange(n, device=device) >= queries
    if task == "contrast":
        sees = is_text[:, None] == is_text
    elif task == "matching":
        sees = torch.ones(n, n, dtype=torch.bool, device=device)
    else:
        sees = ~is_text | (is_text[:, None] & torch.ones(n, n, dtype=torch.bool, device=device).tril())
    real = torch.cat([mask.new_ones(b, queries), mask], dim=1)
    return sees & real[:, None]


def query_text_similarity(
    query_embedding: Float[Tensor, "b q d"], text_embedding: Float[Tensor, "m d"]
) -> Float[Tensor, "b m"]:
    r"""How alike a picture and a text are: the cosine of the text with the query that fits it best.

    .. math:: s_{ij} = \max_q u_{iq}^\top v_j

    Embeddings have unit length. The order of queries does not count. Source: Li et al. 2023 (BLIP-2), section 3.2.
    """
    return einsum(query_embedding, text_embedding, "b q d, m d -> b m q").amax(-1)


def query_text_contrast(
    query_embedding: Float[Tensor, "all q d"],
    text_embedding: Float[Tensor, "all d"],
    logit_scale: float | Float[Tensor, ""],
    positives: Bool[Tensor, "b all"],
    rows: slice = EVERY,
    label_smoothing: float = 0.1,
) -> Float[Tensor, ""]:
    r"""ITC of queries: each picture picks its text, and each text its picture, by :func:`query_text_similarity`.

    .. math:: \ell = -\frac{1}{2b} \sum_i \Big[\sum_j y_{ij} \log \mathrm{softmax}_j (s_{ij} / \tau)
       + \sum_j y_{ij} \log \mathrm{softmax}_j (s_{ji} / \tau)\Big], \quad
       y_{ij} = (1 - \epsilon) \frac{[j \in P_i]}{|P_i|} + \frac{\epsilon}{b}

    ``positives`` says which columns fit a row; ``logit_scale`` is 1/τ; ε is ``label_smoothing``. With one query and
    ε = 0 this is :func:`~mmlearn.objectives.info_nce`. Embeddings that know nothing give ln b. Of a batch that
    processes share these are the losses of ``rows``.
    Source: Li et al. 2023 (BLIP-2), section 3.2, and the official code for ε.
    """
    target = positives / positives.sum(1, keepdim=True)
    target = (1 - label_smoothing) * target + label_smoothing / target.shape[1]
    image_to_text = query_text_similarity(query_embedding[rows], text_embedding)  # (b, B)
    text_to_image = query_text_similarity(query_embedding, text_embedding[rows]).T  # (b, B)
    image_loss = soft_cross_entropy(logit_scale * image_to_text, target)
    return (image_loss + soft_cross_entropy(logit_scale * text_to_image, target)) / 2


def last_image_mask(images_before: Int[Tensor, "b t"], images: int, each: int) -> Bool[Tensor, "b t n"]:
    r"""Each token sees the last picture before it, of n = pictures · each embeddings, and no other.

    .. math:: \mathrm{sees}(i, j) = [\lfloor j / \mathrm{each} \rfloor = \phi(i) - 1]

    ``images_before`` φ counts the pictures that stand before a token; where it is 0, nothing is seen. What earlier
    pictures say reaches a token through the text alone, so that as many may follow as the text has room for.
    Source: Alayrac et al. 2022 (Flamingo), section 2.3.
    """
    image = torch.arange(images * each, device=images_before.device) // each
    return images_before[..., None] == image + 1
