"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def question_of(takes):
    # The mean over the axis of takes, the one before the last.
    mean = takes.mean(-2)
    # Its direction: F.normalize divides by the length, and leaves 0 as it is.
    return F.normalize(mean, dim=-1)


def without_style(features, style):
    rest = torch.zeros_like(features)
    # One style after the other, whatever their numbers are.
    for number in style.unique():
        own = style == number
        # Its pictures lose the mean of its own pictures.
        rest[own] = features[own] - features[own].mean(0)
    # Then each picture gets unit length, and one that is 0 stays 0.
    return F.normalize(rest, dim=-1)


def recall_by_chance(right, k):
    n = right.shape[1]
    # How many items are wrong, for each query.
    wrong = n - right.sum(1).double()
    # The chance that no right item has come yet: at first that is certain.
    missed = torch.ones_like(wrong)
    for j in range(min(k, n)):
        # Place j draws from n - j items, of which wrong - j are wrong; never fewer than none.
        missed = missed * (wrong - j).clamp(min=0) / (n - j)
    # One is found unless all are missed. The mean over queries comes last.
    return (1 - missed).mean().item()


def draw_pairs(weight, image, size, generator):
    # Numbers of texts by weight. With replacement each draw is from all of them.
    text = torch.multinomial(weight, size, replacement=True, generator=generator)
    # The picture of each text that was drawn.
    return text, image[text]


def edit_rate(said, right):
    edits = 0
    for one, other in zip(said, right):
        # How many edits lead from nothing to each beginning of the right text: all letters are put in.
        row = list(range(len(other) + 1))
        for i, letter in enumerate(one, 1):
            # With one more letter said, to reach nothing all of them are left out.
            following = [i]
            for j, wanted in enumerate(other, 1):
                # The cheapest of three: leave out what was said, put in what is wanted, or go on with both.
                following.append(min(row[j] + 1, following[-1] + 1, row[j - 1] + (letter != wanted)))
            row = following
        edits += row[-1]
    # All edits over all right letters, divided once.
    return edits / sum(map(len, right))


def length_scores(known, frames, lengths):
    # Logarithms of the frames and letters of the clips that are known.
    x, y = known.log().unbind(1)
    # The line of least squares: its slope, and that it goes through both means.
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    expected = y.mean() + slope * (frames.log() - x.mean())
    # How far each text is from what each clip leads to expect: (clips, 1) and (texts,). Near is high.
    return -(expected[:, None] - lengths.log()).abs()


def clap_loss(audio_embedding, text_embedding, audio_logit_scale, text_logit_scale, caption_id):
    # Which caption is right for which sound? All that are equal, in even shares.
    right = (caption_id[:, None] == caption_id).float()
    target = right / right.sum(1, keepdim=True)
    # All sounds with all captions, (b, b).
    cosine = audio_embedding @ text_embedding.T
    # Each sound picks among captions at its temperature, and each caption among sounds at the other.
    by_audio = F.cross_entropy(audio_logit_scale * cosine, target)
    by_text = F.cross_entropy(text_logit_scale * cosine.T, target)
    # Half of each.
    return (by_audio + by_text) / 2


def ctc_scores(said, texts, *, per_token=True):
    rows = []
    for frames in said:
        row = []
        for text in texts:
            # F.ctc_loss adds up all paths. It wants frames as (s, batch, v), and both lengths.
            lengths = torch.tensor([len(frames)]), torch.tensor([len(text)])
            cost = F.ctc_loss(frames[:, None], text[None], *lengths, blank=0, reduction="none")
            # It is -ln p; ln p for each letter is what texts are compared by.
            row.append(-cost[0] / (len(text) if per_token else 1))
        rows.append(torch.stack(row))
    # Where no path reads a text ln p is minus infinity, which becomes -10,000.
    return torch.stack(rows).clamp(min=-1e4)
