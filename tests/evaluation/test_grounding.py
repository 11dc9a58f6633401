"""Boxes against counting cells, gradients against finite differences, heads against one that is known to point."""

import math
from itertools import product

import pytest
import torch
from testing_tools import close, refused, seeded
from torch import nn

from mmlearn.evaluation import entropy, find_mentions, pointing_accuracy, pointing_chance
from mmlearn.evaluation.grounding import (
    best_region,
    box_of_map,
    grad_cam,
    gradient_maps,
    iou,
    peak_positions,
    phrase_maps,
    referring_accuracy,
    region_occlusion_check,
    report_head,
)
from mmlearn.evaluation.mentions import Mentions
from mmlearn.layers import Attention, TransformerBlock, TransformerConfig, record_attention

GRIDS = [(1, 1), (1, 5), (4, 1), (3, 3), (4, 6), (7, 2)]


def cell_boxes(n, side, seed=0):
    """Boxes whose edges lie on a grid of ``side`` cells, as shares."""
    corners = torch.randint(0, side + 1, (n, 2, 2), generator=seeded(seed)).sort(1).values
    return corners.flatten(1) / side


# Boxes.


@pytest.mark.parametrize("seed", range(4))
def test_iou_counts_cells(seed):
    side = 8
    one, other = cell_boxes(40, side, seed), cell_boxes(40, side, seed + 100)

    def cells(box):
        left, top, right, bottom = (round(x * side) for x in box)
        return set(product(range(left, right), range(top, bottom)))

    for got, a, b in zip(iou(one, other).tolist(), one.tolist(), other.tolist()):
        together = len(cells(a) | cells(b))
        assert got == pytest.approx(len(cells(a) & cells(b)) / together if together else 0, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_symmetric_and_knows_no_scale_or_position(seed):
    one, other = cell_boxes(40, 9, seed), cell_boxes(40, 9, seed + 50)
    expected = iou(one, other)
    assert ((expected >= 0) & (expected <= 1)).all()
    close(iou(other, one), expected)
    close(iou(300 * one + 7, 300 * other + 7), expected, 1e-4)
    area = (one[:, 2:] - one[:, :2]).prod(-1)
    close(iou(one, one), (area > 0).float())


def test_boxes_that_touch_or_are_empty_share_nothing():
    one = torch.tensor([[0.0, 0, 0.5, 1], [0.2, 0.2, 0.2, 0.2], [0.0, 0, 0.2, 0.2]])
    other = torch.tensor([[0.5, 0.0, 1, 1], [0.2, 0.2, 0.2, 0.2], [0.8, 0.8, 1, 1]])
    assert iou(one, other).tolist() == [0, 0, 0]


def test_an_inverted_box_is_refused():
    right = torch.tensor([[0.0, 0, 1, 1]])
    for wrong in ([0.5, 0.0, 0.4, 1.0], [0.0, 0.9, 1.0, 0.1], [math.nan, 0, 1, 1]):
        for pair in ((right, torch.tensor([wrong])), (torch.tensor([wrong]), right)):
            refused("got one inverted", iou, *pair)


def test_half_of_what_both_cover_is_enough():
    truth = torch.tensor([[0.0, 0, 1, 1]]).expand(3, 4)
    found = torch.tensor([[0.0, 0, 0.5, 1], [0.0, 0, 0.49, 1], [0.0, 0, 1, 1]])
    assert referring_accuracy(found, truth) == pytest.approx(2 / 3)
    assert referring_accuracy(found, truth, threshold=0.6) == pytest.approx(1 / 3)
    assert referring_accuracy(found, truth, threshold=0.1) == 1
    refused("at least one", referring_accuracy, truth[:0], truth[:0])


def test_the_best_region_is_a_real_one():
    weights = torch.rand(20, 6, generator=seeded())
    boxes = torch.rand(20, 6, 4, generator=seeded(1))
    mask = torch.rand(20, 6, generator=seeded(2)) < 0.5
    mask[:, 2] = True
    for i, box in enumerate(best_region(weights, boxes, mask)):
        best = max((j for j in range(6) if mask[i, j]), key=lambda j: weights[i, j])
        assert torch.equal(box, boxes[i, best])
    assert torch.equal(best_region(weights, boxes), best_region(weights, boxes, torch.ones_like(mask)))
    assert torch.equal(best_region(torch.zeros(20, 6), boxes, mask)[0], boxes[0, mask[0].int().argmax()])
    assert torch.equal(
        best_region(-weights - 1, boxes, mask)[mask[:, 0]], best_region(-weights, boxes, mask)[mask[:, 0]]
    )
    refused("at least one real region", best_region, weights, boxes, mask & False)


def box_by_flooding(weights, grid, threshold):
    """From the highest patch to every neighbour that is high enough, one at a time."""
    rows, columns = grid
    limit, start = threshold * max(weights), weights.index(max(weights))
    seen, waiting = {divmod(start, columns)}, [divmod(start, columns)]
    while waiting:
        row, column = waiting.pop()
        for near in product((row - 1, row, row + 1), (column - 1, column, column + 1)):
            inside = 0 <= near[0] < rows and 0 <= near[1] < columns
            if inside and near not in seen and weights[near[0] * columns + near[1]] >= limit:
                seen.add(near)
                waiting.append(near)
    ys, xs = zip(*seen)
    return [min(xs) / columns, min(ys) / rows, (max(xs) + 1) / columns, (max(ys) + 1) / rows]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9, 1.0])
