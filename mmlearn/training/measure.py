"""What ``mmlearn evaluate`` prints of a system: how well it finds, points, matches, fills gaps, continues and answers.

Measured on pictures that it has not seen; for sounds see :mod:`mmlearn.training.hearing`. What a system learned of
masked regions (mrm) has no measure.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from mmlearn.data import fetch, load
from mmlearn.data.catalogue import asked, held_out
from mmlearn.evaluation import (
    Embeddings,
    embed,
    evaluating,
    find_mentions,
    modality_gap,
    occlusion_check,
    pair_alignment,
    pointing_accuracy,
    pointing_chance,
    prior_guesses,
    random_patches,
    rerank_both_ways,
    similarity,
    uniformity,
    vqa_accuracy,
)
from mmlearn.models.fusion.finetune import PICTURE
from mmlearn.training.feeding import FEEDS, check_data
from mmlearn.training.hearing import SOUND_MEASURES, sound_options
from mmlearn.training.rows import Rows, most_common, ranking_rows
from mmlearn.training.runs import Run

ENDLESS = ("scenes", "scenes-sound", "scenes-video")
SCENES = 256  # pairs of these
FUSED = 256  # pairs, of systems that read picture and text together, and sounds, which take much memory
AGAIN = 16  # candidates of each query that these look at closely


def measure(
    run: Run,
    data: str,
    *,
    split: str | None = None,
    limit: int = 5000,
    language: str | None = None,
    skip_bad: bool = False,
    tell: Callable[[Any], None] = lambda samples: None,
) -> Rows:
    """``{measure: {"obtained": …, "chance": …}}`` of a trained run on held-out data, of what it learned.

    A repeated caption is one text, and fits every picture that has it; a repeated picture or sound is one, and all its
    captions fit it. Systems that read picture and text together see
    256 pairs at most, unless they learned to answer and nothing else; those that hear 256 sounds, unless they tell
    words. ``tell`` is called with the data once read.

    Raises ``ValueError`` and ``FileNotFoundError`` for data that is not there, or lacks what the
    system reads; and ``ValueError`` where nothing that it learned has a measure.
    """
    config = getattr(run.system.config, "image", run.system.config)
    size = getattr(config, "image_size", run.image_size)
    heard = sound_options(run.name, run.system.config)
    options = asked(data, size=size, language=language, skip_bad=skip_bad, **heard)
    samples = load(data, split or held_out(data), **options)
    limit = limit if run.learned in ({"itc"}, {"vqa"}, {"classification"}) else min(limit, FUSED)
    endless = data in ENDLESS
    count = min(limit, SCENES if endless else len(samples))
    pairs = fetch(samples, range(count) if endless else _spread(len(samples), count))
    learned = run.learned if hasattr(pairs[0], "question") else run.learned - {"vqa"} or run.learned
    check_data(run.name, learned, pairs[0])
    tell(samples)
    rows: Rows = {}
    for objective, measures in MEASURES.items():
        if objective in learned:
            rows |= measures(run, pairs)
    if not rows:
        others = " or ".join(name for name in FEEDS[run.name].objectives if name in MEASURES)
        raise ValueError(
            f"{run.name} learned {', '.join(sorted(learned))}, which has no measure: train it on {others} as well."
        )
    return rows


def _spread(length: int, count: int) -> list[int]:
    return torch.linspace(0, length - 1, count).long().unique().tolist()


def _check_captions(samples: Sequence[Any], what: str) -> None:
    if len({sample.caption for sample in samples}) < 2:
        raise ValueError(f"{what} needs at least two different captions, and these pictures have one.")


def retrieval_measures(run: Run, samples: Sequence[Any]) -> Rows:
    """Recall and median rank both ways, and how the two modalities lie in their space.

    Where the system can also ``match``, again after it looked closely at the likely ones. Raises ``ValueError`` for
    fewer than two different captions: there would be nothing to choose from.
    """
    _check_captions(samples, "Retrieval")
    embeddings = embed(run.system, samples, run.pairs())
    both_ways = similarity(embeddings)
    rows = ranking_rows("image", *both_ways, embeddings.positives)
    if hasattr(run.system, "match"):
        score, draw = _match(run, samples, embeddings), torch.Generator().manual_seed(0)
        with evaluating(run.system):
            both_ways = rerank_both_ways(*both_ways, score, AGAIN, generator=draw)
        rows |= ranking_rows("image", *both_ways, embeddings.positives, ", re-ranked")
    if embeddings.image.ndim == 2:
        text = embeddings.text[embeddings.positives.int().argmax(1)]
        rows["modality gap"] = {"obtained": modality_gap(embeddings.image, text), "chance": None}
        rows["alignment of pairs"] = {"obtained": pair_alignment(embeddings.image, text), "chance": 2.0}
        rows["uniformity of pictures"] = {"obtained": uniformity(embeddings.image), "chance": None}
        rows["uniformity of texts"] = {"obtained": uniformity(embeddings.text), "chance": None}
    return rows | alignment_measures(run, samples)


def _match(run: Run, samples: Sequence[Any], embeddings: Embeddings) -> Callable[[Tensor, Tensor], Tensor]:
    """How much better each picture, by its number, fits each caption than it does not."""
    images = run.pairs()([samples[i] for i in embeddings.first])["image"]
    tokens, mask = run.tokenizer(embeddings.captions)

    def score(image: Tensor, text: Tensor) -> Tensor:
        logits = run.system.match(images[image], tokens[text], mask[text])
        return logits[:, 1] - logits[:, 0]

    return score


def alignment_measures(run: Run, samples: Sequence[Any]) -> Rows:
    """Pointing and occlusion, where captions are linked to places; otherwise nothing."""
    if not getattr(samples[0], "links", ()):
        return {}
    rows = {}
    if run.name in PHRASE_MAPS:
        grid = run.system.image_encoder.embedding.grid
        mentions = find_mentions(samples, run.tokenizer, grid)
        with torch.no_grad():
            maps = PHRASE_MAPS[run.name](run, samples, mentions)
        if maps is not None:
            rows["pointing accuracy"] = {
                "obtained": pointing_accuracy(maps, mentions.region),
                "chance": pointing_chance(mentions.region),
            }
    return rows | occlusion(run, samples)


def occlusion(run: Run, samples: Sequence[Any]) -> Rows:
    """How much less similar picture and caption become when something is painted over, with controls."""
    batch = run.pairs()(samples)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (run.mean, run.std))
    with torch.no_grad():
        text = run.system.encode_text(batch["tokens"], batch["mask"])

    def score(image: Tensor) -> Tensor:
        picture = run.system.encode_image((image - mean) / std)
        if picture.ndim == 2:
            return (picture * text).sum(-1)
        cosine = einsum(picture, text, "b p d, b t d -> b t p").amax(-1)
        return (cosine * batch["mask"]).sum(-1) / batch["mask"].sum(-1)

    images = torch.stack([sample.image for sample in samples])
    size = images.shape[-1]
    named = [sample.links[0].object for sample in samples]
    other = [
        next(k for k in range(len(sample.objects)) if k not in [link.object for link in sample.links])
        for sample in samples
    ]
    masks = {
        "what the caption names": torch.stack([sample.masks[k] for sample, k in zip(samples, named)]),
        "another object": torch.stack([sample.masks[k] for sample, k in zip(samples, other)]),
        "a random patch": random_patches(len(samples), (size, size), size // 4, torch.Generator().manual_seed(0)),
        "the ground": torch.stack([_ground(sample) for sample in samples]),
    }
    falls = occlusion_check(score, images, masks)
    return {f"similarity lost by hiding {name}": {"obtained": fall, "chance": 0.0} for name, fall in falls.items()}


def _ground(sample: Any) -> Tensor:
    """A cell of the grid on which nothing stands, whole."""
    size = sample.image.shape[-1]
    cell = size // 4
    free = next(k for k in range(16) if k not in [item.cell for item in sample.objects])
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[free // 4 * cell : (free // 4 + 1) * cell, free % 4 * cell : (free % 4 + 1) * cell] = True
    return mask


def _clip_maps(run: Run, samples: Sequence[Any], mentions) -> Float[Tensor, "n p"] | None:
    """What each patch adds to the similarity with the phrase by itself, which max pooling divides among patches."""
    if run.system.config.pooling != "max":
        return None
    images = run.pairs()(samples)["image"]
    tokens, mask = run.tokenizer([f"a {phrase}" for phrase in mentions.phrase])
    return run.system.contributions(images[mentions.sample], run.system.encode_text(tokens, mask))


def _filip_maps(run: Run, samples: Sequence[Any], mentions) -> Float[Tensor, "n p"]:
    """The cosine of each patch with the last token of the phrase."""
    batch = run.pairs()(samples)
    patches = run.system.encode_image(batch["image"])
    words = run.system.encode_text(batch["tokens"], batch["mask"])
    return mentions.select(einsum(words, patches, "b t d, b p d -> b t p"))


PHRASE_MAPS = {"clip": _clip_maps, "filip": _filip_maps}


# Systems that read picture and text together.


def matching_measures(run: Run, samples: Sequence[Any]) -> Rows:
    """How many pairs are told from wrong ones: half the pictures have another one's caption.

    Raises ``ValueError`` for fewer than two different captions: there would be no wrong one.
    """
    _check_captions(samples, "Matching")
    batch = run.labelled("itm")(samples)
    says = _read(run.system, batch, lambda output, rows: output.match_logits.argmax(-1))
    label, right = batch["match_label"], says == batch["match_label"]
    return {
        "matching accuracy": {"obtained": float(right.float().mean()), "chance": 0.5},
        "matching accuracy, true pairs": {"obtained": float(right[label == 1].float().mean()), "chance": 0.5},
        "matching accuracy, wrong pairs": {"obtained": float(right[label == 0].float().mean()), "chance": 0.5},
    }


def masked_word_measures(run: Run, samples: Sequence[Any]) -> Rows:
    """How many masked tokens are guessed beside their picture, and beside that of the next pair.

    Chance is to guess the most common one each time.
    """
    batch = run.labelled("mlm")(samples)

    def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
        masked = rows["token_label"] != -100
        return _token_logits(run.system, output, masked).argmax(-1) == rows["token_label"][masked]

    other = batch | {name: batch[name].roll(1, 0) for name in PICTURE if name in batch}
    found, blind = (float(_read(run.system, one, right).float().mean()) for one in (batch, other))
    common = most_common(batch["token_label"][batch["token_label"] != -100])
    return {
        "masked-word accuracy": {"obtained": found, "chance": common},
        "masked-word accuracy, another picture": {"obtained": blind, "chance": common},
    }


def next_word_measures(run: Run, samples: Sequence[Any]) -> Rows:
    """How many tokens of each caption are guessed from the picture and those before."""
    batch = run.pairs()(samples)

    def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
        real = rows["mask"][:, 1:]
        return output.token_logits[:, :-1][real].argmax(-1) == rows["tokens"][:, 1:][real]

    found = float(_read(run.system, batch, right).float().mean())
    return {
        "next-word accuracy": {"obtained": found, "chance": most_common(batch["tokens"][:, 1:][batch["mask"][:, 1:]])}
    }


def answer_measures(run: Run, samples: Sequence[Any]) -> Rows:
    """How many questions are answered right, of all and of each kind, and of all beside another sample's picture.

    Chance is the answer that is most common among these questions of the same kind.
    """
    batch = run.labelled("vqa")(samples)
    far = len(samples) // 2  # neighbours may be asked about the same picture
    other = batch | {name: batch[name].roll(far, 0) for name in PICTURE if name in batch}
    says, blind = (
        _read(run.system, one, lambda output, rows: output.answer_logits.argmax(-1)) for one in (batch, other)
    )
    kinds = [sample.question.kind for sample in samples]
    prior = vqa_accuracy(prior_guesses(kinds, kinds, batch["answer"]), batch["answer"], kinds)
    found = vqa_accuracy(says, batch["answer"], kinds)
    rows = {
        f"answer {name.replace('/', ', ')}": {"obtained": found[name], "chance": prior[name]} for name in sorted(found)
    }
    wrong = vqa_accuracy(blind, batch["answer"])["accuracy"]
    return rows | {"answer accuracy, another picture": {"obtained": wrong, "chance": prior["accuracy"]}}


def _read(
    system: nn.Module, batch: dict[str, Tensor], what: Callable[[Any, dict[str, Tensor]], Tensor], size: int = 64
) -> Tensor:
    """``what(output, rows)`` of so many rows of a batch at a time, in evaluation mode."""
    names, found = inspect.signature(system.forward).parameters, []
    with evaluating(system):
        for start in range(0, len(batch["tokens"]), size):
            rows = {name: value[start : start + size] for name, value in batch.items()}
            found.append(what(system(**{name: value for name, value in rows.items() if name in names}), rows))
    return torch.cat(found)


def _token_logits(system: nn.Module, output: Any, masked: Tensor) -> Tensor:
    """Which token was at these places?"""
    if hasattr(output, "token_logits"):
        return output.token_logits[masked]
    return system.token_logits(output.tokens[masked])


MEASURES = {
    "itc": retrieval_measures,
    "itm": matching_measures,
    "mlm": masked_word_measures,
    "lm": next_word_measures,
    "vqa": answer_measures,
} | SOUND_MEASURES
