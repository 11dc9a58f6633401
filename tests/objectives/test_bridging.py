"""Who sees whom between queries, words and pictures, and how alike queries and texts are."""

import math

import pytest
import torch
import torch.nn.functional as F
from testing_tools import close, refused, seeded

from mmlearn.objectives import causal_language_modelling, info_nce, response_language_modelling
from mmlearn.objectives.bridging import last_image_mask, query_text_contrast, query_text_mask, query_text_similarity


def unit(*shape):
    return F.normalize(torch.randn(*shape, generator=seeded(sum(shape))), dim=-1)


# The three masks of a Q-Former.


@pytest.mark.parametrize("task", ["contrast", "matching", "writing"])
def test_masks_as_the_figure_draws_them(task):
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    sees = query_text_mask(task, 2, mask)
    for row, real in zip(sees, mask):
        for i in range(6):
            for j in range(6):
                there = j < 2 or bool(real[j - 2])
                expected = {"contrast": (i < 2) == (j < 2), "matching": True, "writing": j < 2 or (i >= 2 and j <= i)}[
                    task
                ]
                assert bool(row[i, j]) == (there and expected), (i, j)


@pytest.mark.parametrize("task", ["contrast", "writing"])
def test_queries_never_see_the_text_that_they_are_to_find_or_to_help_write(task):
    assert not query_text_mask(task, 3, torch.ones(2, 5, dtype=torch.bool))[:, :3, 3:].any()


def test_an_unknown_task_is_told():
    refused("contrast, matching or writing, not for 'both'", query_text_mask, "both", 2, torch.ones(1, 3) > 0)


# Contrast of queries.


def test_similarity_is_that_of_the_best_query_in_any_order():
    queries, texts = unit(4, 3, 8), unit(5, 8)
    found = query_text_similarity(queries, texts)
    for i in range(4):
        for j in range(5):
            close(found[i, j], max(queries[i, q] @ texts[j] for q in range(3)))
    assert torch.equal(query_text_similarity(queries.flip(1), texts), found)


@pytest.mark.parametrize("repeated", [False, True])
def test_one_query_without_smoothing_is_info_nce(repeated):
    queries, texts, scale = unit(6, 1, 8), unit(6, 8), torch.tensor(7.0)
    positives = torch.eye(6, dtype=torch.bool)
    if repeated:
        positives[1, 4] = positives[4, 1] = True
    got = query_text_contrast(queries, texts, scale, positives, label_smoothing=0.0)
    close(got, info_nce(queries[:, 0], texts, scale, positives))


def test_contrast_at_its_ends():
    positives = torch.eye(5, dtype=torch.bool)
    same = F.normalize(torch.ones(5, 8), dim=-1)
    close(query_text_contrast(same[:, None].expand(5, 3, 8), same, 9.0, positives), torch.tensor(math.log(5)))
    apart = torch.eye(5)
    found = query_text_contrast(apart[:, None], apart, 1000.0, positives, label_smoothing=0.0)
    close(found, torch.tensor(0.0))


def test_smoothing_as_torch_has_it():
    queries, texts, positives = unit(6, 2, 8), unit(6, 8), torch.eye(6, dtype=torch.bool)
    logits, label = 5 * query_text_similarity(queries, texts), torch.arange(6)
    expected = sum(F.cross_entropy(each, label, label_smoothing=0.1) for each in (logits, logits.T)) / 2
    close(query_text_contrast(queries, texts, 5.0, positives), expected)


def test_the_losses_of_all_rows_are_those_of_their_parts():
    queries, texts, positives = unit(6, 2, 8), unit(6, 8), torch.eye(6, dtype=torch.bool)
    whole = query_text_contrast(queries, texts, 5.0, positives)
    parts = [query_text_contrast(queries, texts, 5.0, positives[rows], rows) for rows in (slice(0, 3), slice(3, 6))]
    close(sum(parts) / 2, whole)


# Pictures among words.


def test_a_token_sees_the_last_image_before_it_and_no_other():
    before = torch.tensor([[0, 0, 1, 1, 2, 3], [1, 2, 2, 2, 2, 2]])
    sees = last_image_mask(before, images=3, each=2)
    assert sees.shape == (2, 6, 6)
    for row, seen in zip(before, sees):
        for count, own in zip(row.tolist(), seen):
            assert own.nonzero().flatten().tolist() == ([] if count == 0 else [2 * count - 2, 2 * count - 1])


# Responses alone.


def text():
    logits, tokens = torch.randn(3, 7, 11, generator=seeded()), torch.randint(11, (3, 7), generator=seeded())
    return logits.requires_grad_(), tokens, torch.arange(7) < torch.tensor([7, 5, 3])[:, None]


def test_where_all_is_a_response_it_is_causal():
    logits, tokens, mask = text()
    whole = torch.ones_like(mask)
    close(response_language_modelling(logits, tokens, whole, mask), causal_language_modelling(logits, tokens, mask))


def test_what_was_asked_is_not_predicted_and_conversations_have_several_responses():
    logits, tokens, mask = text()
    response = torch.tensor([False, False, True, True, False, False, True]).expand(3, 7)
    loss = response_language_modelling(logits, tokens, response, mask)
    asked = (response & mask)[:, 1:]
    close(loss, F.cross_entropy(logits[:, :-1][asked], tokens[:, 1:][asked]))
    loss.backward()
    assert not logits.grad[:, :-1][~asked].any()
    assert logits.grad[:, :-1][asked].abs().sum(-1).min() > 0
    close(response_language_modelling(logits, tokens, torch.zeros_like(mask), mask), torch.tensor(0.0))
