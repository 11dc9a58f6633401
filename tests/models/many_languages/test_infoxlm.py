"""InfoXLM: TLM of one language is MLM, whole texts are contrasted at a middle block, a slow copy fills the queue."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded, shaken

from mmlearn.models.many_languages.infoxlm import InfoXLM, InfoXLMConfig
from mmlearn.objectives.align import momentum_contrast

TINY = dataclasses.replace(InfoXLMConfig.tiny(), queue_size=9)


def texts(b=5, t=8, u=10, seed=0):
    """Two texts a row, of several lengths, of which some tokens are hidden."""
    batch, generator = {}, seeded(seed)
    for name, mask, label, n in (
        ("tokens", "mask", "token_label", t),
        ("translation", "translation_mask", "translation_label", u),
    ):
        whole = torch.randint(4, 500, (b, n), generator=generator)
        real = torch.arange(n) <= 3 + (torch.arange(b)[:, None] * n) % (n - 3)
        hidden = real & (torch.rand(b, n, generator=generator) < 0.4) & (torch.arange(n) > 0)
        batch |= {name: whole.masked_fill(hidden, 3), mask: real, label: whole.masked_fill(~hidden, -100)}
    return batch


def built(**changes):
    """In evaluation mode, with a slow copy that is another network."""
    model = shaken(InfoXLM(dataclasses.replace(TINY, **changes))).eval()
    shaken(model.momentum_encoder, 0.2)
    return model


def whole(batch):
    for name, label in (("tokens", "token_label"), ("translation", "translation_label")):
        yield torch.where(batch[label] == -100, batch[name], batch[label]), batch[f"{name}_mask".replace("tokens_", "")]


def test_without_a_translation_tlm_is_mmlm():
    model, batch = built(), texts()
    losses = model.loss(batch)
    assert abs(losses["tlm"] - losses["mmlm"]) > 1e-3
    alone = model.loss(batch | {"translation_mask": batch["translation_mask"] & False})
    close(alone["tlm"], losses["mmlm"])
    close(alone["mmlm"], losses["mmlm"])


def test_tlm_guesses_the_words_of_both_texts_from_both():
    model, batch = built(), texts()
    total, count = 0.0, 0
    for i in range(5):
        real, other = batch["mask"][i], batch["translation_mask"][i]
        row = torch.cat([batch["tokens"][i][real], batch["translation"][i][other][1:]])
        label = torch.cat([batch["token_label"][i][real], batch["translation_label"][i][other][1:]])
        logits = model.token_logits(model(row[None]).tokens[0])
        total, count = total + F.cross_entropy(logits, label, reduction="sum"), count + (label != -100).sum()
    close(model.loss(batch)["tlm"], total / count)


@pytest.mark.parametrize("repeated", [False, True])
def test_the_contrast_is_that_of_whole_texts_with_momentum_embeddings_in_batch_and_queue(repeated):
    model, batch = built(temperature=0.2), texts()
    meaning = torch.tensor([4, 4, 5, 6, 7]) if repeated else torch.arange(5)
    if repeated:
        batch["caption_id"], model.queue.caption_id[2] = meaning, 6
    fast, slow = ([encoder.embed(*text) for text in whole(batch)] for encoder in (model.online, model.momentum_encoder))
    close(fast[0], model.encode_text(*next(whole(batch))))
    fits = meaning[:, None] == torch.cat([meaning, model.queue.caption_id])
    queues = model.queue.image, model.queue.text
    close(model.loss(batch)["xlco"], momentum_contrast(tuple(fast), tuple(slow), queues, fits, 5.0, 0.0))


def test_embeddings_are_of_the_first_token_at_the_middle_block():
    model, batch = built(contrast_depth=2), texts()
    states = model.online.embedding(batch["tokens"])
    for block in model.online.transformer.blocks[:2]:
        states = block(states, batch["mask"])
    expected = F.normalize(states[:, 0] @ model.online.projection.weight.T, dim=-1)
    before = model(batch["tokens"], batch["mask"]).tokens
    close(model.encode_text(batch["tokens"], batch["mask"]), expected)
    close(model.encode_translation(batch["tokens"], batch["mask"]), expected)  # no language has an encoder of its own
    shaken(model.online.transformer.blocks[2])
    close(model.encode_text(batch["tokens"], batch["mask"]), expected)
    assert not torch.allclose(model(batch["tokens"], batch["mask"]).tokens, before, atol=1e-2)


def test_the_queue_takes_momentum_embeddings_in_training_alone():
    model, batch = built(), texts() | {"caption_id": torch.arange(5) + 30}
    before = {name: value.clone() for name, value in model.queue.state_dict().items()}
    model.loss(batch)
    assert all(torch.equal(value, before[name]) for name, value in model.queue.state_dict().items())
    model.train().loss(batch)
    for kept, text in zip((model.queue.image, model.queue.text), whole(batch)):
        close(kept[:5], model.momentum_encoder.embed(*text))
    assert model.queue.caption_id.tolist() == [30, 31, 32, 33, 34, -1, -1, -1, -1]


def test_the_slow_copy_follows_and_is_not_trained():
    model, batch = built(momentum=0.9).train(), texts()
    sum(model.loss(batch).values()).backward()
    assert all(parameter.grad is None for parameter in model.momentum_encoder.parameters())
    slow = {name: value.clone() for name, value in model.momentum_encoder.named_parameters()}
    model.after_step()
    for name, value in model.online.named_parameters():
        close(dict(model.momentum_encoder.named_parameters())[name], 0.9 * slow[name] + 0.1 * value)


def test_settings_that_cannot_be():
    for wrong in (dict(contrast_depth=4), dict(contrast_depth=0), dict(momentum=1.5)):
        refused("momentum is from 0 to 1, and contrast_depth one of", InfoXLM, dataclasses.replace(TINY, **wrong))
