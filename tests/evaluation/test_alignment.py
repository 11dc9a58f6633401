"""Alignment numbers against cases small enough to work out by hand, and occlusion of models whose evidence is known."""

import math

import numpy as np
import pytest
import torch

from mmlearn.evaluation import (
    choose_head,
    entropy,
    frames_near,
    frames_within,
    hits_and_misses,
    mass_ratio,
    modality_accuracy,
    modality_gap,
    occlude,
    occlusion_check,
    on_grid,
    pair_alignment,
    pointing_accuracy,
    pointing_chance,
    random_patches,
    uniformity,
)
from mmlearn.evaluation.alignment import COVERED

REGION = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])  # of two words on four patches


def unit(n, d, seed=0):
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=-1)


# Maps.


def test_frames_around_a_moment():
    """At 25 frames a second frame k lasts from 0.04 k to 0.04 (k + 1) seconds."""
    time = torch.tensor([0.0, 0.05, 0.0799, 0.0801, 0.5, 9.0])
    for tolerance in (0, 1, 2):
        near = frames_near(time, 5, 25, tolerance)
        own = [0, 1, 1, 2, 12, 225]
        assert near.tolist() == [[abs(k - frame) <= tolerance for k in range(5)] for frame in own]
    assert torch.equal(frames_near(time, 5, 25), frames_near(time, 5, 25, 1))
    middles = (torch.arange(500) + 0.5) / 30  # of frames of another length
    assert torch.equal(frames_near(middles, 500, 30, 0), torch.eye(500).bool())


def test_frames_of_a_span():
    """Of five frames of 0.04 s: a span has all that it touches, also where it starts or ends inside one."""
    span = torch.tensor([[0.05, 0.13], [0.0801, 0.0802], [0.0, 9.0], [0.5, 0.6]])
    touched = [[1, 2, 3], [2], [0, 1, 2, 3, 4], list(range(12, 16))]
    for tolerance in (0, 1, 2):
        expected = [[frames[0] - tolerance <= k <= frames[-1] + tolerance for k in range(5)] for frames in touched]
        assert frames_within(span, 5, 25, tolerance).tolist() == expected
    assert torch.equal(frames_within(span, 5, 25), frames_within(span, 5, 25, 1))
    time = torch.linspace(0, 1, 40)
    assert torch.equal(frames_within(torch.stack([time, time], 1), 30, 25.0, 2), frames_near(time, 30, 25.0, 2))


@pytest.mark.parametrize(
    ("maps", "accuracy"),
    [
        ([[0.9, 0.0, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]], 1),
        ([[0.0, 0.9, 0.1, 0.0], [0.5, 0.2, 0.3, 0.4]], 0.5),
        ([[0.0, 0.0, 0.1, 0.0], [0.5, 0.2, 0.3, 0.4]], 0),
        ([[0.3, 0.3, 0.3, 0.1], [0.5, 0.2, 0.3, 0.5]], (2 / 3 + 1 / 2) / 2),  # the share of the highest that do
        ([[0.25] * 4, [0.25] * 4], (2 / 4 + 1 / 4) / 2),
        ([[-1.0, -3.0, -2.0, -5.0], [-9.0, -9.0, -9.0, -8.0]], 1),  # cosines may be negative
    ],
)
def test_pointing(maps, accuracy):
    assert pointing_accuracy(torch.tensor(maps), REGION) == pytest.approx(accuracy)


def test_half_of_what_is_shown_hits_and_half_misses():
    maps = torch.rand(60, 9, generator=torch.Generator().manual_seed(0))
    regions = torch.zeros(60, 9).scatter(1, torch.arange(60)[:, None] % 9, 1)
    inside = regions >= COVERED
    margin = maps.masked_fill(~inside, -1).amax(1) - maps.masked_fill(inside, -1).amax(1)
    chosen = hits_and_misses(maps, regions, 8)
    hits = [pointing_accuracy(maps[[i]], regions[[i]]) for i in chosen]
    assert hits == [1.0] * 4 + [0.0] * 4
    assert margin[chosen].tolist() == sorted(margin[chosen].tolist(), reverse=True)
    assert {chosen[0], chosen[-1]} == {int(margin.argmax()), int(margin.argmin())}
    assert len(set(chosen)) == 8


