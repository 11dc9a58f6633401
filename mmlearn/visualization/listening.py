"""Pictures and their sounds on one page, to look at and to play, with nothing loaded from outside."""

import base64
import io
import wave
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mmlearn.escaping import in_html
from mmlearn.visualization.explorer import data_uri

RATE = 16_000  # samples a second
STYLE = """
body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; }
main { display: flex; flex-wrap: wrap; gap: 1.2em; }
figure { margin: 0; width: 220px; }
figure img { width: 128px; image-rendering: pixelated; }
figcaption { white-space: pre-line; margin: .3em 0; }
figure label { display: block; font-size: 12.5px; }
figure audio { width: 100%; height: 32px; }
"""


def listening_page(
    images: Sequence[Float[Tensor, "3 height width"]],
    captions: Sequence[str],
    sounds: Sequence[Mapping[str, Float[Tensor, "samples"]]],
    *,
    title: str = "",
) -> str:
    """An HTML page of pictures with their captions, and each picture's sounds by their labels, at 16 kHz in [-1, 1].

    Raises ``ValueError`` where there are not as many pictures, captions and sounds.
    """
    if not len(images) == len(captions) == len(sounds):
        raise ValueError(
            f"Each picture has one caption and its sounds; got {len(images)} pictures, {len(captions)} captions and "
            f"{len(sounds)} times sounds."
        )
    figures = "".join(_figure(*parts) for parts in zip(images, captions, sounds))
    title = in_html(title)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
        f"<h1>{title}</h1><main>{figures}</main></html>\n"
    )


def _figure(image: Tensor, caption: str, sounds: Mapping[str, Tensor]) -> str:
    players = "".join(
        f'<label>{in_html(label)}<audio controls preload="none" src="{_wav_uri(waveform)}"></audio></label>'
        for label, waveform in sounds.items()
    )
    return f'<figure><img src="{data_uri(image)}" alt=""><figcaption>{in_html(caption)}</figcaption>{players}</figure>'


def _wav_uri(waveform: Float[Tensor, "samples"]) -> str:
    """As WAV, because not every browser plays Ogg Opus."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)  # bytes
        file.setframerate(RATE)
        file.writeframes((waveform.clamp(-1, 1) * 32767).round().to(torch.int16).numpy().astype("<i2").tobytes())
    return "data:audio/wav;base64," + base64.b64encode(buffer.getvalue()).decode()
