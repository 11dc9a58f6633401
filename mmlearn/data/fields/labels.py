"""Labels: what is hidden or exchanged in a batch so that there is something to predict.

A label is a function of a batch and a generator, so real data and random examples are masked alike, and a test can pin
the draw. Sizes, such as that of the vocabulary, are looked up by name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmlearn.data.fields.field import Batch
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.objectives.denoising import draw_spans, hide_spans, infill
from mmlearn.objectives.detection import shuffle_tokens
from mmlearn.objectives.masked import mask_regions, mask_tokens
from mmlearn.objectives.masked_image import draw_visible, mask_blocks
from mmlearn.objectives.matching import random_negatives
from mmlearn.objectives.sentences import join_segments, next_sentence, sentence_order
from mmlearn.objectives.tags import pollute_tags, pollute_triples

SPECIAL = (Tokenizer.pad_token, Tokenizer.start_token, Tokenizer.end_token)
# What moves with a text to another row; of tags see Tagged, of graphs GraphTokens and KnowledgeTokens.
OF_A_TEXT = ("tokens", "mask", "word", "maskable", "caption_id", "token_label", "token_type", "tag_id")
OF_A_TEXT += ("role", "node", "object_label", "attribute_label", "relation_label", "position", "entity", "branch")
SEGMENTS = ("tokens", "token_type", "mask")
Sizes = Callable[[str], int]


class Label:
    """Adds entries to a batch. ``holds`` names them, as in :class:`~mmlearn.data.fields.Field`."""

    holds: ClassVar[dict[str, str]] = {}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        """The batch with this label."""
        raise NotImplementedError


def _check_share(name: str, share: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"{name} is a share from 0 to 1, got {share}.")


@dataclass(frozen=True)
class MaskedTokens(Label):
    """Some ``tokens`` are hidden. ``token_label`` (b, t) holds the true token there and -100 elsewhere.

    Where the batch numbers each token's word, all tokens of a word are hidden together. ``special`` are those that are
    never hidden; with a ``segment`` only tokens of that ``token_type`` are, such as 1 for tags alone.
    Source: Devlin et al. 2019 (BERT), section 3.1.
    """

    probability: float = 0.15
    special: tuple[int, ...] = SPECIAL
    segment: int | None = None

    holds = {"token_label": "Int b t < vocab_size or -100"}

    def __post_init__(self) -> None:
        _check_share("probability", self.probability)

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        maskable = batch.get("maskable", batch["mask"])
        if self.segment is not None:
            maskable = maskable & (batch["token_type"] == self.segment)
        tokens, label = mask_tokens(
            batch["tokens"],
            maskable,
            vocab_size=sizes("vocab_size"),
            mask_token=Tokenizer.mask_token,
            special=self.special,
            generator=generator,
            probability=self.probability,
            words=batch.get("word"),
        )
        rest = {name: value for name, value in batch.items() if name not in ("word", "maskable")}
        return rest | {"tokens": tokens, "token_label": label}


@dataclass(frozen=True)
class ShuffledTokens(Label):
    """Some ``tokens`` change places among themselves. ``shuffled`` (b, t) says which tokens are not the true ones.

    ``special`` are those that never move. Source: Panda et al. 2021, section 3.
    """

    probability: float = 0.15
    special: tuple[int, ...] = SPECIAL

    holds = {"shuffled": "Bool b t"}

    def __post_init__(self) -> None:
        _check_share("probability", self.probability)

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        options = dict(special=self.special, generator=generator, probability=self.probability)
        tokens, shuffled = shuffle_tokens(batch["tokens"], batch["mask"], **options)
        return batch | {"tokens": tokens, "shuffled": shuffled}


@dataclass(frozen=True)
class MaskedRegions(Label):
    """Some ``regions`` become 0: ``masked_regions`` (b, p) says which, ``region_target`` (b, p, f) what all were.

    Serves regression and both classifications. Source: Chen et al. 2020 (UNITER), section 3.2.
    """

    probability: float = 0.15

    holds = {"masked_regions": "Bool b p", "region_target": "Float b p {region_width}"}

    def __post_init__(self) -> None:
        _check_share("probability", self.probability)

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        masked = mask_regions(batch["region_mask"], generator=generator, probability=self.probability)
        hidden = batch["regions"].masked_fill(masked[..., None], 0)
        return batch | {"masked_regions": masked, "region_target": batch["regions"], "regions": hidden}


def patch_grid(batch: Batch, sizes: Sizes) -> tuple[int, int]:
    """How many rows and columns of whole patches the batch's pictures have."""
    patch = sizes("patch_size")
    return batch["image"].shape[2] // patch, batch["image"].shape[3] // patch


