"""nanoVLM's layout: what loads from it equals an Idefics3 of Transformers with the same numbers.

Both read a SigLIP, shuffle patches alike, and go on as a Llama: logits, loss, gradients, texts. Its chat is read, too.
"""

import json

import pytest
import torch
from chats import words_of
from nanovlm import EXTRA, TEMPLATE, tensors_of, write_nanovlm
from PIL import Image
from published import sharpened, sizes
from safetensors.torch import load_file, save_file
from testing_tools import assert_gradients, close, refused
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, LlamaConfig, PreTrainedTokenizerFast

from mmlearn import load_pretrained
from mmlearn.pretrained.loading import read_json
from mmlearn.pretrained.nanovlm import config as nanovlm_config
from mmlearn.training.conversation import open_conversation

IMAGE = 90
LLAMA = dict(num_key_value_heads=1, max_position_embeddings=64, rms_norm_eps=1e-4, **sizes(24, 2, 2, 50))
LLAMA |= dict(
    bos_token_id=None, eos_token_id=2, pad_token_id=2, rope_parameters=dict(rope_theta=500.0, rope_type="default")
)
SIGLIP = dict(image_size=24, patch_size=4, layer_norm_eps=1e-5, **sizes(16, 2, 2, 36))  # 6 × 6 patches


def build(tie, s, vocab_size=93, image_token=IMAGE, **text):
    torch.manual_seed(2)
    text = LlamaConfig(**LLAMA | text, vocab_size=vocab_size, tie_word_embeddings=tie)
    parts = dict(vision_config=SIGLIP, text_config=text, tie_word_embeddings=tie, scale_factor=s)
    return sharpened(Idefics3ForConditionalGeneration(Idefics3Config(**parts, image_token_id=image_token))).eval()


def inputs(k):
    """Two images among words, at other positions in each row, and which words answer."""
    generator = torch.Generator().manual_seed(1)
    image, words = (
        torch.rand(2, 2, 3, 24, 24, generator=generator),
        torch.randint(3, IMAGE, (2, 7), generator=generator),
    )
    one = torch.full((k,), IMAGE)
    tokens = torch.stack(
        [torch.cat([row[:i], one, row[i : i + 2], one, row[i + 2 :]]) for i, row in enumerate(words, 1)]
    )
    return image, tokens, (torch.arange(tokens.shape[1]) >= tokens.shape[1] - 3).expand_as(tokens)


