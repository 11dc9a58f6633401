"""ViLT equals Transformers' ViltModel and its heads: states, logits, losses, gradients, and other sizes of pictures."""

import pytest
import torch
from published import TEXTS, to_guess
from testing_tools import close
from transformers import (
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
    ViltModel,
)

IMAGES = {"odd": (15, 5), "relu": (22, 4), "batch of one": (8, 8)}  # sizes of pictures and patches
CASES = {name: TEXTS[name] | dict(zip(("image_size", "patch_size"), image)) for name, image in IMAGES.items()}


@pytest.fixture(autouse=True)
def patches_in_order(monkeypatch):
    """Transformers shuffles patches, which changes their order and nothing else; here it draws them in order."""
    monkeypatch.setattr(
        torch, "multinomial", lambda weights, count, replacement=False: torch.arange(count) % len(weights)
    )


def inputs(case, padded=True, **changes):
    """A configuration, and what both models read, under the names of ours."""
    case = dict(CASES[case])
    batch, length, size = case.pop("batch"), case["max_position_embeddings"], case["image_size"]
    config = ViltConfig(**case, pad_token_id=0, **changes)
    tokens = torch.randint(case["vocab_size"], (batch, length))
    return config, {
        "tokens": tokens,
        "image": torch.randn(batch, 3, size, size),
        "mask": torch.arange(length) <= torch.arange(batch)[:, None] + (2 if padded else length),
        "token_type": torch.randint(2, (batch, length)),
    }


def theirs(ours):
    """The same under the names of theirs."""
    names = {"tokens": "input_ids", "image": "pixel_values", "token_type": "token_type_ids"}
    named = {names[name]: ours[name] for name in names}
    masks = {"mask": "attention_mask", "pixel_mask": "pixel_mask"}
    return named | {masks[name]: ours[name].long() for name in masks if name in ours}


def close_where_real(given, output, expected):
    """Words first, then patches, all of which are real."""
    real = torch.nn.functional.pad(given["mask"], (0, output.patches.shape[1]), value=True)
    close(torch.cat([output.tokens, output.patches], dim=1)[real], expected.last_hidden_state[real])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_masked_language_model(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, padded)
    published, ours = twins(ViltForMaskedLM(config))
    real = given["mask"]
    label = to_guess(given["tokens"], real)
    expected = published(**theirs(given), labels=label)
    close(ours.token_logits(ours(**given).tokens)[real], expected.logits[real])
    loss = ours.loss(given | {"token_label": label})["mlm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("case", CASES)
def test_question_answering(case, twins, assert_same_gradients):
    config, given = inputs(case, num_labels=7)
    published, ours = twins(ViltForQuestionAnswering(config))
    answer = torch.rand(len(given["tokens"]), 7)
    expected = published(**theirs(given), labels=answer)
    close(ours(**given).answer_logits, expected.logits)
    loss = ours.loss(given | {"answer": answer})["vqa"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


def test_retrieval(twins, assert_same_gradients):
    config, given = inputs("odd")
    published, ours = twins(ViltForImageAndTextRetrieval(config))
    logits, score = ours(**given).match_logits, published(**theirs(given)).logits[:, 0]
    close(logits[:, 1] - logits[:, 0], score)
    assert_same_gradients(published, ours, logits[:, 1].square().sum(), score.square().sum())


@pytest.mark.parametrize("case", CASES)
def test_states(case, twins):
    config, given = inputs(case)
    published, ours = twins(ViltModel(config))
    expected, output = published(**theirs(given)), ours(**given)
    close_where_real(given, output, expected)
    close(output.pooled, expected.pooler_output)
    assert output.match_logits is output.answer_logits is None


@pytest.mark.parametrize("size", [(15, 20), (29, 10), (5, 5)])
def test_images_of_another_size(size, twins, assert_same_gradients):
    config, given = inputs("odd")
    given["image"] = torch.randn(3, 3, *size)
    given["pixel_mask"] = torch.ones(3, *size, dtype=torch.bool)
    published, ours = twins(ViltModel(config))
    expected, output = published(**theirs(given)), ours(**given)
    close_where_real(given, output, expected)
    without = {name: value for name, value in given.items() if name != "pixel_mask"}
    close(ours(**without).patches, output.patches)
    assert_same_gradients(published, ours, output.pooled.square().sum(), expected.pooler_output.square().sum())


def test_padded_images(twins, assert_same_gradients):
    """Sizes differ within the batch; the first patches of theirs are the real ones, and the rest padding."""
    config, given = inputs("odd")
    sizes = [(15, 23), (20, 10), (7, 15)]
    given["image"] = torch.randn(3, 3, 20, 23)
    given["pixel_mask"] = torch.zeros(3, 20, 23, dtype=torch.bool)
    for mask, (height, width) in zip(given["pixel_mask"], sizes):
        mask[:height, :width] = True
    published, ours = twins(ViltModel(config))
    expected, output = published(**theirs(given)), ours(**given)
    length = given["tokens"].shape[1]
    real = given["mask"]
    close(output.tokens[real], expected.last_hidden_state[:, :length][real])
    for row, mask, states in zip(output.patches, output.patch_mask, expected.last_hidden_state[:, length:]):
        close(row[mask], states[: mask.sum()])
    assert_same_gradients(published, ours, output.pooled.square().sum(), expected.pooler_output.square().sum())


def test_a_head_with_its_own_table(twins):
    """As the official code has it: the decoder is then in the file."""
    config, given = inputs("odd")
    published = ViltForMaskedLM(config)
    published.mlm_score.decoder.weight = torch.nn.Parameter(torch.randn(99, 24))
    published._tied_weights_keys = published.all_tied_weights_keys = {}
    published, ours = twins(published)
    assert not ours.config.tied
    real = given["mask"]
    close(ours.token_logits(ours(**given).tokens)[real], published(**theirs(given)).logits[real])


def test_heads_that_are_not_built_here_are_named(twins):
    config, _ = inputs("odd", num_images=2, modality_type_vocab_size=3)
    with pytest.raises(ValueError, match=r"modality_type_vocab_size = 3 .* is not built here, only 2"):
        twins(ViltForImagesAndTextClassification(config))
