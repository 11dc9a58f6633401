"""What captions name, in scenes and in a small COCO."""

import pytest
import torch
from small_coco import write_coco
from testing_tools import refused

from mmlearn.data import fetch
from mmlearn.data.named_regions import NamedRegions, grounded_position, named_links, region_cells, right_regions
from mmlearn.data.synthetic.scenes import NamedOnce, Scenes
from mmlearn.evaluation import on_grid


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    return write_coco(tmp_path_factory.mktemp("data") / "coco", copies=4)


@pytest.fixture(scope="module")
def photographs(coco):
    return NamedRegions(coco, "train", size=56, objects=5)


def test_only_captions_that_name_two_kinds_of_things_with_boxes(photographs):
    said = {photographs.caption(i) for i in range(len(photographs))}
    # People are only a crowd in the picture with three dogs, and nobody annotated the cat.
    assert said == {"Two men near a Traffic  Light.", "A hot dog on a table, and no dog"}
    assert len(photographs) == 8
    assert photographs[0].caption == photographs.caption(0)
    assert {"dog", "dogs", "hot", "men", "light"} <= photographs.words
    assert len(NamedRegions(photographs.data.images.parent, "train", length=3)) == 3


def test_a_word_of_a_photograph_means_every_box_of_its_category(photographs):
    sample = next(item for item in photographs if item.caption.startswith("Two men"))
    men, light = named_links(sample, 5)
    assert [sample.caption[slice(*grounded_position(sample, link))] for link in (men, light)] == [
        "men",
        "Traffic  Light",
    ]
    found = photographs.detector()([sample])
    assert found["regions"].shape[:2] == (1, 5)
    kinds = [photographs.detector().classes[k] for k in found["region_classes"][0].argmax(-1)[found["region_mask"][0]]]
    for link, kind in ((men, "person"), (light, "traffic light")):
        assert right_regions(sample, link, 5).tolist() == [name == kind for name in kinds] + [False] * (5 - len(kinds))
    assert named_links(sample, 2) == [men]  # the light is smaller than both


def test_cells_of_a_photograph_belong_to_the_smallest_box_that_holds_them(photographs):
    sample = photographs[0]
    cells = region_cells(sample, 14, 5)
    assert cells.shape == (5, 196)
    assert cells.sum(0).max() == 1
    for number in range(len(sample.boxes)):
        held = torch.zeros(14, 14)
        for row in range(14):
            for column in range(14):
                x, y = 4 * (column + 0.5), 4 * (row + 0.5)
                inside = [a <= x <= c and b <= y <= d for a, b, c, d in sample.boxes.tolist()]
                held[row, column] = inside[number] and not any(inside[number + 1 :])
        assert torch.equal(cells[number].view(14, 14), held)
    assert (cells[len(sample.boxes) :] == 0).all()


def test_a_box_within_another_has_its_cells(photographs):
    sample = next(item for item in photographs if item.caption.startswith("A hot dog"))
    table, dog = (sample.names.index(name) for name in ("dining table", "hot dog"))
    cells = region_cells(sample, 14, 5)
    left, top, right, bottom = sample.boxes[dog].tolist()
    middle = 14 * int((top + bottom) / 8) + int((left + right) / 8)
    assert cells[:, middle].nonzero().flatten().tolist() == [dog]
    assert cells[table].any()


@pytest.mark.parametrize("data", [Scenes(objects=4), NamedOnce(objects=24, size=224)])
def test_scenes_answer_alike(data):
    for sample in fetch(data, range(5)):
        count, side = len(sample.objects), sample.layout.grid
        cells = region_cells(sample, side, count)
        for link in named_links(sample, count):
            thing = sample.objects[link.object]
            assert sample.caption[slice(*grounded_position(sample, link))] == thing.colour
            right = right_regions(sample, link, count)
            assert right.nonzero().flatten().tolist() == [link.object]
            where = on_grid(sample.masks[link.object][None], (side, side))[0].argmax()
            assert cells[link.object].argmax() == where


def test_data_without_boxes_are_refused(tmp_path):
    write_coco(tmp_path / "coco", instances=False)
    refused("Regions are annotated boxes. These data have no boxes", NamedRegions, tmp_path / "coco", "train")