@pytest.mark.parametrize(("tie", "s"), [(True, 3), (False, 2)])
def test_it_is_an_idefics3(tie, s, tmp_path):
    published = build(tie, s)
    ours = load_pretrained(write_nanovlm(tmp_path / "weights", published, IMAGE))
    ours.image_encoder.requires_grad_(True)
    image, tokens, response = inputs(k := (6 // s) ** 2)
    assert ours.config.num_image_tokens == k
    assert ours.config.language_model.end_token == 2
    said = read_json(tmp_path / "weights" / "config.json") | dict(lm_tokenizer="HuggingFaceTB/SmolLM2-360M")
    assert nanovlm_config(said, set()).language_model.end_token == 0  # that was not taught turns
    expected = published(pixel_values=image, input_ids=tokens, labels=tokens.masked_fill(~response, -100))
    close(ours(image, tokens).token_logits, expected.logits)
    loss = ours.loss(dict(image=image, tokens=tokens, response=response))["lm"]
    close(loss, expected.loss)
    loss.backward()
    expected.loss.backward()
    gradients = {name: parameter.grad for name, parameter in published.named_parameters()}
    if not tie:
        gradients["lm_head.weight"] = published.lm_head.weight.grad
    save_file(tensors_of(gradients, tie), tmp_path / "weights" / "model.safetensors")
    assert_gradients(ours, dict(load_pretrained(tmp_path / "weights").named_parameters()))
    written = published.generate(pixel_values=image, input_ids=tokens, max_new_tokens=8, do_sample=False)
    got = ours.generate(image, prompt=tokens, max_length=tokens.shape[1] + 8)
    assert torch.equal(got, written)
    assert len(got[:, tokens.shape[1] :].unique(dim=0)) == 2


def test_patches_are_shuffled_row_by_row(tmp_path):
    """The s² patches of a square stand one behind the other, row by row, and so do the squares; by hand."""
    published = build(False, 2)
    ours = load_pretrained(write_nanovlm(tmp_path / "weights", published, IMAGE))
    image = torch.rand(1, 3, 24, 24)
    patches = ours.patches(image)[0].unflatten(0, (6, 6))
    wide = [
        torch.cat([patches[row + y, column + x] for y in range(2) for x in range(2)])
        for row in range(0, 6, 2)
        for column in range(0, 6, 2)
    ]
    matrix = load_file(tmp_path / "weights" / "model.safetensors")["MP.proj.weight"]
    close(ours.encode_image(image)[0], torch.stack(wide) @ matrix.T)


def test_its_chat_is_read_from_its_settings(tmp_path):
    """The template and further tokens stand in config.json; the tokenizer of its language model lies beside it."""
    folder = tmp_path / "weights"
    folder.mkdir()
    engine = words_of(folder)
    published = build(
        True, 3, engine.get_vocab_size() + len(EXTRA), engine.get_vocab_size(), max_position_embeddings=96
    )
    changes = dict(lm_chat_template=TEMPLATE.replace("<|im_end|>", "<|end|>"))
    write_nanovlm(folder, published, engine.get_vocab_size(), **changes)
    theirs = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        extra_special_tokens=EXTRA,
        chat_template=changes["lm_chat_template"],
    )
    assert theirs.image_token_id == engine.get_vocab_size()
    Image.new("RGB", (24, 24), "red").save(tmp_path / "red.png")
    conversation = open_conversation(folder, tmp_path / "red.png", max_new_tokens=6)
    shown = "<|global_image|>" + "<|image|>" * 4
    turns = [dict(role="user", content=f"{shown}what is it?")]
    ids = theirs.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
    assert conversation.chat.turns([dict(role="user", content="what is it?")], images=1).tolist() == ids
    pixels = torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(1, 1, 3, 24, 24)  # of a red picture, from 0 to 1
    written = published.generate(pixel_values=pixels, input_ids=torch.tensor([ids]), max_new_tokens=6, do_sample=False)
    answer = theirs.decode(written[0, len(ids) :], skip_special_tokens=True).strip()
    assert conversation.ask("what is it?").text == answer != ""
    (folder / "tokenizer.json").unlink()
    refused("put it beside the weights, that of HuggingFaceTB/SmolLM2-360M-Instruct", open_conversation, folder)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(vit_cls_flag=True), "vit_cls_flag = True in config.json is not built here"),
        (dict(lm_dropout=0.1), "lm_dropout = 0.1 in config.json is not built here, only 0.0"),
        (dict(lm_attn_scaling=0.5), "lm_attn_scaling = 0.5"),
        (dict(mp_image_token_length=64), "mp_image_token_length = 64 in config.json is not built here, only 4"),
        (dict(mp_pixel_shuffle_factor=4), "6 × 6 patches cannot be shuffled by 4: take a divisor"),
        (dict(vlm_extra_tokens={}), "has no image_token in vlm_extra_tokens: first versions of nanoVLM are not"),
        (
            dict(lm_n_blocks=1001),
            r"num_hidden_layers in config.json \(there as lm_…\) should be a number from 1 to 1000",
        ),
        (dict(lm_hidden_dim="wide"), r"hidden_size in config.json \(there as lm_…\) should be like 4096, not 'wide'"),
        (dict(vit_inter_dim=40), "fc1.bias has shape"),
        (dict(lm_tie_weights=False), "language_model.embedding.weight is in VLM but not in the file"),
    ],
)
def test_what_is_not_built_is_refused(changes, says, tmp_path):
    refused(says, load_pretrained, write_nanovlm(tmp_path / "weights", build(True, 3), IMAGE, **changes))


def test_a_setting_that_is_missing_is_named(tmp_path):
    folder = write_nanovlm(tmp_path / "weights", build(True, 3), IMAGE)
    said = json.loads((folder / "config.json").read_text())
    del said["lm_re_base"]
    (folder / "config.json").write_text(json.dumps(said))
    refused("config.json does not say lm_re_base", load_pretrained, folder)
