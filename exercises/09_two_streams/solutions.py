"""Plain answers to the tasks; each comment is one step, and what ``mmlearn exercises hint`` gives."""

import torch


def box_sizes(boxes):
    # Take the four numbers apart: unbind(-1).
    left, top, right, bottom = boxes.unbind(-1)
    # Width and height are differences, and the area is their product.
    width, height = right - left, bottom - top
    # Put the three beside each other along a new last axis.
    return torch.stack([width, height, width * height], dim=-1)


def co_attention(text, visual, mask, visual_mask, text_attends, visual_attends):
    # The text asks, the visual stream is its context, and the mask is that of the context.
    new_text = text_attends(text, visual, visual_mask)
    # The other way round; it looks at the text as it was, not at new_text.
    new_visual = visual_attends(visual, text, mask)
    return new_text, new_visual


def smooth_region_regression(prediction, target, masked):
    # Only hidden regions: x[masked] is a list of them, (hidden, f).
    difference = (prediction[masked] - target[masked]).abs()
    # x² / 2 below 1, and |x| - ½ from there on.
    smooth = torch.where(difference < 1, difference.square() / 2, difference - 0.5)
    # One sum, divided by the number of hidden regions times that of features, but at least by 1.
    return smooth.sum() / (masked.sum() * target.shape[-1]).clamp(min=1)


def iou(box, other):
    # The corner that both have in common: the larger left and top, the smaller right and bottom.
    corner, end = torch.maximum(box[:, :2], other[:, :2]), torch.minimum(box[:, 2:], other[:, 2:])
    # What is shared has a width and a height, which are 0 where the boxes do not touch.
    shared = (end - corner).clamp(min=0).prod(-1)
    # Both areas, and what is shared counts once.
    area, other_area = ((one[:, 2:] - one[:, :2]).prod(-1) for one in (box, other))
    union = area + other_area - shared
    # Where there is no area at all the quotient is 0 / 0: put 1 below the line there, which gives 0.
    return shared / torch.where(union > 0, union, 1)


def best_region(weights, boxes, region_mask=None):
    # Padding gets -inf, so that it is never the highest.
    if region_mask is not None:
        weights = weights.masked_fill(~region_mask, -torch.inf)
    # The place of the highest weight; argmax takes the first of several.
    best = weights.argmax(1)
    # Row i with position best[i]: index both axes.
    return boxes[torch.arange(len(boxes)), best]


def soft_scores(counts):
    # A third for each person, and never more than 1.
    return (counts / 3).clamp(max=1)


def nlvr_accuracy(guess, label, sentence):
    # Which pairs are right.
    right = (guess == label).tolist()
    # For each sentence, whether all of its pairs are right: begin with True, and one wrong pair makes it False.
    throughout = {}
    for name, good in zip(sentence, right):
        throughout[name] = throughout.get(name, True) and good
    # A share of pairs, and a share of sentences.
    return {"accuracy": sum(right) / len(right), "consistency": sum(throughout.values()) / len(throughout)}
