"""Damaged, hostile and unsupported checkpoints are refused with a sentence, and good ones load whatever their dress."""

import json
import os
import pickle
import re
import shutil
from itertools import count
from pathlib import Path

import pytest
import torch
from nanovlm import write_nanovlm
from published import (
    BART,
    BEIT,
    DATA2VEC_AUDIO,
    DISTILBERT,
    FLAVA,
    GPT2,
    IMAGE,
    LLAMA,
    MAE,
    OPT,
    PERCEIVER,
    REGIONS,
    SMALL,
    SPEECH,
    SWIN,
    T5,
    TEXT,
    VLM,
    WHISPER,
    LlavaOfGPT2,
)
from safetensors.torch import load_file, save_file
from transformers import (
    AlbertConfig,
    AlbertForPreTraining,
    ASTConfig,
    ASTForAudioClassification,
    BartConfig,
    BartForConditionalGeneration,
    BeitConfig,
    BeitForMaskedImageModeling,
    BertConfig,
    BertForPreTraining,
    Blip2Config,
    Blip2ForImageTextRetrieval,
    BlipConfig,
    BlipForImageTextRetrieval,
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    Data2VecAudioConfig,
    Data2VecAudioForCTC,
    Data2VecTextConfig,
    Data2VecTextForMaskedLM,
    Data2VecVisionConfig,
    Data2VecVisionForImageClassification,
    DetrConfig,
    DetrForObjectDetection,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    FlavaConfig,
    FlavaForPreTraining,
    GitConfig,
    GitForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    HubertConfig,
    HubertForCTC,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LxmertConfig,
    LxmertForPreTraining,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PerceiverConfig,
    PerceiverForMaskedLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    ResNetConfig,
    RobertaConfig,
    RobertaForMaskedLM,
    SiglipConfig,
    SiglipModel,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
    ViltConfig,
    ViltForMaskedLM,
    VisualBertConfig,
    VisualBertForPreTraining,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from mmlearn import load_pretrained
from mmlearn.pretrained.memory import available_memory
from mmlearn.recipes.discovery import find_recipe

FAMILIES = {
    "albert": "ALBERT",
    "audio_spectrogram_transformer": "AST",
    "bart": "BART",
    "beit": "BEiT",
    "bert": "BERT",
    "blip": "BLIP",
    "blip_2": "BLIP2",
    "clap": "CLAP",
    "clip": "CLIP",
    "data2vec_audio": "Data2VecAudio",
    "data2vec_text": "Data2VecText",
    "data2vec_vision": "Data2VecVision",
    "detr": "DETR",
    "distilbert": "BERT",
    "electra": "ELECTRA",
    "flava": "FLAVA",
    "git": "GIT",
    "gpt2": "GPT2",
    "hubert": "HuBERT",
    "idefics3": "VLM",
    "llama": "Llama",
    "llava": "LLaVA",
    "lxmert": "LXMERT",
    "mistral": "Llama",
    "nanovlm": "VLM",
    "opt": "OPT",
    "perceiver": "PerceiverIO",
    "qwen2": "Llama",
    "roberta": "BERT",
    "siglip": "SigLIP",
    "smolvlm": "VLM",
    "t5": "T5",
    "vilt": "ViLT",
    "visual_bert": "VisualBERT",
    "vit": "ViT",
    "vit_mae": "MAE",
    "wav2vec2": "Wav2Vec2",
    "whisper": "Whisper",
}
ALIKE = {  # a family and another one that has all that it needs, and what is told
    ("beit", "data2vec_vision"): "classifier.bias has (2,)",
    ("data2vec_vision", "beit"): "layernorm.bias, layernorm.weight, lm_head.bias and 1 more are in the file but not",
    ("llama", "mistral"): "k_proj.weight has shape (16, 16), blocks.0.attention.key.weight has (8, 16)",
    ("mistral", "llama"): "k_proj.weight has shape (8, 16), blocks.0.attention.key.weight has (16, 16)",
    ("llama", "qwen2"): "are in the file but not in Llama",
    ("qwen2", "llama"): "are in Llama but not in the file",
    ("mistral", "qwen2"): "are in the file but not in Llama",
    ("qwen2", "mistral"): "are in Llama but not in the file",
    ("vit", "vit_mae"): "are in the file but not in ViT",
    ("vit_mae", "vit"): "classifier.bias, classifier.weight are in the file but not in MAE",
}
DETR = dict(d_model=8, num_queries=3, num_labels=2, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=8)
DETR |= dict(decoder_ffn_dim=8, encoder_attention_heads=2, decoder_attention_heads=2)
DETR |= dict(
    backbone_config=ResNetConfig(
        embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic", out_features=["stage1"]
    )
)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
FC1 = "text_model.encoder.layers.0.mlp.fc1.weight"


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """One folder for each family, as Transformers saves it."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("published")
    models = {
        "audio_spectrogram_transformer": ASTForAudioClassification(
            ASTConfig(num_mel_bins=12, max_length=20, patch_size=4, frequency_stride=3, time_stride=3, **SMALL)
        ),
        "clap": ClapModel(ClapConfig(text_config=TEXT, audio_config=SWIN, projection_dim=10)),
        "hubert": HubertForCTC(HubertConfig(vocab_size=9, **SPEECH)),
        "wav2vec2": Wav2Vec2ForPreTraining(
            Wav2Vec2Config(num_codevectors_per_group=5, codevector_dim=6, proj_codevector_dim=7, **SPEECH)
        ),
        "clip": CLIPModel(CLIPConfig(text_config=TEXT | {"eos_token_id": 29}, vision_config=IMAGE, projection_dim=12)),
        "siglip": SiglipModel(SiglipConfig(text_config=TEXT, vision_config=IMAGE)),
        "bert": BertForPreTraining(BertConfig(**TEXT)),
        "bart": BartForConditionalGeneration(BartConfig(**BART)),
        "t5": T5ForConditionalGeneration(T5Config(**T5)),
        "whisper": WhisperForConditionalGeneration(WhisperConfig(**WHISPER)),
        "albert": AlbertForPreTraining(AlbertConfig(embedding_size=12, **TEXT)),
        "distilbert": DistilBertForMaskedLM(DistilBertConfig(**DISTILBERT)),
        "electra": ElectraForMaskedLM(ElectraConfig(embedding_size=12, **TEXT)),
        "roberta": RobertaForMaskedLM(RobertaConfig(**TEXT | dict(max_position_embeddings=8))),
        "git": GitForCausalLM(GitConfig(vision_config=IMAGE, **TEXT)),
        "gpt2": GPT2LMHeadModel(GPT2Config(**GPT2)),
        "opt": OPTForCausalLM(OPTConfig(**OPT)),
        "detr": DetrForObjectDetection(DetrConfig(**DETR)),
        "vit": ViTForImageClassification(ViTConfig(**IMAGE, num_labels=3)),
        "vit_mae": ViTMAEForPreTraining(ViTMAEConfig(**MAE)),
        "beit": BeitForMaskedImageModeling(BeitConfig(**BEIT, vocab_size=11)),
        "data2vec_vision": Data2VecVisionForImageClassification(Data2VecVisionConfig(**BEIT, num_labels=3)),
        "data2vec_text": Data2VecTextForMaskedLM(Data2VecTextConfig(**TEXT | dict(max_position_embeddings=8))),
        "data2vec_audio": Data2VecAudioForCTC(Data2VecAudioConfig(vocab_size=9, **DATA2VEC_AUDIO)),
        "perceiver": PerceiverForMaskedLM(PerceiverConfig(**PERCEIVER)),
        "flava": FlavaForPreTraining(FlavaConfig(**FLAVA)),
        "visual_bert": VisualBertForPreTraining(VisualBertConfig(visual_embedding_dim=12, **TEXT)),
        "vilt": ViltForMaskedLM(ViltConfig(**TEXT | IMAGE)),
        "lxmert": LxmertForPreTraining(LxmertConfig(**REGIONS)),
        "blip": BlipForImageTextRetrieval(
            BlipConfig(
                text_config=TEXT | {"encoder_hidden_size": 16, "bos_token_id": 28},
                vision_config=IMAGE,
                image_text_hidden_size=12,
            )
        ),
        "blip_2": Blip2ForImageTextRetrieval(
            Blip2Config(
                vision_config=IMAGE,
                qformer_config=TEXT | {"use_qformer_text_input": True},
                text_config=GPT2Config(**GPT2),
                num_query_tokens=3,
                image_text_hidden_size=12,
            )
        ),
        "llama": LlamaForCausalLM(LlamaConfig(**LLAMA)),
        "mistral": MistralForCausalLM(MistralConfig(**LLAMA | dict(num_key_value_heads=2, sliding_window=3))),
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**LLAMA, eos_token_id=2)),
        "idefics3": Idefics3ForConditionalGeneration(Idefics3Config(**VLM)),
        "smolvlm": SmolVLMForConditionalGeneration(SmolVLMConfig(**VLM)),
        "llava": LlavaOfGPT2(
            LlavaConfig(
                vision_config=IMAGE | {"model_type": "clip_vision_model"},
                text_config=GPT2Config(**GPT2, bos_token_id=1, eos_token_id=2),
                image_token_index=29,
            )
        ),
    }
    for family, model in models.items():
        model.save_pretrained(folder / family)
    write_nanovlm(folder / "nanovlm", models["idefics3"], 29)
    return folder


@pytest.fixture
def folder(published, tmp_path):
    """A function from a family to a new copy of its checkpoint, to be damaged."""
    number = count()
    return lambda family="clip": Path(shutil.copytree(published / family, tmp_path / f"{family}-{next(number)}"))


def tensors(folder, change):
    """Rewrite the weights of ``folder`` as ``change`` makes them."""
    values = change(load_file(folder / WEIGHTS))
    save_file({name: value.contiguous() for name, value in values.items()}, folder / WEIGHTS)
    return folder


def settings(folder, part=None, **changes):
    """Change values in ``config.json``, or in one ``part`` of it."""
    config = json.loads((folder / "config.json").read_text())
    (config if part is None else config[part]).update(changes)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def refused(folder, *fragments, error=ValueError):
    """Loading raises exactly ``error``, in one line that names the folder and says all of ``fragments``."""
    with pytest.raises(error) as caught:
        load_pretrained(folder)
    message = str(caught.value)
    assert type(caught.value) is error  # and not a subclass from within, such as a JSON or Unicode error
    for fragment in (str(folder), *fragments):
        assert fragment in message, message
    assert "\n" not in message, message
    assert len(message.replace(str(folder), "")) < 600, message


def shard(folder, **placed):
    """Split the weights in two files with an index; ``placed`` are further entries of it."""
    values = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(values)
    index = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{i:05}-of-00002.safetensors"
        save_file({name: values[name] for name in part}, folder / file)
        index |= dict.fromkeys(part, file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index | placed}))
    return folder


# Good ones.


@pytest.mark.parametrize("family", FAMILIES)
def test_shards_hold_what_one_file_holds(folder, family):
    whole, sharded = load_pretrained(folder(family)), load_pretrained(str(shard(folder(family))))
    assert type(whole).__name__ == FAMILIES[family]
    assert not whole.training
    assert not sharded.training
    for (name, one), (other, two) in zip(whole.state_dict().items(), sharded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(one, two), name
        assert one.dtype == torch.float32 or name == "steps" or name.endswith("num_batches_tracked")
        assert not one.is_meta


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(folder, dtype):
    exact = load_pretrained(tensors(folder(), lambda all: {k: v.to(dtype).float() for k, v in all.items()}))
    cast = load_pretrained(tensors(folder(), lambda all: {k: v.to(dtype) for k, v in all.items()}))
    for one, two in zip(exact.parameters(), cast.parameters(), strict=True):
        assert two.dtype == torch.float32
        assert torch.equal(one, two)


def test_tensors_that_follow_from_others_are_passed_over(folder):
    ids = {"text_model.embeddings.position_ids": torch.arange(6)[None]}
    load_pretrained(tensors(folder(), lambda all: all | ids))


def test_the_loaded_model_does_not_hang_on_its_file(folder):
    """The file is mapped into memory by its reader; what is loaded must not change with it."""
    path = folder()
    model = load_pretrained(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    size = (path / WEIGHTS).stat().st_size
    with (path / WEIGHTS).open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


# What is not there.


@pytest.mark.parametrize("name", ["no/such/folder", "~nobody-by-this-name/model", "/", "a b", "../up", "a/b\0"])
def test_no_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        load_pretrained(name)
    assert "config.json" in str(caught.value)
    assert name[:3] in str(caught.value)


@pytest.mark.parametrize("name", ["openai/clip-vit-base-patch32", "nothing-by-this-name", "x" * 5000])
def test_a_hub_id_without_network(tmp_path, monkeypatch, name):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"'{name}' is no folder here, and the hub did not give it") as caught:
        load_pretrained(name)
    assert "\n" not in str(caught.value)


def test_a_path_object_is_never_looked_up_on_the_hub():
    with pytest.raises(FileNotFoundError, match="There is no folder openai/clip"):
        load_pretrained(Path("openai/clip-vit-base-patch32"))


def test_a_file_in_position_of_a_folder(folder):
    refused(folder() / WEIGHTS, "no folder", error=FileNotFoundError)


def test_missing_files(folder):
    for name in ("config.json", WEIGHTS):
        path = folder()
        (path / name).unlink()
        refused(path, name, error=FileNotFoundError)


def test_a_folder_in_position_of_a_file(folder):
    for name in ("config.json", WEIGHTS):
        path = folder()
        (path / name).unlink()
        (path / name).mkdir()
        refused(path, name, error=FileNotFoundError)


def test_a_link_that_leads_nowhere(folder):
    """As a hub cache has them after its blobs were deleted."""
    path = folder()
    (path / WEIGHTS).unlink()
    (path / WEIGHTS).symlink_to(path / "blobs" / "gone")
    refused(path, WEIGHTS, error=FileNotFoundError)


# Pickles.


class Trap:
    def __reduce__(self):
        return os.mkdir, (str(Trap.path),)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", WEIGHTS])
def test_a_pickle_is_refused_and_never_opened(folder, tmp_path, name):
    Trap.path = tmp_path / "sprung"
    path = folder()
    (path / WEIGHTS).unlink()
    (path / name).write_bytes(pickle.dumps(Trap()))
    if name == WEIGHTS:
        refused(path, WEIGHTS, "is no whole safetensors file")
    else:
        refused(path, name, "pickle", "save_pretrained")
    assert not Trap.path.exists()
    pickle.loads((path / name).read_bytes())
    assert Trap.path.exists()  # the trap does work


def test_pickles_beside_safetensors_do_not_matter(folder):
    path = folder()
    (path / "pytorch_model.bin").write_bytes(b"whatever")
    load_pretrained(path)


# Damaged files.


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b'{"model_type": "clip", "text_con', "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "a list"),
        (b"null", "a NoneType"),
        (b'"clip"', "a str"),
        (b"{}", "model_type None"),
        (b'{"model_type": ["clip"]}', "model_type ['clip']"),
        (b'{"model_type": {"clip": 1}}', "model_type {'clip': 1}"),
    ],
)
def test_a_damaged_config(folder, content, says):
    path = folder()
    (path / "config.json").write_bytes(content)
    refused(path, "config.json", says)


def test_weights_cut_off_at_any_position(folder):
    path = folder()
    whole = (path / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 1, 7, 8, 9, header // 2, header, header + 1, len(whole) // 2, len(whole) - 1):
        (path / WEIGHTS).write_bytes(whole[:length])
        refused(path, WEIGHTS, "is no whole safetensors file")
    (path / WEIGHTS).write_bytes(whole + b"\0")
    refused(path, WEIGHTS, "is no whole safetensors file")


def header(entries):
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,  # a header of 2^64 bytes
        (2**40).to_bytes(8, "little") + b"{}",
        (100).to_bytes(8, "little") + b"not JSON".ljust(100),
        header({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
        header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}),
        header({"a": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 4]}}) + bytes(4),
        header({"a": {"dtype": "PICKLE", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4),
        header({name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"}) + bytes(4),  # overlap
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 4\n",
        b"<!DOCTYPE html><html>404</html>",
    ],
)
def test_hostile_weights(folder, content):
    path = folder()
    (path / WEIGHTS).write_bytes(content)
    refused(path, WEIGHTS, "is no whole safetensors file")


# Another architecture, and a configuration that does not fit or cannot be.


def test_an_architecture_that_is_not_built(folder):
    refused(settings(folder(), model_type="mamba"), "model_type 'mamba'", f"mmlearn loads {', '.join(FAMILIES)}.")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_weights_of_another_family(folder, family):
    path = folder(family)
    others = [other for other in FAMILIES if other != family]
    for other in others:
        shutil.copyfile(folder(other) / WEIGHTS, path / WEIGHTS)
        if family == "blip":  # which the tensors tell what of it to build
            refused(path, "should hold a text_encoder for retrieval or a text_decoder for captions")
        elif family == "blip_2" and other not in ("blip", "flava"):
            refused(path, "should hold an itm_head for retrieval or a language_projection")
        elif family == "perceiver":
            refused(path, "it has no decoder: a Perceiver IO is built here for words or for classes")
        elif (family, other) in ALIKE:
            refused(path, "does not fit", ALIKE[family, other])
        elif {family, other} == {"idefics3", "smolvlm"}:  # which are one format
            load_pretrained(path)
        elif {family, other} == {"hubert", "wav2vec2"}:  # which hear alike
            refused(path, "does not fit", FAMILIES[family] if family == "hubert" else "ctc_head.output.bias has (32,)")
        else:
            refused(path, "does not fit", "in the file but not in", "but not in the file", FAMILIES[family])


@pytest.mark.parametrize(
    ("family", "part", "changes", "says"),
    [
        ("clip", "text_config", {"vocab_size": 31}, "(30, 16), text_encoder.embedding.tokens.weight has (31, 16)"),
        ("clip", "text_config", {"max_position_embeddings": 7}, "text_encoder.embedding.positions has (7, 16)"),
        ("clip", "text_config", {"hidden_size": 8}, "has (30, 8)"),
        ("clip", "text_config", {"num_hidden_layers": 2}, "text_encoder.transformer.blocks.1"),
        ("clip", "text_config", {"num_attention_heads": 3}, "no multiple of num_heads 3"),
        ("clip", "vision_config", {"patch_size": 2}, "(16, 3, 4, 4), image_encoder.embedding.patches.weight has"),
        ("clip", "vision_config", {"image_size": 16}, "image_encoder.embedding.positions has (17, 16)"),
        ("clip", "vision_config", {"image_size": [8, 12]}, "image_encoder.embedding.positions has (7, 16)"),
        ("clip", None, {"projection_dim": 13}, "(12, 16), image_projection.weight has (13, 16)"),
        ("siglip", "vision_config", {"intermediate_size": 25}, "; 4 more do not fit either."),
        ("bert", None, {"type_vocab_size": 3}, "embedding.token_types.weight has (3, 16)"),
        ("vit", None, {"id2label": {"0": "a", "1": "b"}}, "classifier.weight has (2, 16)"),
    ],
)
def test_a_config_that_disagrees_with_the_weights(folder, family, part, changes, says):
    refused(settings(folder(family), part, **changes), says)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -1, 0, 2**31, 10**30, 16.0, True, "16", [16], {"16": 16}]
)
@pytest.mark.parametrize(
    ("family", "part", "name"),
    [("clip", "text_config", "hidden_size"), ("vit", None, "patch_size"), ("bert", None, "num_hidden_layers")],
)
def test_a_number_that_cannot_be(folder, family, part, name, value):
    refused(settings(folder(family), part, **{name: value}), name, "config.json", repr(value))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e-5, "1e-5", True])
def test_an_epsilon_that_cannot_be(folder, value):
    refused(settings(folder("bert"), layer_norm_eps=value), "layer_norm_eps in config.json", repr(value))


@pytest.mark.parametrize(
    ("family", "part", "changes", "says"),
    [
        ("bert", None, {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers"),
        ("clip", "vision_config", {"num_hidden_layers": 10**6}, "num_hidden_layers"),
        ("bert", None, {"hidden_size": 2**30, "num_attention_heads": 1}, "has (1073741824,)"),
        ("vit", None, {"image_size": 2**31 - 1, "patch_size": 1}, "overflow"),
    ],
)
def test_numbers_no_machine_could_build(folder, family, part, changes, says):
    """They are refused at once, and not after the memory is gone."""
    refused(settings(folder(family), part, **changes), says)


@pytest.mark.parametrize(
    ("family", "part", "changes", "says"),
    [
        ("clip", "text_config", {"hidden_act": "mish"}, "hidden_act 'mish' in text_config of config.json"),
        ("clip", None, {"text_config": [1]}, "text_config of config.json should be a JSON object, not [1]"),
        ("clip", None, {"vision_config": "base"}, "vision_config of config.json should be a JSON object"),
        ("siglip", "vision_config", {"vision_use_head": False}, "vision_use_head = False"),
        ("bert", None, {"is_decoder": True}, "is_decoder = True"),
        ("bert", None, {"position_embedding_type": "relative_key"}, "only 'absolute'"),
        ("bert", None, {"tie_word_embeddings": False}, "tie_word_embeddings = False"),
        ("vit", None, {"qkv_bias": False}, "qkv_bias = False"),
        ("vit", None, {"id2label": ["a", "b", "c"]}, "id2label in config.json"),
        ("blip", "text_config", {"is_decoder": False}, "is_decoder = False"),
        ("blip", "text_config", {"bos_token_id": 5}, "bos_token_id = 5"),
        ("clap", "audio_config", {"enable_fusion": True}, "enable_fusion = True in audio_config of config.json is not"),
        ("clap", "audio_config", {"drop_path_rate": 0.1}, "drop_path_rate = 0.1"),
        ("clap", "audio_config", {"patch_stride": [2, 2], "spec_size": 32}, "patch_stride = [2, 2]"),
        ("clap", "audio_config", {"mlp_ratio": 2.0}, "mlp_ratio = 2.0"),
        (
            "clap",
            "audio_config",
            {"spec_size": 40},
            "spec_size of audio_config should be a multiple of num_mel_bins 16",
        ),
        ("hubert", None, {"feat_proj_layer_norm": False}, "feat_proj_layer_norm = False"),
        ("hubert", None, {"conv_pos_batch_norm": True}, "conv_pos_batch_norm = True"),
        ("hubert", None, {"conv_stride": [3, 0]}, "a list of numbers like"),
        (
            "visual_bert",
            None,
            {"bypass_transformer": True},
            "bypass_transformer = True in config.json is not built here",
        ),
        (
            "visual_bert",
            None,
            {"tie_word_embeddings": False},
            "tie_word_embeddings = False in config.json is not built",
        ),
        ("wav2vec2", None, {"add_adapter": True}, "add_adapter = True in config.json is not built here"),
        ("wav2vec2", None, {"feat_extract_activation": "relu"}, "feat_extract_activation = 'relu'"),
        ("wav2vec2", None, {"adapter_attn_dim": 4}, "adapter_attn_dim"),
    ],
)
def test_variants_that_are_not_built(folder, family, part, changes, says):
    refused(settings(folder(family), part, **changes), says)


# Tensors.


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_is_needed_and_named_if_missing(folder, family):
    """Tensors of the file are left out, three at a time; together the complaints name every parameter once."""
    path = folder(family)
    whole = load_file(path / WEIGHTS)
    # The token table and the bias again, positions in a window, which can be computed, and a bias that stays 0.
    follows = ("_index", "_ids", "_tracked", "logits_bias")
    spare = {name for name in whole if name.startswith("cls.predictions.decoder.") or name.endswith(follows)}

    def without(*names):
        """The parameters that are missed, where all of them are told."""
        tensors(path, lambda _: {key: value for key, value in whole.items() if key not in names})
        with pytest.raises(ValueError, match=" ") as caught:
            load_pretrained(path)
        told = re.search(
            r"does not fit: (.+?)( and \d+ more)? (?:is|are) in \w+ but not in the file", str(caught.value)
        )
        return told.group(1).split(", ") if told and not told.group(2) else []

    named, needed = [], [name for name in whole if name not in spare]
    for three in (needed[k :: -(-len(needed) // 3)] for k in range(-(-len(needed) // 3))):  # no two of one head
        named += without(*three) or [one for name in three for one in without(name)]
    complete = load_pretrained(tensors(path, lambda _: {key: x for key, x in whole.items() if key not in spare}))
    begin_at_0 = {"steps", "output_bias"}
    assert sorted(named) == sorted(set(complete.state_dict()) - begin_at_0)


def test_missing_tensors_are_counted(folder):
    path = tensors(folder(), lambda all: {name: all[name] for name in all if "text_model.encoder" not in name})
    refused(path, "text_encoder.transformer.blocks.0.attention.key.bias", "and 13 more are in CLIP but not in the file")


def test_extra_tensors_are_named(folder):
    extra = {"adapter.weight": torch.ones(2), "adapter.bias": torch.ones(2)}
    refused(tensors(folder(), lambda all: all | extra), "adapter.bias, adapter.weight are in the file but not in CLIP")


def test_a_tensor_of_another_shape(folder):
    path = tensors(folder(), lambda all: all | {FC1: all[FC1].T})
    refused(path, f"{FC1} has shape (16, 24), text_encoder.transformer.blocks.0.mlp.expand.weight has (24, 16)")
    path = tensors(folder(), lambda all: all | {FC1: all[FC1].flatten()})
    refused(path, f"{FC1} has shape (384,)")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool])
def test_a_tensor_that_is_no_floating_point_number(folder, dtype):
    """Quantised weights mean nothing without their scales."""
    path = tensors(folder(), lambda all: all | {FC1: all[FC1].to(dtype)})
    refused(path, f"{FC1} is {dtype}")


def test_all_that_is_wrong_is_said_at_once(folder):
    def change(all):
        return {k: v for k, v in all.items() if k != "logit_scale"} | {FC1: torch.ones(3), "extra": torch.ones(1)}

    refused(tensors(folder(), change), "extra is in the file", "logit_scale is in CLIP", f"{FC1} has shape (3,)")


def test_two_tensors_for_one_position(folder):
    """The names of norms in TensorFlow and in PyTorch at once."""
    norm = "bert.embeddings.LayerNorm."
    path = tensors(folder("bert"), lambda all: all | {f"{norm}gamma": torch.ones(16)})
    refused(path, f"{norm}gamma", f"{norm}weight", "contradicts itself: ")


# Shards.


@pytest.mark.parametrize(
    "position", ["../secret.safetensors", "/etc/passwd", "..", ".", "", "a/b.safetensors", "..\\secret", "sub/../../x"]
)
def test_an_index_that_points_outside(folder, position):
    path = folder()
    save_file({"logit_scale": torch.tensor(1.0)}, path.parent / "secret.safetensors")
    refused(shard(path, logit_scale=position), INDEX, "outside its folder", repr(position))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON"),
        (b"[]", "a list"),
        (b"{}", "has no weight_map"),
        (b'{"weight_map": {}}', "has no weight_map"),
        (b'{"weight_map": ["a"]}', "has no weight_map"),
        (b'{"weight_map": "a"}', "has no weight_map"),
    ],
)
def test_a_damaged_index(folder, content, says):
    path = shard(folder())
    (path / INDEX).write_bytes(content)
    refused(path, INDEX, says)


@pytest.mark.parametrize("position", ["model-00003-of-00002.safetensors", None, 3])
def test_an_index_that_names_a_missing_file(folder, position):
    refused(shard(folder(), logit_scale=position), str(position), "is missing", error=FileNotFoundError)


def test_shards_that_are_missing_cut_off_or_swapped(folder):
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    path = shard(folder())
    whole = (path / second).read_bytes()
    (path / second).write_bytes(whole[:-1])
    refused(path, second, "is no whole safetensors file")
    shutil.copyfile(path / first, path / second)
    refused(path, "are of", "in none of its files")
    (path / second).unlink()
    refused(path, second, "is missing, though the index names it", error=FileNotFoundError)


def test_an_index_and_shards_that_disagree(folder):
    refused(shard(folder(), extra="model-00001-of-00002.safetensors"), INDEX, "extra", "in none of its files")
    path = shard(folder())
    index = json.loads((path / INDEX).read_text())
    del index["weight_map"]["logit_scale"]
    (path / INDEX).write_text(json.dumps(index))
    load_pretrained(path)  # what the files hold counts; the index only says which files


@pytest.mark.parametrize("name", ["lit", "sound-of-pixels"])
def test_a_folder_of_ours_gives_what_no_file_holds(name, tmp_path):
    """Buffers that are not saved, such as the mean and spread of pixels, are those of a new system."""
    recipe = find_recipe(name)
    system = recipe.make(recipe.config.tiny()).eval()
    config = {"model_type": "mmlearn", "system": name, "config": system.config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({name: x.contiguous() for name, x in system.state_dict().items()}, tmp_path / "model.safetensors")
    again = load_pretrained(tmp_path)
    for (where, expected), (_, got) in zip(system.named_buffers(), again.named_buffers(), strict=True):
        assert torch.equal(got, expected), where
    assert not any(tensor.is_meta for tensor in [*again.buffers(), *again.parameters()])


# Large ones.


@pytest.mark.parametrize("sharded", [False, True])
def test_in_bfloat16_it_is_mapped_from_its_file(folder, sharded):
    half = lambda all: {name: value.bfloat16() for name, value in all.items()}  # noqa: E731
    path = tensors(folder("llama"), half)
    path = shard(path) if sharded else path
    before = {file: file.read_bytes() for file in path.glob("*.safetensors")}
    model, exact = load_pretrained(path, torch.bfloat16), load_pretrained(path)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    for (name, one), (_, two) in zip(exact.named_parameters(), model.named_parameters(), strict=True):
        assert torch.equal(one, two.float()), name
    tokens = torch.randint(30, (2, 8), generator=torch.Generator().manual_seed(0))
    loss, expected = (each.loss({"tokens": tokens})["lm"] for each in (model, exact))
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    loss.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad)
    assert {file: file.read_bytes() for file in path.glob("*.safetensors")} == before  # what is learned stays in memory


def test_what_a_large_one_needs_is_said_before_it_begins(folder, monkeypatch):
    monkeypatch.setattr("mmlearn.pretrained.memory.available_memory", lambda: 3_000)
    path = tensors(folder("llama"), lambda all: {name: value.bfloat16() for name, value in all.items()})
    refused(path, "numbers: as float32 they need 0.0 GiB, and 0.0 GiB are free", "take dtype=torch.bfloat16, in which")
    load_pretrained(path, torch.bfloat16)  # it takes no memory of its own
    with pytest.raises(ValueError, match=r"as float16 they need .* take dtype=torch.bfloat16"):
        load_pretrained(path, torch.float16)
    refused(folder("llama"), "free some, or take a smaller model")


def test_the_memory_that_is_left(tmp_path, monkeypatch):
    left = available_memory()
    assert 2**20 < left < 2**50
    for name, text in {
        "memory.max": "3000000\n",
        "memory.current": "1500000\n",
        "memory.stat": "inactive_file 500000\n",
    }.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr("mmlearn.pretrained.memory.GROUP", tmp_path)
    assert available_memory() == 2_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert available_memory() > 2_000_000


def test_a_head_that_is_the_table_once_more(folder):
    """As some tools save it, although the settings say so."""
    path = settings(folder("llama"), tie_word_embeddings=True)
    refused(
        path, "by tie_word_embeddings in config.json lm_head.weight is the token table once more, and it is another"
    )
    tied = load_pretrained(
        tensors(path, lambda all: all | {"lm_head.weight": all["model.embed_tokens.weight"].clone()})
    )
    assert tied.language_head is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
            "rope_type 'yarn' in rope_parameters of config.json is",
        ),
        ({"rope_parameters": {"rope_type": "llama3"}}, "is of rope_type 'llama3' and has no factor"),
        (
            {"rope_parameters": None, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
            "rope_type 'dynamic' in rope_scaling",
        ),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0.0}}, "A base and a factor are above 0"),
        ({"attention_bias": True}, "attention_bias = True in config.json is not built here"),
        ({"num_key_value_heads": 3}, "no multiple of num_kv_heads 3"),
        ({"eos_token_id": []}, "eos_token_id in config.json is an empty list"),
        ({"eos_token_id": [2, "x"]}, "eos_token_id in config.json should be like 2, not 'x'"),
    ],
)
def test_llamas_that_are_not_built(folder, changes, says):
    refused(settings(folder("llama"), **changes), says)


def test_older_names_of_rotary_positions(folder):
    older = {"rope_parameters": None, "rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    rotary = load_pretrained(settings(folder("llama"), **older)).config.rotary
    assert (rotary.base, rotary.scaling, rotary.factor) == (500.0, "linear", 2.0)
    assert load_pretrained(settings(folder("llama"), eos_token_id=[2, 5])).config.more_end_tokens == (5,)


def test_seven_billion_numbers_on_a_machine_of_24_gib(tmp_path, monkeypatch):
    """A file of zeros that takes no room on the disk, and of which nothing is read."""
    monkeypatch.setattr("mmlearn.pretrained.memory.available_memory", lambda: 20 * 2**30)
    with torch.device("meta"):
        published = MistralForCausalLM(MistralConfig(max_position_embeddings=32_768))
    published.config.save_pretrained(tmp_path)
    entries, end = {}, 0
    for name, value in published.state_dict().items():
        span = [end, end := end + 2 * value.numel()]
        entries[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": span}
    with (tmp_path / WEIGHTS).open("wb") as file:
        file.write(header(entries))
        file.truncate(file.tell() + end)
    refused(
        tmp_path, "7,241,732,096 numbers: as float32 they need 27.0 GiB, and 20.0 GiB are free; take dtype=torch.bf"
    )
    model = load_pretrained(tmp_path, torch.bfloat16)
    assert sum(parameter.numel() for parameter in model.parameters()) == 7_241_732_096
    assert model.config.window == 4096