@pytest.mark.parametrize(("right", "count", "expected"), [(10, 6, 6), (9, 6, 5), (0, 6, 0), (3, 6, 3), (1, 12, 1)])
def test_where_one_kind_is_rare_the_other_fills_up(right, count, expected):
    regions = torch.eye(10)
    maps = torch.cat([torch.eye(10)[:right], torch.eye(10).roll(1, 1)[right:]])
    chosen = hits_and_misses(maps, regions, count)
    assert len(set(chosen)) == min(count, 10)
    assert sum(i < right for i in chosen) == expected


def test_a_patch_belongs_to_a_region_that_fills_a_tenth_of_it():
    maps = torch.tensor([[0.0, 1.0]])
    assert COVERED == 0.1
    assert pointing_accuracy(maps, torch.tensor([[1.0, 0.1]])) == 1
    assert pointing_accuracy(maps, torch.tensor([[1.0, 0.0999]])) == 0
    assert pointing_chance(torch.tensor([[1.0, 0.1, 0.09, 0.0]])) == 0.5


def test_chance_is_what_random_maps_reach():
    generator = torch.Generator().manual_seed(0)
    regions = (torch.rand(50, 16, generator=generator) < 0.2).float()
    regions[:, 0] = 1
    repeated = regions.repeat(400, 1)
    reached = pointing_accuracy(torch.rand(repeated.shape, generator=generator), repeated)
    assert pointing_chance(regions) == pytest.approx(float(regions.mean()))
    assert abs(reached - pointing_chance(regions)) < 4 * 0.5 / len(repeated) ** 0.5
    assert pointing_accuracy(torch.zeros_like(regions), regions) == pytest.approx(pointing_chance(regions))


def test_mass_ratio():
    maps = torch.tensor([[6.0, 2.0, 1.0, 1.0], [0.0, 0.0, 5.0, 5.0]])
    assert mass_ratio(maps, REGION) == pytest.approx((0.8 / 0.5 + 0.5 / 0.25) / 2)
    assert mass_ratio(7 * maps, REGION) == pytest.approx(mass_ratio(maps, REGION))  # whatever a map sums to
    assert mass_ratio(torch.full((2, 4), 0.3), REGION) == pytest.approx(1)
    assert mass_ratio(torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]), REGION) == pytest.approx((2 + 4) / 2)
    assert mass_ratio(1 - REGION.ceil(), REGION) == 0
    assert math.isfinite(mass_ratio(torch.zeros(2, 4), torch.zeros(2, 4)))


def test_entropy():
    assert entropy(torch.full((3, 16), 0.2)) == pytest.approx(1)
    assert entropy(torch.eye(4)) == 0
    assert entropy(torch.tensor([[5.0, 5.0, 0.0, 0.0]])) == pytest.approx(math.log(2) / math.log(4))
    maps = torch.rand(7, 9)
    shares = maps.double().numpy() / maps.double().numpy().sum(1, keepdims=True)
    assert entropy(maps) == pytest.approx(-(shares * np.log(shares)).sum(1).mean() / np.log(9), rel=1e-5)
    assert entropy(3 * maps) == pytest.approx(entropy(maps), rel=1e-5)


def test_on_grid_is_the_share_of_each_patch_in_reading_order():
    mask = torch.zeros(2, 6, 8, dtype=torch.bool)
    mask[0, 0:3, 4:8] = True  # all of the upper right quarter
    mask[0, 3, 0] = True
    mask[1, 5, 7] = True
    expected = torch.tensor([[0, 1, 1 / 12, 0], [0, 0, 0, 1 / 12]])
    torch.testing.assert_close(on_grid(mask, (2, 2)), expected)
    assert on_grid(mask, (3, 4)).shape == (2, 12)
    torch.testing.assert_close(on_grid(mask, (3, 4))[0].nonzero()[:, 0], torch.tensor([2, 3, 4, 6, 7]))


