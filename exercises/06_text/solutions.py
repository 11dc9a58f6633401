"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def shifted_right(target, start_token):
    # All but the last token.
    first = target[:, :-1]
    # A column of start tokens before it, of the same type.
    start = torch.full_like(target[:, :1], start_token)
    return torch.cat([start, first], dim=1)


def inheritance_rate(step, steps, start=1.0):
    # What is left of the way, from 1 at step 0 to 0 at the last step.
    left = 1 - step / steps
    # Behind the last step it would be below 0: cut it off there.
    return start * max(0.0, left)


def causal_language_modelling(logits, tokens, mask=None):
    # The logits at position i are of token i + 1: leave out the last logits and the first token.
    logits, asked = logits[:, :-1], tokens[:, 1:]
    # One cost for each token that is asked; cross_entropy wants the vocabulary second.
    cost = F.cross_entropy(logits.transpose(1, 2), asked, reduction="none")
    # Who is asked: the real tokens among them.
    real = torch.ones_like(asked, dtype=torch.bool) if mask is None else mask[:, 1:]
    # A sum over them, divided by their number, but at least by 1.
    return cost.masked_fill(~real, 0).sum() / real.sum().clamp(min=1)


def prefix_mask(prefix, mask=None):
    # The past and itself: row i is True up to column i.
    t = prefix.shape[1]
    past = torch.ones(t, t, dtype=torch.bool).tril()
    # The columns of the prefix are seen by all rows: (1, t, t) | (b, 1, t).
    seen = past[None] | prefix[:, None]
    # Columns of padding are seen by none.
    return seen if mask is None else seen & mask[:, None]


def replaced_token_detection(logits, replaced, mask):
    # The label is 1 where a token was replaced; one cost a token, from logits of any size.
    cost = F.binary_cross_entropy_with_logits(logits, replaced.float(), reduction="none")
    # The sum over real tokens, divided by their number, but at least by 1.
    return cost.masked_fill(~mask, 0).sum() / mask.sum().clamp(min=1)


def greedy(next_logits, start, *, end_token, max_length, pad_token=0):
    # Texts begin with their start, and none is done.
    tokens, done = start, torch.zeros(len(start), dtype=torch.bool)
    # Go on while there is room and a text that has not ended.
    while tokens.shape[1] < max_length and not done.all():
        # The likeliest token that follows the whole text so far.
        token = next_logits(tokens).argmax(-1)
        # Rows that are done get padding.
        token = torch.where(done, pad_token, token)
        # Add it, and then look whether it was the end, so that the end token is part of the text.
        tokens = torch.cat([tokens, token[:, None]], dim=1)
        done = done | (token == end_token)
    return tokens


def inherit_knowledge(loss, student_logits, teacher_logits, alpha, temperature=1.0):
    # With α = 0 there is no teacher.
    if alpha == 0:
        return loss
    # Logarithms of both distributions; the teacher is a constant.
    teacher = (teacher_logits.detach() / temperature).log_softmax(-1)
    student = (student_logits / temperature).log_softmax(-1)
    # KL(teacher ‖ student): a sum over tokens, a mean over positions.
    divergence = (teacher.exp() * (teacher - student)).sum(-1).mean()
    # Both parts by their share; τ² makes up for the smaller gradient.
    return (1 - alpha) * loss + alpha * temperature**2 * divergence
