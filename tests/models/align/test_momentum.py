"""What ALBEF and BLIP share: a slow copy that follows and teaches, queues, and pairs that cannot be."""

import copy
import dataclasses

import pytest
import torch
from testing_tools import close, pairs, refused, shaken

from mmlearn.objectives.align import momentum_contrast
from mmlearn.recipes.discovery import find_recipe

both = pytest.mark.parametrize("name", ["albef", "blip"])


def build(name, **changes):
    recipe = find_recipe(name)
    return recipe.system(dataclasses.replace(recipe.config.tiny(), **dict(queue_size=20) | changes))


def apart(name, **changes):
    """A system in evaluation mode, past its ramp, whose momentum encoder is another network than the trained one."""
    model = build(name, **changes).eval()
    shaken(model.online, 0.05)
    shaken(model.momentum_encoder, 0.1)
    model.steps.fill_(model.config.alpha_ramp)
    return model


def embeddings(encoders, batch):
    image, text = encoders.image_encoder(batch["image"]), (batch["tokens"], batch["mask"])
    words = (encoders.read_text(*text),) if hasattr(encoders, "read_text") else text
    return encoders.embed_image(image), encoders.embed_text(*words)


def state(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


# Contrast.


@both
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("captions", [False, True])
def test_contrast_is_that_of_momentum_embeddings_in_batch_and_queue(name, alpha, captions):
    """With captions, one of the batch occurs twice and one waits in the queue. Half-way up the ramp α is half."""
    model, batch = apart(name, alpha=alpha), pairs(4)
    ids = torch.tensor([7, 9, 7, 8]) if captions else torch.arange(4)
    if captions:
        batch["caption_id"], model.queue.caption_id[3] = ids, 9
    scale = model.logit_scale.exp() if name == "albef" else 1 / model.temperature
    fast, slow = (embeddings(encoders, batch) for encoders in (model.online, model.momentum_encoder))
    positives, queues = ids[:, None] == torch.cat([ids, model.queue.caption_id]), (model.queue.image, model.queue.text)
    for steps, now in ((50, alpha / 2), (100, alpha), (1000, alpha)):
        model.steps.fill_(steps)
        close(model.loss(batch)["itc"], momentum_contrast(fast, slow, queues, positives, scale, now))


# The momentum encoder.


@both
def test_the_momentum_encoder_follows_exactly(name):
    model = apart(name, momentum=0.9).double()
    before, online = state(model.momentum_encoder), dict(model.online.named_parameters())
    model.after_step()
    for key, value in model.momentum_encoder.named_parameters():
        close(value, 0.9 * before[key] + 0.1 * online[key], 1e-12)
    assert model.steps.item() == model.config.alpha_ramp + 1


@both
def test_it_starts_as_a_copy_and_is_no_part_of_what_is_trained(name):
    model = build(name)
    slow, fast = model.momentum_encoder.state_dict(), model.online.state_dict()
    assert slow.keys() == fast.keys()
    for key, value in slow.items():
        assert torch.equal(value, fast[key])
        assert value.data_ptr() != fast[key].data_ptr()
    frozen = {key for key, value in model.named_parameters() if not value.requires_grad}
    assert frozen == {f"momentum_encoder.{key}" for key, _ in model.momentum_encoder.named_parameters()}


@both
def test_no_gradient_reaches_the_teacher_though_it_has_a_say(name):
    """Not even should somebody thaw all of the system; and the missing gradient is no missing connection."""
    model, batch = apart(name), pairs()
    model.momentum_encoder.requires_grad_(True)
    losses = model.loss(batch)
    sum(losses.values()).backward()
    assert all(parameter.grad is None for parameter in model.momentum_encoder.parameters())
    with torch.no_grad():
        for parameter in model.momentum_encoder.parameters():
            parameter.add_(torch.randn_like(parameter))
    assert abs(model.loss(batch)["itc"] - losses["itc"]) > 1e-3


# Queues.


@both
def test_queues_take_the_batch_in_training_only(name):
    model, batch = apart(name), pairs() | {"caption_id": torch.arange(8) + 100}
    before, (image, text) = state(model), embeddings(model.momentum_encoder, batch)
    model.loss(batch)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key
    model.train().loss(batch)
    close(model.queue.image[:8], image)
    close(model.queue.text[:8], text)
    assert model.queue.caption_id.tolist() == [*range(100, 108), *[-1] * 12]
    assert torch.equal(model.queue.image[8:], before["queue.image"][8:])
    assert model.queue.pointer.tolist() == [8]


@both
def test_queues_go_round(name):
    """Three batches of 8 into 20 positions: the last four rows of the third lie over the first four of the first."""
    model = apart(name).train()
    for number in range(3):
        model.loss(pairs(8, seed=number) | {"caption_id": 8 * number + torch.arange(8)})
    assert model.queue.pointer.tolist() == [4]
    assert model.queue.caption_id.tolist() == [20, 21, 22, 23, *range(4, 20)]
    model.loss(pairs(8))  # without numbers
    assert model.queue.caption_id.tolist() == [20, 21, 22, 23, *[-1] * 8, *range(12, 20)]


@both
def test_backward_after_the_queue_moved_on(name):
    """The queue is written before the backward pass that reads it."""
    model, batch = apart(name).train(), pairs()
    frozen = copy.deepcopy(model).eval()
    for each in (model, frozen):
        sum(each.loss(batch).values()).backward()
    close(model.online.image_projection.weight.grad, frozen.online.image_projection.weight.grad)


# What cannot be.


@both
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda batch: {key: rows[:0] for key, rows in batch.items()}, "at least one; got 0 and 0"),
        (lambda batch: {key: rows[:1] for key, rows in batch.items()}, "In a batch of 1 .*no negative exists"),
        (lambda batch: {"caption_id": torch.full((8,), 3)}, "no negative exists.*two different captions"),
        (lambda batch: {"image": batch["image"][:3]}, "got 3 and 8"),
        (lambda batch: {"match_label": torch.arange(8) % 2}, "makes its own wrong pairs, and match_label marks some"),
        (lambda batch: pairs(21), "A queue of 20 pairs cannot take 21 at once"),
    ],
)
def test_batches_that_cannot_be(name, change, says, unchecked):
    """They are refused in one line, and leave the queues as they were."""
    model, batch = build(name), pairs()
    before = state(model)
    refused(says, model.loss, batch | change(batch))
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


@both
def test_matched_pairs_may_say_so(name):
    assert build(name).loss(pairs() | {"match_label": torch.ones(8, dtype=torch.long)}).keys() >= {"itc", "itm"}
