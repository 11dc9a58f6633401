"""What ``mmlearn evaluate`` prints: numbers by name, each beside what chance gives.

A measure is a function of a run and of samples that the run has not seen. It knows the run's fields and the methods
that systems share (``forward``, ``encode_image``, ``match``), and no system's name.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmlearn.data.fields import Label, MaskedPatches, MaskedRegions, MaskedTokens, MatchLabel, ShuffledTokens
from mmlearn.evaluation.alignment import (
    modality_gap,
    occlusion_check,
    pair_alignment,
    pointing_accuracy,
    pointing_chance,
    random_patches,
    uniformity,
)
from mmlearn.evaluation.answers import prior_guesses, vqa_accuracy
from mmlearn.evaluation.captions import bleu, cider_d, has_facts, rouge_l, true_share
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.evaluation.mentions import Mentions, find_mentions
from mmlearn.evaluation.reranking import rerank_both_ways
from mmlearn.evaluation.retrieval import embed_each, matching_items, median_rank, recall_at, similarity_both_ways

Rows = dict[str, dict[str, float | None]]  # what a measure returns: name → obtained, and what chance gives
Measure = Callable[[Any, Sequence[Any]], Rows]  # of a run and of samples that it has not seen
IMAGE = ("image", "pixel_mask", "regions", "boxes", "region_classes", "region_mask")
CANDIDATES = 16  # of each query, that a fusion encoder looks at again


def row(obtained: Any, chance: Any = None) -> dict[str, float | None]:
    """A number, and what chance gives where that is known."""
    return {"obtained": float(obtained), "chance": None if chance is None else float(chance)}


def majority_share(numbers: Int[Tensor, "n"]) -> float:
    """The share of the number that occurs most often: the accuracy of always guessing it."""
    return float(numbers.bincount().max() / len(numbers))


def check_captions(samples: Sequence[Any], what: str) -> None:
    """``ValueError`` where all samples have one caption."""
    if len({sample.caption for sample in samples}) < 2:
        raise ValueError(f"{what} needs at least two different captions, and these samples have one.")


# Two modalities in one space.


def encode_modality(system: Any, batch: dict[str, Tensor], modality: str, call: Callable) -> Any:
    """What ``encode_image``, ``encode_text`` and so on make of a batch."""
    return call(getattr(system, f"encode_{modality}"), batch)


def retrieval(one: str, other: str, encode: Callable = encode_modality) -> Callable[[Any, Sequence[Any]], Rows]:
    """The measure of how well two modalities, such as image and text, find each other.

    Recall and median rank both ways, and how both lie in their space. Where the system can also ``match``, once more
    after it looked at the likely ones together. A picture, text or sound that is repeated counts once, and everything
    that stands beside it is right.
    """

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        check_captions(samples, "Retrieval")
        first, second = (embed_each(run, samples, modality, encode) for modality in (one, other))
        positives = matching_items(first.number, second.number)
        both_ways = similarity_both_ways(first.embedding, second.embedding, second.mask)
        rows = ranking_rows((one, other), both_ways, positives)
        if hasattr(run.system, "match"):
            both_ways = rerank_by_matching(run, samples, first.first, second.first, both_ways)
            rows |= ranking_rows((one, other), both_ways, positives, ", re-ranked")
        if first.embedding.ndim == 2 and min(len(first.first), len(second.first)) > 1:
            rows |= space_rows((one, other), first.embedding, second.embedding, positives)
        return rows

    return measure


def ranking_rows(
    names: tuple[str, str],
    both_ways: tuple[Float[Tensor, "n m"], Float[Tensor, "m n"]],
    positives: Bool[Tensor, "n m"],
    how: str = "",
) -> Rows:
    """Recall and median rank in both directions. Chance: all similarities equal, ties broken at random."""
    rows: Rows = {}
    (one, other), (there, back) = names, both_ways
    for name, matrix, right in ((f"{one} to {other}", there, positives), (f"{other} to {one}", back, positives.T)):
        blind = torch.zeros_like(matrix)
        for k in (1, 5, 10):
            rows[f"{name} R@{k} of {matrix.shape[1]}{how}"] = row(
                recall_at(k, matrix, right), recall_at(k, blind, right)
            )
        rows[f"{name} median rank{how}"] = row(median_rank(matrix, right), median_rank(blind, right))
    return rows


def space_rows(
    names: tuple[str, str], one: Float[Tensor, "n d"], other: Float[Tensor, "m d"], positives: Bool[Tensor, "n m"]
) -> Rows:
    """How far apart both modalities lie, and how evenly each is spread."""
    partner = other[positives.int().argmax(1)]
    return {
        f"modality gap, {names[0]} and {names[1]}": row(modality_gap(one, partner)),
        f"alignment of pairs, {names[0]} and {names[1]}": row(pair_alignment(one, partner), 2.0),
        f"uniformity of {names[0]}s": row(uniformity(one)),
        f"uniformity of {names[1]}s": row(uniformity(other)),
    }


def rerank_by_matching(
    run: Any, samples: Sequence[Any], image_index: list[int], text_index: list[int], both_ways: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """Similarities in which the likely pairs are ranked by ``match``, picture and text read together."""
    images = run.plain([samples[i] for i in image_index])["image"]
    text = run.plain([samples[i] for i in text_index])

    def score(image: Tensor, words: Tensor) -> Tensor:
        pair = (images[image], text["tokens"][words], text["mask"][words])
        logits = run.system.match(*(part.to(run.device) for part in pair)).cpu()
        return logits[:, 1] - logits[:, 0]

    with evaluating(run.system):
        return rerank_both_ways(*both_ways, score, CANDIDATES, generator=torch.Generator().manual_seed(0))


# Words and their positions.


def pointing(maps: Callable[[Any, dict[str, Tensor], Mentions], Float[Tensor, "n p"] | None]) -> Callable:
    """The measure of how often ``maps(run, batch, mentions)`` are highest where the named object is."""

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        if not any(getattr(sample, "links", ()) for sample in samples):
            return {}
        grid = run.system.grid if hasattr(run.system, "grid") else run.system.image_encoder.embedding.grid
        mentions = find_mentions(samples, run.tokenizer, grid)
        with evaluating(run.system):
            found = maps(run, run.on_device(run.plain(samples)), mentions)
        if found is None:
            return {}
        accuracy = pointing_accuracy(found.cpu(), mentions.region)
        return {"pointing accuracy": row(accuracy, pointing_chance(mentions.region))}

    return measure


def occlusion(run: Any, samples: Sequence[Any]) -> Rows:
    """How much less similar picture and caption of a scene become when something is painted over, with controls.

    Of samples whose caption names all things nothing else can be hidden, and they are left out.
    """
    samples = [each for each in samples if hasattr(each, "free") and _unnamed(each)]
    if not samples:
        return {}
    batch, field = run.on_device(run.plain(samples)), run.field("image")
    with evaluating(run.system):
        text = run.system.encode_text(batch["tokens"], batch["mask"])

    def score(image: Tensor) -> Tensor:
        with evaluating(run.system):
            seen = run.system.encode_image(field.of_images(image).to(run.device))
        if seen.ndim == 2:
            return (seen * text).sum(-1).cpu()
        cosine = einsum(seen, text, "b p d, b t d -> b t p").amax(-1)
        return ((cosine * batch["mask"]).sum(-1) / batch["mask"].sum(-1)).cpu()

    size, masks = samples[0].image.shape[-1], {}
    for sample in samples:
        masks.setdefault("what the caption names", []).append(sample.mask_of(sample.links[0]))
        masks.setdefault("another object", []).append(sample.masks[_unnamed(sample)[0]])
        masks.setdefault("the ground", []).append(sample.free)
    masks = {name: torch.stack(each) for name, each in masks.items()}
    masks["a random patch"] = random_patches(len(samples), (size, size), size // 4, torch.Generator().manual_seed(0))
    falls = occlusion_check(score, torch.stack([sample.image for sample in samples]), masks)
    return {f"similarity lost by hiding {name}": row(fall, 0.0) for name, fall in falls.items()}


def _unnamed(sample: Any) -> list[int]:
    """The things that a caption does not name."""
    named = {number for link in sample.links for number in sample.boxes_of(link)}
    return [number for number in range(len(sample.boxes)) if number not in named]


# Picture and text read together.


def matching_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many pairs are told from wrong ones, where half of the pictures have another one's caption."""
    check_captions(samples, "Matching")
    batch = run.label(run.plain(samples), MatchLabel())
    guess = run.read(batch, lambda output, rows: output.match_logits.argmax(-1))
    label, right = batch["match_label"], (guess == batch["match_label"]).float()
    return {
        "matching accuracy": row(right.mean(), 0.5),
        "matching accuracy, true pairs": row(right[label == 1].mean(), 0.5),
        "matching accuracy, wrong pairs": row(right[label == 0].mean(), 0.5),
    }


