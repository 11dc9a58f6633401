"""What each system is fed in training: the labels that its batches hold, and regions or sounds where it reads those."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mmlearn.layers import Config
from mmlearn.models import SYSTEMS
from mmlearn.names import choices


@dataclass(frozen=True)
class Feed:
    """What a system learns: ``always``, from pictures or sounds with captions; and ``objectives``, which may be chosen.

    These need labels of :class:`~mmlearn.data.fusion.FusionCollate`. ``together``: a batch holds those of all, else of
    one drawn for it. ``regions``: the system reads these and no pixels. ``whole_words`` are masked, or else tokens.
    ``hears``: it reads sounds, as "mel" or "waveform", and no pictures.
    """

    always: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    together: bool = True
    regions: bool = False
    whole_words: bool = False
    hears: str = ""


# As in each paper. Systems that can answer learn vqa as well where it is asked for.
FEEDS = {
    "albef": Feed(always=("itc", "itm"), objectives=("mlm",)),  # makes its own wrong pairs
    "ast": Feed(always=("classification",), hears="mel"),
    "blip": Feed(always=("itc", "itm", "lm")),
    "clap": Feed(always=("atc",), hears="mel"),
    "clip": Feed(always=("itc",)),
    "decoar2": Feed(always=("reconstruction",), hears="mel"),
    "filip": Feed(always=("itc",)),
    "hubert": Feed(always=("cluster",), hears="waveform"),
    "lit": Feed(always=("itc",)),
    "lxmert": Feed(objectives=("mlm", "mrm", "itm"), regions=True),
    "pixel-bert": Feed(objectives=("mlm", "itm")),
    "siglip": Feed(always=("itc",)),
    "uniter": Feed(objectives=("mlm", "mrm", "itm"), together=False, regions=True),
    "vilbert": Feed(objectives=("mlm", "mrm", "itm"), regions=True),
    "vilt": Feed(objectives=("mlm", "itm"), whole_words=True),
    "visual-bert": Feed(objectives=("mlm", "itm"), regions=True),
    "vl-bert": Feed(objectives=("mlm", "mrm"), regions=True),
    "wav2vec2": Feed(always=("contrastive",), hears="waveform"),
}
PAIRED = [name for name, feed in FEEDS.items() if feed == Feed(always=("itc",))]  # two towers
HEARS = [name for name, feed in FEEDS.items() if feed.hears]
PIXELS = [name for name, feed in FEEDS.items() if not feed.regions and name not in (*PAIRED, *HEARS)]


def find_feed(name: Any) -> Feed:
    """What the system of this name is fed. ``ValueError`` for an unknown one, or one trained in Python alone."""
    if not isinstance(name, str) or name not in FEEDS:
        no = f"{name!r} is no system that trains on pictures or sounds with captions"
        if str(name) in SYSTEMS:
            raise ValueError(f"{no}: in Python, mmlearn.training.fit trains it on batches of what it reads.")
        raise ValueError(f"{no}; {choices(str(name), FEEDS)}.")
    return FEEDS[name]


def choose_objectives(name: str, config: Config, wanted: Sequence[str] | None = None) -> tuple[str, ...]:
    """The objectives that are ``wanted`` of a system, or all that its paper has. ``ValueError`` for any other."""
    feed = find_feed(name)
    if wanted is None:
        return feed.objectives
    known = (*feed.objectives, *(["vqa"] if hasattr(config, "answers") else []))
    if not known:
        raise ValueError(
            f"{name} learns {', '.join(feed.always)}, and there is nothing to choose: leave objectives out."
        )
    for one in wanted or [""]:
        if one not in known:
            raise ValueError(f"{name} cannot learn {one!r}; {choices(one, known)}.")
    return tuple(dict.fromkeys(wanted))


def check_data(name: str, objectives: Collection[str], sample: Any) -> None:
    """``ValueError`` where samples such as this one lack what a system reads or learns from."""
    if find_feed(name).hears:
        if getattr(sample, "waveform", None) is None:
            raise ValueError(
                f"{name} reads sounds, and these samples have none: use --data scenes-sound, or a folder whose "
                "captions.csv names sounds."
            )
        return
    if hasattr(sample, "layout"):
        return
    if getattr(sample, "image", None) is None:
        raise ValueError(f"{name} reads pictures, and these samples have none: use other data.")
    if find_feed(name).regions:
        *others, last = PIXELS
        raise ValueError(
            f"{name} reads regions, which only scenes has: use --data scenes, or take {', '.join(others)} or {last}, "
            "which read pixels."
        )
    if "vqa" in objectives and not hasattr(sample, "question"):
        raise ValueError(
            "vqa learns from questions with answers: use --data scenes or --data easy-vqa, or leave vqa out."
        )
