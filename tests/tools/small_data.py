"""Small data sets, and for each system one that has what it reads."""

from types import SimpleNamespace

import torch
from torch.utils.data import Dataset

from mmlearn.data.fields import Labels
from mmlearn.data.synthetic.cues import Cues
from mmlearn.data.synthetic.scene_sound import SoundScenes
from mmlearn.data.synthetic.scene_video import VideoScenes
from mmlearn.data.synthetic.scenes import Scenes
from mmlearn.data.synthetic.talking_lips import TalkingLips
from mmlearn.recipes.discovery import find_recipe

WORDS = ("low", "middle", "high")


class Tones(Dataset):
    """Each word has its tone and its shade; what is said, how long and how loud are functions of the number."""

    words = list(WORDS)

    def __init__(self, count: int = 24, words: tuple[str, ...] = WORDS):
        self.count, self.said = count, words

    def __len__(self) -> int:
        return self.count

    def caption(self, index: int) -> str:
        return self.said[index % len(self.said)]

    def __getitem__(self, index: int) -> SimpleNamespace:
        time = torch.arange(8000 + 400 * (index % 5)) / 16_000
        tone = torch.sin(2 * torch.pi * 300 * 2.5 ** (index % 3) * time) * (0.2 + 0.02 * (index % 7))
        draw = torch.Generator().manual_seed(index)
        waveform = tone + 0.01 * torch.randn(len(time), generator=draw)
        image = 0.4 * (index % 3) + 0.1 * torch.rand(3, 32, 32, generator=draw)
        return SimpleNamespace(waveform=waveform, image=image, caption=self.caption(index), source=f"tone {index}")


SETS = {
    "words": Tones,
    "scenes": lambda: Scenes("val", size=32, length=60),
    "scenes-sound": lambda: SoundScenes("train", size=32, seconds=0.7, length=30),
    "scenes-video": lambda: VideoScenes("train", size=24, length=30),
    "talking-lips": lambda: TalkingLips("train", size=32, length=30),
    "cues": lambda: Cues("train", length=30),
}


def set_of(name: str) -> str:
    """Which of ``SETS`` the system of this name can learn from."""
    reads = find_recipe(name).reads
    needs = {field.needs for field in reads}
    if any(isinstance(field, Labels) and field.source == "caption" for field in reads):
        return "words"
    if "cues" in needs:
        return "cues"
    if "video" in needs:
        return "scenes-video" if next(field.fps for field in reads if field.needs == "video") == 10 else "talking-lips"
    return "scenes-sound" if "waveform" in needs else "scenes"
