"""Drawing from words: three terms, texts in between, conditions, and scores of words and regions, by hand."""

import math

import numpy as np
import torch
from testing_tools import close, seeded

from mmlearn.objectives.drawing import (
    conditioning_augmentation,
    damsm,
    interpolate_texts,
    joint_discrimination,
    matching_aware_discrimination,
    matching_aware_generation,
    other_captions,
    standard_normal_divergence,
    word_attention,
    word_region_scores,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed))


def test_three_terms():
    real, wrong, made = (normal(40, seed=i) for i in range(3))
    log = lambda x: torch.log(torch.sigmoid(x).double()).mean().float()  # noqa: E731
    by_hand = -log(real) - log(-wrong) / 2 - log(-made) / 2
    close(matching_aware_discrimination(real, wrong, made), by_hand)
    close(matching_aware_discrimination(*torch.zeros(3, 5)), torch.tensor(2 * math.log(2)))
    close(matching_aware_generation(made), -log(made))
    close(matching_aware_generation(made, real), -log(made) - log(real))


def test_rows_without_a_wrong_text_do_not_count():
    real, wrong, made = (normal(6, seed=i) for i in range(3))
    some = torch.tensor([True, False, True, True, False, True])
    spoilt = torch.where(some, wrong, 1e4)
    soft = torch.nn.functional.softplus
    by_hand = soft(-real).mean() + (soft(wrong[some]).mean() + soft(made).mean()) / 2
    close(matching_aware_discrimination(real, spoilt, made, some), by_hand)
    none = matching_aware_discrimination(real, wrong, made, torch.zeros(6, dtype=torch.bool))
    close(none, torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(made).mean() / 2)


def test_what_is_to_be_high_and_what_is_to_be_low_have_a_mean_each():
    high, low, wrong = (normal(6, seed=0), normal(6, seed=1)), (normal(6, seed=2), normal(6, seed=3)), normal(6, seed=4)
    soft = torch.nn.functional.softplus
    by_hand = (soft(-high[0]) + soft(-high[1])).mean() / 2
    close(joint_discrimination(high, low), by_hand + (soft(low[0]) + soft(low[1])).mean() / 2)
    some = torch.tensor([True, False, True, True, False, True])
    three = soft(low[0]).mean() + soft(low[1]).mean() + soft(wrong[some]).mean()
    close(joint_discrimination(high, low, wrong, some), by_hand + three / 3)
    nothing = torch.zeros(2, 5)
    close(joint_discrimination(tuple(nothing), tuple(nothing), nothing[0]), torch.tensor(2 * math.log(2)))


def test_who_wins_outright_has_finite_losses_and_gradients():
    scores = [torch.full((4,), value, requires_grad=True) for value in (1e6, -1e6, -1e6)]
    won = matching_aware_discrimination(*scores)
    lost = matching_aware_generation(scores[2])
    (won + lost).backward()
    assert won == 0
    assert lost.isfinite()
    assert all(score.grad.isfinite().all() for score in scores)
    assert (scores[2].grad < 0).all()  # and the generator still knows which way is up


def test_a_wrong_text_is_another_one():
    for seed in range(20):
        ids = torch.randint(0, 3, (9,), generator=seeded(seed))
        other, differs = other_captions(ids)
        assert torch.equal(differs, (ids[:, None] != ids).any(1))
        assert (ids[other] != ids)[differs].all()
        for i in range(9):  # the next in the circle
            wanted = next((j % 9 for j in range(i + 1, i + 9) if ids[j % 9] != ids[i]), i)
            assert other[i] == wanted
    alone, differs = other_captions(torch.tensor([4, 4]))
    assert alone.tolist() == [0, 1]
    assert not differs.any()


def test_texts_in_between():
    one, other = normal(3, 5), normal(3, 5, seed=1)
    assert torch.equal(interpolate_texts(one, other, 1.0), one)
    assert torch.equal(interpolate_texts(one, other, 0.0), other)
    close(interpolate_texts(one, other), (one + other) / 2)
    close(interpolate_texts(one, other, 0.25), 0.25 * one + 0.75 * other)


def test_conditions_have_their_mean_and_variance():
    mean, log_variance = normal(1, 3), normal(1, 3, seed=1)
    assert torch.equal(conditioning_augmentation(mean, log_variance, torch.zeros(1, 3)), mean)
    many = conditioning_augmentation(*(x.expand(20_000, 3) for x in (mean, log_variance)), normal(20_000, 3, seed=2))
    close(many.mean(0), mean[0], 0.05)
    close(many.var(0).log(), log_variance[0], 0.05)


