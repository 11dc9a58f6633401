"""Speed beside others, on this machine: ``make bench`` prints the tables and keeps them in ``results/``.

CLIP is here; fusion systems, encoders of any modality and bridges to a language model are in ``fusion.py``, systems
that hear in ``audio.py``, how fast sounds are read in ``sound.py``, and how fast texts are written in ``writing.py``.
Medians and ratios are what to read. ``make bench`` measures all; ``bench.py unified bridges`` these two tables, and
``bench.py --help`` tells all names. ``bench.py easy-vqa`` trains for half an hour and is measured by that name alone.
"""

import json
import os
import platform
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import audio
import easy_vqa
import fusion
import sound
import torch
import writing
from timing import compare, matrix_rate, ratio

RESULTS = Path(__file__).parent / "results"
VOCAB, LENGTH = 512, 16
# width, depth, heads, picture, patch, pairs, steps; the smaller one is what chapters train, the larger what a GPU would
SIZES = {
    "64 wide, 3 layers, 32 px": dict(width=64, depth=3, heads=4, size=32, patch=8, pairs=256, steps=9),
    "256 wide, 6 layers, 64 px": dict(width=256, depth=6, heads=4, size=64, patch=8, pairs=32, steps=5),
}


def ours(width, depth, heads, size, patch, **_):
    """mmlearn's CLIP."""
    from mmlearn.layers import ImageEncoderConfig, TextEncoderConfig
    from mmlearn.models.contrastive.clip import CLIP, CLIPConfig

    model = CLIP(
        CLIPConfig(
            image=ImageEncoderConfig(
                width, depth, heads, image_size=size, patch_size=patch, activation="quick_gelu", embedding_norm=True
            ),
            text=TextEncoderConfig(width, depth, heads, vocab_size=VOCAB, max_length=LENGTH, activation="quick_gelu"),
            embedding_width=width,
        )
    )
    return model, lambda image, tokens: sum(model.loss({"image": image, "tokens": tokens}).values())


def transformers(width, depth, heads, size, patch, **_):
    """Transformers' CLIPModel."""
    from transformers import CLIPConfig, CLIPModel

    shared = dict(hidden_size=width, num_hidden_layers=depth, num_attention_heads=heads, intermediate_size=4 * width)
    text = dict(
        vocab_size=VOCAB, max_position_embeddings=LENGTH, bos_token_id=0, eos_token_id=VOCAB - 1, pad_token_id=1
    )
    model = CLIPModel(
        CLIPConfig(
            text_config=shared | text,
            vision_config=shared | dict(image_size=size, patch_size=patch),
            projection_dim=width,
        )
    )
    return model, lambda image, tokens: model(input_ids=tokens, pixel_values=image, return_loss=True).loss


