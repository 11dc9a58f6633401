"""Packed rows are read, and learned from, exactly as their conversations are, each alone."""

import copy
import dataclasses
import random

import pytest
import torch
from testing_tools import fit, refused, seeded, shaken
from torch.nn import functional as F

from mmlearn.data.packed import Packed, pack, padding, share_rows
from mmlearn.layers.packing import packed
from mmlearn.models.bridges import vlm
from mmlearn.models.bridges.vlm import VLM, VLMConfig

IMAGE, K = 511, 4
TINY = VLMConfig.tiny()


def system(**changes):
    language = dataclasses.replace(TINY.language_model, max_length=64, **changes)
    config = dataclasses.replace(TINY, language_model=language)
    return shaken(VLM(config), 0.2).double().requires_grad_(True)


def conversations(seed, most_images=1, count=7):
    """Words, images and answers at random: a batch, padded at the right, of which some texts have no image."""
    rng, g = random.Random(seed), seeded()
    images = [rng.randint(0, most_images) if most_images > 1 else 1 for _ in range(count)]
    images[0] = most_images
    rows, answers = [], []
    for seen in images:
        words = torch.randint(1, IMAGE, (rng.randint(3, 14),), generator=g).tolist()
        for _ in range(seen):
            at = rng.randint(1, len(words))  # not within another image, as each is put before words
            while words[at - 1 : at + 1] == [IMAGE, IMAGE]:
                at -= 1
            words[at:at] = [IMAGE] * K
        rows.append(torch.tensor(words))
        answers.append(torch.tensor([False] + [word != IMAGE and rng.random() < 0.5 for word in words[1:]]))
    answers[0][-1] = rows[0][-1] != IMAGE
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in rows], True)
    tokens, response = (torch.nn.utils.rnn.pad_sequence(part, True) for part in (rows, answers))
    batch = {"tokens": tokens, "mask": mask, "response": response, "caption_id": torch.arange(count)}
    image = torch.randn(count, most_images, 3, 64, 64, generator=g, dtype=torch.float64)
    if most_images == 1:
        return batch | {"image": image[:, 0]}
    return batch | {"image": image, "image_mask": torch.arange(most_images) < torch.tensor(images)[:, None]}


def gradients(model, batch):
    model.zero_grad()
    loss = model.loss(batch)["lm"]
    loss.backward()
    return loss, {name: x.grad for name, x in model.named_parameters() if x.grad is not None}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("changes", [{}, dict(window=5)], ids=["all before", "a window"])
def test_packed_rows_say_and_teach_what_conversations_do_alone(seed, changes):
    """Logits, losses and gradients in float64, for random lengths, numbers of images, and places of them."""
    model, batch = system(**changes), conversations(seed, most_images=1 + seed % 3)
    model.train()
    joined = pack(batch, 40 + 5 * seed)
    names = ("image", "tokens", "mask", "image_mask", "conversation")
    said = model(**{name: joined[name] for name in names}).token_logits
    assert len(joined["tokens"]) < len(batch["tokens"])
    for i, real in enumerate(batch["mask"]):
        one = {name: batch[name][i : i + 1, real] for name in ("tokens", "mask")}
        image = batch["image"][i : i + 1]
        if "image_mask" in batch:
            image = image[:, batch["image_mask"][i]]
        expected = model(image, **one).token_logits[0]
        torch.testing.assert_close(said[joined["conversation"] == i], expected, atol=1e-10, rtol=1e-10)
    (loss, found), (expected, wanted) = gradients(model, joined), gradients(model, batch)
    torch.testing.assert_close(loss, expected, atol=1e-10, rtol=1e-10)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, atol=1e-9, rtol=1e-9, msg=name)


# That positions go on along a row would be none: rotary embeddings tell how far apart two tokens are.
LEAKS = {
    "a causal mask alone": lambda c: ((c >= 0)[:, None].expand(-1, c.shape[1], -1), packed(c)[1]),
    "one token of the text before": lambda c: (
        packed(c)[0] | (packed(c)[0].roll(1, 1) & (c >= 0)[:, :, None]),
        packed(c)[1],
    ),
    "positions in reverse": lambda c: (packed(c)[0], packed(c)[1].flip(1)),
}


@pytest.mark.parametrize("leak", LEAKS)
def test_a_leak_is_seen(leak, monkeypatch):
    """The test above would fail: what one conversation says depends on another, or on where it stands."""
    model, joined = system(), pack(conversations(1, 2), 45)
    kept = model.loss(joined)["lm"]
    monkeypatch.setattr(vlm, "packed", LEAKS[leak])
    assert (model.loss(joined)["lm"] - kept).abs() > 1e-4


