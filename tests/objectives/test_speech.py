"""Speech objectives: spans as long and as many as the paper says, distractors that are none of the targets, losses."""

import math

import pytest
import torch
from testing_tools import close, refused, seeded

from mmlearn.objectives.masked import IGNORED
from mmlearn.objectives.speech import (
    code_diversity,
    code_perplexity,
    distractor_contrast,
    mask_spans,
    masked_cluster,
    sample_distractors,
)


def frames(*lengths, longest=None):
    return torch.arange(longest or max(lengths)) < torch.tensor(lengths)[:, None]


def runs(row):
    """Where runs of True begin, and how long they are."""
    padded = [False, *row.tolist(), False]
    starts = [i for i in range(1, len(padded)) if padded[i] and not padded[i - 1]]
    return [(start - 1, padded.index(False, start) - start) for start in starts]


# Spans.


def test_the_paper_s_settings_hide_half_of_a_long_clip():
    """Appendix A: of 15 s about 49 % in spans of 14.7 frames on average, with a median of 10."""
    masked = mask_spans(frames(*[749] * 60), generator=seeded())
    lengths = torch.tensor([length for row in masked for _, length in runs(row)]).float()
    assert masked.float().mean().item() == pytest.approx(0.49, abs=0.01)
    assert lengths.mean().item() == pytest.approx(14.7, abs=0.5)
    assert lengths.median() == 10
    assert lengths.min() == 10


@pytest.mark.parametrize("length", [1, 2, 7, 10])
@pytest.mark.parametrize("probability", [0.0, 0.065, 0.3, 1.0])
def test_spans_are_whole_and_inside_the_clip_and_something_stays(length, probability):
    real = frames(*range(1, 40), longest=50)
    masked = mask_spans(real, probability=probability, length=length, generator=seeded())
    for row, count in zip(masked, range(1, 40)):
        assert all(size >= length for _, size in runs(row))
        assert not row[count:].any()
        assert row[:count].any() == (count > length)
        assert not row[:count].all()


def test_the_number_of_spans_is_right_on_average():
    masked = mask_spans(frames(*[49] * 4000), probability=0.065, length=1, generator=seeded())
    count = masked.sum(1)
    assert set(count.tolist()) == {3, 4}
    assert count.float().mean().item() == pytest.approx(0.065 * 49, abs=0.03)


def test_every_position_that_fits_a_span_is_as_likely():
    masked = mask_spans(frames(*[8] * 8000), probability=0.01, length=3, generator=seeded())
    starts = torch.bincount(torch.tensor([start for row in masked for start, _ in runs(row)]), minlength=8) / 8000
    close(starts, torch.tensor([1 / 6] * 6 + [0.0] * 2), 0.02)


def test_spans_follow_the_generator_alone():
    real = frames(49, 30)
    first = mask_spans(real, generator=seeded())
    assert torch.equal(first, mask_spans(real, generator=seeded()))
    assert not torch.equal(first, mask_spans(real, generator=seeded(1)))
    assert not torch.equal(first[0], mask_spans(frames(49, 49), generator=seeded())[1])
    for wrong in (dict(probability=-0.1), dict(probability=1.1), dict(length=0)):
        with pytest.raises(ValueError, match="probability must be from 0 to 1 and length at least 1 frame, got"):
            mask_spans(real, generator=seeded(), **wrong)


# Distractors.


def test_distractors_are_other_hidden_frames_of_the_clip():
    masked = mask_spans(frames(49, 30, 49), generator=seeded())
    distractor = sample_distractors(masked, 900, generator=seeded())
    assert distractor.shape == (3, 49, 900)
    for row, positions in zip(masked, distractor):
        hidden = set(row.nonzero()[:, 0].tolist())
        for frame in hidden:
            assert set(positions[frame].tolist()) == hidden - {frame}  # so many draws find all of them


def test_distractors_are_drawn_evenly():
    masked = torch.tensor([[True, False, True, True, False, True]])
    distractor = sample_distractors(masked, 30_000, generator=seeded())[0]
    for frame in (0, 2, 3, 5):
        share = torch.bincount(distractor[frame], minlength=6) / 30_000
        close(share, torch.tensor([(position in {0, 2, 3, 5} - {frame}) / 3 for position in range(6)]), 0.015)


def test_clips_without_a_choice_of_distractors():
    """One hidden frame has its own position, which the contrast leaves out; none has anything that can be looked up."""
    masked = torch.tensor([[False, True, False], [False, False, False], [True, False, True]])
    distractor = sample_distractors(masked, 5, generator=seeded())
    assert (distractor[0, 1] == 1).all()
    assert ((distractor >= 0) & (distractor < 3)).all()
    assert (distractor[2, 0] == 2).all()
    assert torch.equal(distractor, sample_distractors(masked, 5, generator=seeded()))
    refused("at least 1 distractor, got count = 0", sample_distractors, masked, 0, generator=seeded())


# The contrast.


def scene(b=2, s=6, k=4, seed=0):
    torch.manual_seed(seed)
    masked = torch.rand(b, s) < 0.7
    masked[0, :2] = True
    return dict(
        context=torch.randn(b, s, 5),
        target=torch.randn(b, s, 5),
        codes=torch.arange(b * s * 2).view(b, s, 2),
        distractor=sample_distractors(masked, k, generator=seeded(seed)),
        masked=masked,
    )