def masked_token_accuracy(label: Label, entry: str = "token_label", what: str = "masked-word") -> Measure:
    """The measure of how many tokens are guessed that ``label`` hid, and how many beside the next pair's picture.

    ``entry`` holds the true ones. Chance: the commonest token.
    """

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch = run.label(run.plain(samples), label)

        def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
            masked = rows[entry] != -100
            if getattr(output, "token_logits", None) is not None:
                logits = output.token_logits[masked]
            else:
                logits = run.system.token_logits(output.tokens[masked])
            return logits.argmax(-1) == rows[entry][masked]

        chance = majority_share(batch[entry][batch[entry] != -100])
        rows = {f"{what} accuracy": row(run.read(batch, right).float().mean(), chance)}
        if other := {name: batch[name].roll(1, 0) for name in IMAGE if name in batch}:
            blind = run.read(batch | other, right).float().mean()
            rows[f"{what} accuracy, another picture"] = row(blind, chance)
        return rows

    return measure


masked_word_accuracy = masked_token_accuracy(MaskedTokens())


def masked_region_losses(run: Any, samples: Sequence[Any]) -> Rows:
    """The losses of masked regions on these samples, beside what they are before anything is learned, where known."""
    batch, rows = run.label(run.plain(samples), MaskedRegions()), {}
    with evaluating(run.system):
        losses = run.system.loss(run.on_device(batch))
    chance = run.stage.objectives()["mrm"].chance
    for name, value in losses.items():
        known = chance[name](run.system.config, batch) if chance.get(name) else None
        rows[f"masked regions, loss {name}"] = row(value, known)
    return rows


