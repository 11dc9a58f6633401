"""Configurations of Transformers in short, and what tests of several of them have in common."""

import torch
from testing_tools import close
from transformers import LlavaForConditionalGeneration

SILENT = {
    f"{name}_dropout": 0.0 for name in ("hidden", "activation", "attention", "feat_proj", "feat_quantizer", "final")
}


def sizes(width, depth, heads, mlp, **more):
    """A transformer's sizes under their published names, and more settings."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return dict(zip(names, (width, depth, heads, mlp))) | more


TEXTS = {
    "odd": sizes(24, 2, 3, 50, vocab_size=99, max_position_embeddings=11, batch=3),
    "relu": sizes(40, 3, 5, 33, vocab_size=64, max_position_embeddings=16, batch=4)
    | dict(hidden_act="relu", type_vocab_size=3),
    "batch of one": sizes(16, 1, 1, 24, vocab_size=50, max_position_embeddings=6, batch=1, layer_norm_eps=1e-5),
}


def text_inputs(config, case, **more):
    """A configuration, texts, which of their tokens are real, and the types of these."""
    sizes = dict(TEXTS[case])
    batch, length = sizes.pop("batch"), sizes["max_position_embeddings"]
    tokens = torch.randint(sizes["vocab_size"], (batch, length))
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return config(**sizes | more), tokens, mask, torch.randint(2, (batch, length))


def to_guess(tokens, mask):
    """Labels of some real tokens, the first of all among them."""
    label = torch.where((torch.rand(tokens.shape) < 0.4) & mask, tokens, -100)
    label[0, 0] = tokens[0, 0]
    return label


RELATIVE = {
    "shared positions": sizes(24, 2, 3, 50, image_size=28, patch_size=7, batch=3)
    | dict(use_shared_relative_position_bias=True),
    "positions of each block": sizes(40, 3, 5, 33, image_size=24, patch_size=4, batch=4)
    | dict(use_relative_position_bias=True, hidden_act="relu", layer_scale_init_value=1e-3),
    "absolute positions, no scale, batch of one": sizes(16, 1, 1, 24, image_size=15, patch_size=5, batch=1)
    | dict(use_absolute_position_embeddings=True, layer_scale_init_value=0.0, layer_norm_eps=1e-6),
}


def relative_inputs(config, case, **more):
    """A configuration of BEiT's format, pictures, and how many patches each has."""
    sizes = RELATIVE[case] | more
    batch, size = sizes.pop("batch"), sizes["image_size"]
    return config(**sizes), torch.randn(batch, 3, size, size), (size // sizes["patch_size"]) ** 2


def two_texts(vocabulary, batch, length):
    """Texts, targets of other lengths, and which tokens of both are real."""
    tokens, target = (torch.randint(vocabulary, (batch, t)) for t in (length, length - 2))
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    return tokens, target, mask, torch.arange(length - 2) <= 3 - torch.arange(batch)[:, None]


def convolutions(channels, kernels, strides, position_kernel, position_groups, **more):
    """The convolutions of a speech encoder, and those that tell frames their positions."""
    return dict(
        conv_dim=channels,
        conv_kernel=kernels,
        conv_stride=strides,
        num_conv_pos_embeddings=position_kernel,
        num_conv_pos_embedding_groups=position_groups,
        **more,
    )


BASE = convolutions((12, 16, 20), (5, 3, 2), (3, 2, 2), 6, 4)
LARGE = convolutions((10, 14), (7, 4), (4, 3), 5, 2, conv_bias=True)
LARGE |= dict(feat_extract_norm="layer", do_stable_layer_norm=True, layer_norm_eps=1e-6)
NARROW = convolutions((6, 9), (10, 3), (5, 2), 9, 8, hidden_act="relu")


def speech_inputs(config, case, padded=True, **changes):
    """A configuration where nothing is dropped, and waveforms with their mask; what is padded is 0."""
    case = dict(case)
    batch, samples = case.pop("batch"), case.pop("samples")
    mask = torch.arange(samples) < samples - 37 * torch.arange(batch)[:, None] - 11
    mask = mask if padded else torch.ones_like(mask)
    given = {"waveform": torch.randn(batch, samples) * mask, "waveform_mask": mask}
    return config(**case | SILENT | dict(layerdrop=0.0, vocab_size=9) | changes), given


def speech_of_theirs(given):
    """The same under the names of theirs, which number distractors through the whole batch."""
    named = {"input_values": given["waveform"], "attention_mask": given["waveform_mask"].long()}
    if "masked" in given:
        b, s = given["masked"].shape
        named["mask_time_indices"] = given["masked"]
        named["sampled_negative_indices"] = given["distractor"] + s * torch.arange(b)[:, None, None]
    return named


def real_frames(published, given):
    """Which frames see real samples only, by their reckoning."""
    frames = published._get_feat_extract_output_lengths(given["waveform"].shape[1])
    return published._get_feature_vector_attention_mask(int(frames), given["waveform_mask"].long()).bool()


def same_texts(published, ours, given, assert_same_gradients):
    """What is read off frames costs as much as theirs, also where a token comes twice."""
    b = len(given["waveform"])
    tokens = torch.randint(4, 9, (b, 6))
    tokens[0, 1] = tokens[0, 0]
    mask = torch.arange(6) < 3 + torch.arange(b)[:, None] % 4
    expected = published(**speech_of_theirs(given), labels=torch.where(mask, tokens, -100))
    output, real = ours(given["waveform"], given["waveform_mask"]), real_frames(published, given)
    close(output.logits[real], expected.logits[real])
    loss = ours.loss(given | {"tokens": tokens, "mask": mask})["ctc"]
    close(loss, expected.loss / b)
    frames = output.logits.shape[1]  # a text costs about ln v a frame, and so has gradients far above 1
    assert_same_gradients(published, ours, loss / frames, expected.loss / b / frames)


CAPTIONED = {
    "odd": dict(text=sizes(24, 2, 3, 50), image=sizes(16, 1, 2, 36), size=(20, 5), batch=3, length=11),
    "relu": dict(
        text=sizes(40, 1, 5, 33, hidden_act="relu"), image=sizes(24, 3, 3, 20, layer_norm_eps=1e-6), size=(16, 8),
        batch=4, length=8,
    ),
    "batch of one": dict(
        text=sizes(16, 2, 1, 24, layer_norm_eps=1e-5), image=sizes(16, 2, 1, 24, hidden_act="relu"), size=(12, 4),
        batch=1, length=5,
    ),
}  # fmt: skip


def captioned_inputs(case, words):
    """The sizes of a text's and of a picture's part, pictures, tokens below ``words``, and which are real."""
    case = CAPTIONED[case]
    (size, patch), batch, length = case["size"], case["batch"], case["length"]
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, words, (batch, length), generator=generator)
    image = torch.randn(batch, 3, size, size, generator=generator)
    mask = torch.arange(length) <= torch.arange(batch)[:, None] + 2
    text, shape = case["text"] | dict(max_position_embeddings=length), dict(image_size=size, patch_size=patch)
    return text, case["image"] | shape, image, tokens, mask


