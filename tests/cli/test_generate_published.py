"""``mmlearn generate`` with published checkpoints: it reads what Transformers reads, and says what is missing."""

import json
import shutil

import pytest
import torch
from chats import PIXELS, TEMPLATE, smolvlm_folder, words_of, write_json
from published import TEXT, sharpened, sizes
from testing_tools import refused
from transformers import Blip2Config, Blip2ForConditionalGeneration, OPTConfig, PreTrainedTokenizerFast

from mmlearn.pretrained.chat import AROUND, WHOLE, render
from mmlearn.training.published import image_settings, load_published
from mmlearn.training.writing import write


@pytest.fixture(scope="module")
def smolvlm(tmp_path_factory):
    """A checkpoint with all its files, and the published model."""
    folder = tmp_path_factory.mktemp("smolvlm")
    return folder, smolvlm_folder(folder)


def test_an_image_and_a_prompt_are_read_as_published(smolvlm, images, works):
    """What is written from the command line is what Transformers writes about the same tokens and pixels."""
    folder, published = smolvlm
    file = images / "0.png"
    run = load_published(folder)
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}]
    said = theirs.apply_chat_template(asked, chat_template=TEMPLATE, tokenize=False, add_generation_prompt=True)
    ids = theirs(said.replace("<image>", f"{AROUND}{WHOLE}{'<image>' * 4}{AROUND}"))["input_ids"]
    assert run.tokenizer.prompt("what is it?").tolist() == ids
    from mmlearn.data.readers.images import ImageText, read_image

    pixels = run.field("image")([ImageText(read_image(file, 16), "", "")])["image"]
    mean, std = (torch.tensor(PIXELS[name])[:, None, None] for name in ("image_mean", "image_std"))
    torch.testing.assert_close(pixels[0], (read_image(file, 16) - mean) / std)
    ends = [theirs.convert_tokens_to_ids("<end_of_utterance>"), published.config.text_config.eos_token_id]
    expected = published.generate(
        input_ids=torch.tensor([ids]), pixel_values=pixels[:, None], do_sample=False, max_new_tokens=64,
        eos_token_id=ends, pad_token_id=0,
    )  # fmt: skip
    answer = theirs.decode(expected[0, len(ids) :], skip_special_tokens=True).strip()
    assert write(run, images=[file], prompt="what is it?") == [{"image": str(file), "text": answer}]
    out = works("generate", folder, "--image", file, "--prompt", "what is it?", "--json").out
    assert json.loads(out)[0]["text"] == answer
    assert len(works("generate", folder, "--image", file, "--json").out) > 2  # a description, unless asked otherwise


def test_blip_2_with_an_opt(tmp_path, images, works):
    """Its words need no chat: a prompt goes on."""
    torch.manual_seed(3)
    engine = words_of(tmp_path)
    text = OPTConfig(
        vocab_size=engine.get_vocab_size(), hidden_size=16, ffn_dim=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=96, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    former = TEXT | dict(encoder_hidden_size=16)
    image = dict(image_size=16, patch_size=4, **sizes(16, 1, 2, 24))
    config = Blip2Config(
        vision_config=image, qformer_config=former, text_config=text, num_query_tokens=3, image_token_index=5
    )
    sharpened(Blip2ForConditionalGeneration(config)).save_pretrained(tmp_path)
    file = images / "0.png"
    refused("does not say how images are normalised: put the model's preprocessor_config", load_published, tmp_path)
    write_json(tmp_path / "processor_config.json", dict(image_processor=PIXELS))
    out = works("generate", tmp_path, "--image", file, "--prompt", "a red").out
    assert out.startswith("a red")
    assert works("generate", tmp_path, "--image", file).out


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("chat_template.jinja", None, "has no chat template, which says where in a text the image and the prompt"),
        ("tokenizer.json", None, "has no tokenizer.json: put it beside the weights"),
        ("preprocessor_config.json", None, "does not say how images are normalised"),
        ("preprocessor_config.json", "{}", "does not say how images are normalised"),
    ],
)
def test_files_that_are_missing(file, content, says, smolvlm, tmp_path):
    folder = shutil.copytree(smolvlm[0], tmp_path / "copy")
    (folder / file).unlink()
    if content:
        (folder / file).write_text(content)
    refused(says, load_published, folder)


def test_options_of_runs(smolvlm, images, fails):
    says = "holds a published checkpoint, and no run: leave out --system and --ema"
    fails("generate", smolvlm[0], "--image", images / "0.png", "--ema", says=says)


def test_a_template_elsewhere(smolvlm, tmp_path):
    folder = shutil.copytree(smolvlm[0], tmp_path / "copy")
    expected = load_published(folder).tokenizer.prompt("a red").tolist()
    (folder / "chat_template.jinja").unlink()
    write_json(folder / "tokenizer_config.json", dict(chat_template=TEMPLATE))
    assert load_published(folder).tokenizer.prompt("a red").tolist() == expected
    write_json(folder / "chat_template.json", dict(chat_template=3))
    refused("chat_template in .* should be one text, not a int", load_published, folder)


def test_prompts_that_cannot_be(smolvlm, images):
    run = load_published(smolvlm[0])
    refused("The prompt is empty", run.tokenizer.prompt, " ")
    refused("The prompt holds <image>, which is no word for this model", run.tokenizer.prompt, "an <image> of")
    refused("more than the 128 positions", write, run, images=[images / "0.png"], prompt="what is it? " * 60)


def test_a_model_that_writes_nothing(tmp_path):
    from transformers import BertConfig, BertForPreTraining

    BertForPreTraining(BertConfig(**TEXT)).save_pretrained(tmp_path)
    refused("holds a BERT, which writes no text", load_published, tmp_path)


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for i in range(10 ** 9) %}a{% endfor %}", r"\*\* is not computed"),
        ("{{ 'a' * 1000000000 }}", r"\* is not computed"),
        ("{% for i in range(101) %}a{% endfor %}", "a loop of 101 rounds is too long"),
        ("{{ ''.__class__.__mro__ }}", "cannot be run"),
        ("{{ raise_exception('no system message') }}", "cannot be run: no system message"),
        ("{% if %}", "cannot be run"),
        ("a" * 20_001, "has 20,001 letters; at most 20,000 are run"),
    ],
)
def test_templates_that_are_no_templates(template, says):
    refused(says, render, template, messages=[])


def test_the_size_of_images_is_the_towers(smolvlm):
    run = load_published(smolvlm[0])
    assert image_settings(smolvlm[0], run.system)["image_size"] == 16
