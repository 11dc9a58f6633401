"""Measures on toy systems that know all, nothing, or the picture alone; and chance worked out by hand."""

import dataclasses
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from testing_tools import close
from torch import nn

from mmlearn.data import Tokenizer, load
from mmlearn.data.fields import (
    Answers,
    Image,
    Labels,
    PollutedTriples,
    Regions,
    SpanCorruption,
    SwappedSegments,
    Tokens,
    Waveform,
)
from mmlearn.data.synthetic.questions import Question
from mmlearn.evaluation import measures as of
from mmlearn.evaluation import modality_gap, occlude, pair_alignment, pointing_chance, retrieval, uniformity
from mmlearn.evaluation.captions import cider_d, rouge_l
from mmlearn.layers.config import Config
from mmlearn.recipes import MRM, VQA, Objective, Recipe, ln
from mmlearn.training.runs import Run

COLOURS = ("red", "blue", "green", "pink")
RAW = Image((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
TOKENIZER = Tokenizer.train([f"a {colour} ball" for colour in COLOURS] * 9, vocab_size=400, max_length=12)
WORDS = [TOKENIZER([f"a {colour} ball"])[0][0, 2].item() for colour in COLOURS]  # each colour is one token


@dataclasses.dataclass(frozen=True)
class Classes(Config):
    region_classes: int = 144


class Toy(nn.Module):
    """A system that knows how many hundredths bright a picture is, and which colour a text names."""

    config = Config()

    def __init__(self, **methods):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.modes = set()
        vars(self).update(methods)

    def forward(self, image, tokens, mask):
        self.modes.add((self.training, torch.is_grad_enabled()))
        return SimpleNamespace(**self.says(bright(image), tokens))


def bright(image):
    return (image.mean((1, 2, 3)) * 100).round().long()


def named(tokens):
    return (tokens[:, :, None] == torch.tensor(WORDS)).any(1).int().argmax(-1)


def spread(vectors, tokens):
    """The same vector for so many tokens, or by itself for none."""
    return vectors[:, None].expand(-1, tokens, -1) if tokens else vectors


def run_of(system, *fields, learns=None):
    recipe = Recipe(Toy, Config, fields or (RAW, Tokens(TOKENIZER)), learns or Objective("toy"))
    known = {field: field for field in recipe.reads} | {Answers(): Answers(("no", "yes", "two"))}
    return Run("toy", recipe, system, known, recipe.stage(), tuple(recipe.stage().objectives()))


def balls(numbers, images=None):
    """Captions of these colours, each beside a picture so bright, or as bright as its colour's number."""
    return [
        SimpleNamespace(image=torch.full((3, 8, 8), image / 100), caption=f"a {COLOURS[number]} ball")
        for number, image in zip(numbers, numbers if images is None else images)
    ]


def random_numbers(n, most=4):
    return torch.randint(most, (n,)).tolist()


# Two modalities in one space.


@pytest.mark.parametrize("tokenwise", [False, True])
def test_retrieval_is_that_of_different_images_and_texts(tokenwise):
    """Against the similarities of all pictures and texts, and chance by counting in how many ways a query misses."""
    numbers, images = [0, 1, 2, 3, 1, 0, 2], [5, 6, 7, 5, 6, 8, 9]
    table = nn.functional.normalize(torch.randn(2, 10, 6), dim=-1)
    system = Toy(
        encode_image=lambda image: spread(table[0, bright(image)], tokenwise * 3),
        encode_text=lambda tokens, mask: spread(table[1, named(tokens)], tokenwise * mask.shape[1]),
    )
    rows = of.retrieval("image", "text")(run_of(system.train()), balls(numbers, images))
    assert system.training
    shown, said = [5, 6, 7, 8, 9], [0, 1, 2, 3]
    positives = torch.tensor([[(p, n) in {*zip(images, numbers)} for n in said] for p in shown])
    similarity = table[0, shown] @ table[1, said].T
    expected = retrieval(similarity, positives=positives)
    for name, right in (("image to text", positives), ("text to image", positives.T)):
        m = right.shape[1]
        for k in (1, 5, 10):
            got = rows.pop(f"{name} R@{k} of {m}")
            assert got["obtained"] == pytest.approx(expected[f"{name.replace(' ', '_')}_R@{k}"], abs=1e-6)
            missed = [math.comb(m - r, k) / math.comb(m, k) if k <= m else 0 for r in right.sum(1).tolist()]
            assert got["chance"] == pytest.approx(1 - sum(missed) / len(missed), abs=1e-6)
        ranks = sorted((m + 1) / (r + 1) for r in right.sum(1).tolist())  # the mean first place of r among m
        median = (ranks[(len(ranks) - 1) // 2] + ranks[len(ranks) // 2]) / 2
        assert rows.pop(f"{name} median rank")["chance"] == pytest.approx(median, abs=1e-5)
    image, text = table[0, shown], table[1, said]
    partner = text[[row.index(True) for row in positives.tolist()]]
    space = {
        "modality gap, image and text": (modality_gap(image, partner), None),
        "alignment of pairs, image and text": (pair_alignment(image, partner), 2.0),
        "uniformity of images": (uniformity(image), None),
        "uniformity of texts": (uniformity(text), None),
    }
    found = {name: (pytest.approx(row["obtained"], abs=1e-5), row["chance"]) for name, row in rows.items()}
    assert found == ({} if tokenwise else space)


def test_where_a_system_can_match_the_likely_ones_are_ranked_again():
    """By match alone, yes against no, where there are no more candidates than it looks at."""
    numbers = [0, 1, 2, 3, 1]

    def ones(tokens):
        return torch.ones(len(tokens), 3)

    def match(image, tokens, mask):
        fits = (bright(image) == named(tokens)).float()
        return torch.stack([5 - fits, 5 + fits], 1)

    rows = of.retrieval("image", "text")(
        run_of(Toy(encode_image=lambda image: ones(image), encode_text=ones, match=match)), balls(numbers)
    )
    for name in ("image to text", "text to image"):
        assert rows[f"{name} R@1 of 4"] == {"obtained": 0.25, "chance": 0.25}
        assert rows[f"{name} R@1 of 4, re-ranked"] == {"obtained": 1, "chance": 0.25}
        assert rows[f"{name} median rank, re-ranked"] == {"obtained": 1, "chance": 2.5}


def test_sounds_find_texts():
    samples = [SimpleNamespace(waveform=torch.full((800,), i / 9), caption=f"a {name} ball")
               for i, name in enumerate(COLOURS)]  # fmt: skip
    system = Toy(
        encode_audio=lambda waveform: torch.eye(4)[(waveform[:, 0] * 9).round().long()],
        encode_text=lambda tokens, mask: torch.eye(4)[named(tokens)],
    )
    rows = of.retrieval("audio", "text")(run_of(system, Waveform(standard=False), Tokens(TOKENIZER)), samples)
    assert rows["audio to text R@1 of 4"] == rows["text to audio R@1 of 4"] == {"obtained": 1, "chance": 0.25}


@pytest.mark.parametrize("measure", [of.retrieval("image", "text"), of.matching_accuracy])
def test_one_caption_is_nothing_to_choose_from(measure):
    with pytest.raises(ValueError, match="needs at least two different captions, and these samples have one"):
        measure(run_of(Toy()), balls([1, 1, 1], [1, 2, 3]))


# Words and their positions.


@pytest.fixture(scope="module")
def scenes():
    return load("scenes", "val", size=32).__getitems__(range(20))


def scenes_run(scenes, **methods):
    tokenizer = Tokenizer.train([scene.caption for scene in scenes], vocab_size=400, max_length=40)
    system = Toy(**methods, image_encoder=SimpleNamespace(embedding=SimpleNamespace(grid=(8, 8))))
    return run_of(system, Image((0.3, 0.3, 0.3), (0.2, 0.2, 0.2)), Tokens(tokenizer))


def test_maps_that_know_the_regions_point_and_others_are_at_chance(scenes):
    run, seen = scenes_run(scenes), []

    def knows(run, batch, mentions):
        seen.append((run.system.training, torch.is_grad_enabled(), pointing_chance(mentions.region)))
        return mentions.region

    rows = of.pointing(knows)(run, scenes)
    blind = of.pointing(lambda run, batch, mentions: torch.zeros_like(mentions.region))(run, scenes)
    ((training, gradient, chance),) = seen
    assert not training
    assert not gradient
    assert rows == {"pointing accuracy": {"obtained": 1, "chance": pytest.approx(chance)}}
    assert blind["pointing accuracy"]["obtained"] == pytest.approx(chance)
    assert of.pointing(lambda run, batch, mentions: None)(run, scenes) == {}


@pytest.mark.parametrize("tokenwise", [False, True])
def test_hiding_costs_what_the_pixels_were_worth(scenes, tokenwise):
    """The similarity is the mean of the normalised red channel, and on the ground there is hardly any."""
    run = scenes_run(
        scenes,
        encode_image=lambda image: spread(image.mean((2, 3)), tokenwise * 2),
        encode_text=lambda tokens, mask: spread(torch.eye(3)[:1].expand(len(tokens), 3), tokenwise * mask.shape[1]),
    )
    rows, image = of.occlusion(run, scenes), torch.stack([scene.image for scene in scenes])
    masks = {"what the caption names": [scene.masks[scene.links[0].object] for scene in scenes]}
    others = [min(set(range(9)) - {link.object for link in scene.links}) for scene in scenes]
    masks["another object"] = [scene.masks[i] for scene, i in zip(scenes, others)]
    ground = rows.pop("similarity lost by hiding the ground")["obtained"]
    for name, mask in masks.items():
        fall = (image - occlude(image, torch.stack(mask)))[:, 0].mean() / 0.2
        row = rows.pop(f"similarity lost by hiding {name}")
        assert row == {"obtained": pytest.approx(fall.item(), abs=1e-5), "chance": 0.0}
        assert abs(fall) > 5 * abs(ground)
    assert list(rows) == ["similarity lost by hiding a random patch"]


def test_where_no_word_is_linked_nothing_points():
    assert of.occlusion(run_of(Toy()), balls([1, 2])) == {}
    assert of.pointing(lambda *given: given)(run_of(Toy()), balls([1, 2])) == {}


# Picture and text read together. There are more samples than are read at a time.


@pytest.mark.parametrize("knows", [False, True])
def test_matching_by_one_that_knows_and_one_that_always_says_yes(knows):
    def says(number, tokens):
        return {"match_logits": torch.eye(2)[(number == named(tokens)).long() if knows else torch.ones_like(number)]}

    system = Toy(says=says).train()
    rows = of.matching_accuracy(run_of(system), balls(random_numbers(100)))
    assert system.training
    assert system.modes == {(False, False)}
    obtained = [1, 1, 1] if knows else [0.5, 1, 0]
    names = ["matching accuracy", "matching accuracy, true pairs", "matching accuracy, wrong pairs"]
    assert rows == {name: {"obtained": value, "chance": 0.5} for name, value in zip(names, obtained)}


@pytest.mark.parametrize("by_position", [False, True])
def test_masked_words_that_the_image_tells(by_position):
    """Whether a system gives logits at all positions, or on being asked for some."""
    logits, numbers = nn.functional.one_hot(torch.tensor(WORDS), 400).float(), random_numbers(100)

    def says(number, tokens):
        each = logits[number][:, None].expand(-1, tokens.shape[1], -1)
        return {"token_logits": each} if by_position else {"token_logits": None, "tokens": each + 7}

    system = Toy(says=says, token_logits=lambda tokens: tokens - 7)
    rows = of.masked_word_accuracy(run_of(system, RAW, Tokens(TOKENIZER, maskable=COLOURS)), balls(numbers))
    chance = pytest.approx(max(Counter(numbers).values()) / 100)
    neighbours = sum(one == other for one, other in zip(numbers, [*numbers[-1:], *numbers])) / 100
    assert rows == {
        "masked-word accuracy": {"obtained": 1, "chance": chance},
        "masked-word accuracy, another picture": {"obtained": pytest.approx(neighbours), "chance": chance},
    }
    text = Toy(token_logits=system.token_logits)
    text.forward = lambda tokens: SimpleNamespace(**says(torch.zeros(len(tokens)).long(), tokens))
    rows = of.masked_word_accuracy(run_of(text, Tokens(TOKENIZER, maskable=COLOURS)), balls(numbers))
    share = pytest.approx(numbers.count(0) / 100)
    assert rows == {"masked-word accuracy": {"obtained": share, "chance": chance}}


def test_next_words_are_those_behind_each():
    """A system that only knows which token came before never guesses the colour but by luck."""
    numbers = random_numbers(100)
    tokens = TOKENIZER([f"a {COLOURS[number]} ball" for number in numbers])[0]
    length = int((tokens[0] != 0).sum())
    follows = torch.zeros(400).long()
    follows[tokens[:, : length - 1]] = tokens[:, 1:length]
    follows[tokens[0, 1]] = WORDS[2]
    says = Toy(says=lambda number, tokens: {"token_logits": nn.functional.one_hot(follows[tokens], 400).float()})
    (row,) = of.next_token_accuracy(run_of(says), balls(numbers)).values()
    hard = (length - 2 + numbers.count(2) / 100) / (length - 1)
    assert row["obtained"] == pytest.approx(hard)
    assert row["chance"] == pytest.approx(1 / (length - 1))  # "ball", as any that every caption has


def test_written_captions_beside_their_own_and_beside_the_next_image(monkeypatch):
    """A system that writes the colour of each picture, and one that only writes of scenes what is true."""
    numbers = [*range(4), *random_numbers(40)]
    texts = [f"a {COLOURS[number]} ball" for number in numbers]
    writer = Toy()
    write = lambda self, image, max_length: self.write(image, max_length)  # noqa: E731
    monkeypatch.setattr(Toy, "generate", write, raising=False)
    writer.write = lambda image, most: TOKENIZER([f"a {COLOURS[number]} ball" for number in bright(image)])[0][:, 1:]
    run = run_of(writer)
    assert of.caption_scores(run, balls(numbers)) == {}  # its recipe does not say that it writes
    run = dataclasses.replace(run, recipe=dataclasses.replace(run.recipe, writes=True))
    rows = of.caption_scores(run, balls(numbers))
    next_texts, references = [*texts[1:], texts[0]], [[text] for text in texts]
    assert rows["ROUGE-L of captions"] == {"obtained": 1, "chance": pytest.approx(rouge_l(next_texts, references))}
    assert rows["CIDEr-D of captions"]["chance"] == pytest.approx(cider_d(next_texts, references))
    assert set(rows) == {f"{name} of captions" for name in ("BLEU-4", "ROUGE-L", "CIDEr-D")}
    scenes = [load("scenes", "val", size=32)[i] for i in range(20)]
    field = Tokens(Tokenizer.train([scene.caption for scene in scenes], vocab_size=300, max_length=64))
    run = dataclasses.replace(run, fields={RAW: RAW, run.recipe.reads[1]: field})
    left = [scene.caption for scene in scenes]
    writer.write = lambda image, most: field.tokenizer([left.pop(0) for _ in image])[0][:, 1:]
    row = of.caption_scores(run, scenes)["stated facts that are true"]
    assert row["obtained"] == 1
    assert row["chance"] < 0.5


def test_answers_by_kind_and_beside_another_image():
    answers, kinds = ("no", "yes", "two"), ("exist", "count")
    numbers, samples = random_numbers(90, 3), balls([0] * 90, random_numbers(90, 80))
    for i, (sample, number) in enumerate(zip(samples, numbers)):
        sample.question = Question(kinds[i % 3 == 0], "is there a red ball?", answers[number])
        sample.image = torch.full((3, 8, 8), (i + 1) / 100)
    table = torch.eye(3)[[0, *numbers, *([0] * 9)]]
    objective = run_of(Toy(says=lambda number, tokens: {"answer_logits": table[number]}), learns=VQA)
    rows = of.answer_accuracy(objective, samples)
    for name, chosen in (("accuracy", range(90)), ("accuracy, count", range(0, 90, 3)),
                         ("accuracy, exist", [i for i in range(90) if i % 3])):  # fmt: skip
        of_kind = [[numbers[i] for i in chosen if (i % 3 == 0) == (kind == "count")] for kind in kinds]
        prior = sum(max(Counter(one).values()) for one in of_kind if one) / len(chosen)
        assert rows.pop(f"answer {name}") == {"obtained": 1, "chance": pytest.approx(prior)}
    blind = sum(numbers[i] == numbers[i - 45] for i in range(90)) / 90
    assert rows.pop("answer accuracy, another picture")["obtained"] == pytest.approx(blind)
    assert rows == {}
    assert of.answer_accuracy(objective, balls([1, 2])) == {}


def test_masked_regions_cost_what_the_system_says(scenes):
    seen = []

    def loss(batch):
        seen.append(batch["masked_regions"].sum() / batch["region_mask"].sum())
        return {"mrc": torch.tensor(2.5), "mrfr": torch.tensor(7.0)}

    system = Toy(loss=loss)
    system.config = Classes()
    rows = of.masked_region_losses(run_of(system, Regions(), learns=MRM), scenes)
    assert rows == {
        "masked regions, loss mrc": {"obtained": 2.5, "chance": pytest.approx(math.log(144))},
        "masked regions, loss mrfr": {"obtained": 7, "chance": None},
    }
    assert 0.1 < seen[0] < 0.25


# One of several names.


def test_classes_against_the_commonest():
    numbers = random_numbers(100)
    system = Toy()
    system.forward = lambda image: SimpleNamespace(logits=torch.eye(4)[bright(image).clamp(max=2)])
    names = tuple(f"a {colour} ball" for colour in COLOURS)
    rows = of.class_accuracy("colours told")(run_of(system, RAW, Labels(names=names)), balls(numbers))
    right, common = 1 - numbers.count(3) / 100, max(Counter(numbers).values()) / 100
    assert rows == {"colours told": {"obtained": pytest.approx(right), "chance": pytest.approx(common)}}
    assert of.majority_share(torch.tensor([3, 1, 3, 2])) == 0.5
    assert of.row(torch.tensor(2)) == {"obtained": 2.0, "chance": None}
    close(torch.tensor(ln(4)(Config(), {})), torch.tensor(4.0).log())


class Spoiler(Toy):
    """Knows the true tokens, or says the opposite of what is true."""

    def __init__(self, truth, right):
        super().__init__()
        self.truth, self.right = truth, right

    def forward(self, **given):
        return SimpleNamespace(**self.truth(given, self.right))


def of_rows(system, batch, **labels):
    """A run whose batches are these rows, and whose labels are those."""
    run = SimpleNamespace(system=system, plain=lambda samples: batch, on_device=lambda rows: rows)
    run.label = lambda plain, label: plain | labels
    run.read = lambda rows, take: take(system(**rows), rows)
    run.call = lambda method, rows: method(**rows)
    return run


@pytest.mark.parametrize("right", [True, False])
def test_written_tokens_are_counted_where_they_are_real(right):
    target = torch.tensor([[5, 6, 6, 0], [6, 7, 0, 0]])
    real = target > 0

    def says(given, right):
        guess = target if right else target + 1
        return {"token_logits": torch.nn.functional.one_hot(guess.masked_fill(~real, 3), 9).float()}

    run = of_rows(Spoiler(says, right), {}, target=target, target_mask=real)
    (row,) = of.target_token_accuracy(SpanCorruption())(run, []).values()
    assert row["obtained"] == float(right)
    assert row["chance"] == pytest.approx(3 / 5)  # always 6


@pytest.mark.parametrize("right", [True, False])
def test_segments_are_told(right):
    label = torch.tensor([1, 0, 1, 1])

    def says(given, right):
        return {"order_logits": torch.nn.functional.one_hot(label if right else 1 - label, 2).float()}

    run = of_rows(Spoiler(says, right), {}, order_label=label)
    (row,) = of.segment_accuracy(SwappedSegments(), "order_label", "order_logits")(run, []).values()
    assert (row["obtained"], row["chance"]) == (float(right), 3 / 4)


@pytest.mark.parametrize("right", [True, False])
def test_triples_are_told(right):
    polluted = torch.tensor([2, 0, 1, 0])

    def says(given, right):
        return {"pooled": torch.nn.functional.one_hot(polluted if right else (polluted + 1) % 3, 3).float()}

    run = of_rows(Spoiler(says, right), {}, polluted=polluted)
    run.system.contrast_head = torch.nn.Identity()
    (row,) = of.triple_accuracy(PollutedTriples(words=True))(run, []).values()
    assert (row["obtained"], row["chance"]) == (float(right), 2 / 4)


@pytest.mark.parametrize("right", [True, False])
def test_replaced_words_are_told_among_the_real_ones(right):
    mask = torch.tensor([[True, True, True], [True, False, False]])
    replaced = torch.tensor([[False, True, False], [False, True, True]])  # what is said of padding does not count

    def says(given, right):
        return {"replaced_logits": torch.where(replaced == right, 2.0, -2.0), "replaced": replaced}

    rows = of.replaced_token_accuracy(of_rows(Spoiler(says, right), {"mask": mask}, token_label=replaced.long()), [])
    assert rows["words judged right"]["obtained"] == float(right)
    assert rows["words judged right"]["chance"] == 3 / 4
    assert rows["replaced words found"]["obtained"] == float(right)


@pytest.mark.parametrize("right", [True, False])
def test_shuffled_words_are_told_among_the_others(right):
    mask = torch.tensor([[True, True, True], [True, False, False]])
    shuffled = torch.tensor([[True, True, False], [False, True, True]])  # what is said of padding does not count

    def says(given, right):
        return {"shuffled_logits": torch.where(shuffled == right, 2.0, -2.0)}

    rows = of.shuffled_token_accuracy(of_rows(Spoiler(says, right), {"mask": mask}, shuffled=shuffled), [])
    assert (rows["words judged right"]["obtained"], rows["words judged right"]["chance"]) == (float(right), 1 / 2)
    assert rows["shuffled words found"]["obtained"] == float(right)
    nothing = of_rows(Spoiler(says, right), {"mask": mask}, shuffled=torch.zeros_like(mask))
    assert of.shuffled_token_accuracy(nothing, []).keys() == {"words judged right"}