def test_the_box_of_a_map_is_found_by_flooding(grid, threshold):
    maps = torch.rand(30, grid[0] * grid[1], generator=seeded(sum(grid)))
    got = box_of_map(maps, grid, threshold)
    for box, weights in zip(got.tolist(), maps.tolist()):
        assert box == pytest.approx(box_by_flooding(weights, grid, threshold), abs=1e-6)
    close(box_of_map(5 * maps, grid, threshold), got, 0)  # whatever a map sums to


def test_what_does_not_hang_together_is_left_out():
    maps = torch.zeros(1, 5, 6)
    maps[0, 0, 0], maps[0, 1, 1], maps[0, 1, 2] = 0.6, 1.0, 0.5  # by a corner, the highest, by a side
    maps[0, 4, 5] = 0.9  # elsewhere
    close(box_of_map(maps.flatten(1), (5, 6)), torch.tensor([[0, 0, 3 / 6, 2 / 5]]))
    close(box_of_map(maps.flatten(1), (5, 6), 0.55), torch.tensor([[0, 0, 2 / 6, 2 / 5]]))
    maps[0, 4, 5] = 1.1
    close(box_of_map(maps.flatten(1), (5, 6)), torch.tensor([[5 / 6, 4 / 5, 1, 1]]))


def test_a_map_that_knows_nothing_is_the_whole_image():
    for value in (0.0, 0.25):
        close(box_of_map(torch.full((2, 12), value), (3, 4)), torch.tensor([[0.0, 0, 1, 1]]).expand(2, 4))


