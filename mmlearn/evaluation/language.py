"""How hard each token of a text is to a language model."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def token_losses(logits: Float[Tensor, "t v"], tokens: Int[Tensor, "t"]) -> Float[Tensor, "t"]:
    r"""Of each token its loss in nats, :math:`-\log \mathrm{softmax}(z_i)_{x_i}`; to know nothing costs ln v."""
    return -logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]


@torch.no_grad()
def pseudo_log_likelihood_losses(
    token_logits: Callable[[Int[Tensor, "n t"]], Float[Tensor, "n t v"]], tokens: Int[Tensor, "t"], mask_token: int
) -> Float[Tensor, "t"]:
    r"""Of each token of a text its loss where it alone is hidden, and all others are seen.

    .. math:: \ell_i = -\log p(x_i \mid x_{\setminus i})

    Their sum is the pseudo-loss of the text, which is not its loss. Tokens that a model was never asked for, such as
    the start, have large ones. Source: Salazar et al. 2020, "Masked Language Model Scoring", section 2.
    """
    hidden = tokens.repeat(len(tokens), 1)
    hidden.fill_diagonal_(mask_token)
    return token_losses(token_logits(hidden).diagonal().T, tokens)
