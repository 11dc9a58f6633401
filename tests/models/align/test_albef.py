"""ALBEF: words of two losses, wrong pairs that are wrong, chance that a checkpoint holds, sizes as published."""

import dataclasses
import math
from types import SimpleNamespace

import albef_in_processes
import pytest
import torch
from batches import gaps
from testing_tools import assert_unit_length, close, fit, pairs, refused

from mmlearn.evaluation.mentions import Mentions
from mmlearn.layers import record_attention
from mmlearn.models.align.albef import ALBEF, ALBEFConfig
from mmlearn.processes import in_processes
from mmlearn.recipes import albef as recipe

TINY = ALBEFConfig.tiny()
SMALL = dataclasses.replace(TINY, queue_size=20)


def apart(config=SMALL, seed=3):
    """A system in evaluation mode, past its ramp, whose momentum encoder is another network than the trained one."""
    model = ALBEF(config).eval()
    other = ALBEF(dataclasses.replace(config)).online
    model.momentum_encoder.load_state_dict(other.state_dict())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.steps.fill_(config.alpha_ramp)
    return model


# What is read.


@pytest.mark.parametrize("pooling", ["class", "max"])
def test_vectors_are_made_alone_and_words_look_at_the_image(pooling):
    """Align before fuse: neither embedding depends on the partner, every fused word does."""
    image = dataclasses.replace(TINY.image, class_token=pooling == "class")
    model, batch = apart(dataclasses.replace(TINY, image=image, pooling=pooling)), pairs()
    output = model(batch["image"], batch["tokens"])
    swapped = model(batch["image"].flip(0), batch["tokens"])
    assert torch.equal(swapped.text_embedding, output.text_embedding)
    assert ((swapped.tokens - output.tokens).abs().amax(-1) > 1e-5).all()
    assert torch.equal(model(batch["image"], batch["tokens"].flip(0)).image_embedding, output.image_embedding)
    patches = model.online.image_projection(model.online.image_encoder(batch["image"]))
    words = model.online.text_projection(model.online.read_text(batch["tokens"]))
    vector = patches[:, 0] if pooling == "class" else patches.amax(1)
    for embedding, expected in ((output.image_embedding, vector), (output.text_embedding, words[:, 0])):
        assert_unit_length(embedding)
        close(torch.nn.functional.cosine_similarity(expected, embedding), torch.ones(8))
    close(output.image_embedding, model.encode_image(batch["image"]))
    close(output.text_embedding, model.encode_text(batch["tokens"]))
    close(output.match_logits, model.match(batch["image"], batch["tokens"]))


def test_maps_of_words_over_patches():
    model, batch = apart(), pairs(2)
    with record_attention(model) as maps:
        output = model(batch["image"], batch["tokens"], batch["mask"])
    assert model.cross_attention == [f"online.multimodal_encoder.blocks.{n}.cross_attention" for n in range(2)]
    rows, columns = model.grid
    for name in model.cross_attention:
        assert maps[name].shape == (2, 2, 12, model.config.image.class_token + rows * columns)
        close(maps[name].sum(-1), torch.ones(2, 2, 12))
    (gradient,) = torch.autograd.grad(output.match_logits[:, 1].sum(), maps[model.cross_attention[0]])
    assert gradient.abs().max() > 0  # for Grad-CAM
    close(output.match_logits, model.match(batch["image"], batch["tokens"], batch["mask"]))


@pytest.mark.parametrize("pooling", ["class", "max"])
def test_its_recipe_points_by_grad_cam_of_the_earlier_middle_block(pooling, monkeypatch):
    monkeypatch.setattr(recipe, "ROWS", 3)  # of 8
    image = dataclasses.replace(TINY.image, class_token=pooling == "class")
    model, batch = apart(dataclasses.replace(SMALL, image=image, pooling=pooling)), pairs()
    mentions = Mentions([0, 5], ["a b", "c"], [[1, 2], [3]], [0, 0], torch.zeros(2, 16))
    with torch.no_grad():
        found = recipe.phrase_maps(SimpleNamespace(system=model), batch, mentions)
    with record_attention(model) as maps:
        logits = model.match(batch["image"], batch["tokens"], batch["mask"])
    weights = maps[model.cross_attention[0]]
    (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), weights)
    expected = (weights * gradient.relu()).mean(1)[..., int(pooling == "class") :].detach()
    assert found.shape == (2, 16)
    assert found.max() > 0
    close(found, torch.stack([expected[0, 2], expected[5, 3]]))


# Contrast.


def test_alpha_rises_within_its_ramp():
    model = ALBEF(dataclasses.replace(TINY, alpha=0.4, alpha_ramp=4))
    found = []
    for _ in range(6):
        found.append(model.alpha)
        model.after_step()
    assert found == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.4])
    assert ALBEF(dataclasses.replace(TINY, alpha_ramp=0)).alpha == 0  # before the first step there is nothing to learn