def open_clip(width, depth, heads, size, patch, **_):
    """open_clip's CLIP and ClipLoss."""
    from open_clip.loss import ClipLoss
    from open_clip.model import CLIP

    model = CLIP(
        embed_dim=width,
        vision_cfg=dict(image_size=size, patch_size=patch, width=width, layers=depth, head_width=width // heads),
        text_cfg=dict(context_length=LENGTH, vocab_size=VOCAB, width=width, heads=heads, layers=depth),
        quick_gelu=True,
    )
    loss = ClipLoss()
    return model, lambda image, tokens: loss(*model(image, tokens)[:3])


IMPLEMENTATIONS = {"mmlearn": ours, "Transformers": transformers, "open_clip": open_clip}


def prepare(name, case):
    """A model and a function that computes its loss."""
    model, loss = IMPLEMENTATIONS[name](**case)
    image = torch.randn(case["pairs"], 3, case["size"], case["size"])
    tokens = torch.randint(3, VOCAB - 1, (case["pairs"], LENGTH))
    tokens[:, -1] = VOCAB - 1
    return model, lambda: loss(image, tokens)


def step_flops(case):
    """Floating-point operations of a training step: three times those of the forward matrix products.

    A block has 12 width² weights, used once a token, and 2 · width multiplications a pair of tokens for attention.
    """
    width, depth, pairs = case["width"], case["depth"], case["pairs"]
    patches = (case["size"] // case["patch"]) ** 2
    forward = patches * 3 * case["patch"] ** 2 * width
    for tokens in (patches + 1, LENGTH):
        forward += depth * (12 * tokens * width**2 + 2 * tokens**2 * width)
    return 3 * 2 * pairs * forward


def scenes_rate():
    """Scenes a second on one thread, at 64 pixels, in batches of 256, pictures and captions."""
    from mmlearn.data.synthetic.scenes import Scenes

    torch.set_num_threads(1)
    scenes = Scenes()
    rates = []
    for k in range(8):
        started = time.perf_counter()
        for sample in scenes.__getitems__(range(256 * k, 256 * (k + 1))):
            sample.caption  # noqa: B018
        rates.append(256 / (time.perf_counter() - started))
    return statistics.median(rates[1:])


def measure_clip():
    """One record for each size, number of threads and implementation; and what else the machine can do."""
    rows = []
    for label, case in SIZES.items():
        rates = {threads: matrix_rate(threads) for threads in (1, 2)}  # again, for the machine may have slowed down
        results = compare({name: (prepare, name, case) for name in IMPLEMENTATIONS}, case["steps"])
        for threads in (1, 2):
            for name, result in results.items():
                seconds = result["seconds"][threads]
                rows.append(
                    {
                        "size": label,
                        "threads": threads,
                        "implementation": name,
                        "parameters": result["parameters"],
                        "step_ms": round(statistics.median(seconds) * 1e3, 1),
                        "ratio": ratio(seconds, results["Transformers"]["seconds"][threads]),
                        "share_of_matrix_rate": round(
                            step_flops(case) / statistics.median(seconds) / 1e9 / rates[threads], 3
                        ),
                        "peak_mib": result["peak_mib"],
                    }
                )
            print_rows(rows[-len(results) :])
    record = {"steps": rows, "matrix_gflops": {str(threads): round(rate, 1) for threads, rate in rates.items()}}
    record["scenes_per_second"] = round(scenes_rate())
    print(f"\nmatrix products: {record['matrix_gflops']} GFLOP/s by threads")
    print(f"scenes: {record['scenes_per_second']:,} a second and core at 64 px (to reach: 2,000)\n")
    return record


TABLES = {
    "clip": measure_clip,
    "fusion": fusion.measure,
    "unified": partial(fusion.measure, fusion.UNIFIED),
    "bridges": partial(fusion.measure, fusion.BRIDGES),
    "audio": audio.measure,
    "sound": sound.measure,
    "writing": writing.measure,
}
APART = {"easy-vqa": easy_vqa.measure}  # only by its name


def main(*names):
    """Measure the tables of these names, or all; print them, keep them."""
    known = TABLES | APART
    if "--help" in names:
        print(f"{__doc__}\nTables: {', '.join(known)}.")
        return 0
    if unknown := [name for name in names if name not in known]:
        return f"There is no table {unknown[0]!r}; there are {', '.join(known)}."
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    RESULTS.mkdir(exist_ok=True)
    for name in names or TABLES:
        record = {"machine": machine, "torch": torch.__version__} | known[name]()
        (RESULTS / f"{name.replace('-', '_')}.json").write_text(json.dumps(record, indent=1) + "\n")


def print_rows(rows):
    """One line an implementation."""
    for row in rows:
        print(
            f"{row['size']:26} {row['threads']} thread(s)  {row['implementation']:13} {row['step_ms']:8.1f} ms  "
            f"{row['ratio']:5.2f} × Transformers  {row['share_of_matrix_rate']:5.0%} of the matrix rate  "
            f"{row['peak_mib']:5} MiB",
            flush=True,
        )


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main(*sys.argv[1:]))
