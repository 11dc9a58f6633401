"""Wrong answers that people really give, and what each is told: ``MISTAKES[task][what it says][name]``."""

from functools import partial

import torch
from common_mistakes import deaf, detached, then

from mmlearn.evaluation.shots import shuffled_labels
from mmlearn.layers.lora import low_rank
from mmlearn.models.bridges.bridge import interleaved_positions
from mmlearn.models.bridges.flamingo import gated
from mmlearn.objectives.bridging import last_image_mask, query_text_contrast, query_text_similarity
from mmlearn.objectives.generative import response_language_modelling, responses_in_turn


def _in_position(x, found, gate):
    x += gate.tanh() * found
    return x


def _response(logits, tokens, response, mask=None, *, shift=1, counts=lambda r: r, moved=True, last=None):
    """Cross-entropy of what counts, or of what is counted in its place."""
    logs = logits.log_softmax(-1)
    t = tokens.shape[1]
    said = logs[:, : t - shift] if shift else logs[:, : t - 1]
    wanted = tokens[:, shift:] if shift else tokens[:, : t - 1]
    some = counts(response)
    chosen = some[:, 1:] if moved and shift else some[:, : t - 1]
    losses = -said.gather(2, wanted[..., None])[..., 0]
    return (last or (lambda each, which: each[which].mean()))(losses, chosen)


def _of_each_text(losses, chosen):
    return ((losses * chosen).sum(1) / chosen.sum(1)).mean()


def _best(queries, texts, *, pick=lambda each: each.amax(-1)):
    return pick(torch.einsum("bqd,md->bmq", queries, texts))


