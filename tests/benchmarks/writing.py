"""How fast texts are written: with the cache and without it, and beside Transformers' ``generate``.

Captions of 20 tokens each, by models of equal size whose texts never end, from pictures that are encoded within the
time. ``TARGETS`` are what is aimed at: with the cache at least 3 times as fast, and no slower than Transformers.
"""

import statistics
from functools import partial

import torch
from timing import compare, ratio, writing_step

TOKENS, END = 20, 2
TARGETS = {"cache": 3.0, "ratio": 1.0}
# The first is what chapters train; of the second each step is work enough for its products to count.
SIZES = {
    "64 wide, 3 layers": dict(width=64, depth=3, heads=2, vocab=512, picture=64, patch=16, captions=64, rounds=5),
    "256 wide, 6 layers": dict(width=256, depth=6, heads=4, vocab=5120, picture=96, patch=16, captions=16, rounds=3),
}
BEAMS = {"greedy": 1, "3 beams": 3}


def pictures(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size["captions"], 3, size["picture"], size["picture"], generator=generator)


def never_ends(bias):
    with torch.no_grad():
        bias[END] = -1e4


def blip(size, beams, cache=True):
    """mmlearn's captioner."""
    from mmlearn.generation.cache import uncached
    from mmlearn.generation.decoding import beam_search, greedy
    from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
    from mmlearn.models.align.blip import BLIP, BLIPConfig

    shape = dict(width=size["width"], depth=size["depth"], num_heads=size["heads"])
    model = BLIP(
        BLIPConfig(
            image=ImageEncoderConfig(**shape, image_size=size["picture"], patch_size=size["patch"]),
            text=BERTEncoderConfig(**shape, vocab_size=size["vocab"], max_length=32, token_types=0),
            end_token=END,
            encoder=False,
            queue_size=0,
        )
    )
    never_ends(model.language_head.bias)
    image, decode = pictures(size), greedy if beams == 1 else partial(beam_search, beams=beams)

    def plain():
        start = torch.full((len(image), 1), model.decode_token)
        next_logits = uncached(model.reader(image), torch.ones_like(start, dtype=torch.bool))
        return decode(next_logits, start, end_token=END, max_length=TOKENS + 1)[:, 1:]

    write = partial(model.generate, image, decode, max_length=TOKENS) if cache else plain
    return model, partial(check, write, size)


def published_blip(size, beams):
    """Transformers' captioner."""
    from transformers import BlipConfig, BlipForConditionalGeneration

    shape = dict(hidden_size=size["width"], num_hidden_layers=size["depth"], num_attention_heads=size["heads"])
    shape["intermediate_size"] = 4 * size["width"]
    words = size["vocab"]
    special = dict(vocab_size=words + 2, bos_token_id=words, sep_token_id=END, eos_token_id=END, pad_token_id=0)
    model = BlipForConditionalGeneration(
        BlipConfig(
            text_config=shape | special | dict(encoder_hidden_size=size["width"], max_position_embeddings=32),
            vision_config=shape | dict(image_size=size["picture"], patch_size=size["patch"]),
        )
    )
    never_ends(model.text_decoder.cls.predictions.bias)
    search = dict(num_beams=beams, early_stopping="never") if beams > 1 else {}
    write = partial(model.generate, pixel_values=pictures(size), max_length=TOKENS + 1, **search)
    return model, partial(check, lambda: write()[:, 1:], size)


def check(write, size):
    """Write; all texts must have their full length, or times would not compare."""
    written = write()
    assert written.shape == (size["captions"], TOKENS), written.shape
    assert not (written == END).any()


# System → ours, and Transformers'. Both take a size and a number of beams; ours can also do without the cache.
SYSTEMS = {"blip": (blip, published_blip)}


def measure(sizes=SIZES):
    """One record for each size, system, strategy and number of threads."""
    records = []
    for label, size in sizes.items():
        for system, (ours, theirs) in SYSTEMS.items():
            for strategy, beams in BEAMS.items():
                builds = {"mmlearn": (ours, size, beams), "no cache": (ours, size, beams, False)}
                builds["Transformers"] = (theirs, size, beams)
                results = compare(builds, size["rounds"], make_step=writing_step)
                for threads in (1, 2):
                    records.append(record(label, size, system, strategy, threads, results))
                    print_row(records[-1])
    return {"targets": TARGETS, "texts": records}


def record(label, size, system, strategy, threads, results):
    seconds = {name: result["seconds"][threads] for name, result in results.items()}
    rates = {name: round(size["captions"] * TOKENS / statistics.median(times)) for name, times in seconds.items()}
    return {
        "size": label,
        "threads": threads,
        "system": system,
        "strategy": strategy,
        "captions": size["captions"],
        "tokens": TOKENS,
        "parameters": results["mmlearn"]["parameters"],
        "twin_parameters": results["Transformers"]["parameters"],
        "tokens_per_second": rates["mmlearn"],
        "without_cache": rates["no cache"],
        "twin": rates["Transformers"],
        "cache": ratio(seconds["no cache"], seconds["mmlearn"]),
        "ratio": ratio(seconds["mmlearn"], seconds["Transformers"]),
    }


def print_row(row):
    """One line; ``!`` marks what misses its target."""
    cache = f"{row['cache']:.2f} × as fast as without cache{' ' if row['cache'] >= TARGETS['cache'] else '!'}"
    twin = f"{row['ratio']:.3f}{' ' if row['ratio'] <= TARGETS['ratio'] else '!'} of Transformers' time"
    what = f"{row['size']:18}  {row['threads']} thread(s)  {row['system']:6} {row['strategy']:8}"
    print(f"{what} {row['tokens_per_second']:7,} tokens a second  {cache}  {twin}", flush=True)


if __name__ == "__main__":
    measure()
