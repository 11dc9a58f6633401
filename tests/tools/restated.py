"""The arithmetic of official codes, said again on their own names of weights, with plain functions of PyTorch.

``w`` maps names to tensors. Nothing here comes from ``mmlearn``, so that both can be compared. As in those codes, what
may not be seen gets -10,000 added to its score.
"""

import torch
import torch.nn.functional as F

BLOCKED = -10_000.0


def learning(weights):
    """The same tensors, as what learns; one that has two names stays one."""
    once = {}
    for tensor in weights.values():
        if id(tensor) not in once:
            once[id(tensor)] = tensor.clone().requires_grad_() if tensor.is_floating_point() else tensor
    return {name: once[id(tensor)] for name, tensor in weights.items()}


def dense(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def norm(w, name, x, epsilon=1e-12):
    return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], epsilon)


def weigh(query, key, value, heads, visible=None, causal=False):
    """Heads side by side; ``visible`` (b, n) says which keys there are, ``causal`` hides those that come later."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
    if visible is not None:
        scores = scores + BLOCKED * (1 - visible[:, None, None].float())
    if causal:
        scores = scores + torch.full(scores.shape[2:], -torch.inf).triu(1)
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def bert_attention(w, name, x, visible, heads, context=None):
    """With the residual path and the norm that ends it."""
    seen = x if context is None else context
    parts = dense(w, f"{name}.self.query", x), *(dense(w, f"{name}.self.{part}", seen) for part in ("key", "value"))
    return norm(w, f"{name}.output.LayerNorm", x + dense(w, f"{name}.output.dense", weigh(*parts, heads, visible)))


def bert_mlp(w, before, after, x):
    inside = F.gelu(dense(w, f"{before}.dense", x))
    return norm(w, f"{after}.LayerNorm", x + dense(w, f"{after}.dense", inside))


def bert_block(w, name, x, visible, heads):
    x = bert_attention(w, f"{name}.attention", x, visible, heads)
    return bert_mlp(w, f"{name}.intermediate", f"{name}.output", x)


def bert_words(w, name, tokens):
    """Words, their positions and the first type, summed up but not yet normalised."""
    positions = w[f"{name}.position_embeddings.weight"][: tokens.shape[1]]
    return w[f"{name}.word_embeddings.weight"][tokens] + positions + w[f"{name}.token_type_embeddings.weight"][0]


def bert_guess(w, name, x):
    """The scores of all words."""
    x = norm(w, f"{name}.transform.LayerNorm", F.gelu(dense(w, f"{name}.transform.dense", x)))
    return x @ w[f"{name}.decoder.weight"].T + w[f"{name}.bias"]


def compact(text, text_length, image, image_length):
    """The real elements of both, without a gap, and which positions of a row are filled."""
    rows = [torch.cat([a[:n], b[:m]]) for a, n, b, m in zip(text, text_length, image, image_length)]
    filled = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], True)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), filled


def taken_apart(x, text_length, image_length):
    """The real elements of both, of all rows one after the other."""
    text = torch.cat([row[:n] for row, n in zip(x, text_length)])
    return text, torch.cat([row[n : n + m] for row, n, m in zip(x, text_length, image_length)])


def images_with_texts(b, t, p, *, words, features, classes):
    """A batch whose rows all have another length of text, and another number of regions, and some of all hidden."""
    corners = torch.rand(b, p, 2, 2).sort(2).values.flatten(2) * 0.9
    mask = torch.arange(t) < t - torch.arange(b)[:, None]
    region_mask = torch.arange(p) < p - 2 * torch.arange(b)[:, None] % (p - 1)
    hidden = torch.rand(b, t) < 0.4
    hidden[:, 1] = True
    tokens = torch.randint(1, words, (b, t)) * mask
    masked_regions = (torch.rand(b, p) < 0.4) & region_mask
    masked_regions[:, 0] = True
    return {
        "tokens": tokens,
        "mask": mask,
        "token_label": torch.randint(1, words, (b, t)).masked_fill(~(hidden & mask), -100),
        "regions": torch.randn(b, p, features),
        "boxes": corners + torch.tensor([0, 0, 0.1, 0.1]),
        "region_mask": region_mask,
        "masked_regions": masked_regions,
        "region_target": torch.randn(b, p, features),
        "region_classes": (2 * torch.randn(b, p, classes)).softmax(-1),
        "match_label": (torch.arange(b) + 1) % 2,
    }


INPUTS = ("tokens", "mask", "regions", "boxes", "region_mask")


def only(batch, *labels):
    """What the encoder reads, and these labels."""
    return {name: batch[name] for name in (*INPUTS, *labels)}


def count_blocks(w, name):
    """Those under this name."""
    return len({key.removeprefix(f"{name}.").partition(".")[0] for key in w if key.startswith(f"{name}.")})