def masked_code_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many codes of hidden patches are guessed. Chance: always the commonest."""
    batch = run.label(run.plain(samples) | run.field("code")(samples), MaskedPatches())
    masked = batch["masked_patches"]
    guess = run.read(batch, lambda output, rows: output.code_logits[rows["masked_patches"]].argmax(-1))
    code = batch["code"][masked]
    return {"hidden codes named": row((guess == code).float().mean(), majority_share(code))}


def target_token_accuracy(label: Label) -> Callable[[Any, Sequence[Any]], Rows]:
    """The measure of how many tokens of a ``target`` are guessed from a text that ``label`` spoilt and those before."""

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch = run.label(run.plain(samples), label)

        def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
            real = rows["target_mask"]
            return output.token_logits.argmax(-1)[real] == rows["target"][real]

        chance = majority_share(batch["target"][batch["target_mask"]])
        return {"written-token accuracy": row(run.read(batch, right).float().mean(), chance)}

    return measure


def segment_accuracy(label: Label, target: str, logits: str) -> Callable[[Any, Sequence[Any]], Rows]:
    """The measure of how many pairs of segments are told from those that ``label`` changed."""

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch = run.label(run.plain(samples), label)
        guess = run.read(batch, lambda output, rows: getattr(output, logits).argmax(-1))
        return {"segments told": row((guess == batch[target]).float().mean(), majority_share(batch[target]))}

    return measure


def triple_accuracy(label: Label) -> Callable[[Any, Sequence[Any]], Rows]:
    """The measure of how many triples of words, tags and picture are told from those that ``label`` polluted."""

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        batch = run.label(run.plain(samples), label)
        guess = run.read(batch, lambda output, rows: run.system.contrast_head(output.pooled).argmax(-1))
        right = (guess == batch["polluted"]).float()
        return {"triples told from polluted ones": row(right.mean(), majority_share(batch["polluted"]))}

    return measure


def replaced_token_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many words are judged right, all and those that a generator wrote. Chance: all are taken to be real."""
    batch = run.on_device(run.label(run.plain(samples), MaskedTokens()))
    with evaluating(run.system):
        output = run.call(run.system.forward, batch | {"original": batch["token_label"]})
    guess, replaced = (x[batch["mask"]].cpu() for x in (output.replaced_logits > 0, output.replaced))
    return token_detection(guess, replaced, "replaced")


