"""The CLIP that runs in the reader's browser: ``clip-collages`` of the zoo, with pictures that it has already read.

Its text tower, the words that it knows, and forty collages that it was not trained on are in ``live_clip.js``; twenty
collages of photographs, which are under another licence, in ``live_photographs.js``. Of each picture the browser gets
what max pooling keeps: the embedding, and at which position each of its features was largest.
"""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmlearn.data import load
from mmlearn.data.grid_features import grid_features
from mmlearn.data.synthetic.collage_words import RELATION_WORDS, SINGULARS, WORDED
from mmlearn.data.synthetic.collages import CollageSample
from mmlearn.data.synthetic.cutouts import ARCHIVES, COLOURS
from mmlearn.data.tokenizer import Tokenizer
from mmlearn.pretrained.zoo import load_zoo

ZOO = "clip-collages"
SIDE = 224  # of a shown picture, in pixels; the model reads 96
COLLAGES = {"test": "a style of training", "unseen-style": "a style never seen"}  # twenty of each
PHOTOGRAPHS = {"photographs": "photographs"}
COUNT = 20
GPL = "LICENSE-GPL-2.0-or-later.txt"
# What a sentence may be made of beside things and colours.
SMALL_WORDS = {"a", "an", "and", "two", "with", "the"} | {
    word for phrase in (*WORDED.values(), *RELATION_WORDS) for word in phrase.split()
}
NOTICE = """/* Pictures: composed of Tux Paint Stamps by Bill Kendrick and contributors, GPL-2.0-or-later. The text of
   the licence is in {licence} beside this file, the credits are on the book's page about data. The source of this file
   is mmlearn's book/live.py with its archive of stamps. */
"""


def write(folder: Path) -> None:
    """Write both files, and the licence of the photographs, into this folder."""
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer, _ = load_zoo(ZOO)
    assert tokenizer is not None
    drawings = pictures(model, COLLAGES)
    carried = {
        "heads": model.config.text.num_heads,
        "epsilon": model.config.text.norm_epsilon,
        "length": tokenizer.max_length,
        "start": tokenizer.start_token,
        "end": tokenizer.end_token,
        "read": model.config.end_token,  # at which token a text is read; none: at the one with the highest id
        "weights": text_tower(model),
        "words": word_ids(tokenizer),
        "things": sorted(SINGULARS),
        "colours": list(COLOURS),
        "pictures": drawings,
    }
    (folder / "live_clip.js").write_text(f"window.liveClip = {_json(carried)};\n", encoding="utf-8")
    photographs = _json(pictures(model, PHOTOGRAPHS))
    (folder / "live_photographs.js").write_text(
        NOTICE.format(licence=GPL) + f"window.liveClip.pictures.push(...{photographs});\n", encoding="utf-8"
    )
    shutil.copyfile(ARCHIVES / "stamps" / GPL, folder / GPL)


def samples(splits: dict[str, str]) -> list[tuple[CollageSample, str]]:
    """The first twenty collages of each split, with the name of their style."""
    return [
        (sample, style)
        for split, style in splits.items()
        for sample in load("collages", split).__getitems__(range(COUNT))
    ]


@torch.no_grad()
def pictures(model: nn.Module, splits: dict[str, str]) -> list[dict[str, Any]]:
    """Each picture with what the model keeps of it."""
    found = samples(splits)
    embeddings, positions = kept(model, torch.stack([sample.image for sample, _ in found]))
    return [
        {"style": style, "caption": sample.caption, "image": webp(sample.drawn(SIDE).image)}
        | {"embedding": packed(embedding), "positions": packed(position.byte())}
        for (sample, style), embedding, position in zip(found, embeddings, positions)
    ]


@torch.no_grad()
def kept(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Of each picture its unit embedding, and the position that each of its features comes from: (n, d) each."""
    grid = grid_features(images, keep=False).mT.unflatten(2, (6, 6))  # (n, 96, 6, 6)
    largest, position = model.image_projection(model.image_encoder(grid)).max(1)
    return nn.functional.normalize(largest, dim=-1), position


def text_tower(model: nn.Module) -> dict[str, Any]:
    """The parameters of the text tower by their names. They were kept in half precision, so that nothing is lost."""
    parts = ("text_encoder.", "text_projection.")
    return {name: packed(value.half()) for name, value in model.state_dict().items() if name.startswith(parts)}


def word_ids(tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Every word of the captions with its tokens. Words are split one by one, so a sentence is its words in a row."""
    known, engine = sorted({*SINGULARS, *COLOURS, *SMALL_WORDS}), tokenizer.engine
    return {word: [token for token in engine.encode(word).ids if token > tokenizer.mask_token] for word in known}


def webp(image: Tensor) -> str:
    """A picture from 0 to 1 as the address of its own data."""
    from PIL import Image

    pixels, file = (image * 255).round().byte().permute(1, 2, 0).numpy(), io.BytesIO()
    Image.fromarray(pixels).save(file, "WEBP", quality=82, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def packed(value: Tensor) -> dict[str, Any]:
    """A tensor as its shape and its numbers, in base64: bytes, or half or single precision, little-endian."""
    kind = {torch.uint8: ("byte", "u1"), torch.float16: ("half", "<f2"), torch.float32: ("single", "<f4")}[value.dtype]
    numbers = value.contiguous().numpy().astype(kind[1]).tobytes()
    return {"shape": list(value.shape), kind[0]: base64.b64encode(numbers).decode()}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def phone_picture(hero: Path, panels: int = 4) -> bytes:
    """A picture of panels side by side with its panels in two rows, as a phone can show it."""
    from PIL import Image

    wide, file = Image.open(hero).convert("RGB"), io.BytesIO()
    step, per_row = wide.width / panels, panels // 2
    tall = Image.new("RGB", (round(step * per_row), wide.height * 2), "white")
    for k in range(panels):
        part = wide.crop((round(k * step), 0, round((k + 1) * step), wide.height))
        tall.paste(part, (round(k % per_row * step), k // per_row * wide.height))
    tall.quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()