def test_the_divergence_is_pytorchs():
    mean, log_variance = normal(7, 4), normal(7, 4, seed=1)
    given = torch.distributions.Normal(mean, (log_variance / 2).exp())
    standard = torch.distributions.Normal(torch.zeros(7, 4), torch.ones(7, 4))
    close(
        standard_normal_divergence(mean, log_variance), torch.distributions.kl_divergence(given, standard).sum(1).mean()
    )
    assert standard_normal_divergence(torch.zeros(2, 3), torch.zeros(2, 3)) == 0


def texts(seed=0):
    words, mask = normal(3, 4, 6, seed=seed), torch.arange(4) < torch.tensor([[4], [2], [3]])
    return words, mask


def test_each_position_takes_a_mixture_of_real_words():
    queries, (words, mask) = normal(3, 5, 6, seed=3), texts()
    taken, weights = word_attention(queries, words, mask)
    for b in range(3):
        t = int(mask[b].sum())
        by_hand = (queries[b] @ words[b, :t].T).softmax(-1)
        close(weights[b, :, :t], by_hand)
        assert not weights[b, :, t:].any()
        close(taken[b], by_hand @ words[b, :t])
    spoilt = words.masked_fill(~mask[..., None], torch.nan)
    assert torch.equal(word_attention(queries, spoilt.nan_to_num(7.0), mask)[0], taken)
    assert not word_attention(queries, words, torch.zeros_like(mask))[0].any()


def by_numpy(regions, words, gamma_1, gamma_2):
    """R of one picture and one text, as equations 7 to 10 of AttnGAN say, in loops."""
    s = words @ regions.T
    normed = np.exp(s) / np.exp(s).sum(0, keepdims=True)
    total = 0.0
    for i in range(len(words)):
        alpha = np.exp(gamma_1 * normed[i]) / np.exp(gamma_1 * normed[i]).sum()
        c = (alpha[:, None] * regions).sum(0)
        total += np.exp(gamma_2 * (c @ words[i]) / np.linalg.norm(c) / np.linalg.norm(words[i]))
    return np.log(total) / gamma_2


def test_scores_of_words_and_regions_by_hand():
    regions, (words, mask) = normal(3, 5, 6, seed=4), texts()
    scores, weights = word_region_scores(regions, words, mask, (4.0, 3.0))
    for i in range(3):
        for j in range(3):
            real = words[j, : mask[j].sum()].double().numpy()
            assert math.isclose(scores[i, j], by_numpy(regions[i].double().numpy(), real, 4.0, 3.0), rel_tol=1e-4)
    close(weights.sum(-1), torch.ones(3, 3, 4))
    spoilt = words + 9 * ~mask[..., None]
    assert torch.equal(word_region_scores(regions, spoilt, mask, (4.0, 3.0))[0], scores)


def test_damsm_goes_both_ways():
    regions, image, sentence, (words, mask) = (
        normal(3, 5, 6, seed=4),
        normal(3, 6, seed=5),
        normal(3, 6, seed=6),
        texts(),
    )
    losses = damsm(regions, image, words, sentence, mask, sharpness=(4.0, 3.0, 7.0))
    cosine = torch.cosine_similarity(image[:, None], sentence, dim=-1)
    for name, scores in {"words": word_region_scores(regions, words, mask, (4.0, 3.0))[0], "sentence": cosine}.items():
        ways = [-(7 * way).log_softmax(1).diagonal().mean() for way in (scores, scores.T)]
        assert abs(ways[0] - ways[1]) > 1e-3  # so that one way alone would be seen
        close(losses[name], sum(ways) / 2)


def test_without_the_root_scores_of_words_are_sharper():
    parts = normal(3, 5, 6, seed=4), normal(3, 6, seed=5), texts()[0], normal(3, 6, seed=6), texts()[1]
    found, rooted = damsm(*parts, root=False), damsm(*parts)
    close(found["sentence"], rooted["sentence"])
    close(found["words"], damsm(*parts, sharpness=(5.0, 5.0, 50.0))["words"])


def test_equal_captions_are_no_wrong_answers():
    regions, image, sentence, (words, mask) = (
        normal(3, 5, 6, seed=4),
        normal(3, 6, seed=5),
        normal(3, 6, seed=6),
        texts(),
    )
    same = [x[[0, 0]] for x in (regions, image, words, sentence, mask)]
    close(damsm(*same, torch.ones(2, 2, dtype=torch.bool))["words"], torch.tensor(math.log(2)))
    alone = damsm(*(x[:1] for x in (regions, image, words, sentence, mask)))
    assert alone == {"words": 0, "sentence": 0}


def test_a_text_without_words_is_finite():
    regions, (words, mask) = normal(3, 5, 6, seed=4), texts()
    mask[1] = False
    losses = damsm(regions, normal(3, 6), words, normal(3, 6, seed=1), mask)
    assert all(loss.isfinite() for loss in losses.values())
