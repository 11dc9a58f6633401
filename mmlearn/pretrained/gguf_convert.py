"""A GGUF of a Llama, as llama.cpp and Ollama hold it, becomes a folder in the published layout.

Weights that are quantised become float32, in which their numbers are exact. The tokenizer and the template of a chat
are in a GGUF too, and are written beside them. The folder is read by :func:`~mmlearn.load_pretrained`, and by
Transformers.
"""

import json
import math
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmlearn.files import remove, written_whole
from mmlearn.layers.rotary import RotaryConfig, rotary_frequencies
from mmlearn.pretrained.gguf_file import GGUF, Stored
from mmlearn.pretrained.gguf_tokenizer import TEMPLATE, tokenizer_files
from mmlearn.pretrained.loading import build_published

CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "mistral": "MistralForCausalLM"}
NAMES = {  # in a GGUF → as published
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
HALF, GIB = ("F16", "BF16"), 2**30
FREQUENCIES = "rope_freqs.weight"  # by what Llama 3 divides the rotary frequencies
# What a GGUF may say of a Llama. What is not here is refused, because it may change what the model computes.
NUMBERS = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
FURTHER = {
    *("attention.head_count_kv", "attention.key_length", "attention.value_length", "attention.sliding_window"),
    *("rope.dimension_count", "rope.freq_base", "rope.scaling.type", "rope.scaling.factor", "vocab_size"),
    *("rope.scaling.original_context_length", "rope.scaling.finetuned", "expert_count", "expert_used_count"),
}


class Released(NamedTuple):
    """A GGUF as it would be published: the content of ``config.json``, its tensors, and its tokenizer's files."""

    config: dict[str, Any]
    stored: dict[str, Stored]
    read: Callable[[str], Tensor]
    files: dict[str, str]


def open_gguf(file: Path) -> Released:
    """What a GGUF holds under published names; of its weights nothing is read yet.

    Raises ``ValueError`` as :class:`~mmlearn.pretrained.gguf_file.GGUF` does, for another model than a Llama, settings
    that are missing or not built here, a tokenizer that is not, and tensors that are missing, left over or of another
    shape.
    """
    if not file.is_file():
        raise FileNotFoundError(f"There is no file {file}.")
    content = GGUF(file)
    config = published_config(content)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    names = {_published_name(name): name for name in content.tensors if name != FREQUENCIES}
    if len(names) < len(content.tensors) - (FREQUENCIES in content.tensors):
        raise ValueError(f"{file} has two names for one tensor.")
    stored = {name: content.tensors[theirs] for name, theirs in names.items()}
    empty = {name: torch.empty(tensor.shape, device="meta") for name, tensor in stored.items()}
    build_published(config, empty, file)  # on no device: shapes are compared before any weights are read

    def read(name: str) -> Tensor:
        tensor = content.read(names[name])
        part = names[name].split(".")[-2]
        return halves_of_pairs(tensor, heads[part]) if part in heads and config["model_type"] != "qwen2" else tensor

    return Released(
        config, stored, read, tokenizer_files(content, config) | {"config.json": json.dumps(config, indent=2)}
    )


def load_gguf(file: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The Llama that a GGUF holds, in evaluation mode. Errors as of :func:`open_gguf`."""
    return load_released(open_gguf(file), file, dtype)


def load_released(released: Released, file: Path, dtype: torch.dtype = torch.float32) -> nn.Module:
    """The same of a file that is open. ``ValueError`` where its weights do not fit into memory."""
    return build_published(released.config, {name: released.read(name) for name in released.stored}, file, dtype)


def convert_gguf(file: Path, folder: Path) -> str:
    """Write what a GGUF holds to ``folder``, in the published layout. Returns what was done, in one line.

    Errors as of :func:`open_gguf`, before anything is written.
    """
    config, stored, read, files = open_gguf(file)
    folder.mkdir(parents=True, exist_ok=True)
    size, free = sum(_size(tensor) for tensor in stored.values()), shutil.disk_usage(folder).free
    if size > free:
        raise ValueError(f"{folder} needs {size / GIB:.1f} GiB for these weights, and {free / GIB:.1f} GiB are free.")
    write_tensors(folder / "model.safetensors", stored, read)
    remove(folder / TEMPLATE)  # of another model, that was here before
    for name, text in files.items():
        with written_whole(folder / name) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    told = "" if TEMPLATE in files else ", without a chat template"
    kinds = ", ".join(sorted({tensor.kind for tensor in stored.values()}))
    count = sum(math.prod(tensor.shape) for tensor in stored.values())
    return f"{file} is a {config['model_type']} in {kinds}: {len(stored)} tensors, {count:,} numbers{told}"


def published_config(content: GGUF) -> dict[str, Any]:
    """The ``config.json`` of this model. Errors as of :func:`open_gguf`."""
    where, settings = content.path, content.settings
    family = settings.get("general.architecture")
    if family not in ("llama", "qwen2"):
        raise ValueError(f"{where} is of the architecture {family!r:.60}, and llama and qwen2 are read here.")
    if settings.get("split.count", 1) not in (0, 1):
        raise ValueError(
            f"{where} is one of {settings['split.count']!r:.20} parts; join them by llama-gguf-split first."
        )
    said = {name.removeprefix(f"{family}."): value for name, value in settings.items() if name.startswith(f"{family}.")}
    if unknown := sorted(set(said) - FURTHER - set(NUMBERS.values())):
        raise ValueError(f"{where} says {family}.{unknown[0]:.60} = {said[unknown[0]]!r:.40}, which is not built here.")
    if missing := [name for name in NUMBERS.values() if name not in said]:
        raise ValueError(f"{where} does not say {family}.{missing[0]}.")
    if missing := [name for name in ("token_embd.weight", "output_norm.weight") if name not in content.tensors]:
        raise ValueError(f"{where} has no {missing[0]}, as a Llama has.")
    if said.get("expert_count"):
        raise ValueError(f"{where} is a mixture of {said['expert_count']!r:.20} experts, which is not built here.")
    config = {name: said[theirs] for name, theirs in NUMBERS.items()}
    heads, width = config["num_attention_heads"], config["hidden_size"]
    if not all(type(value) is int and value > 0 for value in (heads, width)):
        raise ValueError(
            f"{where}: a width of {width!r:.40} and {heads!r:.40} heads are not both whole numbers above 0."
        )
    head_width = said.get("attention.key_length", width // heads)
    for name in ("attention.value_length", "rope.dimension_count"):
        if said.get(name, head_width) != head_width:
            raise ValueError(
                f"{where}: {family}.{name} is {said[name]!r:.40}, and heads of {head_width!r:.40} are built."
            )
    window = said.get("attention.sliding_window") or None
    config |= {
        "model_type": "mistral" if window and family == "llama" else family,
        "num_key_value_heads": said.get("attention.head_count_kv", heads),
        "head_dim": head_width,
        "vocab_size": content.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in content.tensors,
        "hidden_act": "silu",
        "rope_parameters": _rotary(content, said, head_width),
        **_special_tokens(settings),
    }
    if window:
        config |= {"sliding_window": window} | ({"use_sliding_window": True} if family == "qwen2" else {})
    return config | {"architectures": [CLASSES[config["model_type"]]]}


def _special_tokens(settings: dict[str, Any]) -> dict[str, Any]:
    """Where texts begin with no start token, as the tokenizer says, there is none."""
    begins = settings.get("tokenizer.ggml.add_bos_token", settings.get("tokenizer.ggml.model") == "llama")
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    tokens = {f"{ours}_token_id": settings.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in names.items()}
    turn = settings.get("tokenizer.ggml.eot_token_id")
    if turn is not None and turn != tokens["eos_token_id"]:
        tokens["eos_token_id"] = [tokens["eos_token_id"], turn]
    return tokens if begins else tokens | {"bos_token_id": None}


def _rotary(content: GGUF, said: dict[str, Any], head_width: int) -> dict[str, Any]:
    """The rotary positions. Llama 3's scaling is not named in a GGUF, but is there as a factor for each frequency."""
    base, kind = said.get("rope.freq_base", 10_000.0), said.get("rope.scaling.type", "none")
    if kind not in ("none", "linear") or (kind == "linear" and FREQUENCIES in content.tensors):
        raise ValueError(
            f"{content.path} has a rope scaling, {kind!r:.40}, that is not built here; none, linear and Llama 3's are."
        )
    if not isinstance(base, int | float) or not 0 < base < math.inf or type(head_width) is not int or head_width % 2:
        raise ValueError(f"{content.path}: heads of {head_width!r:.40} features cannot turn by the base {base!r:.40}.")
    rotary = {"rope_theta": float(base), "rope_type": "default"}
    if kind == "linear":
        return rotary | {"rope_type": "linear", "factor": said.get("rope.scaling.factor", 1.0)}
    if FREQUENCIES not in content.tensors:
        return rotary
    divided = content.read(FREQUENCIES).float()
    scaling = RotaryConfig(base, "llama3", divided.max().item())  # slow pairs are divided by the whole factor
    plain, slowed = (rotary_frequencies(head_width, one) for one in (RotaryConfig(base), scaling))
    if divided.shape != plain.shape or not torch.allclose(plain / slowed, divided, rtol=1e-4):
        raise ValueError(f"{content.path} has a rope scaling, {FREQUENCIES}, that is not Llama 3's; no other is built.")
    names = {"low_freq_factor": "low_frequency_factor", "high_freq_factor": "high_frequency_factor"}
    names |= {"factor": "factor", "original_max_position_embeddings": "trained_length"}
    return rotary | {"rope_type": "llama3"} | {theirs: getattr(scaling, ours) for theirs, ours in names.items()}


def _published_name(name: str) -> str:
    """``blk.3.attn_q.weight`` is ``model.layers.3.self_attn.q_proj.weight``; another name stays as it is."""
    *block, part, kind = name.split(".") if name.count(".") in (1, 3) else ("", name, "")
    if part not in NAMES or (block and block[0] != "blk"):
        return name
    return ".".join(["model.layers", *block[1:], NAMES[part], kind] if block else [NAMES[part], kind])


def halves_of_pairs(weight: Tensor, heads: int) -> Tensor:
    """The features of each head in the order in which :func:`~mmlearn.layers.rotate` turns them.

    llama.cpp turns neighbouring features, as the paper does, and so stores those of queries and keys as pairs. The two
    of a pair are half a head apart here, as in released weights.
    """
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)  # (heads · pairs · 2, d), and back


def _size(stored: Stored) -> int:
    """Bytes of a tensor as it is written."""
    return math.prod(stored.shape) * (2 if stored.kind in HALF else 4)


def write_tensors(path: Path, stored: dict[str, Stored], read: Callable[[str], Tensor]) -> None:
    """A safetensors file, one tensor at a time: the whole model need not be in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, kind, *_) in stored.items():
        form = kind if kind in HALF else "F32"
        header[name] = {"dtype": form, "shape": list(shape), "data_offsets": [end, end := end + _size(stored[name])]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with written_whole(path) as unfinished, unfinished.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in stored:
            file.write(read(name).contiguous().view(torch.uint8).numpy().tobytes())