@dataclass(frozen=True)
class VisiblePatches(Label):
    """``visible`` (b, kept): the numbers of the patches that an encoder may see, equally many of each picture.

    All but the ``mask_share`` of the configuration are. Source: He et al. 2022 (MAE), section 3, masking.
    """

    holds = {"visible": "Int b kept"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        rows, columns = patch_grid(batch, sizes)
        return batch | {"visible": draw_visible(len(batch["image"]), rows * columns, sizes("mask_share"), generator)}


@dataclass(frozen=True)
class MaskedPatches(Label):
    """``masked_patches`` (b, p) says which patches are hidden: rectangles, about the ``mask_share`` of each picture.

    A rectangle has at least ``smallest`` patches, or a twelfth of the picture where that is less.
    Source: Bao et al. 2022 (BEiT), blockwise masking.
    """

    smallest: int = 16

    holds = {"masked_patches": "Bool b p"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        rows, columns = patch_grid(batch, sizes)
        smallest = min(self.smallest, max(1, rows * columns // 12))
        blocks = [mask_blocks((rows, columns), generator, sizes("mask_share"), smallest) for _ in batch["image"]]
        return batch | {"masked_patches": torch.stack(blocks)}


@dataclass(frozen=True)
class MatchLabel(Label):
    """Half of the rows get another row's text, never an equal one. ``match_label`` (b,) is 0 there and 1 elsewhere."""

    holds = {"match_label": "Int b < 2"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        b = len(batch["tokens"])
        equal = batch["caption_id"] if "caption_id" in batch else batch["tokens"].unique(dim=0, return_inverse=True)[1]
        other = random_negatives(equal, generator)
        swapped = torch.randperm(b, generator=generator) < b // 2
        source = torch.where(swapped, other, torch.arange(b))
        texts = {name: batch[name][source] for name in OF_A_TEXT if name in batch}
        return batch | texts | {"match_label": (~swapped).long()}


@dataclass(frozen=True)
class SwappedSegments(Label):
    """Half of the rows have their two segments exchanged. ``order_label`` (b,) is 1 there and 0 elsewhere.

    Source: Lan et al. 2020 (ALBERT), section 3.1.
    """

    holds = {"order_label": "Int b < 2"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        tokens, token_type, _, label = sentence_order(*(batch[name] for name in SEGMENTS), generator)
        return batch | {"tokens": tokens, "token_type": token_type, "order_label": label}


@dataclass(frozen=True)
class NextSegment(Label):
    """Half of the rows get the second segment of another one. ``next_label`` (b,) is 1 there and 0 elsewhere.

    Source: Devlin et al. 2019 (BERT), section 3.1, task #2.
    """

    holds = {"next_label": "Int b < 2"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        rows = (batch[name] for name in SEGMENTS)
        *changed, label = next_sentence(*rows, batch["caption_id"], sizes("max_length"), generator)
        return batch | dict(zip(SEGMENTS, changed)) | {"next_label": label}


@dataclass(frozen=True)
class PollutedTriples(Label):
    """Of some triples of words, tags and picture one part is another picture's; ``polluted`` (b,) says which.

    It is 0 for a whole triple and 1 where the tags, the second segment, are another picture's: in half of the rows.
    With ``words`` it is so in a quarter, and 2 in another quarter, where the words are. A row that becomes longer than
    ``max_length`` loses its last tags. Source: Li et al. 2020 (OSCAR), section 3; Zhang et al. 2021 (VinVL), section
    3.2.
    """

    words: bool = False

    @property
    def holds(self) -> dict[str, str]:
        """The entry and its axis."""
        return {"polluted": f"Int b < {2 + self.words}"}

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        if self.words:
            words, tags, label = pollute_triples(batch["caption_id"], batch["tag_id"], generator)
        else:
            words, tags, label = pollute_tags(batch["tag_id"], generator)
        rows = join_segments(*(batch[name] for name in SEGMENTS), words, tags, sizes("max_length"))
        return batch | dict(zip(SEGMENTS, rows)) | {"polluted": label}


@dataclass(frozen=True)
class SpanCorruption(Label):
    """Spans of ``tokens`` give way to sentinels, and ``target`` (b, o) holds what was there, as T5 learns it.

    Sentinels count down from the last number of the vocabulary. Text and target end with the end token; the text has
    no start token. Source: Raffel et al. 2020 (T5), section 3.1.4.
    """

    probability: float = 0.15
    mean_length: float = 3.0

    holds = {"target": "Int b o < vocab_size", "target_mask": "Bool b o"}

    def __post_init__(self) -> None:
        _check_share("probability", self.probability)

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        sentinel, end = sizes("vocab_size") - 1, batch["tokens"].new_tensor([Tokenizer.end_token])
        texts, targets = [], []
        for text in _bodies(batch):
            hidden = draw_spans(len(text), generator=generator, share=self.probability, mean_length=self.mean_length)
            corrupted, target = hide_spans(text, hidden, sentinel)
            texts.append(torch.cat([corrupted, end]))
            targets.append(torch.cat([target, end]))
        return _seq2seq(batch, texts, targets)


@dataclass(frozen=True)
class TextInfilling(Label):
    """Spans of ``tokens`` give way to one mask token each, and ``target`` (b, o) is the whole text, as BART learns it.

    Source: Lewis et al. 2020 (BART), section 2.2, text infilling.
    """

    probability: float = 0.3
    mean_length: float = 3.0

    holds = {"target": "Int b o < vocab_size", "target_mask": "Bool b o"}

    def __post_init__(self) -> None:
        _check_share("probability", self.probability)

    def __call__(self, batch: Batch, generator: torch.Generator, sizes: Sizes) -> Batch:
        start, end = (batch["tokens"].new_tensor([token]) for token in (Tokenizer.start_token, Tokenizer.end_token))
        texts, targets = [], []
        for text in _bodies(batch):
            options = dict(generator=generator, share=self.probability, mean_length=self.mean_length)
            spoilt = infill(text, Tokenizer.mask_token, **options).tokens  # longer, where masks stand for nothing
            texts.append(torch.cat([start, spoilt[: sizes("max_length") - 2], end]))
            targets.append(torch.cat([start, text, end]))
        return _seq2seq(batch, texts, targets)


def _bodies(batch: Batch) -> list[Int[Tensor, "n"]]:
    """Each text without its special tokens and padding."""
    special = torch.tensor(SPECIAL, device=batch["tokens"].device)
    return [text[real & ~torch.isin(text, special)] for text, real in zip(batch["tokens"], batch["mask"])]


def _seq2seq(batch: Batch, texts: list[Tensor], targets: list[Tensor]) -> Batch:
    """The batch with these texts to read and these targets to write, padded."""
    (tokens, mask), (target, target_mask) = padded(texts), padded(targets)
    rest = {name: value for name, value in batch.items() if name not in ("word", "maskable")}
    return rest | {"tokens": tokens, "mask": mask, "target": target, "target_mask": target_mask}


def padded(texts: list[Tensor]) -> tuple[Int[Tensor, "b t"], Bool[Tensor, "b t"]]:
    """Texts as rows of a batch, padded at their right, and what of them is real."""
    mask = pad_sequence([torch.ones_like(text, dtype=torch.bool) for text in texts], batch_first=True)
    return pad_sequence(texts, batch_first=True, padding_value=Tokenizer.pad_token), mask