@torch.no_grad()
def sharpened(published):
    """So that the picture counts; without that all captions are one."""
    for parameter in published.parameters():
        parameter.mul_(3).add_(0.1 * torch.randn(parameter.shape))
    return published


# As small as can be, for tests that load many.
SMALL = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24)
TEXT = dict(vocab_size=30, max_position_embeddings=6, **SMALL)
GPT2 = dict(vocab_size=30, n_positions=6, n_embd=16, n_layer=1, n_head=2, n_inner=24)
LLAMA = dict(vocab_size=30, max_position_embeddings=12, num_key_value_heads=1, **SMALL)
OPT = dict(ffn_dim=24, **{name: size for name, size in TEXT.items() if name != "intermediate_size"})
DISTILBERT = dict(vocab_size=30, max_position_embeddings=6, dim=16, n_layers=1, n_heads=2, hidden_dim=24)
BART = dict(vocab_size=30, max_position_embeddings=6, d_model=16)
BART |= {
    f"{stack}coder_{what}": size
    for stack in ("en", "de")
    for what, size in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))
}
T5 = dict(vocab_size=30, d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, decoder_start_token_id=0)
T5 |= dict(relative_attention_num_buckets=6, relative_attention_max_distance=16)
WHISPER = {name: size for name, size in BART.items() if name != "max_position_embeddings"}
WHISPER |= dict(max_target_positions=6, max_source_positions=6, num_mel_bins=5)
WHISPER |= dict(suppress_tokens=[3, 4], pad_token_id=1, bos_token_id=1, eos_token_id=1, decoder_start_token_id=2)
IMAGE = dict(image_size=8, patch_size=4, **SMALL)
SPEECH = dict(conv_dim=(6, 8), conv_kernel=(5, 3), conv_stride=(3, 2), num_conv_pos_embeddings=4, **SMALL)
SPEECH |= dict(num_conv_pos_embedding_groups=2)
SWIN = dict(spec_size=64, num_mel_bins=16, patch_size=4, patch_stride=[4, 4], window_size=4, depths=[1, 1])
SWIN |= dict(num_attention_heads=[2, 4], patch_embeds_hidden_size=12, hidden_size=24)
REGIONS = {name: value for name, value in TEXT.items() if name != "num_hidden_layers"}
REGIONS |= dict(l_layers=1, r_layers=1, x_layers=1, visual_feat_dim=12, num_object_labels=5, num_attr_labels=4)
MAE = dict(decoder_hidden_size=8, decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
MAE |= dict(decoder_intermediate_size=12, **IMAGE)
BEIT = dict(use_mask_token=True, use_shared_relative_position_bias=True, **IMAGE)
DATA2VEC_AUDIO = dict(conv_pos_kernel_size=3, num_conv_pos_embeddings=2)
DATA2VEC_AUDIO |= {name: value for name, value in SPEECH.items() if name != "num_conv_pos_embeddings"}
PERCEIVER = dict(num_latents=5, d_latents=16, d_model=24, num_self_attends_per_block=1, vocab_size=30)
PERCEIVER |= dict(max_position_embeddings=6, num_cross_attention_heads=2, num_self_attention_heads=4)
VLM = dict(vision_config=IMAGE, text_config=dict(model_type="llama", **LLAMA), image_token_id=29)
FLAVA = dict(
    image_config=dict(vocab_size=11, **IMAGE),
    text_config=TEXT,
    multimodal_config=SMALL,
    image_codebook_config=dict(vocab_size=11, hidden_size=4),
    hidden_size=16,
    projection_dim=12,
)


class LlavaOfGPT2(LlavaForConditionalGeneration):
    """Where a GPT-2 has its token table, which its language head is."""

    _tied_weights_keys = {"lm_head.weight": "model.language_model.wte.weight"}
