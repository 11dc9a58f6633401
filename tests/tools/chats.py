"""Small models that chat, in the published layout: tokenizer, chat template, settings of images."""

import json

import torch
from published import sharpened, sizes
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    SiglipConfig,
    SiglipModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

from mmlearn.pretrained.chat import AROUND, WHOLE

SPECIAL = ["<pad>", "<|im_start|>", "<|end|>", AROUND, WHOLE, "<image>", "<end_of_utterance>"]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role | capitalize }}:{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %} {{ part.text }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
PIXELS = dict(image_mean=[0.5, 0.4, 0.3], image_std=[0.2, 0.3, 0.4])
WORDS = ["a red field", "what is it?", "Describe this image.", "User: Assistant:"]


def write_json(file, content):
    file.write_text(json.dumps(content))


def words_of(folder):
    """A byte-level tokenizer of 300 tokens, in the published layout."""
    engine = Tokenizer(models.BPE())
    engine.pre_tokenizer, engine.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = [AddedToken(token, special=True, normalized=False) for token in SPECIAL]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator(
        WORDS, trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    )
    engine.save(str(folder / "tokenizer.json"))
    return engine


WORDS_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def smolvlm_folder(folder):
    """Returns the published model, whose checkpoint with all its files the folder then holds."""
    torch.manual_seed(3)
    engine = words_of(folder)
    ids = {name: engine.token_to_id(token) for name, token in zip(("pad", "bos", "eos"), SPECIAL)}
    text = dict(model_type="llama", num_key_value_heads=1, **sizes(24, 2, 2, 50), max_position_embeddings=128)
    text |= dict(vocab_size=engine.get_vocab_size()) | {f"{name}_token_id": number for name, number in ids.items()}
    image = dict(image_size=16, patch_size=4, **sizes(16, 1, 2, 36))
    config = SmolVLMConfig(
        text_config=text, vision_config=image, image_token_id=engine.token_to_id("<image>"), scale_factor=2
    )
    published = sharpened(SmolVLMForConditionalGeneration(config)).eval()
    published.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    write_json(folder / "preprocessor_config.json", PIXELS)
    write_json(folder / "generation_config.json", dict(eos_token_id=[engine.token_to_id("<end_of_utterance>")]))
    return published


def siglip_folder(folder):
    """A small SigLIP of images of 32 pixels, with what says how they are normalised."""
    size = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    image = size | dict(image_size=32, patch_size=8)
    SiglipModel(SiglipConfig(text_config=size | dict(vocab_size=99), vision_config=image)).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", dict(image_mean=[0.5] * 3, image_std=[0.25] * 3))


def llama_folder(folder):
    """A language model that chats. Returns the published one."""
    torch.manual_seed(3)
    engine = words_of(folder)
    ids = {name: engine.token_to_id(token) for name, token in zip(("pad", "bos", "eos"), SPECIAL)}
    numbers = dict(num_key_value_heads=1, max_position_embeddings=128, vocab_size=engine.get_vocab_size())
    numbers |= {f"{name}_token_id": number for name, number in ids.items()} | sizes(24, 2, 2, 50)
    published = sharpened(LlamaForCausalLM(LlamaConfig(**numbers))).eval()
    published.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(WORDS_TEMPLATE)
    return published
