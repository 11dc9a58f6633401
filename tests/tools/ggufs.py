"""Small GGUF files, written by the package gguf as llama.cpp's own scripts write them."""

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers.pre_tokenizers import ByteLevel

# The bytes, what is merged, and three special tokens; 32 divides their number.
BYTES = sorted(ByteLevel.alphabet())
MERGES = ["c a", "ca t", "Ġ a", "d o", "do g", "Ġ cat"]
TOKENS = [*BYTES, *(merge.replace(" ", "") for merge in MERGES)]
TOKENS += ["<s>", "</s>", "<turn>", *(f"<unused{i}>" for i in range(23))]
START, END, TURN = (TOKENS.index(token) for token in ("<s>", "</s>", "<turn>"))
TYPES = [1] * (len(TOKENS) - 26) + [3] * 3 + [5] * 23
TEMPLATE = "{{ bos_token }}{% for m in messages %}<turn>{{ m['content'] }}</s>{% endfor %}"
SIZES = dict(vocab_size=len(TOKENS), hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
SIZES |= dict(intermediate_size=96, max_position_embeddings=24, rms_norm_eps=1e-5, bos_token_id=START)
SIZES |= dict(eos_token_id=END, pad_token_id=END)
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def paired(weight, heads):
    """The two halves of each head as neighbours, as llama.cpp's convert_hf_to_gguf.py puts them."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def their_tensors(model, family="llama"):
    """The weights of a model of Transformers under the names of a GGUF."""
    found = {}
    for name, value in model.state_dict().items():
        value, heads = value.numpy(), {"q": SIZES["num_attention_heads"], "k": SIZES["num_key_value_heads"]}
        if family == "llama" and (projection := name.split("_proj")[0][-1:]) in heads and "_proj" in name:
            value = paired(value, heads[projection])
        for published, theirs in NAMES.items():
            name = name.replace(published, theirs)
        found[name.replace("model.layers", "blk")] = value
    return found


def said(family="llama"):
    """The settings of such a model, by their names."""
    numbers = {
        "context_length": 24,
        "embedding_length": 64,
        "block_count": 2,
        "feed_forward_length": 96,
        "attention.head_count": 4,
        "attention.head_count_kv": 2,
        "rope.dimension_count": 16,
    }
    settings = {f"{family}.{name}": value for name, value in numbers.items()}
    settings |= {f"{family}.attention.layer_norm_rms_epsilon": 1e-5, f"{family}.rope.freq_base": 10_000.0}
    tokens = {"bos": START, "eos": END, "padding": END}
    settings |= {f"tokenizer.ggml.{name}_token_id": token for name, token in tokens.items()}
    return settings | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": TYPES,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": TEMPLATE,
    }


def write_gguf(path, tensors, settings, family="llama", kind="F32"):
    """A file of these; matrices are of this ``kind``, or of one each by their names."""
    writer = GGUFWriter(path, family)
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32, str: writer.add_string}
    for name, value in settings.items():
        add.get(type(value), writer.add_array)(name, value)
    for name, value in tensors.items():
        number = GGMLQuantizationType[kind if isinstance(kind, str) else kind.get(name, "F32")]
        if value.ndim == 1 or number == GGMLQuantizationType.F32:
            writer.add_tensor(name, np.ascontiguousarray(value))
        else:
            writer.add_tensor(name, quantize(np.ascontiguousarray(value), number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
