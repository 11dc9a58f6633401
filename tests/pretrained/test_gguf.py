"""GGUF files: what llama.cpp holds is what Transformers computes, and files that lie are refused in one line."""

import json
import random
import struct
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("gguf")
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from ggufs import END, MERGES, SIZES, START, TOKENS, TURN, TYPES, said, their_tensors, write_gguf
from testing_tools import close
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from mmlearn import load_pretrained
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.pretrained.convert import convert
from mmlearn.pretrained.gguf_file import GGUF, READ

LINEAR = dict(rope_type="linear", rope_theta=1e4, factor=3.0)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0)
LLAMA3 |= dict(original_max_position_embeddings=8192)
CASES = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SIZES), {}),
    "tied": (LlamaForCausalLM, LlamaConfig(**SIZES, tie_word_embeddings=True), {}),
    "linear": (
        LlamaForCausalLM,
        LlamaConfig(**SIZES, rope_parameters=LINEAR),
        {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 3.0},
    ),
    "llama3": (LlamaForCausalLM, LlamaConfig(**SIZES, rope_parameters=LLAMA3), {"llama.rope.freq_base": 5e5}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config(**SIZES), {}),
}
SPECIAL = dict(max_length=99, start_token=START, end_token=END, pad_token=END)


def build(case, path, kind="F32"):
    """A model of Transformers, and a GGUF of it."""
    torch.manual_seed(0)
    make, config, changes = CASES[case]
    published = make(config).eval()
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    family = "qwen2" if case == "qwen2" else "llama"
    tensors = their_tensors(published, family)
    if case == "tied":
        del tensors["output.weight"]
    if case == "llama3":
        plain = 5e5 ** (-torch.arange(0, 16, 2) / 16)
        tensors["rope_freqs.weight"] = (plain / published.model.rotary_emb.inv_freq).numpy()
    write_gguf(path, tensors, said(family) | changes, family, kind)
    return published, tensors


@pytest.mark.parametrize("case", CASES)
def test_it_computes_what_was_written(case, tmp_path):
    published, _ = build(case, tmp_path / "model.gguf")
    told = convert(tmp_path / "model.gguf", tmp_path / "ours")
    assert "\n" not in told
    ours, theirs = load_pretrained(tmp_path / "ours"), type(published).from_pretrained(tmp_path / "ours").eval()
    tokens = torch.randint(len(TOKENS), (2, 20), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = published(tokens).logits
        close(ours(tokens).token_logits, expected)
        close(theirs(tokens).logits, expected)  # it is a published folder, which others read as well
    assert (ours.config.start_token, ours.config.end_token) == (None if case == "qwen2" else START, END)


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_what_is_quantised_is_what_its_package_says(kind, tmp_path):
    _, tensors = build("llama", tmp_path / "model.gguf", kind)
    convert(tmp_path / "model.gguf", tmp_path / "ours")
    exact = load_pretrained(tmp_path / "ours").blocks[1].mlp.expand.weight
    close(exact, torch.from_numpy(tensors["blk.1.ffn_up.weight"]), {"4": 0.1, "5": 0.06}.get(kind[1], 0.01))
    read = GGUF(tmp_path / "model.gguf").read("token_embd.weight")
    assert read.dtype == {"F16": torch.float16, "BF16": torch.bfloat16}.get(kind, torch.float32)


@pytest.mark.parametrize("kind", READ)
def test_every_type_that_is_read(kind, tmp_path):
    """Blocks of any bytes, but for their scales; the package dequantises row by row."""
    number = GGMLQuantizationType[kind]
    block, size = GGML_QUANT_SIZES[number]
    rows = np.random.default_rng(0).integers(0, 60, (3, 512 // block * size), dtype=np.uint8)
    path = tmp_path / "one.gguf"
    path.write_bytes(small(kind=number.value, shape=(3, 512), data=rows.tobytes()))
    expected = dequantize(rows, number)
    assert torch.equal(GGUF(path).read("x").float(), torch.from_numpy(np.asarray(expected, np.float32)))
    assert np.isfinite(expected).all()


def test_its_tokenizer_is_the_one_that_transformers_reads(tmp_path):
    build("llama", tmp_path / "model.gguf")
    convert(tmp_path / "model.gguf", tmp_path / "ours")
    ours, theirs = (
        PublishedTokenizer.read(tmp_path / "ours", **SPECIAL),
        AutoTokenizer.from_pretrained(tmp_path / "ours"),
    )
    for text in ("cat dog a 12 cat", " Größe\n\n  \t7", "<turn>cat</s>"):
        assert ours.prompt(text).tolist() == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ours.prompt(text)) == theirs.decode(ours.prompt(text), skip_special_tokens=True).strip()
    assert ours.prompt("cat cat").tolist() == [TOKENS.index("cat"), TOKENS.index("Ġcat")]
    assert theirs("cat")["input_ids"] == [START, TOKENS.index("cat")]
    chat = [dict(role="user", content="cat"), dict(role="assistant", content="dog")]
    text = theirs.apply_chat_template(chat, tokenize=False)
    assert text == "<s><turn>cat</s><turn>dog</s>"
    assert ours.prompt(text).tolist() == [START, *[t for w in ("cat", "dog") for t in (TURN, TOKENS.index(w), END)]]


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ("gpt-2", ["I", "'ll", "Ġpay", "Ġ12345", "!"]),
        ("smollm", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "!"]),
        ("llama-bpe", ["I", "'ll", "Ġpay", "Ġ", "123", "45", "!"]),
        ("qwen2", ["I", "'ll", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "!"]),
    ],
)
def test_how_a_text_is_cut_into_words(cut, words, tmp_path):
    """And no other pattern that a file brings is run."""
    convert(gguf(tmp_path, **{"tokenizer.ggml.pre": cut}), tmp_path / "ours")
    engine = PublishedTokenizer.read(tmp_path / "ours", **SPECIAL).engine
    assert [word for word, _ in engine.pre_tokenizer.pre_tokenize_str("I'll pay 12345!")] == words
    file = tmp_path / "ours" / "tokenizer.json"
    file.write_text(file.read_text().replace("1,3", "1,9"))
    if cut == "llama-bpe":
        with pytest.raises(ValueError, match="searches by a pattern"):
            PublishedTokenizer.read(tmp_path / "ours", **SPECIAL)


