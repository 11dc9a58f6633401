"""Perceiver IO equals Transformers' three: masked words, texts and pictures in classes; latents, losses, gradients."""

import pytest
import torch
from published import to_guess
from testing_tools import close
from transformers import (
    PerceiverConfig,
    PerceiverForImageClassificationFourier,
    PerceiverForMaskedLM,
    PerceiverForSequenceClassification,
)

NAMES = ("num_latents", "d_latents", "d_model", "num_blocks", "num_self_attends_per_block")
HEADS = ("num_self_attention_heads", "num_cross_attention_heads")


def settings(sizes, heads, length, **more):
    more |= dict(vocab_size=50, max_position_embeddings=length, attention_probs_dropout_prob=0.0)
    return dict(zip(NAMES, sizes)) | dict(zip(HEADS, heads)) | more


CASES = {
    "keys and values of their own": settings((5, 24, 16, 1, 2), (3, 2), 11, qk_channels=12, v_channels=24),
    "blocks twice, wide MLPs": settings((7, 16, 24, 2, 2), (4, 8), 16, self_attention_widening_factor=3)
    | dict(cross_attention_widening_factor=2, hidden_act="relu"),
    "one latent, no residual": settings((1, 40, 8, 1, 1), (1, 1), 6, use_query_residual=False),
}


def texts(config, batch, padded):
    length = config.max_position_embeddings
    tokens = torch.randint(config.vocab_size, (batch, length))
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return tokens, mask if padded else torch.ones_like(mask)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_masked_words(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config = PerceiverConfig(**CASES[case])
    published, ours = twins(PerceiverForMaskedLM(config))
    tokens, mask = texts(config, 3, padded)
    label = to_guess(tokens, mask)
    expected = published(tokens, mask.long(), labels=label, output_hidden_states=True)
    output = ours(tokens=tokens, mask=mask)
    close(output.token_logits, expected.logits)
    close(output.latents, expected.hidden_states[-1])
    loss = ours.loss(dict(tokens=tokens, mask=mask, token_label=label))["mlm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("case", CASES)
def test_a_shorter_text_is_asked_for_fewer_words(case, twins):
    config = PerceiverConfig(**CASES[case])
    published, ours = twins(PerceiverForMaskedLM(config))
    tokens = torch.randint(50, (2, 4))
    close(ours(tokens=tokens).token_logits, published(tokens).logits[:, :4])


@pytest.mark.parametrize("case", CASES)
def test_texts_in_classes(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config = PerceiverConfig(**CASES[case], num_labels=3)
    published, ours = twins(PerceiverForSequenceClassification(config))
    tokens, mask = texts(config, 4, True)
    label = torch.arange(4) % 3
    expected = published(tokens, mask.long(), labels=label)
    close(ours(tokens=tokens, mask=mask).logits, expected.logits)
    loss = ours.loss(dict(tokens=tokens, mask=mask, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize(("case", "side"), zip(CASES, [(6, 6), (5, 9), (8, 3)]))
def test_images_in_classes(case, side, twins, assert_same_gradients):
    torch.manual_seed(1)
    changes = dict(num_labels=3, d_model=261, num_cross_attention_heads=1)
    config = PerceiverConfig(**CASES[case] | changes)
    published, ours = twins(PerceiverForImageClassificationFourier(config))
    image, label = torch.randn(3, 3, *side), torch.arange(3)
    expected = published(image, labels=label, output_hidden_states=True)
    output = ours(image=image)
    close(output.logits, expected.logits)
    close(output.latents, expected.hidden_states[-1])
    loss = ours.loss(dict(image=image, label=label))["classification"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)
