"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch
import torch.nn.functional as F


def code_perplexity(probability):
    # First the mean over all frames: how often each entry of each codebook is chosen.
    mean = probability.mean(0)
    # -p ln p, in which 0 ln 0 is 0: torch.special.entr; its sum over entries is the entropy.
    entropy = torch.special.entr(mean).sum(-1)
    # The exponential of the entropy is a number of entries.
    return entropy.exp()


def mask_spans(real, *, generator, probability=0.065, length=10):
    masked = torch.zeros_like(real)
    # Clip by clip, because each has its own number of frames.
    for row, frames in enumerate(real.sum(1).tolist()):
        # How many spans begin: a share of the frames, rounded up or down by chance; at least 1, and so few that
        # something stays visible.
        wanted = int(probability * frames + torch.rand((), generator=generator).item())
        spans = min(max(wanted, 1), max(frames - 1, 0) // length)
        # A whole span fits at the positions 0 … frames - length: shuffle them, and take the first so many.
        positions = torch.randperm(max(frames - length + 1, 0), generator=generator)[:spans]
        # Each of them hides length frames.
        for start in positions.tolist():
            masked[row, start : start + length] = True
    return masked


def sample_distractors(masked, count, *, generator):
    b, s = masked.shape
    result = torch.zeros(b, s, count, dtype=torch.long)
    for row in range(b):
        # The positions of the clip's hidden frames, in order.
        positions = masked[row].nonzero()[:, 0]
        others = len(positions) - 1
        if others < 1:
            continue
        # Each hidden frame draws numbers of the others, 0 … others - 1, one for each distractor.
        drawn = torch.randint(others, (len(positions), count), generator=generator)
        # What is at or after the frame's own number moves up by one, so that its own is never drawn.
        own = torch.arange(len(positions))[:, None]
        drawn = drawn + (drawn >= own)
        # From numbers of hidden frames to places in the clip.
        result[row, positions] = positions[drawn]
    return result


def straight_through(logits, noise, temperature):
    # The softmax of logits and noise together, divided by the temperature.
    soft = ((logits + noise) / temperature).softmax(-1)
    # The choice going forward: a 1 where it is highest.
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).float()
    # Add the softmax and take it away again as a constant: the number stays the choice, the gradient is the softmax's.
    return hard + (soft - soft.detach())


def distractor_contrast(context, target, codes, distractor, masked, temperature=0.1):
    # Cosines: both at length 1, and all products of a clip's frames, (b, s context, s target).
    similarity = F.normalize(context, dim=-1) @ F.normalize(target, dim=-1).transpose(1, 2) / temperature
    # The right answer is on the diagonal, and the distractors stand at their positions.
    own = similarity.diagonal(dim1=1, dim2=2)[..., None]
    wrong = similarity.gather(2, distractor)
    # A distractor with all codes of the target is the target: leave it out with -inf.
    row = torch.arange(len(codes))[:, None, None]
    same = (codes[row, distractor] == codes[:, :, None]).all(-1)
    # The right answer comes first, so that its class is 0.
    logits = torch.cat([own, wrong.masked_fill(same, -torch.inf)], dim=2)[masked]
    # A sum over hidden frames, divided by their number, but at least by 1.
    label = torch.zeros(len(logits), dtype=torch.long)
    return F.cross_entropy(logits, label, reduction="sum") / masked.sum().clamp(min=1)


def masked_cluster(logits, cluster, masked, alpha=1.0):
    # Padding, of cluster -100, counts nowhere.
    real = cluster != -100
    # For each kind of frame a sum of cross-entropies, divided by their number, but at least by 1.
    means = []
    for frames in (masked & real, ~masked & real):
        total = F.cross_entropy(logits[frames], cluster[frames], reduction="sum")
        means.append(total / frames.sum().clamp(min=1))
    # The share alpha of the hidden mean, and the rest of the other.
    return alpha * means[0] + (1 - alpha) * means[1]