# Words.


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_masked_words_by_hand(alpha):
    """Equation 7 over the hidden positions, from what is left of the text: ``forward`` never sees the true words."""
    model, batch = apart(dataclasses.replace(SMALL, alpha=alpha)), gaps(4)
    inputs, hidden = (batch["image"], batch["tokens"], batch["mask"]), batch["token_label"] != -100
    log_p = model(*inputs).token_logits[hidden].log_softmax(-1)
    model.online, model.momentum_encoder = model.momentum_encoder, model.online
    soft = model(*inputs).token_logits[hidden].softmax(-1)
    model.online, model.momentum_encoder = model.momentum_encoder, model.online
    told, taught = torch.nn.functional.nll_loss(log_p, batch["token_label"][hidden]), -(soft * log_p).sum(-1).mean()
    for steps, now in ((50, alpha / 2), (100, alpha)):
        model.steps.fill_(steps)
        close(model.loss(batch)["mlm"], (1 - now) * told + now * taught)


def test_contrast_and_matching_read_whole_texts():
    model, batch = apart(), gaps()
    losses = model.loss(batch)
    whole = {name: rows for name, rows in pairs().items() if name != "token_label"}
    assert list(model.loss(whole)) == ["itc", "itm"]
    for name, loss in model.loss(whole).items():
        assert torch.equal(loss, losses[name])


def test_a_batch_without_masked_words():
    model, batch = apart(), gaps()
    loss = model.loss(batch | {"token_label": torch.full_like(batch["tokens"], -100)})["mlm"]
    loss.backward()
    assert loss.item() == 0
    assert (model.online.language_head.bias.grad == 0).all()


# Matching.


def fused(model, batch):
    """What the multimodal encoder got, right pairs and wrong ones: texts (3b, t, d), masks, pictures (3b, n, d)."""
    calls, encoder = [], model.online.multimodal_encoder
    read = encoder.read

    def store(module, arguments, keywords):
        calls.append((arguments[0], arguments[1], keywords["context"]))

    def stored_read(words, position, mask, context):
        calls.append((words, mask, context))
        return read(words, position, mask, context=context)

    hook, encoder.read = encoder.register_forward_pre_hook(store, with_kwargs=True), stored_read
    losses = model.loss({name: rows for name, rows in batch.items() if name != "token_label"})
    hook.remove()
    encoder.read = read
    right, wrong = calls
    return *map(torch.cat, zip(right, wrong)), losses


def rows_of(found, known):
    """Which row of ``known`` each row of ``found`` is."""
    return [next(j for j, other in enumerate(known) if torch.equal(row, other)) for row in found]


@pytest.mark.parametrize("hard", [True, False])
def test_wrong_pairs_are_wrong(hard):
    """Right ones first, then own picture with another text, then another picture with the own text; never a twin."""
    model, batch = apart(dataclasses.replace(SMALL, hard_negatives=hard)), pairs(6)
    ids = [1, 2, 1, 3, 2, 1]
    batch["caption_id"] = torch.tensor(ids)
    images, texts = model.online.image_encoder(batch["image"]), model.online.read_text(batch["tokens"], batch["mask"])
    seen = set()
    for step in range(25):
        model.steps.fill_(step)
        text, mask, image, losses = fused(model, batch)
        image_rows, captions = rows_of(image, images), rows_of(text, texts)
        assert torch.equal(mask, batch["mask"][captions])
        assert image_rows[:12] == [*range(6), *range(6)]
        assert captions[:6] + captions[12:] == [*range(6), *range(6)]
        for i in range(6):
            assert ids[captions[6 + i]] != ids[i]
            assert ids[image_rows[12 + i]] != ids[i]
            seen |= {(i, "text", captions[6 + i]), (i, "image", image_rows[12 + i])}
        logits = model.match_head(model.online.multimodal_encoder(text, mask, context=image)[:, 0])
        label = torch.tensor([1] * 6 + [0] * 12)
        close(losses["itm"], torch.nn.functional.cross_entropy(logits, label))
    assert len(seen) > 20  # of 2 · (3·3 + 2·4 + 1·5) = 44 that are allowed


def test_hard_ones_are_drawn_by_similarity():
    """Picture 0 looks like text 3 and text 0 like picture 1: nearly always drawn, and evenly once in five times."""
    shares = {}
    for hard in (True, False):
        model, batch = apart(dataclasses.replace(SMALL, hard_negatives=hard)), pairs(6)
        image = torch.nn.functional.one_hot(torch.arange(6), 64).float()
        text = image + 0.5 * torch.nn.functional.one_hot(torch.tensor([1, 2, 3, 0, 5, 4]), 64)
        model.online.embed_image = model.momentum_encoder.embed_image = lambda _, image=image: image
        model.online.embed_text = model.momentum_encoder.embed_text = lambda _, text=text: text
        texts = model.online.read_text(batch["tokens"], batch["mask"])
        images = model.online.image_encoder(batch["image"])
        drawn = []
        for step in range(40):
            model.steps.fill_(step)
            text_states, _, image_states, _ = fused(model, batch)
            drawn.append(rows_of(text_states[6:7], texts) + rows_of(image_states[12:13], images))
        shares[hard] = (sum(text == 3 for text, _ in drawn) / 40, sum(image == 1 for _, image in drawn) / 40)
    assert all(share > 0.95 for share in shares[True])
    assert all(0.05 < share < 0.45 for share in shares[False])