@pytest.mark.parametrize("size", [(3, 4), (1, 1), (6, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_a_map_that_fills_a_box_of_patches_gives_that_box(size, seed):
    rows, columns = size
    box = cell_boxes(20, 12, seed)
    lattice = torch.tensor([columns, rows, columns, rows])
    box = (box * lattice).round()
    box[:, 2:] = torch.maximum(box[:, 2:], box[:, :2] + 1)
    box[:, :2] = torch.minimum(box[:, :2], lattice[:2] - 1)
    box[:, 2:] = torch.minimum(box[:, 2:], lattice[2:])
    maps = torch.zeros(20, rows, columns)
    for one, (left, top, right, bottom) in zip(maps, box.int().tolist()):
        one[top:bottom, left:right] = 0.3
    box = box / lattice
    close(box_of_map(maps.flatten(1), size), box)
    assert referring_accuracy(box_of_map(maps.flatten(1), size), box) == 1


@pytest.mark.parametrize(
    ("maps", "says"),
    [
        (torch.zeros(2, 11), "^A map on a 3 × 4 grid has 12 patches; got 11"),
        (torch.full((2, 12), -0.1), "finite and not negative"),
        (torch.full((2, 12), math.nan), "finite and not negative"),
        (torch.full((2, 12), math.inf), "finite and not negative"),
    ],
)
def test_maps_that_give_no_box(maps, says):
    refused(says, box_of_map, maps, (3, 4))


# Gradients.


class Reader(nn.Module):
    """Words that attend to patches twice, and the score that this gives."""

    def __init__(self, heads, width=12):
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(TransformerConfig(width, 1, heads), context_width=width) for _ in range(2)
        )
        self.score = nn.Linear(width, 1)

    def forward(self, words, patches, mask=None):
        for block in self.blocks:
            words = block(words, context=patches, context_mask=mask)
        return self.score(words[:, 0])[:, 0]


def recorded(heads=3, b=2, t=4, p=6, seed=0):
    model = Reader(heads).double()
    words, patches = (torch.randn(b, n, 12, generator=seeded(seed), dtype=torch.double) for n in (t, p))
    with record_attention(model) as maps:
        score = model(words, patches)
    return model, words, patches, {name: one for name, one in maps.items() if "cross" in name}, score


@pytest.mark.parametrize(("heads", "p"), [(1, 6), (3, 6), (4, 1), (2, 35)])
def test_grad_cam_is_weight_times_positive_gradient_by_finite_differences(heads, p):
    """The last layer's weights moved one at a time: what the score does is the gradient."""
    model, words, patches, maps, score = recorded(heads, p=p)
    last = "blocks.1.cross_attention"
    layer = model.blocks[1].cross_attention
    weights = maps[last].detach()
    step, (b, h, q, n) = 1e-5, weights.shape

    def score_with(weights):
        kept = layer.forward
        value = layer.value(patches).view(b, n, h, -1).transpose(1, 2)
        layer.forward = lambda *a, **k: layer.output((weights @ value).transpose(1, 2).flatten(2))
        result = model(words, patches)
        layer.forward = kept
        return result

    close(score_with(weights), score, 1e-8)
    expected = torch.zeros_like(weights)
    for head, query, key in product(range(h), range(q), range(n)):
        up, down = weights.clone(), weights.clone()
        up[:, head, query, key] += step
        down[:, head, query, key] -= step
        expected[:, head, query, key] = (score_with(up) - score_with(down)) / (2 * step)
    each = gradient_maps(maps, score)
    close(each[last], weights * expected.clamp(min=0), 1e-7)
    cam = grad_cam(maps, score)
    assert list(cam) == ["blocks.0.cross_attention", "blocks.1.cross_attention"]
    for name, one in cam.items():
        assert one.shape == (2, 4, p)
        assert (one >= 0).all()
        assert not one.requires_grad
        close(one, each[name].mean(1), 1e-12)
    assert cam[last].abs().max() > 0
    assert (cam[last][:, 1:] == 0).all()  # the score reads the first word alone


def test_rows_of_a_batch_are_explained_each_alone():
    model, words, patches, maps, score = recorded()
    whole = grad_cam(maps, score)
    for i in range(2):
        with record_attention(model) as alone:
            one = model(words[i : i + 1], patches[i : i + 1])
        got = grad_cam({name: alone[name] for name in maps}, one)
        for name in maps:
            close(got[name][0], whole[name][i], 1e-10)


def test_patches_that_are_padding_get_nothing_and_the_order_does_not_count():
    model, words, patches, *_ = recorded()
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    order = torch.randperm(6, generator=seeded())

    def cam(patches, mask):
        with record_attention(model) as maps:
            score = model(words, patches, mask)
        return grad_cam({"last": maps["blocks.1.cross_attention"]}, score)["last"]

    got = cam(patches, mask)
    assert (got[1, :, 2:] == 0).all()
    close(cam(patches[:, order], mask[:, order]), got[..., order], 1e-10)


def test_a_head_that_speaks_against_the_score_is_left_out():
    weights = torch.tensor([[[[0.75, 0.25]], [[0.5, 0.5]]]], requires_grad=True)  # b 1, h 2, q 1, n 2
    score = 2 * weights[:, 0, 0, 0] - 8 * weights[:, 1, 0, 0] + 4 * weights[:, 1, 0, 1]
    assert gradient_maps({"a": weights}, score)["a"].tolist() == [[[[1.5, 0]], [[0, 2]]]]
    assert grad_cam({"a": weights}, score)["a"].tolist() == [[[0.75, 1]]]
    assert grad_cam({"a": weights}, -score)["a"].tolist() == [[[2, 0]]]


def test_maps_without_a_gradient_are_refused():
    model, words, patches, maps, score = recorded()
    with torch.no_grad(), record_attention(model) as dead:
        silent = model(words, patches)
    refused(r"no graph; run the model outside torch.no_grad", grad_cam, dead, score)
    refused("no graph", grad_cam, maps, silent)
    other = Attention(12, 3).double()
    with record_attention(other) as unused:
        other(words)
    refused(r"does not depend on the map 'other'; give only maps", grad_cam, {**maps, "other": unused[""]}, score)
    grad_cam(maps, score)
    grad_cam(maps, score)  # the graph is still there


# Heads.


def splits(n=40, p=8, heads=3, seed=0):
    """Two splits of maps of three layers, in which one head points, and one that points in the first split alone."""
    regions = torch.eye(p).repeat(n // p, 1)
    result = []
    for number in (0, 1):
        maps = {f"layer {i}": torch.rand(n, heads, p, generator=seeded(seed + 10 * number + i)) for i in range(3)}
        maps["layer 2"][:, 1, :] += 0.9 * regions  # points most often, in both
        result.append((maps, regions))
    result[0][0]["layer 0"][:, 0] += 2 * regions
    return result


def test_a_head_is_chosen_on_one_split_and_reported_on_another():
    (choose, regions), (maps, other) = splits()
    report = report_head(choose, regions, maps, other)
    assert (report.layer, report.head) == ("layer 0", 0)
    assert report.table.shape == (3, 3)
    assert report.table[0, 0] == 1
    chosen = maps["layer 0"][:, 0]
    assert report.accuracy == pytest.approx(pointing_accuracy(chosen, other))
    assert report.accuracy < 0.5  # it was lucky
    assert report.entropy == pytest.approx(entropy(chosen))
    assert report.chance == pytest.approx(pointing_chance(other)) == pytest.approx(1 / 8)
    assert report.occlusion == {}
    again = report_head(maps, other, choose, regions)
    assert (again.layer, again.head) == ("layer 2", 1)
    assert again.accuracy == pytest.approx(float(report.table[2, 1]))


def test_the_occlusion_check_gets_the_maps_of_the_chosen_head():
    (choose, regions), (maps, other) = splits()
    seen = []
    report = report_head(choose, regions, maps, other, lambda chosen: seen.append(chosen) or {"pointed": 0.5})
    assert report.occlusion == {"pointed": 0.5}
    assert torch.equal(seen[0], maps["layer 0"][:, 0])


@pytest.mark.usefixtures("unchecked")
def test_splits_with_other_heads_are_refused():
    (choose, regions), (maps, other) = splits()
    for wrong in (
        {name: maps[name] for name in ("layer 0", "layer 1")},
        maps | {"layer 3": maps["layer 0"]},
        {name: one[:, :2] for name, one in maps.items()},
        maps | {"layer 1": maps["layer 1"][:, :2]},
    ):
        refused("same layers, all with as many heads", report_head, choose, regions, wrong, other)
    uneven = maps | {"layer 1": maps["layer 1"][:, :2]}
    refused("as many heads", report_head, uneven, other, uneven, other)


@pytest.mark.parametrize("heads", [1, 5])
def test_phrase_maps_are_those_of_the_last_word_of_each_phrase(heads):
    maps = {"a": torch.rand(3, heads, 6, 4, generator=seeded()).requires_grad_()}
    mentions = Mentions([2, 0, 2], ["x"] * 3, [[1, 2], [5], [0, 4]], [0, 0, 1], torch.zeros(3, 4))
    got = phrase_maps(maps, mentions)["a"]
    assert got.shape == (3, heads, 4)
    assert not got.requires_grad
    for i, (sample, token) in enumerate([(2, 2), (0, 5), (2, 4)]):
        assert torch.equal(got[i], maps["a"][sample, :, token])


def test_highest_is_one_position_a_row():
    maps = torch.rand(9, 5, generator=seeded())
    maps[3] = 0.5
    got = peak_positions(maps)
    assert (got.sum(1) == 1).all()
    assert torch.equal(got.int().argmax(1), torch.tensor([row.index(max(row)) for row in maps.tolist()]))


# Occlusion.


def test_hiding_the_region_that_counts_costs_most():
    regions = torch.rand(4, 5, 3, generator=seeded()) + 0.5
    before = regions.clone()
    named, other = (nn.functional.one_hot(torch.full((4,), i), 5).bool() for i in (1, 3))
    grad = []

    def score(regions):
        grad.append(torch.is_grad_enabled())
        return 2 * regions[:, 1].sum(-1) + regions[:, 3, 0]

    got = region_occlusion_check(score, regions, {"named": named, "other": other, "none": named & False})
    assert got["named"] == pytest.approx(2 * before[:, 1].sum(-1).mean().item(), rel=1e-5)
    assert got["other"] == pytest.approx(before[:, 3, 0].mean().item(), rel=1e-5)
    assert got["none"] == 0
    assert torch.equal(regions, before)
    assert not any(grad)


def test_from_scenes_to_a_report():
    """The whole path on real captions: a map that is the region itself points always."""
    from mmlearn.data.synthetic.scenes import Scenes
    from mmlearn.data.tokenizer import Tokenizer

    samples = [Scenes("val", length=6)[i] for i in range(6)]
    tokenizer = Tokenizer.train([sample.caption for sample in samples], vocab_size=300)
    mentions = find_mentions(samples, tokenizer, (4, 4))
    maps = torch.zeros(6, 2, 32, 16)
    for sample, tokens, region in zip(mentions.sample, mentions.tokens, mentions.region):
        maps[sample, 1, tokens[-1]] = region
    phrases = phrase_maps({"layer": maps}, mentions)
    report = report_head(phrases, mentions.region, phrases, mentions.region)
    assert (report.layer, report.head, report.accuracy) == ("layer", 1, 1)
    boxes = box_of_map(phrases["layer"][:, 1], (4, 4))
    truth = torch.stack([samples[i].boxes[j] / 64 for i, j in zip(mentions.sample, mentions.object)])
    assert (iou(boxes, truth) > 0).all()
