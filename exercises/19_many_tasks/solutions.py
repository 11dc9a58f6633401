"""Plain answers. Each comment is a step, and the hints are these steps one at a time."""

import torch
import torch.nn.functional as F


def quantise(shares, bins):
    # From the left edge to the right one there are bins - 1 steps.
    steps = shares * (bins - 1)
    # The nearest bin, as a whole number.
    return steps.round().long()


def dequantise(positions, bins):
    # The last bin, bins - 1, is the right edge, so that a bin is so many steps of the whole.
    return positions.float() / (bins - 1)


def one_vocabulary(number, kind, words, bins):
    # Where each kind begins: words at 0, positions behind them, codes behind both.
    first = torch.tensor([0, words, words + bins])
    # Of each token the beginning of its kind, and its number there.
    return first[kind] + number


def next_of_box(written, positions, end_token, all_tokens):
    b, t = written.shape
    number = torch.arange(all_tokens)
    # Behind four positions the box is whole, and only the end may come.
    if t >= 4:
        return (number == end_token).expand(b, -1)
    # Before that any position may come, and nothing else.
    may = ((number >= positions.start) & (number < positions.stop)).expand(b, -1)
    # The right must not come before the left, nor the bottom before the top. Each stands two tokens back.
    if t >= 2:
        may = may & (number >= written[:, t - 2, None])
    return may


def write_box(score, start, positions):
    tokens = start
    for t in range(4):
        # What the model says of all tokens, after those that are there.
        scores = score(tokens)
        # Which may come: positions, and of the last two those that are not before the position two tokens back.
        number = torch.arange(scores.shape[1])
        may = ((number >= positions.start) & (number < positions.stop)).expand_as(scores)
        if t >= 2:
            may = may & (number >= tokens[:, -2, None])
        # All others get minus infinity, and the likeliest that is left is written.
        best = scores.masked_fill(~may, -torch.inf).argmax(1, keepdim=True)
        tokens = torch.cat([tokens, best], 1)
    # From tokens to bins, and from bins to shares.
    return (tokens[:, 1:] - positions.start) / (len(positions) - 1)


def generalised_iou(one, other):
    # The area of each box.
    areas = [(box[..., 2] - box[..., 0]) * (box[..., 3] - box[..., 1]) for box in (one, other)]
    # The overlap goes from the larger left to the smaller right. Where that is negative there is none.
    size = torch.minimum(one[..., 2:], other[..., 2:]) - torch.maximum(one[..., :2], other[..., :2])
    shared = size.clamp(min=0).prod(-1)
    # Both together, in which the overlap counts once.
    union = areas[0] + areas[1] - shared
    # The box around both goes from the smaller left to the larger right.
    size = torch.maximum(one[..., 2:], other[..., 2:]) - torch.minimum(one[..., :2], other[..., :2])
    around = size.prod(-1)
    # The overlap's share of the union, less the share of the box around that neither covers.
    return shared / union - (around - union) / around


def hungarian(cost, real):
    from scipy.optimize import linear_sum_assignment

    # Padding keeps -1.
    match = torch.full(real.shape, -1)
    for row in range(len(cost)):
        # The columns of this picture's real objects.
        (objects,) = torch.where(real[row])
        # The cheapest way to give each of them a guess of its own: numbers of guesses, and of these columns.
        guess, column = linear_sum_assignment(cost[row][:, objects].numpy())
        # Each guess is written where its object stands.
        match[row, objects[torch.from_numpy(column)]] = torch.from_numpy(guess)
    return match


def set_cross_entropy(logits, match, classes, no_object_weight=0.1):
    nothing = logits.shape[-1] - 1
    # At first each guess should say nothing.
    asked = torch.full(logits.shape[:2], nothing)
    # A guess that has an object should say its class. Padding, where match is -1, asks nothing.
    row, column = torch.where(match >= 0)
    asked[row, match[row, column]] = classes[row, column]
    # One weight a class, 1 for all but nothing.
    weight = torch.ones(nothing + 1)
    weight[nothing] = no_object_weight
    # Cross-entropy takes classes in the second axis, and divides by the sum of weights.
    return F.cross_entropy(logits.transpose(1, 2), asked, weight)


def solve_by_task(context, queries, task, decoder, heads):
    found = []
    for number in range(len(queries)):
        # The rows of this task, which may be none.
        rows = context[task == number]
        # All queries of the task, for each of its rows, look at the row's context.
        looked = decoder(queries[number].expand(len(rows), -1, -1), rows)
        # The first of them is read, by the head of the task.
        found.append(heads[number](looked[:, 0]))
    return tuple(found)


def three_encodings(seen, patches, mask, target_mask):
    b, t = mask.shape
    o = target_mask.shape[1]
    # Which columns are there: patches and words where they may be seen, without padding.
    there = torch.cat([seen[:, :1].expand(b, patches), seen[:, 1:] & mask, target_mask], dim=1)
    # Begin with a matrix where nothing is seen. Everything sees what is read, which is the first columns.
    read = patches + t
    sees = torch.zeros(read + o, read + o, dtype=torch.bool)
    sees[:, :read] = True
    # A token of the target sees itself and those before it.
    sees[read:, read:] = torch.ones(o, o, dtype=torch.bool).tril()
    # Nobody sees what is not there.
    return sees & there[:, None]


def route_to_one(probability, real, capacity):
    # The likeliest expert, and how likely it is.
    weight, expert = probability.max(1)
    # Which expert each token asks, as ones in (n, e). Padding asks none.
    asks = F.one_hot(expert, probability.shape[1]) * real[:, None]
    # Which position does a token have among those that ask its expert? Count down the column, and read the token's own.
    turn = (asks.cumsum(0) * asks).sum(1)
    # The first ones are taken. Padding has turn 0.
    kept = (turn >= 1) & (turn <= capacity)
    # All others go to no expert, and count 0.
    return torch.where(kept, expert, -1), weight * kept


def balance_of_prototypes(logits, real):
    e = logits.shape[-1]
    # A softmax over the experts of each group, and the expert that a token chooses there.
    probability = logits.softmax(-1)
    chosen = F.one_hot(probability.argmax(-1), e)
    # The share of real tokens that each expert gets, and how likely it is for them: (k, e).
    there, count = real[:, None, None], real.sum().clamp(min=1)
    share, likely = (chosen * there).sum(0) / count, (probability * there).sum(0) / count
    # E times the sum of products in each group, and the mean over groups.
    return (e * (share * likely).sum(-1)).mean()


def mixing_rates(sizes, temperature, limit):
    # No task counts for more examples than the limit.
    counted = sizes.clamp(max=limit).double()
    # The root: of 1 it leaves sizes as they are, and the higher it is the more alike it makes them.
    weight = counted ** (1 / temperature)
    # Rates sum to 1.
    return (weight / weight.sum()).float()


def infilling_task(order, text, hidden, mask_token, end_token):
    end = torch.tensor([end_token])
    # A mask in place of each hidden token.
    masked = torch.where(hidden, mask_token, text)
    # Of each span only the first mask stays: drop a hidden token where the one before it is hidden too.
    before = torch.cat([torch.tensor([False]), hidden[:-1]])
    gaps = masked[~(hidden & before)]
    # What is read is the order, the text with gaps and the end; what is written the whole text and the end.
    return torch.cat([order, gaps, end]), torch.cat([text, end])
