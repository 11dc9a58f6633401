"""Detection: some tokens of a text are not the original ones, and the model says of every token whether it is.

Where masked prediction learns at one place of seven, this learns at all of them. The functions differ in where wrong
tokens come from: a small model that fills gaps (:func:`sample_replacements`), the vocabulary
(:func:`substitute_tokens`), or another place of the same text (:func:`shuffle_tokens`). Each returns the text to read
and which of its tokens are wrong; a token that happens to equal the original counts as real.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.objectives.draws import draw_by_odds
from mmlearn.objectives.masked import IGNORED, choose_positions, draw_ordinary
from mmlearn.tensor_checks import values_are_readable


def replaced_token_detection(
    logits: Float[Tensor, "b t"], replaced: Bool[Tensor, "b t"], mask: Bool[Tensor, "b t"]
) -> Float[Tensor, ""]:
    r"""RTD: a yes/no question at every real token, which is wrong where z > 0.

    .. math:: \ell = -\frac{1}{n} \sum_{i \text{ real}} \left[r_i \log \sigma(z_i) + (1 - r_i) \log \sigma(-z_i)\right]

    Logits that know nothing give ln 2. Without a real token it is 0. Serves shuffled tokens (STD) and substituted ones
    (RTS) as well. Source: Clark et al. 2020 (ELECTRA), section 2; Panda et al. 2021, section 3, for STD; Di Liello
    et al. (2022), section 3, for RTS.
    """
    total = F.binary_cross_entropy_with_logits(logits, replaced.to(logits.dtype), reduction="none")
    return total.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


@torch.no_grad()
def sample_replacements(
    logits: Float[Tensor, "m v"], tokens: Int[Tensor, "b t"], label: Int[Tensor, "b t"], generator: torch.Generator
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    r"""ELECTRA's text to judge: at each hidden position a token drawn from the generator's distribution.

    .. math:: \hat x_i \sim \mathrm{softmax}(z_i) \text{ for } i \in m, \quad r_i = [\hat x_i \ne x_i]

    ``label`` holds the true token at the m hidden positions and -100 elsewhere, ``logits`` what the generator says
    there, row by row. No gradient flows through the draw. Raises ``ValueError``, on a CPU, for logits that are not
    numbers, or not one row a hidden position. Source: Clark et al. 2020 (ELECTRA), section 2.
    """
    hidden = label != IGNORED
    if values_are_readable(logits) and (len(logits) != hidden.sum() or logits.isnan().any()):
        raise ValueError(
            f"{int(hidden.sum())} hidden positions need one row of logits each, all of them numbers; got "
            f"{len(logits)} rows{' with NaN' if logits.isnan().any() else ''}."
        )
    drawn = draw_by_odds(logits.float().softmax(-1), generator)  # (m,)
    filled = tokens.masked_scatter(hidden, drawn.to(tokens.dtype))
    return filled, hidden & (filled != label)


def substitute_tokens(
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    vocab_size: int,
    special: Sequence[int],
    generator: torch.Generator,
    probability: float = 0.15,
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """RTS: about 15 % of the tokens become random ones. Returns the text to read, and which tokens are wrong.

    Padding and ``special`` tokens stay, and no random token is special. Raises ``ValueError`` for no probability, or
    where every token is special. Source: Di Liello et al. (2022), section 3, random token substitution.
    """
    reserved = torch.tensor(sorted(set(special)), device=tokens.device, dtype=torch.long)
    chosen = choose_positions(mask & ~torch.isin(tokens, reserved), probability, generator)
    drawn = draw_ordinary(tokens, vocab_size, reserved, generator)
    read = torch.where(chosen, drawn, tokens)
    return read, read != tokens


def shuffle_tokens(
    tokens: Int[Tensor, "b t"],
    mask: Bool[Tensor, "b t"],
    *,
    special: Sequence[int],
    generator: torch.Generator,
    probability: float = 0.15,
) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """STD: about 15 % of the tokens change places among themselves. Returns the text to read, and which are wrong.

    Each row keeps the tokens that it had. The chosen ones move along a random circle, so that none keeps its position;
    of one alone nothing changes. Padding and ``special`` tokens stay. Raises ``ValueError`` for no probability. Source:
    Panda et al. 2021, section 3, shuffled-token detection.
    """
    reserved = torch.tensor(sorted(set(special)), device=tokens.device, dtype=torch.long)
    chosen = choose_positions(mask & ~torch.isin(tokens, reserved), probability, generator)
    read = tokens.clone()
    for row, positions in enumerate(chosen):
        circle = positions.nonzero()[:, 0]
        order = torch.randperm(len(circle), generator=generator, device=generator.device).to(circle.device)
        circle = circle[order]
        read[row, circle] = tokens[row, circle.roll(1)]
    return read, read != tokens
