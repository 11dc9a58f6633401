"""Both halves of ELECTRA equal Transformers' ElectraForMaskedLM and ElectraForPreTraining."""

import pytest
import torch
from published import TEXTS, text_inputs, to_guess
from testing_tools import close
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from mmlearn.models.text.electra import ELECTRA, ELECTRAConfig

EMBEDDING = {"odd": 7, "relu": 40, "batch of one": 20}  # as wide as the model in the second


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_discriminator(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = text_inputs(ElectraConfig, case, embedding_size=EMBEDDING[case])
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(ElectraForPreTraining(config))
    replaced = torch.rand(tokens.shape) < 0.4
    given = dict(input_ids=tokens, attention_mask=mask.long(), token_type_ids=token_type)
    expected = published(**given, labels=replaced.long())
    close(ours(tokens, mask, token_type).replaced_logits[mask], expected.logits[mask])
    batch = dict(tokens=tokens, token_type=token_type, replaced=replaced)
    loss = ours.loss(batch | dict(mask=mask) if padded else batch)["rtd"] / 50
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", TEXTS)
def test_generator(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, tokens, mask, token_type = text_inputs(ElectraConfig, case, embedding_size=EMBEDDING[case])
    mask = mask if padded else torch.ones_like(mask)
    published, ours = twins(ElectraForMaskedLM(config))
    label = to_guess(tokens, mask)
    given = dict(input_ids=tokens, attention_mask=mask.long(), token_type_ids=token_type)
    expected = published(**given, labels=label)
    close(ours(tokens, mask, token_type).token_logits[mask], expected.logits[mask])
    batch = dict(tokens=tokens, token_type=token_type, token_label=label)
    loss = ours.loss(batch | dict(mask=mask) if padded else batch)["mlm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_together_they_are_what_each_is_alone():
    """One embedding, two halves: what each says, and the sum of their losses."""
    torch.manual_seed(0)
    config = ELECTRAConfig.tiny()
    whole = ELECTRA(config)
    tokens, label = torch.randint(4, 512, (3, 9)), torch.full((3, 9), -100)
    label[:, 4] = torch.randint(4, 512, (3,))
    batch = dict(tokens=tokens, token_label=label)
    together, losses = whole(tokens, original=label), whole.loss(batch)
    close(together.token_logits, whole(tokens).token_logits[label != -100])
    close(losses["mlm"], torch.nn.functional.cross_entropy(together.token_logits, label[label != -100]))
    said, replaced = whole(together.corrupted).replaced_logits, together.replaced.float()
    close(together.replaced_logits, said)
    close(losses["rtd"], 50 * torch.nn.functional.binary_cross_entropy_with_logits(said, replaced))