def test_contrast_is_the_equation():
    given = scene()
    given["codes"][0, 1] = given["codes"][0, 0]  # the first two frames sound the same
    given["distractor"][0, 0, 0] = 1
    terms = []
    for i, t in given["masked"].nonzero().tolist():
        others = [
            position
            for position in given["distractor"][i, t].tolist()
            if not torch.equal(given["codes"][i, position], given["codes"][i, t])
        ]
        scores = [
            math.exp(torch.cosine_similarity(given["context"][i, t], given["target"][i, position], dim=0) / 0.2)
            for position in [t, *others]
        ]
        terms.append(-math.log(scores[0] / sum(scores)))
    assert distractor_contrast(**given, temperature=0.2).item() == pytest.approx(sum(terms) / len(terms), abs=1e-5)


def test_contrast_reads_hidden_frames_alone_and_knows_no_length():
    given = scene()
    before = distractor_contrast(**given)
    context = torch.where(given["masked"][..., None], 3 * given["context"], torch.randn(2, 6, 5))
    close(distractor_contrast(**given | {"context": context, "target": 7 * given["target"]}), before)
    assert not torch.allclose(distractor_contrast(**given | {"context": given["context"].flip(1)}), before, atol=1e-3)


def test_contrast_of_a_context_that_knows_nothing_and_of_one_that_knows():
    given = scene(8, 30, 20)
    flat = torch.ones_like(given["context"])
    close(distractor_contrast(**given | {"context": flat, "target": flat}), torch.tensor(math.log(21)))
    assert distractor_contrast(**given | {"context": given["target"]}, temperature=0.01) < 0.01
    costs = [distractor_contrast(**scene(8, 30, 20, seed), temperature=10.0).item() for seed in range(5)]
    assert sum(costs) / 5 == pytest.approx(math.log(21), abs=0.02)


def test_distractors_with_the_target_s_codes_are_no_distractors():
    given = scene(k=5)
    one = given | {"codes": torch.zeros_like(given["codes"])}
    one["context"] = one["context"].requires_grad_()
    loss = distractor_contrast(**one)
    loss.backward()
    assert loss.item() == 0
    assert (one["context"].grad == 0).all()
    half = given | {"codes": given["codes"].clone()}
    half["codes"][..., 0] = 0  # equal in one codebook is not equal
    close(distractor_contrast(**half), distractor_contrast(**given))


@pytest.mark.parametrize("loss", ["contrast", "cluster", "diversity"])
def test_without_hidden_frames_losses_are_0_with_a_gradient(loss):
    x = torch.randn(2, 6, 5, requires_grad=True)
    nothing = torch.zeros(2, 6, dtype=torch.bool)
    if loss == "contrast":
        cost = distractor_contrast(**scene() | {"context": x, "masked": nothing})
    elif loss == "cluster":
        cost = masked_cluster(x, torch.ones(2, 6, dtype=torch.long), nothing)
    else:
        cost = code_diversity(x.softmax(-1)[nothing][:, None])
    cost.backward()
    assert cost.item() == 0
    assert (x.grad == 0).all()


# Codes.


def test_perplexity_counts_entries_in_use():
    used = torch.nn.functional.one_hot(torch.tensor([[0, 1], [3, 1], [5, 1], [0, 1], [3, 1], [5, 1]]), 8).float()
    close(code_perplexity(used), torch.tensor([3.0, 1.0]))
    close(code_diversity(used), torch.tensor((16 - 4) / 16))
    close(code_perplexity(torch.full((3, 2, 8), 1 / 8)), torch.tensor([8.0, 8.0]))
    assert code_diversity(torch.full((3, 2, 8), 1 / 8)).item() == pytest.approx(0, abs=1e-6)


def test_diversity_is_of_the_mean_and_its_gradient_spreads_it():
    """Each frame may be sure of its code, as long as not all have the same."""
    sure = torch.eye(8)[:, None]  # 8 frames, one codebook
    assert code_diversity(sure).item() == pytest.approx(0, abs=1e-6)
    logits = (3 * torch.eye(8)[:2]).repeat(4, 1)[:, None].requires_grad_()
    before = code_diversity(logits.softmax(-1))
    (gradient,) = torch.autograd.grad(before, logits)
    assert (gradient[:, 0, :2].sum(1) > 0).all()  # what all choose becomes rarer
    assert code_diversity((logits - 10 * gradient).softmax(-1)) < before


# Clusters.


def test_clusters_of_hidden_frames_are_guessed():
    torch.manual_seed(0)
    logits, cluster, masked = torch.randn(2, 6, 5), torch.randint(5, (2, 6)), torch.rand(2, 6) < 0.5
    cluster[0, 0], masked[0, 0] = IGNORED, True  # padding
    terms = {True: [], False: []}
    for i in range(2):
        for t in range(6):
            if cluster[i, t] != IGNORED:
                terms[bool(masked[i, t])].append(-logits[i, t].log_softmax(-1)[cluster[i, t]].item())
    hidden, seen = (sum(terms[kind]) / len(terms[kind]) for kind in (True, False))
    assert masked_cluster(logits, cluster, masked).item() == pytest.approx(hidden, abs=1e-5)
    for alpha in (0.0, 0.3):
        expected = alpha * hidden + (1 - alpha) * seen
        assert masked_cluster(logits, cluster, masked, alpha).item() == pytest.approx(expected, abs=1e-5)
    close(masked_cluster(torch.zeros(2, 6, 5), cluster, masked), torch.tensor(math.log(5)))
    refused(r"alpha must be from 0 to 1, got 1\.5", masked_cluster, logits, cluster, masked, 1.5)