def shuffled_token_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many words are judged right, all and those that changed positions. Chance: all are taken to be in order."""
    batch = run.label(run.plain(samples), ShuffledTokens())
    moved = run.read(batch, lambda output, rows: (output.shuffled_logits > 0)[rows["mask"]])
    return token_detection(moved, batch["shuffled"][batch["mask"]], "shuffled")


def token_detection(guess: Bool[Tensor, "n"], wrong: Bool[Tensor, "n"], what: str) -> Rows:
    """How many words are judged right, and how many of the wrong ones are found, where there are some."""
    share = wrong.float().mean()
    rows = {"words judged right": row((guess == wrong).float().mean(), max(share, 1 - share))}
    return rows | ({f"{what} words found": row(guess[wrong].float().mean(), 0.0)} if wrong.any() else {})


def next_token_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many tokens of each caption are guessed from the tokens before, and from the picture where there is one."""
    batch = run.plain(samples)
    asked = "response" if "response" in batch else "mask"  # no one says the tokens of an image

    def right(output: Any, rows: dict[str, Tensor]) -> Tensor:
        real = rows[asked][:, 1:]
        return output.token_logits[:, :-1][real].argmax(-1) == rows["tokens"][:, 1:][real]

    chance = majority_share(batch["tokens"][:, 1:][batch[asked][:, 1:]])
    return {"next-word accuracy": row(run.read(batch, right).float().mean(), chance)}


def caption_scores(run: Any, samples: Sequence[Any]) -> Rows:
    """How good the captions are that the likeliest words make. Chance: each picture beside the next one's.

    Of scenes and collages also the share of stated facts that are true. Nothing for a system that writes nothing about
    pictures.
    """
    takes = inspect.signature(run.system.generate).parameters if run.recipe.writes else ()
    if not any(name in takes for name in IMAGE):
        return {}
    said, longest = [], run.tokenizer.max_length
    for batch in run.batches(samples):
        given = {name: batch[name] for name in IMAGE if name in batch and name in takes}
        said += [run.tokenizer.decode(row) for row in run.system.generate(**given, max_length=longest)]
    other = [*said[1:], said[0]]
    references = [[" ".join(sample.caption.lower().split())] for sample in samples]
    rows = {
        f"{name} of captions": row(measure(said, references), measure(other, references))
        for name, measure in (("BLEU-4", bleu), ("ROUGE-L", rouge_l), ("CIDEr-D", cider_d))
    }
    if has_facts(samples[0]):
        rows["stated facts that are true"] = row(true_share(said, samples), true_share(other, samples))
    return rows


def answer_accuracy(run: Any, samples: Sequence[Any]) -> Rows:
    """How many questions are answered right: all, each kind, and all beside another sample's picture.

    Chance is the answer that is commonest among these questions of the same kind.
    """
    if not hasattr(samples[0], "question"):
        return {}
    batch = run.plain(samples, "vqa")
    far = len(samples) // 2  # neighbours may be asked about the same picture
    other = batch | {name: batch[name].roll(far, 0) for name in IMAGE if name in batch}
    guess, blind = (run.read(one, lambda output, rows: output.answer_logits.argmax(-1)) for one in (batch, other))
    kinds = [sample.question.kind for sample in samples]
    prior = vqa_accuracy(prior_guesses(kinds, kinds, batch["answer"]), batch["answer"], kinds)
    found = vqa_accuracy(guess, batch["answer"], kinds)
    rows = {f"answer {name.replace('/', ', ')}": row(found[name], prior[name]) for name in sorted(found)}
    wrong = vqa_accuracy(blind, batch["answer"])["accuracy"]
    return rows | {"answer accuracy, another picture": row(wrong, prior["accuracy"])}


# One of several names.


def class_accuracy(what: str) -> Callable[[Any, Sequence[Any]], Rows]:
    """The measure of how many samples get their right ``label``. Chance: always the commonest."""

    def measure(run: Any, samples: Sequence[Any]) -> Rows:
        guess, label = [], []
        for batch in run.batches(samples):
            guess.append(run.call(run.system.forward, batch).logits.argmax(-1).cpu())
            label.append(batch["label"].cpu())
        guess, label = torch.cat(guess), torch.cat(label)
        return {what: row((guess == label).float().mean(), majority_share(label))}

    return measure