def test_chance_depends_on_what_a_checkpoint_holds():
    """Not on any global state, which stays as it is; but on the seed, the step, and the position in the queue."""
    model, batch = apart(dataclasses.replace(SMALL, hard_negatives=False)), pairs()
    texts = model.online.read_text(batch["tokens"], batch["mask"])

    def drawn():
        return tuple(rows_of(fused(model, batch)[0][8:16], texts))

    before, first = torch.get_rng_state(), drawn()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    assert drawn() == first
    found = {first}
    model.steps += 1
    found.add(drawn())
    model.queue.pointer += 1
    found.add(drawn())
    model.config = dataclasses.replace(model.config, seed=1)
    found.add(drawn())
    assert len(found) == 4


# Learning.


@pytest.mark.usefixtures("unchecked")  # the checker cannot be compiled
def test_compiled_it_learns_the_same():
    """Over several steps, because what is drawn and the teacher's weight go by the step."""
    config = dataclasses.replace(SMALL, image=dataclasses.replace(SMALL.image, depth=1), fusion_depth=1, alpha_ramp=2)
    batch, found = gaps(4), {}
    torch._dynamo.reset()
    for backend in (False, "eager"):
        torch.manual_seed(0)
        model = ALBEF(config)
        how = dict(steps=3, batch_size=1, warmup=0, compile=backend, progress=False)
        found[backend] = fit(model, [batch] * config.queue_size, lambda drawn: drawn[0], **how), model.state_dict()
    (plain, weights), (compiled, others) = found.values()
    assert compiled == [pytest.approx(row, rel=1e-4) for row in plain]
    for name, value in weights.items():
        close(others[name], value)


def test_temperature_stays_within_its_bounds():
    model = ALBEF(TINY)
    for start, end in ((-9.0, math.log(2)), (9.0, math.log(1000)), (3.0, 3.0)):
        model.logit_scale.data.fill_(start)
        model.after_step()
        assert model.logit_scale.item() == pytest.approx(end, abs=1e-6)
    assert ALBEF(ALBEFConfig.tiny()).logit_scale.exp().item() == pytest.approx(1 / 0.07, rel=1e-5)


# Sizes and settings.


def test_the_published_size():
    """Section 3.5: BERT of 123.7 M and a ViT-B/16 of 85.8 M; between them two projections, a match head and τ."""
    with torch.device("meta"):
        model = ALBEF(ALBEFConfig.preset("base"))

    def count(*modules):
        return sum(parameter.numel() for module in modules for parameter in module.parameters())

    online = model.online
    text = count(online.embedding, online.text_encoder, online.multimodal_encoder, online.language_head)
    assert (text, count(online.image_encoder)) == (123_697_722, 85_844_736)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == text + 85_844_736 + 2 * (768 * 256 + 256) + 2 * 768 + 2 + 1 == 209_937_725
    assert count(model.momentum_encoder) == trained - (2 * 768 + 2) - 1
    assert model.queue.image.shape == model.queue.text.shape == (65_536, 256)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(alpha=1.5), "got 1.5 and 0.98"),
        (dict(momentum=-0.1), "got 0.4 and -0.1"),
        (dict(queue_size=0), "ALBEF needs a queue: queue_size is at least 1, got 0"),
        (dict(pooling="class"), "pooling is 'class' with a class token or 'max' without, not 'class'"),
        (dict(pooling="mean"), "pooling is 'class' with a class token or 'max' without, not 'mean'"),
    ],
)
def test_settings_that_cannot_be(changes, says):
    refused(says, ALBEF, dataclasses.replace(TINY, **changes))


def test_a_queue_larger_than_the_data():
    model = ALBEF(TINY)
    model.queue.check_data(1024)
    refused(r"A queue of 1024 is larger than the data.* at most 1023\.", model.queue.check_data, 1023)


# Several processes.


def test_processes_equal_one():
    """Three steps of the contrast: the same losses, weights, momentum encoders, queues and pointer in both, to 1e-9."""
    expected = albef_in_processes.train()
    for found in in_processes(albef_in_processes.train, 2):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, atol=1e-9, rtol=1e-9, msg=lambda text, name=name: f"{name}: {text}"
            )
    assert expected["queue.pointer"].tolist() == [18 % 14]