def test_without_answers_no_text_begins_by_the_end_of_another():
    model, batch = system(), conversations(2)
    del batch["response"]
    joined = pack(batch, 45)
    said = model(*(joined[name] for name in ("image", "tokens", "mask", "image_mask", "conversation"))).token_logits
    label = joined["tokens"].masked_fill((joined["tokens"] == IMAGE) | (packed(joined["conversation"])[1] == 0), -100)
    expected = F.cross_entropy(said[:, :-1].flatten(0, 1), label[:, 1:].flatten())
    torch.testing.assert_close(model.loss(joined)["lm"], expected)


def test_predicted_words_by_hand():
    mask = torch.tensor([[True] * 5 + [False]])
    batch = {"tokens": torch.tensor([[5, IMAGE, 6, 7, 8, 0]]), "mask": mask}
    assert system().predicted(batch).int().tolist() == [[0, 0, 1, 1, 1, 0]]
    batch["conversation"] = torch.tensor([[0, 0, 0, 1, 1, -1]])
    assert system().predicted(batch).int().tolist() == [[0, 0, 1, 0, 1, 0]]
    batch["conversation"], batch["response"] = (
        torch.zeros(1, 6, dtype=torch.long),
        torch.tensor([[1, 0, 0, 1, 1, 1]]) > 0,
    )
    assert system().predicted(batch).int().tolist() == [[0, 0, 0, 1, 1, 0]]


def test_each_word_of_a_step_counts_the_same_in_whichever_batch_it_is():
    """Two batches of four conversations teach what one of eight does, though they have other numbers of answers."""
    batch, one, losses = conversations(4, count=8), system(), []
    systems = one, copy.deepcopy(one)
    words = [row.sum().item() for row in batch["response"][:, 1:]]
    assert sum(words[:4]) != sum(words[4:])

    def collate(rows):
        return pack({name: value[list(rows)] for name, value in batch.items()}, 45)

    for model, size in zip(systems, (8, 4)):
        made = dict(steps=1, batch_size=size, accumulate=8 // size, warmup=0, progress=False)
        losses.append(fit(model, range(8), collate, **made)[0]["loss"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)
    for one, two in zip(systems[0].parameters(), systems[1].parameters()):
        torch.testing.assert_close(one, two, atol=1e-10, rtol=1e-10)


def test_the_tower_reads_real_images_alone():
    model, joined, seen = system(), pack(conversations(1, 2), 45), []
    model.image_encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    model.loss(joined)
    assert not joined["image_mask"].all()
    assert torch.equal(seen[0], joined["image"][joined["image_mask"]])
    none = torch.zeros_like(joined["image_mask"])
    assert not model.encode_image(joined["image"], none).any()


def test_masks_and_positions_by_hand():
    mask, position = packed(torch.tensor([[4, 4, 9, -1]]))
    assert position.tolist() == [[0, 1, 0, 0]]
    assert mask.int().tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]


def test_images_follow_their_texts():
    batch = conversations(3, most_images=2)
    joined = pack(batch, 45)
    for row, image, there in zip(joined["conversation"], joined["image"], joined["image_mask"]):
        texts = row[row >= 0].unique_consecutive().tolist()
        assert texts == sorted(texts)
        assert torch.equal(image[there], torch.cat([batch["image"][i, batch["image_mask"][i]] for i in texts]))


@pytest.mark.parametrize("seed", range(3))
def test_rows_are_few_and_none_is_too_long(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 60) for _ in range(80)]
    rows = share_rows(lengths, 60)
    assert sorted(i for row in rows for i in row) == list(range(80))
    assert max(sum(lengths[i] for i in row) for row in rows) <= 60
    assert len(rows) <= 11 / 9 * -(-sum(lengths) // 60) + 1
    assert share_rows([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]


def test_what_does_not_fit_is_told():
    batch = conversations(0)
    longest = int(batch["mask"].sum(1).max())
    refused(f"A conversation of {longest} tokens, with those of its image, does not fit into rows of {longest - 1}",
            pack, batch, longest - 1)  # fmt: skip
    refused("A row has at least one token, got 0", Packed, lambda samples: batch, 0)


def test_most_of_the_padding_goes():
    many = conversations(5, count=60)
    before, after = (padding(batch["mask"].sum(1).tolist()) for batch in (many, Packed(lambda samples: many, 60)([])))
    assert before > 0.3
    assert after < 0.1
