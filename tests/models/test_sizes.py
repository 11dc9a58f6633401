"""Every preset of every system has the number of parameters that follows from its source, which stands beside it.

Where a released model has something that ours has not, or the other way round, ``changes`` name the part of ours that
is compared, or the count says what comes on top. Presets that are ours alone are named as such.
"""

import dataclasses
from pathlib import Path

import pytest
from testing_tools import count_parameters

from mmlearn.recipes.discovery import find_recipe, system_files


def linear(inputs, outputs, bias=True):
    return inputs * outputs + (outputs if bias else 0)


def blocks(width, depth, mlp=None):
    """Attention, MLP and two norms, so many times."""
    mlp = mlp or 4 * width
    return depth * (4 * linear(width, width) + linear(width, mlp) + linear(mlp, width) + 4 * width)


def bert(width, depth, words, types=2, positions=512):
    """Embedding and blocks, without the pooler."""
    return (words + positions + types + 2) * width + blocks(width, depth)


def language_head(width, words):
    return linear(width, width) + 2 * width + words


def clip_image(width, depth, patch, positions):
    """Patches without a bias, class token, positions, and a norm at both ends."""
    return 3 * patch**2 * width + width + positions * width + blocks(width, depth) + 4 * width


def clip_text(width, depth, words=49_408, positions=77):
    return (words + positions + 2) * width + blocks(width, depth)


def q_former(width, depth, image_width):
    """What a Q-Former has beside a BERT: queries, an MLP for them in each block, and attention in every second."""
    looking = 2 * linear(width, width) + 2 * linear(image_width, width) + 2 * width
    return 32 * width + depth * (linear(width, 4 * width) + linear(4 * width, width) + 2 * width) + depth // 2 * looking


def query_former_alone():
    """Queries and blocks with one MLP each, half of which look at the image, and a norm before all."""
    looking = 2 * linear(768, 768) + 2 * linear(1408, 768) + 2 * 768
    return 32 * 768 + blocks(768, 12) + 12 // 2 * looking + 2 * 768


def uniter(width, depth):
    image = linear(2048, width) + linear(7, width) + 6 * width + 2048
    heads = linear(width, width) + 2 * width + 2048 + linear(width, width) + 2 * width + linear(width, 1601)
    heads += language_head(width, 28_996) + linear(width, 2)
    return bert(width, depth, 28_996) + linear(width, width) + image + heads


def oscar(width, depth, more=0):
    """With the ``more`` of VinVL: a norm of regions, and a third class."""
    image = linear(2048 + 6, width) + linear(width, 2) + more
    return bert(width, depth, 30_522) + linear(width, width) + image + language_head(width, 30_522)


def infoxlm(width, depth):
    """XLM-R, which has a slow copy, each with a projection; and the head that guesses words."""
    return 2 * (bert(width, depth, 250_002, types=1, positions=514) + width**2) + language_head(width, 250_002)


def vl_bert(width, depth):
    visual = linear(4096, width) + 4 * width + 2048 + 3 * width
    heads = language_head(width, 30_522) + linear(width, width) + linear(width, 1601)
    return bert(width, depth, 30_522, types=3) + visual + heads


def lstm_both_ways(inputs, width):
    return 2 * 4 * width * (inputs + width + 2)


def misa():
    size = 0
    for f in (300, 74, 47):
        size += lstm_both_ways(f, f) + lstm_both_ways(2 * f, f) + 4 * f + linear(4 * f, 128) + 2 * 128
    return size + 7 * linear(128, 128) + blocks(128, 1, 2048) + linear(6 * 128, 3 * 128) + linear(3 * 128, 1)


def image_bind():
    """Of pictures half of the patches' weights, which the official code has for two frames."""
    image = clip_image(1280, 32, 14, 257) + 1280 * 1024
    sound = 256 * 768 + 2 * 768 + 768 + 229 * 768 + blocks(768, 12) + 12 * 2 * 768 + 2 * 768 + 768 * 1024
    return image + clip_text(1024, 24) + 1024**2 + sound + 2  # two temperatures


ALBEF_ONLINE = bert(768, 12, 30_522) + 6 * (4 * linear(768, 768) + 2 * 768) + language_head(768, 30_522)
ALBEF_ONLINE += 85_844_736 + 2 * linear(768, 256)

DETECTION = {width: linear(width, width) + linear(width, 1) for width in (256, 768, 1024)}


def beit(width, depth, heads, codes=8192):
    """Keys without a bias, two scales a block, one table of 27 × 27 + 3 relative positions, class and mask token."""
    encoder = linear(768, width) + 2 * width + blocks(width, depth) + depth * width + (27**2 + 3) * heads
    return encoder + (2 * width + linear(width, codes) if codes else 0)


