"""How fast texts are written: with the cache and without it, and beside Transformers' ``generate``.

Texts of 20 tokens each, by models of equal size whose texts never end: BLIP from pictures, T5 and BART from texts of
20 tokens, all encoded within the time, and GPT-2 from nothing. ``TARGETS`` are what is aimed at: with the cache at
least 3 times as fast, and no slower than Transformers.
"""

import statistics
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
import torch.nn.functional as F
from timing import compare, ratio, writing_step

TOKENS, START, END = 20, 1, 2
TARGETS = {"cache": 3.0, "ratio": 1.0}
# The first is what chapters train; of the second each step is work enough for its products to count.
SIZES = {
    "64 wide, 3 layers": dict(width=64, depth=3, heads=2, vocab=512, picture=64, patch=16, texts=64, rounds=9),
    "256 wide, 6 layers": dict(width=256, depth=6, heads=4, vocab=5120, picture=96, patch=16, texts=16, rounds=5),
}
BEAMS = {"greedy": 1, "3 beams": 3}


def pictures(size):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(size["texts"], 3, size["picture"], size["picture"], generator=generator)


def source_texts(size):
    """Without special tokens."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(END + 1, size["vocab"], (size["texts"], TOKENS), generator=generator)


def never_ends(weight, value=0.0):
    """The end's logit is always this: one of its bias, or 0 of an empty row of the token table, an average token."""
    with torch.no_grad():
        weight[END] = value


def blip(size):
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
    never_ends(model.language_head.bias, -1e4)
    return model, pictures(size)


def gpt2(size):
    from mmlearn.models.text.gpt2 import GPT2, GPT2Config

    shape = dict(width=size["width"], depth=size["depth"], num_heads=size["heads"], max_length=32)
    model = GPT2(GPT2Config(**shape, vocab_size=size["vocab"], start_token=START, end_token=END, pad_token=0))
    never_ends(model.embedding.tokens.weight)
    return model, torch.zeros(size["texts"], 0, dtype=torch.long)


def bart(size):
    from mmlearn.models.text.bart import BART, BARTConfig

    shape = dict(width=size["width"], depth=size["depth"], num_heads=size["heads"], max_length=32)
    model = BART(BARTConfig(**shape, vocab_size=size["vocab"], start_token=START, end_token=END, pad_token=0))
    never_ends(model.embedding.weight)
    return model, source_texts(size)


def t5(size):
    from mmlearn.models.text.t5 import T5, T5Config

    width, heads = size["width"], size["heads"]
    shape = dict(width=width, depth=size["depth"], num_heads=heads, head_width=width // heads, mlp_width=4 * width)
    model = T5(T5Config(**shape, vocab_size=size["vocab"], end_token=END, pad_token=0))
    never_ends(model.embedding.weight)
    return model, source_texts(size)


def published_blip(size):
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
    never_ends(model.text_decoder.cls.predictions.bias, -1e4)
    return model, {"pixel_values": pictures(size)}


def published_gpt2(size):
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = dict(n_embd=size["width"], n_layer=size["depth"], n_head=size["heads"], n_positions=32)
    special = dict(vocab_size=size["vocab"], bos_token_id=START, eos_token_id=END, pad_token_id=0)
    model = GPT2LMHeadModel(GPT2Config(**shape, **special))
    never_ends(model.transformer.wte.weight)
    return model, {"input_ids": torch.full((size["texts"], 1), START)}


def published_bart(size):
    from transformers import BartConfig, BartForConditionalGeneration

    shape = dict(d_model=size["width"], vocab_size=size["vocab"], max_position_embeddings=32)
    for half in ("encoder", "decoder"):
        shape |= {f"{half}_layers": size["depth"], f"{half}_attention_heads": size["heads"]}
        shape |= {f"{half}_ffn_dim": 4 * size["width"]}
    special = dict(bos_token_id=START, eos_token_id=END, pad_token_id=0, decoder_start_token_id=END)
    model = BartForConditionalGeneration(BartConfig(**shape, **special, forced_eos_token_id=None))
    never_ends(model.model.shared.weight)
    return model, {"input_ids": F.pad(with_end(size), (1, 0), value=START)}


def published_t5(size):
    from transformers import T5Config, T5ForConditionalGeneration

    width, heads, words = size["width"], size["heads"], size["vocab"]
    shape = dict(d_model=width, num_layers=size["depth"], num_heads=heads, d_kv=width // heads, d_ff=4 * width)
    special = dict(vocab_size=words, eos_token_id=END, pad_token_id=0, decoder_start_token_id=0)
    model = T5ForConditionalGeneration(T5Config(**shape, **special))
    never_ends(model.shared.weight)
    return model, {"input_ids": with_end(size)}


def with_end(size):
    """Source texts as ours get them when they are asked to write."""
    return F.pad(source_texts(size), (0, 1), value=END)


# System → ours, and Transformers'. Each returns a model and what it writes from.
SYSTEMS = {
    "blip": (blip, published_blip),
    "gpt2": (gpt2, published_gpt2),
    "bart": (bart, published_bart),
    "t5": (t5, published_t5),
}


def ours(system, size, beams, cache=True):
    """mmlearn's, with the cache or reading every text again for each token."""
    from mmlearn.generation.decoding import beam_search, greedy

    model, given = SYSTEMS[system][0](size)
    decode = greedy if beams == 1 else partial(beam_search, beams=beams)
    write = partial(model.generate, given, decode, max_length=TOKENS)
    return model, partial(check, write if cache else partial(read_again, write), size)


def read_again(write):
    from mmlearn.generation.cache import uncached

    @contextmanager
    def none(model, read, mask):
        yield uncached(read, mask)

    with patch("mmlearn.generation.cache.cached", none), patch("mmlearn.models.text.writing.cached", none):
        return write()


def theirs(system, size, beams):
    """Transformers'."""
    model, given = SYSTEMS[system][1](size)
    search = dict(num_beams=beams, early_stopping="never") if beams > 1 else {}
    write = partial(model.generate, **given, max_length=TOKENS + 1, **search)
    return model, partial(check, lambda: write()[:, 1:], size)


def check(write, size):
    """Write; all texts must have their full length, or times would not compare."""
    written = write()
    assert written.shape == (size["texts"], TOKENS), written.shape
    assert not (written == END).any()


def measure(sizes=SIZES):
    """One record for each size, system, strategy and number of threads."""
    records = []
    for label, size in sizes.items():
        for system in SYSTEMS:
            for strategy, beams in BEAMS.items():
                builds = {"mmlearn": (ours, system, size, beams), "no cache": (ours, system, size, beams, False)}
                builds["Transformers"] = (theirs, system, size, beams)
                results = compare(builds, size["rounds"], make_step=writing_step)
                for threads in (1, 2):
                    records.append(record(label, size, system, strategy, threads, results))
                    print_row(records[-1])
    return {"targets": TARGETS, "texts": records}


def record(label, size, system, strategy, threads, results):
    seconds = {name: result["seconds"][threads] for name, result in results.items()}
    rates = {name: round(size["texts"] * TOKENS / statistics.median(times)) for name, times in seconds.items()}
    return {
        "size": label,
        "threads": threads,
        "system": system,
        "strategy": strategy,
        "texts": size["texts"],
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