def test_choose_head_finds_the_one_that_points():
    generator = torch.Generator().manual_seed(0)
    regions = torch.eye(8).repeat(4, 1)
    maps = {f"layer {i}": torch.rand(32, 3, 8, generator=generator) for i in range(3)}
    maps["layer 1"][:, 2] += regions  # this head knows
    maps["layer 2"][:16, 0] += regions[:16]  # this one half of the time
    layer, head, table = choose_head(maps, regions)
    assert (layer, head) == ("layer 1", 2)
    assert table.shape == (3, 3)
    for row, weights in enumerate(maps.values()):
        for column in range(3):
            assert table[row, column] == pytest.approx(pointing_accuracy(weights[:, column], regions))
    assert table[1, 2] == 1


def test_a_head_chosen_on_one_split_is_no_better_than_chance_on_another_if_none_knows():
    """Why the choice and the report need a split each: the best of many is lucky where it was chosen."""
    generator = torch.Generator().manual_seed(1)
    regions = torch.eye(10).repeat(6, 1)
    one, other = ({"a": torch.rand(60, 64, 10, generator=generator)} for _ in range(2))
    layer, head, table = choose_head(one, regions)
    assert table[0, head] > 0.18
    assert abs(pointing_accuracy(other[layer][:, head], regions) - 0.1) < 0.1


# Occlusion.


def images():
    """Two dark pictures, each with a bright object in the upper left and one in the lower right quarter."""
    image = torch.full((2, 3, 12, 12), 0.1)
    image[:, :, 1:5, 1:5] = torch.tensor([0.9, 0.5]).view(2, 1, 1, 1)
    image[:, :, 7:11, 7:11] = 0.7
    named, other, ground = (torch.zeros(2, 12, 12, dtype=torch.bool) for _ in range(3))
    named[:, 1:5, 1:5] = True
    other[:, 7:11, 7:11] = True
    ground[:, 1:5, 7:11] = True
    return image, {"named": named, "other": other, "ground": ground, "nothing": torch.zeros_like(named)}


def test_occlusion_paints_in_the_colour_of_the_ground():
    image, masks = images()
    before = image.clone()
    painted = occlude(image, masks["named"])
    assert torch.equal(image, before)
    assert (painted[:, :, 1:5, 1:5] == 0.1).all()
    assert torch.equal(
        painted[~masks["named"][:, None].expand_as(image)], image[~masks["named"][:, None].expand_as(image)]
    )
    assert torch.equal(occlude(image, masks["ground"]), image)
    tinted = image * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1)
    corner = occlude(tinted, masks["named"])[0, :, 2, 2]
    torch.testing.assert_close(corner, torch.tensor([0.1, 0.05, 0.02]))


def test_a_model_that_looks_at_the_named_object_loses_by_it_alone():
    image, masks = images()
    drop = occlusion_check(lambda x: x[:, :, 1:5, 1:5].mean((1, 2, 3)), image, masks)
    assert drop == pytest.approx({"named": (0.8 + 0.4) / 2, "other": 0, "ground": 0, "nothing": 0}, abs=1e-6)


def test_a_model_that_looks_elsewhere_is_found_out():
    image, masks = images()
    drop = occlusion_check(lambda x: x[:, 0, 8, 8], image, masks)
    assert drop == pytest.approx({"named": 0, "other": 0.6, "ground": 0, "nothing": 0}, abs=1e-6)


def test_a_model_that_looks_at_nothing_and_one_that_looks_everywhere():
    image, masks = images()
    assert set(occlusion_check(lambda x: torch.full((2,), 3.0), image, masks).values()) == {0}
    drop = occlusion_check(lambda x: x.mean((1, 2, 3)), image, masks)
    assert drop["named"] == pytest.approx(16 / 144 * 0.6, abs=1e-6)
    assert drop["other"] == pytest.approx(16 / 144 * 0.6, abs=1e-6)
    assert drop["ground"] == pytest.approx(0, abs=1e-6)


def test_scores_are_taken_without_gradients():
    weight = torch.ones((), requires_grad=True)
    seen = []
    image, masks = images()
    occlusion_check(lambda x: (seen.append((weight * x).requires_grad), x.mean((1, 2, 3)))[1], image, masks)
    assert seen == [False] * 5