def data2vec_audio(width, depth):
    """Seven convolutions of 512 channels, each with a norm, five of 19 frames in 16 groups, and post-norm blocks."""
    ears = 10 * 512 + 4 * 3 * 512**2 + 2 * 2 * 512**2 + 7 * 2 * 512 + 2 * 512 + linear(512, width) + width
    return ears + 5 * (width * width // 16 * 19 + width) + 2 * width + blocks(width, depth)


def perceiver_block(width, asked=None, keys=None, values=None):
    """An MLP no wider than the block; a norm of what is asked, where that is something else."""
    keys = keys or asked or width
    values, source = values or keys, asked or width
    attention = linear(width, keys) + linear(source, keys) + linear(source, values) + linear(values, width)
    return attention + 2 * linear(width, width) + 4 * width + 2 * (asked or 0)


def perceiver_language():
    """Tables of bytes and positions, 256 latents, 26 blocks, 2,048 queries, and a bias for each byte."""
    encoder = perceiver_block(1280, 768, 256, 1280) + 26 * perceiver_block(1280, None, 256, 1280)
    tables = (262 + 2048) * 768 + 256 * 1280
    return tables + encoder + 2048 * 768 + perceiver_block(768, 1280, 256, 768) + 262


def perceiver_fourier():
    """Pixels with 258 features of their position, 512 latents, six blocks passed eight times, 1,000 classes."""
    encoder = 512 * 1024 + perceiver_block(1024, 261) + 6 * perceiver_block(1024)
    return encoder + 1024 + perceiver_block(1024, 1024) + linear(1024, 1000)


def flava():
    """Three encoders of 768 features, what joins them, and five heads with weights of their own."""
    text = bert(768, 12, 30_522) + 2 * 768
    encoders = 85_798_656 + 768 + text + 768 + blocks(768, 6) + 2 * 768 + 4 * linear(768, 768) + 1
    heads = [linear(768, 768) + 2 * 768 + linear(768, choices) for choices in (8192, 8192, 30_522, 30_522)]
    return encoders + sum(heads) + linear(768, 768) + linear(768, 2)


def multiway(width, depth, pairs):
    """Attention of all, MLPs with norms of texts and of pictures, and of pairs in the last blocks; heads."""
    mlp = linear(width, 4 * width) + linear(4 * width, width) + 2 * width
    body = depth * (4 * linear(width, width) + 2 * width) + (2 * depth + pairs) * mlp + 2 * width
    image = linear(768, width) + 199 * width  # with class and mask token
    text = (30_522 + 512 + 2 + 2) * width + 2 * width
    heads = linear(width, 8192) + language_head(width, 30_522) + linear(width, width) + linear(width, 2)
    return body + image + text + heads + 2 * width**2 + 1


def beit3(width, depth):
    """Of texts and of pictures: attention, four norms with those inside branches, an MLP; two heads, not tied."""
    block = 4 * linear(width, width) + 3 * 2 * width + linear(width, 4 * width) + linear(4 * width, width) + 8 * width
    image, text = linear(768, width) + 199 * width, (64_010 + 1024) * width
    return 2 * depth * block + 2 * 2 * width + image + text + linear(width, 64_010) + linear(width, 8192)


def unified_io(width, depth, heads, mlp):
    """Without scores of positions across, which the code computes and leaves out, and segments that nothing reads."""
    attention, gated = 4 * width * heads * 64, 3 * width * mlp
    tables = (33_152 + 16_384 + 256 + 576 + 256 + 256 + 2 + 2 + 768) * width
    scores = 2 * (2 * width * heads * 64 + (32 + 256) * heads)
    encoder, decoder = depth * (attention + gated + 2 * width), depth * (2 * attention + gated + 3 * width)
    return tables + scores + encoder + decoder + 7 * width


def limoe(width, depth, experts=32):
    """Half of the blocks have a router, and that many MLPs for one."""
    mlp = linear(width, 4 * width) + linear(4 * width, width)
    tables = linear(768, width) + 196 * width + (32_000 + 16) * width
    return (
        tables
        + blocks(width, depth)
        + depth // 2 * ((experts - 1) * mlp + experts * width)
        + 2 * width
        + 2 * width**2
        + 1
    )


def mae_decoder(width, patch):
    """Eight blocks of 512 features, with the positions that do not learn, of pictures of 224 pixels."""
    positions = (224 // patch) ** 2 + 1
    return linear(width, 512) + 512 + positions * 512 + blocks(512, 8) + 2 * 512 + linear(512, 3 * patch**2)


def resnet(blocks, bottleneck=True):
    """Convolutions alone: norms do not learn."""
    size, before = 3 * 7**2 * 64, 64
    for stage, count in enumerate(blocks):
        width = 256 * 2**stage
        for i in range(count):
            size += before * width // 4 + 9 * (width // 4) ** 2 + width * width // 4 + (before * width if i == 0 else 0)
            before = width
    return size


def detr(blocks, classes=91):
    """A backbone, six blocks each of 256 features, 100 queries and two heads."""
    attention, mlp = 4 * linear(256, 256) + 512, linear(256, 2048) + linear(2048, 256) + 512
    heads = linear(256, classes + 1) + 2 * linear(256, 256) + linear(256, 4)
    return resnet(blocks) + linear(2048, 256) + 6 * (3 * attention + 2 * mlp) + 512 + 100 * 256 + heads


def electra_generator(embedding, depth):
    """256 wide; its table of words is the last layer as well."""
    tables = (30_522 + 512 + 2 + 2) * embedding
    return tables + linear(embedding, 256) + blocks(256, depth) + linear(256, embedding) + 2 * embedding + 30_522


def virtex(width, depth=1):
    """A ResNet-50 and two decoders that share the table of words, their positions, a bias and the projection."""
    decoder = blocks(width, depth) + depth * (4 * linear(width, width) + 2 * width)
    return 23_508_032 + linear(2048, width) + (10_000 + 30 + 2) * width + 10_000 + 2 * decoder


def coca(width, depth):
    """Patches of 18 pixels and two poolers; two halves of 12 blocks, tables for 64,000 words to read and to write."""
    pooler = 4 * linear(width, width) + 2 * width
    image = linear(3 * 18**2, width) + 256 * width + blocks(width, depth) + 2 * width + 257 * width + 2 * pooler
    text = 2 * 64_000 * width + 65 * width + 2 * blocks(width, 12) + 12 * (4 * linear(width, width) + 2 * width)
    return image + text + 4 * width + 2 * width**2 + 1


def git(image_width, depth, patch, positions):
    """CLIP's picture encoder without the projection, six blocks of 768 features, and an output layer of its own."""
    image = clip_image(image_width, depth, patch, positions) + linear(image_width, 768) + 2 * 768
    return image + bert(768, 6, 30_522, types=0, positions=1024) + linear(768, 30_522)


def whisper(width, depth, words=51_865, mels=80):
    """Two convolutions, blocks without biases of keys, positions of the decoder alone, and a norm at both ends."""
    kernels = 3 * mels * width + width + 3 * width**2 + width
    cross = 4 * linear(width, width) + 2 * width
    attentions = 3  # in a block of the encoder and one of the decoder
    stacks = 2 * blocks(width, depth) + depth * (cross - attentions * width)
    return kernels + stacks + (words + 448) * width + 4 * width


OURS = {  # presets that have not all parts of a published model; what differs is among the deviations of their files
    ("lit", "base"): "the released LiT-B16B has BERT-base and a layer on the side of pictures",
    ("lip2wav", "base"): "Tacotron 2's recurrent layers are blocks of a transformer here",
    ("vq-vae", "base"): "the paper gives the blocks' width, and sizes differ with the data set",
    ("vqgan", "base"): "our VQ-VAE with a discriminator",
    ("discrete-vae", "base"): "the released networks are deeper",
    ("dall-e", "base"): "the 12 billion parameters of the paper were not released",
    ("vse", "base"): "its picture network is MobileNetV2, where the paper has a VGG-19 or a ResNet-152",
    ("vokenization", "base"): "its picture network is MobileNetV2, where the official code has a ResNeXt-101",
    ("cm3", "base"): "its codec and its texts are others",
    **dict.fromkeys(
        [("attn-gan", "birds"), ("attn-gan", "coco"), ("gan-int-cls", "birds")],
        "without Inception; generators and discriminators are counted one by one in test_drawing_networks.py",
    ),
    **dict.fromkeys(
        [(system, "base") for system in ("show-and-tell", "sca-cnn", "scst")],
        "a ResNet-50, where the papers have an Inception network, a VGG or deeper ResNets",
    ),
    **dict.fromkeys(
        [("ofa", "base"), ("ofa", "large")],
        "the released ones, of about 180M and 470M, have further norms, scales of heads and relative positions",
    ),
    ("unit", "shared"): "its heads are of other tasks; the paper's eight data sets make 201M",
    ("m6", "small"): "its sizes are ours",
    **dict.fromkeys(
        [("simvlm", name) for name in ("base", "large", "huge")],
        "the paper gives the sizes of ViT for encoder and decoder, and no count; its stem's norms learn",
    ),
    # The paper has 197M and 155M; tests/models/trimodal/test_vatt.py compares the video towers with its appendix.
    **dict.fromkeys(
        [("vatt", name) for name in ("base-base-small", "medium-base-small", "large-base-small", "agnostic-medium")],
        "its table of words, its heads and the positions of texts are others",
    ),
    **{
        (system, f"gpt2{size}"): "its language model is a GPT-2, where the published ones have others"
        for system in ("blip-2", "flamingo", "frozen", "llava", "minigpt-4")
        for size in (("", "-xl") if system in ("flamingo", "llava") else ("",))
    },
}
# (system, preset, changes, count, source)
SIZES = [
    ("albert", "base-v2", {}, 11_683_584, "albert/albert-base-v2 without its heads"),
    ("albert", "large-v2", {}, 17_683_968, "albert/albert-large-v2 without its heads"),
    ("albert", "xlarge-v2", {}, 58_724_864, "albert/albert-xlarge-v2 without its heads"),
    ("albert", "xxlarge-v2", {}, 222_595_584, "albert/albert-xxlarge-v2 without its heads"),
    ("albef", "base", {}, 2 * ALBEF_ONLINE + linear(768, 2) + 1, "official configs/Pretrain.yaml, with its slow copy"),
    (
        "align",
        "base",
        {},
        62_143_440 + bert(768, 12, 30_522) + linear(768, 640) + 1,
        "kakaobrain/align-base without the pooler that nothing reads: torchvision's EfficientNet-B7 and BERT-base",
    ),
    (
        "align",
        "large",
        {},
        480_309_308 - linear(5504, 1000) - (1376 + 2) * 5504 + bert(1024, 24, 30_522) + linear(1024, 1376) + 1,
        "EfficientNet-L2 (Xie et al. 2020, table 7: 480M) without its head and last convolution, and BERT-large",
    ),
    ("ast", "base", {}, 86_594_063, "MIT/ast-finetuned-audioset-10-10-0.4593, model.safetensors"),
    (
        "ast",
        "small",
        {},
        linear(256, 384) + 2 * 384 + 1214 * 384 + blocks(384, 12) + 4 * 384 + linear(384, 527),
        "official src/models/ast_models.py, small224",
    ),
    ("av-hubert", "base", {}, 103_329_256, "paper, section 4.1: 103M"),
    ("av-hubert", "large", {}, 325_397_480, "paper, section 4.1: 325M"),
    ("bart", "base", {}, 139_420_416, "facebook/bart-base"),
    ("bart", "large", {}, 406_291_456, "facebook/bart-large"),
    ("beit", "base", {}, beit(768, 12, 12), "microsoft/beit-base-patch16-224-pt22k; official modeling_pretrain.py"),
    ("beit", "large", {}, beit(1024, 24, 16), "microsoft/beit-large-patch16-224-pt22k; official modeling_pretrain.py"),
    ("bert", "base", {}, 109_482_240, "google-bert/bert-base-uncased without its heads"),
    ("bert", "large", {}, 335_141_888, "google-bert/bert-large-uncased without its heads"),
    ("bert", "roberta-base", {}, 124_645_632, "FacebookAI/roberta-base without its head"),
    ("bert", "roberta-large", {}, 355_359_744, "FacebookAI/roberta-large without its head"),
    ("bert", "distilbert-base", {}, 66_362_880, "distilbert/distilbert-base-uncased without its head"),
    ("blip", "base", dict(encoder=False), 223_679_804, "Salesforce/blip-image-captioning-base, tied weights once"),
    ("blip", "base", dict(decoder=False, queue_size=0), 223_452_418, "Salesforce/blip-itm-base-coco"),
    (
        "blip",
        "large",
        dict(encoder=False),
        223_679_804 + 303_301_632 - 85_798_656 + 12 * 2 * 256 * 768,
        "Salesforce/blip-image-captioning-large: a ViT-L/16 for the ViT-B/16, and wider keys and values",
    ),
    ("clap", "htsat-unfused", {}, 153_492_890, "laion/clap-htsat-unfused"),
    ("clip", "ViT-B/32", {}, 151_277_313, "openai/clip-vit-base-patch32, model.safetensors"),
    ("clip", "ViT-B/16", {}, 149_620_737, "openai/clip-vit-base-patch16"),
    ("clip", "ViT-L/14", {}, 427_616_513, "openai/clip-vit-large-patch14"),
    *[
        (
            "data2vec-audio",
            preset,
            dict(pretrain=False),
            data2vec_audio(width, depth),
            f"facebook/data2vec-audio-{preset}",
        )
        for preset, width, depth in (("base", 768, 12), ("large", 1024, 24))
    ],
    ("data2vec-text", "base", dict(pretrain=False), 124_645_632 - linear(768, 768), "facebook/data2vec-text-base"),
    (
        "data2vec-text",
        "large",
        dict(pretrain=False),
        355_359_744 - linear(1024, 1024),
        "as RoBERTa-large, without its pooler; fairseq's data2vec large",
    ),
    *[
        (
            "data2vec-vision",
            preset,
            dict(pretrain=False),
            beit(width, depth, heads, 0),
            f"facebook/data2vec-vision-{preset}",
        )
        for preset, width, depth, heads in (("base", 768, 12, 12), ("large", 1024, 24, 16))
    ],
    ("decoar2", "base", dict(codebooks=0), 89_838_464, "SUPERB (Yang et al. 2021), table 1: 89.84M of what tasks use"),
    ("detr", "resnet-50", {}, detr((3, 4, 6, 3)), "facebook/detr-resnet-50; paper, table 1: 41M"),
    ("detr", "resnet-101", {}, detr((3, 4, 23, 3)), "facebook/detr-resnet-101; paper, table 1: 60M"),
    ("electra", "small", dict(generator=False), 13_483_008 + DETECTION[256], "google/electra-small-discriminator"),
    ("electra", "base", dict(generator=False), 108_891_648 + DETECTION[768], "google/electra-base-discriminator"),
    ("electra", "large", dict(generator=False), 334_092_288 + DETECTION[1024], "google/electra-large-discriminator"),
    ("electra", "base", dict(discriminator=False), electra_generator(768, 12), "google/electra-base-generator"),
    ("electra", "large", dict(discriminator=False), electra_generator(1024, 24), "google/electra-large-generator"),
    (
        "filip",
        "base",
        {},
        clip_image(768, 12, 32, 49) - 768 + clip_text(512, 12) + (768 + 512) * 256 + 1,
        "paper, table 7: the towers of CLIP's ViT-B/32 without a class token; no count",
    ),
    (
        "filip",
        "large",
        {},
        clip_image(1024, 24, 14, 256) - 1024 + clip_text(768, 12) + (1024 + 768) * 256 + 1,
        "paper, table 7: the towers of CLIP's ViT-L/14 without a class token; no count",
    ),
    (
        "blip-2",
        "pretrain",
        {},
        985_952_256
        + bert(768, 12, 30_523, types=0)
        + q_former(768, 12, 1408)
        + 2 * linear(768, 256)
        + linear(768, 2)
        + 1
        + language_head(768, 30_523),
        "official lavis/models/blip2_models/blip2_qformer.py; paper, section 3.1: 188M, and a ViT-g/14",
    ),
    *[
        (
            system,
            preset,
            dict(objectives=("lm",)) if system == "blip-2" else {},
            985_952_256 + query_former_alone() + linear(768, width) + language_model,
            f"Salesforce/blip2-{preset}: an EVA ViT-g/14, a Q-Former without its side for texts, and {preset}",
        )
        for system, preset, width, language_model in (
            ("blip-2", "opt-2.7b", 2560, 2_651_596_800),  # together 3,744,679,936, as released
            ("blip-2", "opt-6.7b", 4096, 6_658_473_984),
            ("blip-2-t5", "flan-t5-xl", 2048, 2_849_757_184),
            ("blip-2-t5", "flan-t5-xxl", 4096, 11_135_332_352),
        )
    ],
    ("flava", "full", {}, flava(), "facebook/flava-full without its codebook and the poolers that nothing reads"),
    ("coca", "base", {}, coca(768, 12), "paper, table 1: 86M for pictures and 297M for texts, without poolers"),
    ("coca", "large", {}, coca(1024, 24), "paper, table 1: 303M for pictures and 484M for texts, without poolers"),
    ("git", "base", {}, git(768, 12, 16, 197), "microsoft/git-base, config.json"),
    ("git", "large", {}, git(1024, 24, 14, 257), "microsoft/git-large, config.json"),
    ("gpt2", "small", {}, 124_439_808, "openai-community/gpt2"),
    ("gpt2", "medium", {}, 354_823_168, "openai-community/gpt2-medium"),
    ("gpt2", "large", {}, 774_030_080, "openai-community/gpt2-large"),
    ("gpt2", "xl", {}, 1_557_611_200, "openai-community/gpt2-xl"),
    ("hubert", "base", dict(clusters=0), 94_371_712, "facebook/hubert-base-ls960; paper, table I: 95M"),
    ("hubert", "large", dict(clusters=0), 315_435_136, "facebook/hubert-large-ll60k; paper, table I: 317M"),
    ("hubert", "x-large", dict(clusters=0), 962_493_824, "paper, table I: 964M"),
    ("image-bind", "huge", {}, image_bind(), "official imagebind/models/imagebind_model.py, imagebind_huge"),
    ("infoxlm", "base", {}, infoxlm(768, 12), "microsoft/infoxlm-base, an XLM-R; official infoxlm/models/infoxlm.py"),
    ("infoxlm", "large", {}, infoxlm(1024, 24), "microsoft/infoxlm-large; as base"),
    ("limoe", "B/16", {}, limoe(768, 12), "a ViT-B/16, every other block with 32 experts; no count to compare with"),
    ("limoe", "L/16", {}, limoe(1024, 24), "as B/16"),
    ("lxmert", "base", {}, 228_051_752, "unc-nlp/lxmert-base-uncased"),
    (
        "m3p",
        "base",
        {},
        bert(768, 12, 250_002, types=1, positions=514)
        + linear(768, 768)
        + linear(2048, 768)
        + linear(5, 768)
        + 2 * 768
        + linear(768, 2048)
        + linear(768, 1601)
        + language_head(768, 250_002)
        + linear(768, 2),
        "XLM-R-base, as the paper says, and a layer for each head; the paper has no count",
    ),
    ("llama", "Llama-2-7B", {}, 6_738_415_616, "meta-llama/Llama-2-7b-hf"),
    ("llama", "Llama-3.2-1B", {}, 1_235_814_400, "meta-llama/Llama-3.2-1B"),
    ("llama", "Mistral-7B-v0.1", {}, 7_241_732_096, "mistralai/Mistral-7B-v0.1"),
    ("llama", "Qwen2-0.5B", {}, 494_032_768, "Qwen/Qwen2-0.5B"),
    ("llama", "SmolLM2-135M", {}, 134_515_008, "HuggingFaceTB/SmolLM2-135M"),
    ("llama", "SmolLM2-360M", {}, 361_821_120, "HuggingFaceTB/SmolLM2-360M"),
    ("llama", "SmolLM2-1.7B", {}, 1_711_376_384, "HuggingFaceTB/SmolLM2-1.7B"),
    ("mae", "B/16", {}, 85_798_656 + mae_decoder(768, 16), "facebook/vit-mae-base; official models_mae.py"),
    ("mae", "L/16", {}, 303_301_632 + mae_decoder(1024, 16), "facebook/vit-mae-large; official models_mae.py"),
    ("mae", "H/14", {}, 630_764_800 + mae_decoder(1280, 14), "facebook/vit-mae-huge; official models_mae.py"),
    ("misa", "MOSI", {}, misa() + 20_000 * 300, "official src/models.py without BERT; the paper has no count"),
    ("mult", "MOSEI", {}, 1_073_731 + 20_000 * 300, "official src/models.py at its defaults, and a table of words"),
    ("multiway", "vlmo-base", {}, multiway(768, 12, 2), "official vlmo/README.md: 175M, without codes"),
    ("multiway", "vlmo-large", {}, multiway(1024, 24, 3), "official vlmo/README.md: 562M, without codes"),
    ("multiway", "beit3-base", {}, beit3(768, 12), "official beit3/README.md: 276M"),
    ("multiway", "beit3-large", {}, beit3(1024, 24), "official beit3/README.md: 746M"),
    *[
        ("opt", size, {}, count, f"facebook/opt-{size}")
        for size, count in (
            ("125m", 125_239_296),
            ("350m", 331_196_416),
            ("1.3b", 1_315_758_080),
            ("2.7b", 2_651_596_800),
            ("6.7b", 6_658_473_984),
            ("13b", 12_853_473_280),
            ("30b", 29_974_540_288),
        )
    ],
    ("perceiver-io", "language", {}, perceiver_language(), "deepmind/language-perceiver, config.json"),
    ("perceiver-io", "fourier", {}, perceiver_fourier(), "deepmind/vision-perceiver-fourier; official perceiver.py"),
    (
        "pixel-bert",
        "resnet-50",
        {},
        109_482_240 + 23_508_032 + linear(2048, 768) + language_head(768, 30_522) + linear(768, 2),
        "BERT-base and torchvision's ResNet-50; the paper has no count",
    ),
    (
        "pixel-bert",
        "x152",
        {},
        109_482_240 + 57_902_400 + linear(2048, 768) + language_head(768, 30_522) + linear(768, 2),
        "BERT-base and a ResNeXt-152 32x4d; the paper has no count",
    ),
    ("siglip", "base-patch16-224", {}, 203_155_970, "google/siglip-base-patch16-224"),
    ("siglip", "large-patch16-256", {}, 652_150_786, "google/siglip-large-patch16-256"),
    ("siglip", "so400m-patch14-384", {}, 877_960_498, "google/siglip-so400m-patch14-384"),
    (
        "sound-of-pixels",
        "resnet18-unet7",
        {},
        41_506_035,
        "official models/ with 16 channels; ResNet-18 of torchvision",
    ),
    *[
        (
            "std-roberta",
            f"roberta-{size}",
            {},
            count - linear(width, width) + language_head(width, 50_265) + linear(width, 1),
            f"FacebookAI/roberta-{size} with its head, and a layer that tells what was moved",
        )
        for size, width, count in (("base", 768, 124_645_632), ("large", 1024, 355_359_744))
    ],
    ("t5", "small", {}, 60_506_624, "google-t5/t5-small"),
    ("t5", "base", {}, 222_903_552, "google-t5/t5-base"),
    ("t5", "large", {}, 737_668_096, "google-t5/t5-large"),
    ("t5", "3b", {}, 2_851_598_336, "google-t5/t5-3b"),
    ("t5", "v1.1-small", {}, 76_961_152, "google/t5-v1_1-small"),
    ("t5", "v1.1-base", {}, 247_577_856, "google/t5-v1_1-base"),
    ("t5", "v1.1-large", {}, 783_150_080, "google/t5-v1_1-large"),
    ("t5", "flan-t5-xl", {}, 2_849_757_184, "google/flan-t5-xl"),
    ("t5", "flan-t5-xxl", {}, 11_135_332_352, "google/flan-t5-xxl"),
    ("oscar", "base", {}, oscar(768, 12), "official oscar/modeling/modeling_bert.py; no count in the paper"),
    ("oscar", "large", {}, oscar(1024, 24), "as base"),
    *[
        ("unified-io", preset, {}, unified_io(*sizes), "official uio/configs.py; paper, table 2, in its own test")
        for preset, sizes in (
            ("small", (512, 8, 6, 1024)),
            ("base", (768, 12, 12, 2048)),
            ("large", (1024, 24, 16, 2816)),
            ("xl", (2048, 24, 32, 5120)),
        )
    ],
    (
        "uc2",
        "base",
        {},
        bert(768, 12, 250_002, positions=514)
        + linear(768, 768)
        + linear(2048, 768)
        + linear(7, 768)
        + 6 * 768
        + 2048
        + language_head(768, 250_002)
        + linear(768, 2),
        "official config/uc2-base.json, model/model.py, without heads that its training does not use",
    ),
    ("uniter", "base", {}, uniter(768, 12), "official model/pretrain.py; paper, section 4: 86M in blocks and pooler"),
    (
        "uniter",
        "large",
        {},
        uniter(1024, 24),
        "official model/pretrain.py; paper, section 4: 303M in blocks and pooler",
    ),
    ("vilbert", "base", {}, 239_023_229, "official config/bert_base_6layer_6conect.json, less 11M that nothing reads"),
    ("ernie-vil", "base", {}, 239_023_229, "official ernie-vil/model, whose layers are those of ViLBERT"),
    ("kvl-bert", "base", {}, vl_bert(768, 12), "VL-BERT's; no count in the paper"),
    ("vilt", "B/32", dict(language_head=False, match_outputs=0), 111_595_008, "dandelin/vilt-b32-mlm without its head"),
    (
        "visual-bert",
        "base",
        {},
        109_482_240 + 514 * 768 + linear(2048, 768) + language_head(768, 30_522) + linear(768, 2),
        "uclanlp/visualbert-vqa-coco-pre",
    ),
    ("vinvl", "base", {}, oscar(768, 12, 3 * 768 + 1), "official oscar/run_oscarplus_pretrain.py; no count"),
    ("vinvl", "large", {}, oscar(1024, 24, 3 * 1024 + 1), "as base"),
    ("vit", "B/16", {}, 85_798_656, "google/vit-base-patch16-224 without its classifier"),
    ("vit", "B/32", {}, 87_455_232, "google/vit-base-patch32-224-in21k without its pooler"),
    ("vit", "L/16", {}, 303_301_632, "google/vit-large-patch16-224 without its classifier"),
    ("vit", "H/14", {}, 630_764_800, "google/vit-huge-patch14-224-in21k without its pooler"),
    (
        "vit-bert",
        "base",
        dict(teachers=False),
        bert(768, 12, 30_522) + 2 * 768 + linear(768, 768) + 199 * 768 + language_head(768, 30_522) + linear(768, 8192),
        "sizes of BERT-base and ViT-B/16; no count",
    ),
    (
        "vl-t5",
        "base",
        {},
        222_903_552 + 72 * 768 + linear(2048, 768) + linear(5, 768) + 3 * 768,
        "google-t5/t5-base with 32,200 tokens, and official VisualEmbedding for one picture",
    ),
    (
        "vl-bert",
        "base",
        {},
        vl_bert(768, 12),
        "official cfgs/pretrain/base_prec_4x16G_fp32.yaml; no count in the paper",
    ),
    *[
        ("vlm", preset, {}, count, name)
        for preset, count, name in (
            ("LLaVA-1.5-7B", 7_063_427_072, "llava-hf/llava-1.5-7b-hf"),
            ("LLaVA-1.5-13B", 13_351_494_656, "llava-hf/llava-1.5-13b-hf, config.json"),
            ("Idefics3-8B", 8_462_086_384, "HuggingFaceM4/Idefics3-8B-Llama3, config.json"),
            ("SmolVLM-256M", 256_484_928, "HuggingFaceTB/SmolVLM-256M-Instruct"),
            ("SmolVLM-500M", 507_482_304, "HuggingFaceTB/SmolVLM-500M-Instruct"),
            ("SigLIP-B/16+SmolLM2-360M", 451_490_880, "google/siglip-base-patch16-224 without its head, with a Llama"),
            ("SmolVLM-2.2B", 2_246_272_880, "HuggingFaceTB/SmolVLM-Instruct"),
        )
    ],
    ("vl-bert", "large", {}, vl_bert(1024, 24), "official cfgs/pretrain/large_prec_4x16G_fp16.yaml"),
    ("virtex", "R50-L1-H512", {}, virtex(512), "official virtex/modules/textual_heads.py; the paper has no count"),
    ("virtex", "R50-L1-H1024", {}, virtex(1024), "as H512"),
    ("virtex", "R50-L1-H2048", {}, virtex(2048), "as H512"),
    ("virtex", "R50-L4-H1024", {}, virtex(1024, 4), "as H512"),
    (
        "vlp",
        "base",
        {},
        bert(768, 12, 28_996, types=4)
        + 768
        + linear(2048, 768, False)
        + linear(1606, 768)
        + language_head(768, 28_996),
        "BERT-base, cased, and equation 1; the paper has no count",
    ),
    ("wav2vec2", "base", {}, 95_044_608, "facebook/wav2vec2-base; paper, section 4.2: 95M"),
    ("wav2vec2", "large", {}, 317_390_592, "facebook/wav2vec2-large; paper, section 4.2: 317M"),
    ("whisper", "whisper-tiny", {}, whisper(384, 4), "openai/whisper-tiny; paper, table 1: 39M"),
    ("whisper", "whisper-tiny.en", {}, whisper(384, 4, 51_864), "openai/whisper-tiny.en"),
    ("whisper", "whisper-base", {}, 71_825_920, "openai/whisper-base; paper, table 1: 74M"),
    ("whisper", "whisper-base.en", {}, 71_825_408, "openai/whisper-base.en; official notebooks/LibriSpeech.ipynb"),
    ("whisper", "whisper-small", {}, whisper(768, 12), "openai/whisper-small; paper, table 1: 244M"),
    ("whisper", "whisper-small.en", {}, whisper(768, 12, 51_864), "openai/whisper-small.en"),
    ("whisper", "whisper-medium", {}, whisper(1024, 24), "openai/whisper-medium; paper, table 1: 769M"),
    ("whisper", "whisper-medium.en", {}, whisper(1024, 24, 51_864), "openai/whisper-medium.en"),
    ("whisper", "whisper-large-v2", {}, whisper(1280, 32), "openai/whisper-large-v2; paper, table 1: 1550M"),
    (
        "whisper",
        "whisper-large-v3",
        {},
        whisper(1280, 32, 51_866, mels=128),
        "openai/whisper-large-v3, config.json: as v2, with 128 bands and one language more",
    ),
]


@pytest.mark.parametrize(("system", "preset", "changes", "size", "source"), SIZES)
def test_a_preset_has_the_published_size(system, preset, changes, size, source):
    recipe = find_recipe(system)
    assert count_parameters(recipe.system, dataclasses.replace(recipe.config.preset(preset), **changes)) == size, source


def test_every_preset_is_there():
    """In this table, or in the test of the system itself, which then counts what it names."""
    presets = {(system, preset) for system in system_files() for preset in find_recipe(system).config.PRESETS}
    ours = {(system, preset) for system, preset in presets if preset.startswith("tiny")}
    known = {row[:2] for row in SIZES} | OURS.keys()
    assert known <= presets
    for system, preset in presets - ours - known:
        (own,) = Path(__file__).parent.rglob(f"test_{system.replace('-', '_')}.py")
        text = own.read_text(encoding="utf-8")
        assert f'"{preset}"' in text, preset
        assert "count_parameters" in text, preset