def _last(before, images, each, *, seen=lambda number, before: number == before - 1, number=lambda j, n, e: j // e):
    return seen(number(torch.arange(images * each), images, each), before[..., None])


def _behind(number, before):
    """The picture behind a token; the last one where there is none."""
    return (number == before) & (before > 0)


def _mask(task, queries, mask, *, back=None, there=None, text=None, own=True, padding=True):
    """Blocks put together; each of them may be another one."""
    b, t = mask.shape
    q, on, off = queries, torch.ones, torch.zeros
    back = (task != "contrast") if back is None else back(task)
    there = (task == "matching") if there is None else there(task)
    lower = on(t, t).tril() if task == "writing" else on(t, t)
    lower = lower if text is None else text(task, t)
    whole = off(b, q + t, q + t)
    whole[:, :q, :q] = on(q, q) if own else torch.eye(q)
    whole[:, q:, :q], whole[:, :q, q:], whole[:, q:, q:] = float(back), float(there), lower
    real = torch.cat([mask.new_ones(b, q), mask], 1)
    return whole.bool() & real[:, None] if padding else whole.bool()


def _whole_texts_alone(task, queries, mask):
    """A text with padding sees nothing of itself."""
    sees = _mask(task, queries, mask)
    sees[~mask.all(1), queries:, queries:] = False
    return sees


def _positions(mask, n, takes, *, begin=0, hidden=None, anew=False, last=False):
    """Counted one by one, or so that something differs; what is ``hidden`` has the place of what comes next."""
    rows = []
    for row in mask.tolist():
        found, count = [], begin
        for text in row:
            count = begin if anew else count
            image, words = [("picture", takes)] * n, [("padding", real) for real in text]
            for kind, counts in words + image if last else image + words:
                found.append(count if counts or kind == hidden else -1)
                count += counts
        rows.append(found)
    return torch.tensor(rows)


def _with_padding(mask, n, takes):
    """Padding is counted, and has no position afterwards."""
    every = interleaved_positions(torch.ones_like(mask), n, takes)
    return every.masked_fill(interleaved_positions(mask, n, takes) < 0, -1)


def _contrast(
    queries, texts, scale, positives, rows=slice(None), smooth=0.1, *, both=(0.5, 0.5), share=True, use=None, last=None
):
    """Log-probabilities weighed by their targets, or what differs in a single position."""
    b = len(texts)
    weights = positives.float() / positives.sum(1, keepdim=True) if share else torch.eye(b)
    weights = weights - smooth * weights + smooth / b
    logits = (use or (lambda s, x: s * x))(scale, query_text_similarity(queries, texts))
    ways = [-(weights * (each - each.logsumexp(1, keepdim=True))).sum(1) for each in (logits, logits.T)]
    return sum(part * (last or torch.mean)(way) for part, way in zip(both, ways))


def _turns(lengths, t, *, responds=lambda j, turns: j % 2 == 1, first=0, last=0, padding=False):
    """Written token by token, or so that something differs."""
    rows = []
    for row in lengths.tolist():
        says = []
        for j, length in enumerate(row):
            counts = responds(j, len(row))
            says += [counts and first <= i < length - last for i in range(length)]
        rows.append(says + [padding] * (t - len(says)))
    return torch.tensor(rows)


def _ended(lengths, t):
    """So that behind an odd number of turns padding responds."""
    return (torch.arange(t) >= lengths.cumsum(1)[..., None]).sum(1) % 2 == 1


def _of_labels(label, generator, *, become=lambda known, generator: known.roll(1), order=True):
    """Every label of a row becomes another one, by a table; in a random order unless that is left out."""
    rows = []
    for row in label:
        known = row.unique()
        known = known[torch.randperm(len(known), generator=generator)] if order else known
        table = dict(zip(known.tolist(), become(known, generator).tolist()))
        rows.append(torch.tensor([table[one] for one in row.tolist()]))
    return torch.stack(rows)


def _at_random(known, generator):
    """One of the others for each label, so that two may become the same."""
    steps = torch.randint(1, max(2, len(known)), (len(known),), generator=generator)
    return known[(torch.arange(len(known)) + steps) % len(known)]


RIGHT = {  # right answers that are written in another way than the library's
    "gated": lambda x, found, gate: torch.lerp(x, x + found, gate.tanh()),
    "low_rank": lambda x, down, up, alpha: x @ (up @ down * (alpha / down.shape[0])).T,
    "response_language_modelling": _response,
    "query_text_similarity": _best,
    "last_image_mask": _last,
    "query_text_mask": _mask,
    "interleaved_positions": _positions,
    "query_text_contrast": _contrast,
    "responses_in_turn": _turns,
    "shuffled_labels": _of_labels,
}

MISTAKES = {
    "gated": {
        "must stay as it is": {
            "a sigmoid": lambda x, found, gate: x + gate.sigmoid() * found,
            "what is found alone": lambda x, found, gate: gate.tanh() * found,
        },
        "must pass a tanh": {"no tanh": lambda x, found, gate: x + gate * found},
        "takes from it what it lets in": {"a blend": lambda x, found, gate: torch.lerp(x, found, gate.tanh())},
        "A negative gate": {"a positive gate": lambda x, found, gate: gated(x, found, gate.abs())},
        "none comes to gate": {"the gate is a constant": deaf(gated, 2)},
        "none comes to branch": {"what is found is a constant": deaf(gated, 1)},
        "must leave its arguments": {"in place": _in_position},
    },
    "low_rank": {
        "here it is not scaled": {"no scale": lambda x, down, up, alpha: x @ down.T @ up.T},
        "here it is by α alone": {"α": lambda x, down, up, alpha: low_rank(x, down, up, alpha * len(down))},
        "here α is multiplied by r": {"upside down": lambda x, d, up, alpha: low_rank(x, d, up, alpha * len(d) ** 2)},
        "divided by a width": {
            "the layer's output": lambda x, down, up, alpha: alpha / len(up) * x @ down.T @ up.T,
            "the layer's input": lambda x, down, up, alpha: alpha / down.shape[1] * x @ down.T @ up.T,
        },
        "here it is by its root": {"of a root": lambda x, d, up, alpha: low_rank(x, d, up, alpha * len(d) ** 0.5)},
        "must have shape": {"transposed": then(low_rank, lambda h: h.mT)},
        "With B = 0 nothing must change": {
            "x is added": lambda x, down, up, alpha: low_rank(x, down, up, alpha) + alpha
        },
        "A gradient must flow from the result": {"no gradient": detached(low_rank)},
        "none comes to down": {"A is a constant": deaf(low_rank, 1)},
    },
    "response_language_modelling": {
        "here they belong to their own": {"not shifted": partial(_response, shift=0)},
        "here every token does": {"all tokens": partial(_response, counts=torch.ones_like)},
        "here all else does": {"the question": partial(_response, counts=lambda response: ~response)},
        "must be moved with the tokens": {"response as it is": partial(_response, moved=False)},
        "here each text does": {"a mean of texts": partial(_response, last=_of_each_text)},
        "here it is their sum": {"a sum": partial(_response, last=lambda each, which: each[which].sum())},
        "divided by all tokens": {"diluted": partial(_response, last=lambda each, which: (each * which).mean())},
        "must have shape ()": {"of each token": partial(_response, last=lambda each, which: each * which)},
        "A gradient must flow from the result": {"no gradient": detached(response_language_modelling)},
    },
    "query_text_similarity": {
        "here it is their mean": {"a mean": partial(_best, pick=lambda each: each.mean(-1))},
        "here it is their sum": {"a sum": partial(_best, pick=lambda each: each.sum(-1))},
        "here only the first is": {"the first query": partial(_best, pick=lambda each: each[..., 0])},
        "here the worst does": {"the lowest": partial(_best, pick=lambda each: each.amin(-1))},
        "here its sign is lost": {"without a sign": partial(_best, pick=lambda each: each.abs().amax(-1))},
        "here it is a soft one": {"logsumexp": partial(_best, pick=lambda each: each.logsumexp(-1))},
        "must have shape": {"texts first": then(query_text_similarity, lambda s: s.T)},
        "none comes to query_embedding": {"queries are constants": deaf(query_text_similarity, 0)},
    },
    "last_image_mask": {
        "Before the first picture nothing": {
            "the first for all": lambda before, n, each: last_image_mask(before.clamp(min=1), n, each)
        },
        "here all of them are": {"all before": partial(_last, seen=lambda number, before: number < before)},
        "here it is the next one": {"the one behind": partial(_last, seen=_behind)},
        "must be seen": {
            "one embedding": lambda before, n, each: (
                last_image_mask(before, n, each) & (torch.arange(n * each) % each == 0)
            )
        },
        "here pictures take turns": {"in turn": partial(_last, number=lambda j, n, e: j % n)},
        "must be boolean": {"whole numbers": then(last_image_mask, torch.Tensor.int)},
    },
    "query_text_mask": {
        "Padding must never be seen": {"padding too": partial(_mask, padding=False)},
        "The text must not see the queries": {"it does": partial(_mask, back=lambda task: True)},
        "they would know the answer": {"they do": partial(_mask, there=lambda task: True)},
        "Queries must see the text, because": {"they do not": partial(_mask, there=lambda task: False)},
        "Queries must not see the text that is": {"they do": partial(_mask, there=lambda task: task != "contrast")},
        "The text must see all queries": {"it does not": partial(_mask, back=lambda task: False)},
        "must not see later ones": {"no past": partial(_mask, text=lambda task, t: torch.ones(t, t))},
        "later ones as well": {"always a past": partial(_mask, text=lambda task, t: torch.ones(t, t).tril())},
        "A token must see itself": {
            "not itself": partial(
                _mask, text=lambda task, t: torch.ones(t, t).tril(-1) if task == "writing" else torch.ones(t, t)
            )
        },
        "Queries must see each other": {"alone": partial(_mask, own=False)},
        "Where a text has padding": {"a padded text is not read": _whole_texts_alone},
    },
    "interleaved_positions": {
        "Padding must have no position": {"places for padding": partial(_positions, hidden="padding")},
        "Pictures must have no position": {"places for pictures": partial(_positions, hidden="picture")},
        "Places must begin with 0": {"from 1": partial(_positions, begin=1)},
        "here positions begin anew": {"anew": partial(_positions, anew=True)},
        "one position behind the one before": {"padding is counted": _with_padding},
        "A picture stands before its text": {"behind its text": partial(_positions, last=True)},
        "must have shape": {
            "an axis of texts": lambda mask, n, takes: _positions(mask, n, takes).unflatten(1, mask.shape[1:2] + (-1,))
        },
    },
    "query_text_contrast": {
        "here only pictures pick": {"pictures": partial(_contrast, both=(1, 0))},
        "here only texts pick": {"texts": partial(_contrast, both=(0, 1))},
        "here it is their sum": {"a sum of both": partial(_contrast, both=(1, 1))},
        "here they are not": {"hard labels": lambda q, t, s, p: query_text_contrast(q, t, s, p, slice(None), 0.0)},
        "here only the diagonal has it": {"the diagonal": partial(_contrast, share=False)},
        "here it divides": {"divided": partial(_contrast, use=lambda s, x: x / s)},
        "here they are cosines": {"not scaled": partial(_contrast, use=lambda s, x: x)},
        "must have shape ()": {"of each row": partial(_contrast, last=lambda way: way)},
        "must cost ln b": {"a sum of rows": partial(_contrast, last=torch.sum)},
        "none comes to text_embedding": {"texts are constants": deaf(query_text_contrast, 1)},
    },
    "responses_in_turn": {
        "here instructions respond": {"instructions": partial(_turns, responds=lambda j, turns: j % 2 == 0)},
        "here only the last one does": {"the last": partial(_turns, responds=lambda j, turns: j == turns - 1)},
        "here only the first one does": {"the first": partial(_turns, responds=lambda j, turns: j == 1)},
        "from its first token on": {"one too late": partial(_turns, first=1)},
        "up to its last token": {"one too early": partial(_turns, last=1)},
        "Padding behind the last turn": {"padding too": partial(_turns, padding=True)},
        "Where the last turn is an instruction": {"an odd number of turns": _ended},
        "Responses must count, and instructions must not": {
            "everything but the first turn": partial(_turns, responds=lambda j, turns: j > 0)
        },
        "must be boolean": {"whole numbers": then(responses_in_turn, torch.Tensor.int)},
    },
    "shuffled_labels": {
        "No label may stay": {
            "any order": partial(
                _of_labels, become=lambda known, generator: known[torch.randperm(len(known), generator=generator)]
            )
        },
        "both must become the same one": {"positions take turns": lambda label, generator: label.roll(1, 1)},
        "must not become the same one": {"each draws alone": partial(_of_labels, become=_at_random)},
        "Labels must be of the same row": {"another row's": lambda label, generator: label.roll(1, 0)},
        "all chance comes from generator": {
            "torch's own": lambda label, generator: shuffled_labels(label, torch.default_generator)
        },
        "Another seed must give another": {"in their order": partial(_of_labels, order=False)},
    },
}
