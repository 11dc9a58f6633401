"""What a training will cost, as it is worked out on paper: operations, bytes and shares, one formula each.

:mod:`mmlearn.training.counting` counts the same of any system, from the system itself; tests hold that both agree.
"""


def utilisation(forward_flops: float, samples_per_second: float, peak_flops: float) -> float:
    r"""The share of what a device can multiply at most that goes into the model.

    .. math:: u = \frac{3 f r}{F}

    for f operations of a forward pass of one sample, r samples a second and F operations a second at most. A backward
    pass costs twice the forward pass. What is computed again to save memory is no work of the model and does not count.
    Source: Chowdhery et al. 2022 (PaLM), appendix B, which calls it model FLOPs utilisation.
    """
    return 3 * forward_flops * samples_per_second / peak_flops


def block_flops(tokens: int, width: int, mlp_width: int) -> int:
    r"""Floating-point operations of a transformer block's forward pass over one row of tokens.

    .. math:: 2 \, (4 n d^2 + 2 n^2 d + 2 n d m)

    A multiplication with its addition counts as two. Four projections; two products of tokens with tokens, for the
    weights of attention and for what they weigh; two layers of the MLP. The number of heads changes nothing. What is
    done number by number, such as norms, is left out.
    Source: Kaplan et al. 2020, "Scaling Laws for Neural Language Models", table 1.
    """
    return 2 * (4 * tokens * width**2 + 2 * tokens**2 * width + 2 * tokens * width * mlp_width)


def kept_by_block(tokens: int, width: int, num_heads: int, mlp_width: int, fused: bool = False) -> int:
    r"""How many numbers a pre-norm transformer block keeps of one row of tokens for its backward pass, without dropout.

    .. math:: 8 n d + 2 n m + 4 n + h n^2

    Each operation keeps what its gradient needs. Of n · d numbers: the inputs of both norms, of the projections to
    query, key and value, of the one behind attention, and of the MLP; the query, the key and the value. Of n · m: the
    inputs of the activation and of the second layer. Of n: mean and deviation of both norms. The weights of attention
    are h · n²; the ``fused`` kernel keeps h · n sums in their place.
    Source: as in Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.1,
    which counts bytes in half precision with dropout.
    """
    weights = num_heads * tokens * (1 if fused else tokens)
    return 8 * tokens * width + 2 * tokens * mlp_width + 4 * tokens + weights


def recomputed_bytes(depth: int, every: int, input_bytes: float, block_bytes: float) -> float:
    r"""The most bytes that ``depth`` blocks keep if only the input of every k-th is kept, and the rest computed again.

    .. math:: \lceil L / k \rceil \, i + k \, a

    for k = ``every`` ≤ L, i bytes of an input and a bytes that a block keeps: the inputs of all segments of k blocks,
    and everything of the one segment that the backward pass is in. It is least near :math:`k = \sqrt{L i / a}`, and
    with :math:`i = a` it grows with the root of the depth.
    Source: Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.
    """
    return -(-depth // every) * input_bytes + every * block_bytes


def sharded_bytes(parameters: float, devices: int, stage: int) -> float:
    r"""Bytes on each device of a model that AdamW trains: float32 weights, their gradients, and two moments.

    .. math:: 4 N (w + g + 2 s), \quad s, g, w = 1 \text{, or } 1 / p \text{ from stage 1, 2 and 3 on}

    Stage 0 holds everything on each of the p devices, stage 1 shares the moments among them, stage 2 the gradients as
    well, stage 3 the weights too.
    Source: Rajbhandari et al. 2020 (ZeRO), section 5, which counts half-precision copies as well.
    """
    moments, gradients, weights = (1 / devices if stage >= first else 1.0 for first in (1, 2, 3))
    return 4 * parameters * (weights + gradients + 2 * moments)
