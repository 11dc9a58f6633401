"""UniT: each task reads its own modalities, and says so where one is missing."""

import torch
from testing_tools import count_parameters, refused

from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.models import UniT, UniTConfig


def test_tasks_read_what_they_need():
    torch.manual_seed(0)
    system = UniT(UniTConfig.tiny())
    image, tokens = torch.randn(2, 3, 64, 64), torch.randint(4, 500, (2, 6))
    with evaluating(system):
        alone, text, both = system(image), system(tokens=tokens), system(image, tokens)
        assert torch.equal(alone.boxes, both.boxes)
        assert not hasattr(alone, "answer_logits")
        assert text._fields == ("relation_logits",)
        assert text.relation_logits.shape == (2, 4)
        other = system(image, tokens.flip(1))
        assert not torch.allclose(other.answer_logits, both.answer_logits, atol=1e-4)
        assert len(system.solve("detection", image)) == 2
        vqa, match = (system.solve(task, image, tokens)[-1] for task in ("vqa", "match"))
        assert not torch.allclose(vqa, match, atol=1e-2)  # queries and vectors of the task


def test_what_is_missing_or_unknown_is_told():
    system = UniT(UniTConfig.tiny())
    image, tokens = torch.randn(2, 3, 64, 64), torch.randint(4, 500, (2, 6))
    refused("There is no task 'singing'; known are detection, vqa", system.solve, "singing", image)
    refused("vqa is asked of a text, and there is none", system.solve, "vqa", image)
    refused("detection is asked of a picture, and there is none", system.solve, "detection", None, tokens)
    refused("No task of .* has its labels in a batch with image", system.loss, {"image": image})
    box = torch.tensor([[[0.5, 0.2, 0.1, 0.6]]]).expand(2, 1, 4)
    objects = {"boxes": box, "object_classes": torch.zeros(2, 1).long(), "object_mask": torch.ones(2, 1).bool()}
    refused("Box 0 of picture 0", system.loss, {"image": image} | objects)


def test_the_size_is_near_the_papers():
    """201M on eight data sets: two detectors, 1,600 classes with attributes, and six further heads."""
    assert 190e6 < count_parameters(UniT, UniTConfig()) < 201e6
