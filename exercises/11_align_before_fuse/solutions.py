"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch


@torch.no_grad()
def momentum_update(slow, online, momentum):
    # The share momentum of what was, and the rest of what is learned now, without a gradient: @torch.no_grad() above.
    return momentum * slow + (1 - momentum) * online


@torch.no_grad()
def momentum_weights(weights, momentum):
    # It starts where the weights start.
    slow = weights[0].clone()
    # After each step it moves a little toward what that step has left, in the order of the steps.
    for online in weights[1:]:
        slow = momentum * slow + (1 - momentum) * online
    return slow


def soft_cross_entropy(logits, target):
    # log_softmax stays finite where the logarithm of a softmax does not.
    log_probability = logits.log_softmax(-1)
    # Minus the sum over candidates, weighted by the target; then the mean over rows.
    return -(target * log_probability).sum(-1).mean()


@torch.no_grad()
def distilled_targets(teacher_logits, positives, alpha):
    # What the teacher believes of each row's candidates sums to 1.
    teacher = teacher_logits.softmax(-1)
    # The label is spread evenly over all that fit.
    label = positives / positives.sum(1, keepdim=True)
    # Mix the two distributions; a target has no gradient, so @torch.no_grad() stands above.
    return alpha * teacher + (1 - alpha) * label


def queue_positions(pointer, n, size):
    # From the pointer on, one after another, and round the end of the queue with %.
    positions = (pointer + torch.arange(n)) % size
    # The pointer moves by n, and goes round as well.
    return positions, (pointer + n) % size


def hard_negatives(similarity, positives, generator):
    # What fits must have no chance: -inf before the softmax.
    chance = similarity.masked_fill(positives, -torch.inf).softmax(-1)
    # One candidate for each row, drawn with these chances.
    return torch.multinomial(chance, 1, generator=generator)[:, 0]


def gradient_maps(maps, score):
    # The gradient of the sum is the gradient of each row. torch.autograd.grad leaves nothing on the model's weights,
    # and retain_graph=True keeps the run for the next question.
    gradients = torch.autograd.grad(score.sum(), list(maps.values()), retain_graph=True)
    # Weight times gradient where that is positive, without a graph, under the same names.
    return {name: weights.detach() * gradient.relu() for (name, weights), gradient in zip(maps.items(), gradients)}


def box_of_map(maps, grid, threshold=0.5):
    rows, columns = grid
    boxes = []
    for weights in maps:
        # Patches that are high enough, as pairs of row and column.
        high = (weights >= threshold * weights.max()).nonzero().flatten().tolist()
        high = {(position // columns, position % columns) for position in high}
        # Grow from the highest patch: look at its eight neighbours, at theirs, and so on, as far as they are high.
        position = int(weights.argmax())
        found = {(position // columns, position % columns)}
        waiting = list(found)
        while waiting:
            row, column = waiting.pop()
            around = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)}
            waiting += (around & high) - found
            found |= around & high
        # The box ends where its last patch ends, one further; as shares of the picture.
        top, bottom = min(row for row, _ in found), max(row for row, _ in found) + 1
        left, right = min(column for _, column in found), max(column for _, column in found) + 1
        boxes.append([left / columns, top / rows, right / columns, bottom / rows])
    return torch.tensor(boxes)
