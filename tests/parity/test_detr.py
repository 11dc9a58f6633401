"""DETR equals Transformers' DetrForObjectDetection: logits, boxes, loss and its parts, gradients, padded pictures."""

import pytest
import torch
from testing_tools import close
from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

from mmlearn.objectives.boxes import corners_to_centers

CASES = {
    "basic": dict(d_model=16, heads=2, mlp=20, layers=(2, 2), num_queries=7, num_labels=5)
    | dict(hidden_sizes=[8, 12], depths=[1, 2], layer_type="basic", embedding_size=8),
    "bottleneck": dict(d_model=24, heads=3, mlp=33, layers=(1, 3), num_queries=9, num_labels=3)
    | dict(hidden_sizes=[16, 24, 32], depths=[2, 1, 1], layer_type="bottleneck", embedding_size=6, eos_coefficient=0.3),
    "gelu, one block": dict(d_model=20, heads=5, mlp=12, layers=(1, 1), num_queries=6, num_labels=2)
    | dict(hidden_sizes=[12], depths=[1], layer_type="basic", embedding_size=4, activation_function="gelu"),
}


def build(case):
    case = dict(CASES[case])
    layers, heads, mlp = (case.pop(name) for name in ("layers", "heads", "mlp"))
    resnet = {name: case.pop(name) for name in ("hidden_sizes", "depths", "layer_type", "embedding_size")}
    sizes = {}
    for stack, depth in zip(("encoder", "decoder"), layers):
        sizes |= {f"{stack}_layers": depth, f"{stack}_attention_heads": heads, f"{stack}_ffn_dim": mlp}
    backbone = ResNetConfig(**resnet, out_features=[f"stage{len(resnet['depths'])}"])
    torch.manual_seed(0)
    published = DetrForObjectDetection(DetrConfig(backbone_config=backbone, dropout=0.0, **case, **sizes))
    return published.requires_grad_(True)  # the stem is frozen there


def inputs(num_labels):
    """Pictures of another height than width, one of them padded, and objects, of which one picture has none."""
    generator = torch.Generator().manual_seed(1)
    image = 0.2 * torch.randn(3, 3, 52, 37, generator=generator)  # the norms of the backbone leave sizes as they are
    pixel_mask = torch.ones(3, 52, 37, dtype=torch.bool)
    pixel_mask[1, 40:], pixel_mask[1, :, 30:] = False, False
    corner = torch.rand(3, 4, 2, generator=generator) * 0.5
    boxes = torch.cat([corner, corner + 0.1 + 0.4 * torch.rand(3, 4, 2, generator=generator)], -1)
    mask = torch.tensor([[True] * 4, [True, True, False, False], [False] * 4])
    classes = torch.randint(num_labels, (3, 4), generator=generator)
    batch = dict(image=image, pixel_mask=pixel_mask, boxes=boxes, object_classes=classes, object_mask=mask)
    labels = [
        {"class_labels": kinds[real], "boxes": corners_to_centers(box)[real]}
        for kinds, box, real in zip(classes, boxes, mask)
    ]
    return batch, labels


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_detr(case, padded, twins, assert_same_gradients):
    published, ours = twins(build(case))
    published.requires_grad_(True)
    batch, labels = inputs(CASES[case]["num_labels"])
    if not padded:
        del batch["pixel_mask"]
    mask = batch["pixel_mask"].long() if padded else None
    expected = published(pixel_values=batch["image"], pixel_mask=mask, labels=labels)
    output = ours(batch["image"], batch.get("pixel_mask"))
    close(output.class_logits, expected.logits)
    close(output.boxes, expected.pred_boxes)
    losses = ours.loss(batch)
    close(losses["classes"], expected.loss_dict["loss_ce"])
    close(losses["l1"], 5 * expected.loss_dict["loss_bbox"])
    close(losses["giou"], 2 * expected.loss_dict["loss_giou"])
    close(sum(losses.values()), expected.loss)
    assert_same_gradients(published, ours, sum(losses.values()), expected.loss)


def test_every_block_learns_as_their_loss_says(twins):
    """Their model with auxiliary losses normalises what goes on to the next block; the paper's, and ours, does not."""
    published, ours = twins(build("bottleneck"))
    batch, labels = inputs(3)
    found = published(pixel_values=batch["image"], pixel_mask=batch["pixel_mask"].long(), output_hidden_states=True)
    states = published.model.decoder.layernorm(torch.stack(found.decoder_hidden_states[1:]))
    classes, boxes = published.class_labels_classifier(states), published.bbox_predictor(states).sigmoid()
    published.config.auxiliary_loss = True
    expected, *_ = published.loss_function(
        found.logits, labels, torch.device("cpu"), found.pred_boxes, published.config, classes, boxes
    )
    object.__setattr__(ours.config, "auxiliary", True)
    close(sum(ours.loss(batch).values()), expected)
