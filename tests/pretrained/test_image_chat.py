"""A question about an image and its answer as tokens, for a real language model and for the packaged one."""

import dataclasses
from unittest.mock import Mock

import pytest
import torch
from chats import AROUND, WHOLE, llama_folder
from testing_tools import refused

from mmlearn.models.bridges.vlm import VLM, VLMConfig
from mmlearn.pretrained import gguf_convert
from mmlearn.pretrained.extras import gguf_of_extra
from mmlearn.pretrained.gguf_file import GGUF
from mmlearn.pretrained.image_chat import EXTRA, frozen_language_model
from mmlearn.pretrained.zoo import load_processor
from mmlearn.training.conversation import open_conversation


def installed():
    try:
        return bool(gguf_of_extra(EXTRA))
    except FileNotFoundError:
        return False


NAMES = ["zoo/llama-collages", pytest.param(EXTRA, marks=pytest.mark.skipif(not installed(), reason="needs the extra"))]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_answer_and_its_end_are_marked(name):
    model, chat = frozen_language_model(name)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert chat.end in (model.config.end_token, *model.config.more_end_tokens)
    questions, answers = ["what is this?", "is there a cat in the picture?"], ["a cat.", "no."]
    tokens, is_answer, real = chat.encode(questions, answers, 5)
    assert ((tokens == chat.image_token).sum(1) == 5).all()
    assert (tokens < model.config.vocab_size).all()
    for row, asked, is_real, question, text in zip(tokens, is_answer, real, questions, answers):
        marked = row[asked]
        assert marked[-1] == chat.end
        assert chat.decode(marked.tolist()) == text
        prompt = chat.prompt(question, 5)
        assert row[: len(prompt)].tolist() == prompt
        assert asked.nonzero().flatten().tolist() == list(range(len(prompt), int(is_real.sum())))
        assert (row[~is_real] == chat.pad).all()
    assert chat.decode([*marked[:1].tolist(), chat.end, 7]) == chat.engine.decode(marked[:1].tolist()).strip()


@pytest.mark.parametrize("name", NAMES)
def test_several_questions_are_answered_as_each_alone(name):
    """Shorter questions are padded; a language model is asked without an image, a system about one each."""
    model, chat = frozen_language_model(name)
    questions = ["what is this?", "is there a cat in the picture?"]
    alone = []
    for question in questions:
        prompt = torch.tensor([chat.prompt(question)])
        written = model.generate(prompt=prompt, max_length=prompt.shape[1] + 5)
        alone.append(chat.decode(written[0, prompt.shape[1] :].tolist()))
    assert chat.answers(model, questions, most=5) == alone
    config = dataclasses.replace(VLMConfig.tiny(), language_model=model.config, image_token=chat.image_token)
    system = VLM(config, language_model=model).eval()
    assert chat.answers(system, questions, most=5) == alone
    system.projector.second.weight.data.mul_(20)  # so that images matter
    image = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    seen = []
    for question, one in zip(questions, image):
        prompt = torch.tensor([chat.prompt(question, config.num_image_tokens)])
        written = system.generate(one[None], prompt=prompt, max_length=prompt.shape[1] + 5)
        seen.append(chat.decode(written[0, prompt.shape[1] :].tolist()))
    assert chat.answers(system, questions, image, most=5) == seen
    assert chat.answers(system, questions, image.flip(0) * 9, most=5) != seen


@pytest.mark.skipif(not installed(), reason="needs the extra")
def test_the_real_one_answers_in_its_own_turn():
    model, chat = frozen_language_model(EXTRA)
    prompt = torch.tensor([chat.prompt("What is the capital of France?")])
    written = model.generate(prompt=prompt, max_length=prompt.shape[1] + 12)
    assert "Paris" in chat.decode(written[0, prompt.shape[1] :].tolist())


@pytest.mark.skipif(not installed(), reason="needs the extra")
def test_the_zoo_reads_turns_as_the_lesson_trains_them():
    """``load_processor`` and ``frozen_language_model`` word one question about an image alike."""
    tokenizer, chat = load_processor("zoo/vlm-collages"), frozen_language_model(EXTRA)[1]
    tokens = tokenizer.turns([{"role": "user", "content": "What is this?"}], images=1)
    assert tokens.tolist() == chat.prompt("What is this?", 16)


@pytest.mark.skipif(not installed(), reason="needs the extra")
@pytest.mark.parametrize("open_it", [open_conversation, frozen_language_model])
def test_the_file_of_a_chat_is_read_through_once(open_it, monkeypatch):
    opened = []
    monkeypatch.setattr(gguf_convert, "GGUF", lambda path: opened.append(path) or GGUF(path))
    open_it(EXTRA)
    assert len(opened) == 1


def test_a_published_folder_chats_and_stands_in_for_what_cannot_be_had(tmp_path, monkeypatch):
    llama_folder(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", Mock(side_effect=OSError))
    with pytest.warns(UserWarning, match=f"^{tmp_path} in place of nobody/nothing, which cannot be had here"):
        model, chat = frozen_language_model(["nobody/nothing", str(tmp_path)])
    tokens, is_answer, _ = chat.encode(["what is it?"], ["a red field"], 1)
    end, image = (chat.engine.token_to_id(token) for token in ("<|end|>", "<image>"))
    shown = f"{AROUND}{WHOLE}<image>{AROUND}"  # as this tokenizer knows these
    said = f"<|im_start|>user\n{shown}what is it?<|end|>\n<|im_start|>assistant\na red field<|end|>"
    assert chat.engine.decode(tokens[0].tolist(), skip_special_tokens=False) == said
    assert tokens[0][is_answer[0]].tolist() == [*chat.tokens("a red field"), end]
    assert (chat.image_token, chat.end, chat.end_token) == (image, end, end)
    assert model.config.start_token is None  # the template writes it
    refused("The prompt holds <|end|>, which is no word for this model", chat.encode, ["what is it?"], ["a <|end|>"])
    (tmp_path / "chat_template.jinja").unlink()
    refused("has no chat template", frozen_language_model, str(tmp_path))


def test_a_model_that_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="zoo/clip-collages is no language model that can be asked: smollm2-135m and"):
        frozen_language_model("zoo/clip-collages")
    with pytest.raises(FileNotFoundError, match="There is no zoo/lama; "):
        frozen_language_model("lama")
