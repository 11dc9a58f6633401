"""A preset with a published name is built as published: what no weight tells, Transformers' own default tells."""

import dataclasses
import importlib

import pytest
import transformers

from mmlearn.recipes.discovery import find_recipe

# How a published format, Transformers' configuration, our system and the preset of the same model are called. BLIP is
# missing, because the default of its format is none of the published models; so is Qwen2.
SAME = {
    "albert": ("AlbertConfig", "albert", "xxlarge-v2"),
    "audio_spectrogram_transformer": ("ASTConfig", "ast", "base"),
    "bart": ("BartConfig", "bart", "large"),
    "beit": ("BeitConfig", "beit", "base"),
    "bert": ("BertConfig", "bert", "base"),
    "clap": ("ClapConfig", "clap", "htsat-unfused"),
    "clip": ("CLIPConfig", "clip", "ViT-B/32"),
    "data2vec_audio": ("Data2VecAudioConfig", "data2vec-audio", "base"),
    "data2vec_text": ("Data2VecTextConfig", "data2vec-text", "base"),
    "data2vec_vision": ("Data2VecVisionConfig", "data2vec-vision", "base"),
    "detr": ("DetrConfig", "detr", "resnet-50"),
    "distilbert": ("DistilBertConfig", "bert", "distilbert-base"),
    "electra": ("ElectraConfig", "electra", "small"),
    "flava": ("FlavaConfig", "flava", "full"),
    "git": ("GitConfig", "git", "base"),
    "gpt2": ("GPT2Config", "gpt2", "small"),
    "hubert": ("HubertConfig", "hubert", "base"),
    "llama": ("LlamaConfig", "llama", "Llama-2-7B"),
    "lxmert": ("LxmertConfig", "lxmert", "base"),
    "mistral": ("MistralConfig", "llama", "Mistral-7B-v0.1"),
    "opt": ("OPTConfig", "opt", "125m"),
    "roberta": ("RobertaConfig", "bert", "roberta-base"),
    "siglip": ("SiglipConfig", "siglip", "base-patch16-224"),
    "t5": ("T5Config", "t5", "small"),
    "vilt": ("ViltConfig", "vilt", "B/32"),
    "visual_bert": ("VisualBertConfig", "visual-bert", "base"),
    "vit": ("ViTConfig", "vit", "B/16"),
    "vit_mae": ("ViTMAEConfig", "mae", "B/16"),
    "wav2vec2": ("Wav2Vec2Config", "wav2vec2", "base"),
    "whisper": ("WhisperConfig", "whisper", "whisper-tiny"),
}
HEADS = {  # which a checkpoint tells by its tensors, and of which a preset has some
    *("num_classes", "pooler", "objectives", "codebooks", "clusters", "answers", "pretraining_heads", "feature_head"),
    *("region_classes", "region_attributes", "language_head", "match_outputs", "order_head"),
}
DIFFERS = {  # the format's default is not the published model's
    "bart": {"attention_dropout"},
    "beit": {"codes", "image.mask_token", "image.relative_positions"},  # as in microsoft/beit-base-patch16-224-pt22k
    "clip": {"end_token"},  # for a model that is read at its highest token
    "data2vec_audio": {"pretrain"},  # a file has neither head nor teacher
    "data2vec_text": {"pretrain", "text.vocab_size", "text.max_length", "text.token_types", "text.norm_epsilon"},
    "data2vec_vision": {"pretrain", "image.mask_token", "image.relative_positions"},
    "detr": {"attention_dropout", "auxiliary"},  # as in the official main.py
    "electra": {"generator", "generator_width", "generator_heads"},  # a file is one half
    "git": {"label_smoothing"},  # of which the format knows nothing
    "llama": {"max_length", "norm_epsilon"},  # the first LLaMA's
    "mistral": {"max_length", "norm_epsilon"},  # as in mistralai/Mistral-7B-v0.1
    "roberta": {"max_length", "token_types", "norm_epsilon"},
    "vilt": {"dropout", "attention_dropout", "pad_token"},
    "visual_bert": {"pad_token", "region_width"},
    "whisper": {"pad_token", "start_token", "end_token"},  # those of English alone, beside a vocabulary of 99 languages
    "vit_mae": {"normalise_pixels", "decoder_depth", "decoder_mlp_width"},  # a bare checkpoint has no decoder
}


def settings(config, prefix=""):
    """All settings of a configuration by their paths; an MLP four times as wide as its blocks is the default.

    So are one dropout for all, heads of keys for each of queries, and a decoder as deep as the encoder.
    """
    found = {}
    for name, value in vars(config).items():
        if dataclasses.is_dataclass(value):
            found |= settings(value, f"{prefix}{name}.")
        elif name == "mlp_width":
            found[prefix + name] = value or 4 * config.width
        elif name == "num_kv_heads":
            found[prefix + name] = value or config.num_heads
        elif name == "head_width":
            found[prefix + name] = value or config.width // config.num_heads
        elif name == "attention_dropout":
            found[prefix + name] = config.dropout if value is None else value
        elif name == "decoder_depth" and hasattr(config, "depth"):
            found[prefix + name] = value or config.depth
        else:
            found[prefix + name] = value
    return found


@pytest.mark.parametrize("family", SAME)
def test_a_preset_has_the_settings_that_are_published(family):
    published, name, preset = SAME[family]
    config = importlib.import_module(f"mmlearn.pretrained.{family}").config
    theirs = settings(config(getattr(transformers, published)().to_dict(), set()))
    ours = settings(find_recipe(name).config.preset(preset))
    apart = {key for key in ours if ours[key] != theirs[key]}
    assert apart - HEADS == DIFFERS.get(family, set())
