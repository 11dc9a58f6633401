"""Plain answers about what changed since GPT-2. Each comment is a step, and the hints are these steps one at a time."""

import torch


def swiglu_width(width, multiple):
    # Two matrices of 4 d features have 8 d² parameters; three of m features have 3 d m. So m is 8 d / 3.
    # Round up in whole numbers: -(-a // b) is a / b rounded up.
    multiples = -(-8 * width // (3 * multiple))
    # So many multiples.
    return multiples * multiple


def grouped_attention(query, key, value):
    # So many query heads share a head of keys and values.
    group = query.shape[1] // key.shape[1]
    # Head 0 is repeated for the first group, head 1 for the second: 0 0 1 1, and not 0 1 0 1.
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    # From here on it is ordinary attention: (b, h, q, n).
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ value


def window_mask(queries, keys, window):
    # Positions of keys, and of queries, which are the last ones.
    j = torch.arange(keys)
    i = torch.arange(keys - queries, keys)[:, None]
    # Nothing later than the token itself, and nothing further back than the window, which counts the token itself.
    return (j <= i) & (j > i - window)


def rotate(x, angle):
    # Feature i and feature i + k/2 are a pair: the two halves.
    first, second = x.chunk(2, dim=-1)
    # All heads turn alike, so put an axis for them before positions: (n, k/2) → (1, n, k/2), or (b, 1, n, k/2).
    cos, sin = angle.cos().unsqueeze(-3), angle.sin().unsqueeze(-3)
    # A point of a plane turns by an angle: cos and sin, with the minus in the first coordinate.
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def window_step(query, key, value, kept_key, kept_value, window):
    # Grow first, because the new token sees itself.
    keys, values = torch.cat([kept_key, key], dim=2), torch.cat([kept_value, value], dim=2)
    # Then cut: the oldest falls out. While there are fewer tokens than the window shows, this cuts nothing.
    keys, values = keys[:, :, -window:], values[:, :, -window:]
    # All that is left is seen, so there is no mask.
    scores = query @ keys.transpose(2, 3) / query.shape[-1] ** 0.5
    return scores.softmax(dim=-1) @ values, keys, values


def rms_norm_backward(x, weight, upstream, epsilon=1e-5):
    # The root mean square of each row, (…, 1); ε stands under the root.
    r = (x.square().mean(dim=-1, keepdim=True) + epsilon).sqrt()
    # Forward: divide, then scale.
    normal = x / r
    y = weight * normal
    # The weight is used by every row, so its gradient is a sum over all axes but the last.
    weight_gradient = (upstream * normal).flatten(0, -2).sum(dim=0)
    # What comes back to x / r.
    v = weight * upstream
    # x counts twice: by itself, v / r, and in r, of which dr/dx = x / (d r).
    x_gradient = v / r - x * (v * x).mean(dim=-1, keepdim=True) / r**3
    return y, x_gradient, weight_gradient
