"""A look at a network that has learned to hear letters by CTC: what does it write, and how much of it is wrong?"""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmlearn.data.spoken_captions import LETTERS, SpokenCaption, fits, spelt_batch, spoken_captions, to_letters
from mmlearn.evaluation import edit_rate
from mmlearn.exercises import by_hand, case, expect, expect_number, expect_one_number, task
from mmlearn.generation.ctc import collapse
from mmlearn.models.audio.encoder import AudioEncoder, AudioEncoderConfig
from mmlearn.pretrained.zoo import load_zoo


class Reader(nn.Module):
    """The network of lesson 13a: ``log_p, real = reader(mel, mel_mask)``, (b, s, 38) and which of s are real."""

    def __init__(self) -> None:
        super().__init__()
        sizes = dict(mels=40, frames=420, patch_size=(40, 12), stride=(40, 3), depth=3, num_heads=4, class_token=False)
        self.encoder = AudioEncoder(AudioEncoderConfig(width=96, dropout=0.0, **sizes))
        self.head = nn.Linear(96, 1 + len(LETTERS))

    def forward(
        self, mel: Float[Tensor, "b mels s"], real: Bool[Tensor, "b s"]
    ) -> tuple[Float[Tensor, "b patches v"], Bool[Tensor, "b patches"]]:
        x, real = self.encoder(mel, real)
        return self.head(x).log_softmax(-1), real


@lru_cache(maxsize=1)
def trained_reader() -> Reader:
    """With the weights ``zoo/ctc-spoken-captions``, which come with the package."""
    reader = Reader()
    load_zoo("ctc-spoken-captions", into=reader)
    return reader


@lru_cache(maxsize=1)
def clips() -> list[SpokenCaption]:
    """Spoken captions in Spanish that nothing learned from."""
    return [clip for clip in spoken_captions("test", "es", count=60) if fits(clip)]


@torch.no_grad()
def letters_wrong(
    reader: Callable, mel: Float[Tensor, "b mels s"], mel_mask: Bool[Tensor, "b s"], texts: Sequence[str]
) -> float:
    """Letters that are wrong where the likeliest path is read, over all letters that were said."""
    log_p, real = reader(mel, mel_mask)
    written = [to_letters(collapse(row[mask].argmax(-1))) for row, mask in zip(log_p, real)]
    return edit_rate(written, texts)


def says(*paths: str, real: Sequence[int] | None = None) -> Callable:
    """A reader that is sure of these paths, in which ``-`` is the blank; ``real`` of their positions are real."""
    symbols = "-" + LETTERS
    rows = torch.tensor([[symbols.index(symbol) for symbol in path] for path in paths])
    log_p = torch.eye(len(symbols))[rows].clamp(min=1e-6).log()
    mask = torch.arange(rows.shape[1]) < torch.tensor(real or [rows.shape[1]] * len(rows))[:, None]
    return lambda mel, mel_mask: (log_p.clone(), mask.clone())


MEL = torch.zeros(1, 40, 30)


@task(
    letters_wrong, difficulty=3, minutes=20, example=by_hand(says("-cc-a-p"), MEL, MEL[:, 0] == 0, ["cat"], gives=1 / 3)
)
def check_letters_wrong(function: Callable) -> None:
    """Paths whose texts are known, padding, letters of all clips alike; then real recordings."""

    def wrong(texts: list[str], *paths: str, real: Sequence[int] | None = None) -> float:
        mel = torch.zeros(len(paths), 40, 30)
        return expect_one_number(function(says(*paths, real=real), mel, mel[:, 0] == 0, texts))

    with case("A path that reads what was said"):
        repeats = "Nothing must be wrong: repeats are one letter, unless a blank is between them."
        hint = "collapse: first merge repeats, then take out blanks; token 0 is the blank, and letter i is token i + 1."
        expect_number(wrong(["hello 7"], "hhe-l-l-oo--  77"), 0.0, repeats, hint)
    for path, rate in (("eroplanes", 0.1), ("aeroplanest", 0.1), ("aero-pranes", 0.1), ("-----------", 1.0)):
        with case(f"Where {path.strip('-') or 'nothing'} is written, and aeroplanes was said"):
            hint = "edit_rate counts letters to put in, take out and replace, over all letters that were said."
            expect_number(wrong(["aeroplanes"], path), rate, "It must be the share of wrong letters.", hint)
    with case("With padding behind a clip"):
        padded = "Positions that are not real must write nothing."
        expect_number(wrong(["cat"], "cat-dog", real=[3]), 0.0, padded, "cut each row to its real positions first.")
    with case("With a short and a long clip"):
        pooled = "Every letter must count the same: all that is wrong over all that was said."
        found = wrong(["a", "long text"], "b--------", "long text")
        expect(found != 0.5, pooled, "add wrong letters and letters over all clips, and divide once.")
        expect_number(found, 0.1, pooled, "add wrong letters and letters over all clips, and divide once.")
    rows = torch.randperm(len(clips()))[:6].tolist()
    batch, texts = spelt_batch([clips()[i] for i in rows]), [clips()[i].text for i in rows]
    given = batch["mel"], batch["mel_mask"], texts
    with case("On six recordings that nothing learned from"):
        wanted = letters_wrong(trained_reader(), *given)
        hint = "argmax over symbols gives the likeliest path, one symbol for each position."
        expect_number(function(trained_reader(), *given), wanted, "It must be the share of wrong letters.", hint)