def test_random_patches_are_whole_squares_anywhere():
    generator = torch.Generator().manual_seed(0)
    masks = random_patches(600, (7, 9), 3, generator)
    corners = set()
    for mask in masks:
        rows, columns = mask.nonzero().T
        assert mask.sum() == 9
        assert (int(rows.max() - rows.min()), int(columns.max() - columns.min())) == (2, 2)
        corners.add((int(rows.min()), int(columns.min())))
    assert corners == {(row, column) for row in range(5) for column in range(7)}
    again = random_patches(600, (7, 9), 3, torch.Generator().manual_seed(0))
    assert torch.equal(masks, again)
    torch.manual_seed(9)  # the global state has no part in it
    assert torch.equal(random_patches(600, (7, 9), 3, torch.Generator().manual_seed(0)), masks)
    assert random_patches(2, (4, 4), 4, generator).all()


# Two modalities in one space.


def test_modality_gap():
    one = unit(50, 8)
    assert modality_gap(one, one[torch.randperm(50)]) == pytest.approx(0, abs=1e-6)
    assert modality_gap(torch.tensor([[3.0, 0], [1, 0]]), torch.tensor([[0.0, 1], [0, 3]])) == pytest.approx(8**0.5)
    ahead = torch.eye(4)[:1].expand(5, 4)
    assert modality_gap(ahead, -ahead) == pytest.approx(2)
    shift = torch.full((8,), 0.25)
    assert modality_gap(one + shift, one) == pytest.approx(float(shift.norm()), rel=1e-5)


@pytest.mark.parametrize("modalities", [2, 3])
def test_a_modality_is_told_by_the_nearest_mean(modalities):
    generator = torch.Generator().manual_seed(modalities)
    cloud = torch.randn(4001, modalities, 5, generator=generator)
    assert abs(modality_accuracy(cloud) - 1 / modalities) < 0.03  # all from one cloud
    corners = 20 * torch.eye(5)[:modalities]
    assert modality_accuracy(cloud + corners) == 1
    half = cloud + 20 * torch.eye(5)[0] * torch.eye(modalities)[0][:, None]  # only the first can be told
    assert abs(modality_accuracy(half) - 2 / modalities) < 0.03
    means, told = (cloud + corners / 10)[:2000].mean(0), (cloud + corners / 10)[2000:]
    by_hand = torch.stack([(told - mean).norm(dim=-1) for mean in means], -1).argmin(-1)
    right = (by_hand == torch.arange(modalities)).double().mean()
    assert modality_accuracy(cloud + corners / 10) == pytest.approx(float(right), abs=1e-4)


def test_a_modality_is_not_told_from_a_single_row():
    assert modality_accuracy(torch.tensor([[[0.0], [9.0]], [[1.0], [8.0]]])) == 1
    with pytest.raises(ValueError, match="there is 1 row"):
        modality_accuracy(torch.zeros(1, 2, 3))


def test_pair_alignment():
    one, other = unit(20, 6), unit(20, 6, seed=1)
    assert pair_alignment(one, one) == 0
    assert pair_alignment(one, -one) == pytest.approx(4, rel=1e-5)
    cosine = (one.double() * other.double()).sum(1).mean()
    assert pair_alignment(one, other) == pytest.approx(float(2 - 2 * cosine), rel=1e-5)


def test_uniformity():
    one = unit(12, 5)
    potentials = [
        math.exp(-2 * sum((a - b) ** 2 for a, b in zip(one[i].tolist(), one[j].tolist())))
        for i in range(12)
        for j in range(i)
    ]
    assert uniformity(one) == pytest.approx(math.log(sum(potentials) / len(potentials)), rel=1e-5)
    assert uniformity(one[:1].expand(6, 5)) == 0  # all in one position
    assert uniformity(torch.tensor([[1.0, 0], [-1, 0]])) == pytest.approx(-8)
    assert uniformity(unit(400, 64)) < uniformity(unit(400, 2)) < -1
