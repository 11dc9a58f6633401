"""What is read in cells is scored against the caption, and a reader learns to read them."""

import numpy as np
import torch
from testing_tools import close, refused, seeded

from mmlearn.data.synthetic.layouts import COLOURS, SHAPES, small_layout
from mmlearn.data.synthetic.scenes import SmallScenes, draw_samples
from mmlearn.evaluation.drawn_scenes import (
    NOTHING,
    CellClassifier,
    image_scores,
    object_scores,
    scene_scores,
    true_cells,
)

SAMPLES = SmallScenes("test").__getitems__(list(range(40)))


def test_the_truth_has_every_score():
    assert set(scene_scores(*true_cells(SAMPLES), SAMPLES)) == {1.0}
    assert image_scores(*true_cells(SAMPLES), SAMPLES).tolist() == [1.0] * 40


def test_cells_are_those_of_the_objects():
    colour, shape = true_cells(SAMPLES)
    assert ((colour != NOTHING).sum(1) == 2).all()
    for i, sample in enumerate(SAMPLES):
        for item in sample.objects:
            assert COLOURS[colour[i, item.cell]] == item.colour
            assert SHAPES[shape[i, item.cell]] == item.shape


def test_nothing_has_no_score():
    nothing = torch.full((40, 4), NOTHING)
    assert set(scene_scores(nothing, nothing, SAMPLES)) == {0.0}


def test_exchanged_shapes_leave_colours_and_shapes_right_and_objects_wrong():
    colour, shape = true_cells(SAMPLES)
    swapped = shape.clone()
    for row in range(40):
        one, two = (colour[row] != NOTHING).nonzero()[:, 0]
        swapped[row, one], swapped[row, two] = shape[row, two], shape[row, one]
    scores = scene_scores(colour, swapped, SAMPLES)
    assert (scores.colour, scores.shape, scores.both, scores.objects, scores.relation, scores.count) == (
        1,
        1,
        0,
        0,
        0,
        1,
    )


def test_mirrored_images_keep_objects_and_lose_half_of_the_relations():
    colour, shape = (part.view(40, 2, 2).flip(2).flatten(1) for part in true_cells(SAMPLES))
    scores = scene_scores(colour, shape, SAMPLES)
    assert scores.objects == 1
    sideways = [sample.relation[1] in ("left of", "right of") for sample in SAMPLES]
    close(torch.tensor(scores.relation), torch.tensor(1 - sum(sideways) / 40))
    assert image_scores(colour, shape, SAMPLES).tolist() == [float(not side) for side in sideways]


def test_one_object_too_many_is_counted():
    colour, shape = true_cells(SAMPLES)
    empty = (colour == NOTHING).int().argmax(1)
    colour[torch.arange(40), empty], shape[torch.arange(40), empty] = 0, 0
    scores = scene_scores(colour, shape, SAMPLES)
    assert (scores.relation, scores.count) == (1, 0)


def test_a_reader_sees_one_cell_at_a_time_and_learns():
    torch.manual_seed(0)
    reader = CellClassifier(2, width=8)
    image = torch.stack([sample.image for sample in SAMPLES]) * 2 - 1
    other = image.clone()
    other[:, :, :12, :12] = torch.randn(40, 3, 12, 12, generator=seeded())
    for one, two in zip(reader(image), reader(other)):
        assert torch.equal(one[:, 1:], two[:, 1:])
        assert not torch.allclose(one[:, 0], two[:, 0])
    colour, shape = true_cells(SAMPLES)
    optimizer = torch.optim.Adam(reader.parameters(), lr=5e-3)
    for _ in range(150):
        optimizer.zero_grad()
        sum(reader.loss({"image": image, "colour": colour, "shape": shape}).values()).backward()
        optimizer.step()
    assert scene_scores(*reader.read(image), SAMPLES).relation > 0.9
    refused("no 2 × 2 even cells", reader, torch.zeros(1, 3, 25, 25))


ONE = draw_samples(small_layout("test", np.arange(40), 0, objects=1), 16)


def test_one_object_is_scored_by_colour_shape_and_position():
    colour, shape = true_cells(ONE)
    assert set(object_scores(colour, shape, ONE)) == {1.0}
    nothing = torch.full((40, 4), NOTHING)
    assert set(object_scores(nothing, nothing, ONE)) == {0.0}
    moved = object_scores(colour.roll(1, 1), shape.roll(1, 1), ONE)
    assert (moved.colour, moved.shape, moved.both, moved.position, moved.right) == (1, 1, 1, 0, 0)
    wrong = torch.where(shape == NOTHING, shape, (shape + 1) % len(SHAPES))
    assert tuple(object_scores(colour, wrong, ONE)) == (1, 0, 0, 1, 0)
    apart = object_scores(colour, shape.roll(1, 1), ONE)  # colour in one cell, shape in another
    assert (apart.colour, apart.shape, apart.both, apart.right) == (1, 1, 0, 0)
    more = colour.clone()
    more[torch.arange(40), (colour == NOTHING).int().argmax(1)] = 0
    crowded = object_scores(more, shape, ONE)
    assert (crowded.both, crowded.position, crowded.right) == (1, 1, 0)
    half = colour.clone()
    half[:10] = NOTHING
    assert object_scores(half, shape, ONE).colour == 0.75
    refused("one object, got one with 2", object_scores, *true_cells(SAMPLES), SAMPLES)
