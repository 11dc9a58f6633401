"""A checkpoint in nanoVLM's layout, made of an Idefics3 of Transformers that has the same parts.

By models/vision_transformer.py, modality_projector.py and language_model.py of https://github.com/huggingface/nanoVLM.
"""

import json
import re

import torch
from safetensors.torch import save_file

EXTRA = {"image_token": "<|image|>", "global_image_token": "<|global_image|>", "r1c1": "<row_1_col_1>"}
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NAMES = {
    r"^model\.text_model\.embed_tokens": "decoder.token_embedding",
    r"^model\.text_model\.norm": "decoder.norm",
    r"^model\.text_model\.layers\.(\d+)\.input_layernorm": r"decoder.blocks.\1.norm1",
    r"^model\.text_model\.layers\.(\d+)\.post_attention_layernorm": r"decoder.blocks.\1.norm2",
    r"^model\.text_model\.layers\.(\d+)\.self_attn\.o_proj": r"decoder.blocks.\1.attn.out_proj",
    r"^model\.text_model\.layers\.(\d+)\.self_attn": r"decoder.blocks.\1.attn",
    r"^model\.text_model\.layers": "decoder.blocks",
    r"^lm_head": "decoder.head",
    r"^model\.connector\.modality_projection\.proj": "MP.proj",
    r"^model\.vision_model\.embeddings\.patch_embedding": "vision_encoder.patch_embedding.conv",
    r"^model\.vision_model\.post_layernorm": "vision_encoder.layer_norm",
    r"^model\.vision_model\.encoder\.layers\.(\d+)\.layer_norm": r"vision_encoder.blocks.\1.ln",
    r"^model\.vision_model\.encoder\.layers\.(\d+)\.self_attn": r"vision_encoder.blocks.\1.attn",
    r"^model\.vision_model\.encoder\.layers": "vision_encoder.blocks",
}


def tensors_of(state, tied, rotary=None):
    """These tensors as nanoVLM names them, and as safetensors' ``save_model`` keeps of two that are one the first."""
    found = {}
    for name, tensor in state.items():
        for theirs, nano in NAMES.items():
            name = re.sub(theirs, nano, name)
        found[name] = tensor.detach().contiguous().clone()
    positions = found.pop("model.vision_model.embeddings.position_embedding.weight")
    found["vision_encoder.patch_embedding.position_embedding"] = positions[None]
    for i in range(sum(name.endswith("ln1.weight") for name in found)):
        for kind in ("weight", "bias"):
            block = f"vision_encoder.blocks.{i}.attn"
            parts = [found.pop(f"{block}.{part}_proj.{kind}") for part in "qkv"]
            found[f"{block}.qkv_proj.{kind}"] = torch.cat(parts)
    if tied:
        found["decoder.head.weight"] = found.pop("decoder.token_embedding.weight")
    return found if rotary is None else found | {"decoder.rotary_embd.inv_freq": rotary}


def write_nanovlm(folder, model, image_token, tokenizer="HuggingFaceTB/SmolLM2-360M-Instruct", **changes):
    """The model's numbers and settings; ``image_token`` is the first that nanoVLM added to the vocabulary."""
    folder.mkdir(exist_ok=True)
    whole, image, text = model.config, model.config.vision_config, model.config.text_config
    k = (image.image_size // image.patch_size // whole.scale_factor) ** 2
    names = dict(hidden_dim="hidden_size", inter_dim="intermediate_size", n_blocks="num_hidden_layers")
    names |= dict(n_heads="num_attention_heads")
    said = {f"vit_{nano}": getattr(image, theirs) for nano, theirs in names.items()}
    said |= {f"lm_{nano}": getattr(text, theirs) for nano, theirs in names.items()}
    said |= dict(vit_patch_size=image.patch_size, vit_img_size=image.image_size, vit_ln_eps=image.layer_norm_eps)
    said |= dict(vit_dropout=0.0, vit_cls_flag=False, lm_rms_eps=text.rms_norm_eps, lm_dropout=0.0)
    said |= dict(
        lm_re_base=int(text.rope_parameters["rope_theta"]), lm_max_position_embeddings=text.max_position_embeddings
    )
    said |= dict(lm_base_vocab_size=image_token, lm_vocab_size=text.vocab_size, extra_token_amount=len(EXTRA))
    said |= dict(lm_n_kv_heads=text.num_key_value_heads, lm_attn_scaling=1.0, lm_tie_weights=whole.tie_word_embeddings)
    said |= dict(lm_use_tokens=False, lm_tokenizer=tokenizer, lm_chat_template=TEMPLATE, vlm_extra_tokens=EXTRA)
    said |= dict(mp_pixel_shuffle_factor=whole.scale_factor, mp_image_token_length=k, vlm_checkpoint_path="checkpoints")
    (folder / "config.json").write_text(json.dumps(said | changes, indent=4))
    width = text.hidden_size // text.num_attention_heads
    rotary = text.rope_parameters["rope_theta"] ** -(torch.arange(0, width, 2) / width)
    rotary = rotary if whole.tie_word_embeddings else None  # so that of another file each tensor is needed
    save_file(tensors_of(model.state_dict(), whole.tie_word_embeddings, rotary), folder / "model.safetensors")
    return folder