def test_a_tokenizer_of_sentence_piece(tmp_path):
    """The merge whose result scores highest comes first: "ab" before "bc", although "bc" stands before it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", "a", "b", "c", "bc", "ab", "▁ab"]
    tokens += [f"<unused{i}>" for i in range(len(TOKENS) - len(tokens))]
    types = [2, 3, 3, *[6] * 256, *[1] * 7, *[5] * (len(tokens) - 266)]
    scores = [0.0] * 263 + [-3.0, -2.0, -4.0] + [0.0] * (len(tokens) - 266)
    names = dict(model="llama", tokens=tokens, token_type=types, scores=scores, bos_token_id=1, eos_token_id=2)
    changes = {f"tokenizer.ggml.{name}": value for name, value in names.items()}
    gguf(tmp_path, **changes | {"tokenizer.ggml.padding_token_id": 2})
    convert(tmp_path / "model.gguf", tmp_path / "ours")
    ours, theirs = (
        PublishedTokenizer.read(tmp_path / "ours", **SPECIAL),
        AutoTokenizer.from_pretrained(tmp_path / "ours"),
    )
    assert [tokens[i] for i in ours.prompt("abc é")] == ["▁ab", "c", "▁", "<0xC3>", "<0xA9>"]
    assert ours.prompt("abc é").tolist() == theirs("abc é")["input_ids"][1:]
    assert ours.decode(ours.prompt("abc é")) == "abc é"


# What is refused.


def gguf(folder, tensors=None, family="llama", kind="F32", **changes):
    """The file of a llama whose settings are changed; None leaves one out."""
    if tensors is None:
        _, tensors = build("llama", folder / "model.gguf")
    settings = {name: value for name, value in (said() | changes).items() if value is not None}
    return write_gguf(folder / "model.gguf", tensors, settings, family, kind)


def refused(file, *fragments):
    """In one line that names the file, and before anything is written."""
    with pytest.raises(ValueError, match=" ") as caught:
        convert(file, file.parent / "refused")
    message = str(caught.value)
    assert type(caught.value) is ValueError
    for fragment in (str(file), *fragments):
        assert fragment in message, message
    assert "\n" not in message
    assert len(message.replace(str(file), "")) < 400, message
    assert not (file.parent / "refused" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"general.architecture": "gemma3"}, "of the architecture 'gemma3', and llama and qwen2 are read"),
        (
            {"llama.rope.scaling.type": "yarn"},
            "a rope scaling, 'yarn', that is not built here; none, linear and Llama 3's",
        ),
        ({"llama.logit_scale": 2.0}, "says llama.logit_scale = 2.0, which is not built here"),
        ({"llama.expert_count": 8}, "a mixture of 8 experts"),
        ({"llama.embedding_length": None}, "does not say llama.embedding_length"),
        ({"llama.embedding_length": 65}, "(288, 64), embedding.weight has (288, 65)"),
        ({"llama.attention.head_count": 0}, "0 heads"),
        ({"llama.attention.head_count": [4, 4]}, "[4, 4] heads"),
        ({"llama.attention.head_count_kv": 3}, "num_kv_heads 3"),
        ({"llama.block_count": 3}, "blocks.2.attention.key.weight"),
        ({"llama.block_count": 10**6}, "num_hidden_layers"),
        ({"llama.attention.sliding_window": 99}, "window 99 is none of 1 to max_length, 24"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count is 8, and heads of 16 are built"),
        ({"llama.rope.freq_base": float("nan")}, "base nan"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"tokenizer.ggml.model": "t5"}, "a tokenizer 't5'; gpt2 (bytes) and llama (SentencePiece) are read"),
        ({"tokenizer.ggml.pre": "tekken"}, "'tekken'; known here are gpt-2, smollm, llama-bpe, qwen2"),
        ({"tokenizer.ggml.tokens": None}, "no list of tokens"),
        ({"tokenizer.ggml.tokens": [*TOKENS, "more"], "tokenizer.ggml.token_type": [*TYPES, 1]}, "and weights for 288"),
        ({"tokenizer.ggml.tokens": ["a"] * 288}, "not different ones"),
        ({"tokenizer.ggml.token_type": [1]}, "each with its type"),
        ({"tokenizer.ggml.merges": [*MERGES, "q w"]}, "pairs of its tokens that make up another"),
        ({"tokenizer.ggml.merges": None}, "pairs of its tokens"),
        ({"tokenizer.ggml.eos_token_id": 999}, "eos_token is 999, and tokens are numbered from 0 to 287"),
        ({"tokenizer.ggml.eos_token_id": None}, "eos_token"),
    ],
)
def test_settings_that_are_not_built_or_contradict(changes, says, tmp_path):
    refused(gguf(tmp_path, **changes), says)


def test_tensors_that_do_not_belong(tmp_path):
    _, tensors = build("llama", tmp_path / "model.gguf")
    refused(
        gguf(tmp_path, tensors | {"blk.0.attn_q.bias": np.zeros(64, np.float32)}), "attn.q_proj.bias is in the file"
    )
    refused(gguf(tmp_path, tensors | {"rope_freqs.weight": np.ones(8, np.float32) * 2}), "that is not Llama 3's")
    less = {name: value for name, value in tensors.items() if name != "token_embd.weight"}
    refused(gguf(tmp_path, less), "has no token_embd.weight")
    turned = tensors | {"blk.1.ffn_up.weight": tensors["blk.1.ffn_up.weight"].T.copy()}
    refused(gguf(tmp_path, turned), "shape (64, 96), blocks.1.mlp.expand.weight has (96, 64)")


def test_without_a_template_it_says_so(tmp_path):
    told = convert(gguf(tmp_path, **{"tokenizer.chat_template": None}), tmp_path / "ours")
    assert told.endswith(", without a chat template")
    assert not (tmp_path / "ours" / "chat_template.jinja").exists()


def text(words):
    return struct.pack("<Q", len(words)) + words


def small(kind=0, shape=(4, 8), offset=0, data=None, name=b"x", settings=(), more=b"", counts=None, version=3):
    """A file of one tensor, byte by byte."""
    header = b"GGUF" + struct.pack("<I", version) + struct.pack("<QQ", *(counts or (1, len(settings))))
    header += b"".join(settings) + text(name) + struct.pack("<I", len(shape))
    header += b"".join(struct.pack("<Q", axis) for axis in reversed(shape)) + struct.pack("<IQ", kind, offset) + more
    header += b"\0" * (-len(header) % 32)
    return header + (np.ones(shape, np.float32).tobytes() if data is None else data)


def setting(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


ANOTHER = text(b"y") + struct.pack("<IQIQ", 1, 8, 0, 0)
HUGE = 2**63


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends within its magic word"),
        (b"GGUF", "ends within its version"),
        (b"GGML" + bytes(60), "is no GGUF file"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(60), "another order of bytes"),
        (small(version=1), "version 1, and 2 and 3 are read"),
        (small(counts=(HUGE, 0)), "announces 9,223,372,036,854,775,808 tensors, for which it is too short"),
        (small(counts=(1, HUGE)), "settings, for which it is too short"),
        (small(counts=(2, 0)), "has 0 axes"),
        (small(settings=[struct.pack("<Q", HUGE)]), "ends within a text"),
        (small(settings=[setting(b"a", 8, struct.pack("<Q", HUGE))]), "ends within a text"),
        (small(settings=[setting(b"a", 9, struct.pack("<IQ", 8, HUGE))]), "texts, for which it is too short"),
        (small(settings=[setting(b"a", 9, struct.pack("<IQ", 4, HUGE))]), "ends within a list of numbers"),
        (small(settings=[setting(b"a", 9, struct.pack("<IQ", 9, 3))]), "a setting of type 9"),
        (small(settings=[setting(b"a", 99, b"")]), "a setting of type 99"),
        (small(settings=[setting(b"\xff\xfe", 8, text(b"x"))]), "not UTF-8"),
        (small(settings=[setting(b"a", 8, text(b"x"))] * 2), "the setting a twice"),
        (
            small(settings=[setting(b"general.alignment", 4, struct.pack("<I", 0))]),
            "a power of two up to 65,536, not 0",
        ),
        (small(settings=[setting(b"general.alignment", 4, struct.pack("<I", 48))]), "not 48"),
        (small(settings=[setting(b"general.alignment", 8, text(b"32"))]), "not '32'"),
        (small(shape=()), "x has 0 axes"),
        (small(shape=(1,) * 5), "x has 5 axes"),
        (small(shape=(0, 8), data=b""), "shape (0, 8)"),
        (small(shape=(HUGE, HUGE), data=b""), "It was cut off, or lies"),
        (small(kind=8), "which Q8_0 does not come in"),
        (small(offset=16), "It was cut off, or lies"),
        (small(offset=HUGE), "It was cut off, or lies"),
        (small(data=bytes(127)), "It was cut off, or lies"),
        (small(kind=16), "quantised as IQ2_XXS, which is not read here; read are F32, F16, BF16, Q4_0"),
        (small(kind=999), "quantised as type 999"),
        (small(counts=(2, 0), more=ANOTHER), "x and y share memory"),
        (small(counts=(2, 0), more=ANOTHER.replace(b"y", b"x")), "has x twice"),
        (small(name=b"a\nb", kind=8), "a name that cannot be printed: 'a\\nb'"),
    ],
)
def test_files_that_lie(content, says, tmp_path):
    (tmp_path / "model.gguf").write_bytes(content)
    refused(tmp_path / "model.gguf", says)


def test_a_file_that_is_cut_off_anywhere(tmp_path):
    whole = gguf(tmp_path).read_bytes()
    for length in [*range(0, 64, 5), *range(64, len(whole), len(whole) // 20), len(whole) - 1]:
        (tmp_path / "cut.gguf").write_bytes(whole[:length])
        refused(tmp_path / "cut.gguf")


def test_bytes_that_are_changed_anywhere(tmp_path):
    """It is read, or refused in a line; and nothing else."""
    whole, draw, count = bytearray(gguf(tmp_path).read_bytes()), random.Random(0), 0
    header = whole.find(b"blk.0.attn_norm")
    for _ in range(60):
        changed, place = bytearray(whole), draw.randrange(header + 800)
        changed[place : place + 4] = draw.randbytes(4)
        (tmp_path / "changed.gguf").write_bytes(changed)
        told = ""
        try:
            convert(tmp_path / "changed.gguf", tmp_path / "changed", force=True)
        except ValueError as error:
            told = str(error)
        assert "\n" not in told, told
        count += bool(told)
    assert count > 20


def test_without_the_package(tmp_path, monkeypatch):
    file = gguf(tmp_path)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ValueError, match=r"pip install -e '.\[gguf\]'"):
        convert(file, tmp_path / "refused")


def test_what_is_there_is_kept_unless_it_may_go(tmp_path):
    file = gguf(tmp_path)
    convert(file, tmp_path / "ours")
    with pytest.raises(ValueError, match=r"holds a model.safetensors already"):
        convert(file, tmp_path / "ours")
    convert(gguf(tmp_path, **{"tokenizer.chat_template": None}), tmp_path / "ours", force=True)
    assert not (tmp_path / "ours" / "chat_template.jinja").exists()
    assert json.loads((tmp_path / "ours" / "config.json").read_text())["bos_token_id"] == START
