"""Random weights under the names, and of the shapes, that released checkpoints have. Each file names its official code.

Two numbers say how large a model is: ``width`` of what reads words, 64 for each head, and ``depth`` of its blocks.
"""

from pathlib import Path

import torch

from mmlearn.pretrained.loading import rename

D, MLP, WORDS, POSITIONS = 128, 96, 40, 12  # two heads


def linear(name, outputs, inputs, bias=True):
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name, width=D):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def attention(name, width=D, context=None):
    """BERT's: three projections, then one that ends in a norm."""
    shapes = linear(f"{name}.self.query", width, width)
    for part in ("key", "value"):
        shapes |= linear(f"{name}.self.{part}", width, context or width)
    return shapes | linear(f"{name}.output.dense", width, width) | norm(f"{name}.output.LayerNorm", width)


def block(name, width=D, mlp=MLP):
    return (
        attention(f"{name}.attention", width)
        | linear(f"{name}.intermediate.dense", mlp, width)
        | linear(f"{name}.output.dense", width, mlp)
        | norm(f"{name}.output.LayerNorm", width)
    )


def blocks(name, count, width=D, mlp=MLP):
    return {key: shape for i in range(count) for key, shape in block(f"{name}.{i}", width, mlp).items()}


def embeddings(name, types=2, width=D):
    return {
        f"{name}.word_embeddings.weight": (WORDS, width),
        f"{name}.position_embeddings.weight": (POSITIONS, width),
        f"{name}.token_type_embeddings.weight": (types, width),
    }


def language_head(name, width=D):
    head = linear(f"{name}.transform.dense", width, width) | norm(f"{name}.transform.LayerNorm", width)
    return head | {f"{name}.bias": (WORDS,), f"{name}.decoder.weight": (WORDS, width)}


def uniter(width=D, depth=3):
    """https://github.com/ChenRocks/UNITER, model/pretrain.py; regions of 20 features and 7 classes."""
    return (
        embeddings("uniter.embeddings", width=width)
        | norm("uniter.embeddings.LayerNorm", width)
        | linear("uniter.img_embeddings.img_linear", width, 20)
        | norm("uniter.img_embeddings.img_layer_norm", width)
        | linear("uniter.img_embeddings.pos_linear", width, 7)
        | norm("uniter.img_embeddings.pos_layer_norm", width)
        | norm("uniter.img_embeddings.LayerNorm", width)
        | {"uniter.img_embeddings.mask_embedding.weight": (2, 20)}
        | blocks("uniter.encoder.layer", depth, width)
        | linear("uniter.pooler.dense", width, width)
        | language_head("cls.predictions", width)
        | linear("feat_regress.net.0", width, width)
        | norm("feat_regress.net.2", width)
        | {"feat_regress.weight": (width, 20), "feat_regress.bias": (20,)}
        | linear("region_classifier.net.0", width, width)
        | norm("region_classifier.net.2", width)
        | linear("region_classifier.net.3", 7, width)
        | linear("itm_output", 2, width)
    )


def albef(width=D, depth=3, first=1):
    """https://github.com/salesforce/ALBEF, models/model_pretrain.py; pictures of 12 pixels, block ``first`` sees them.

    The picture's encoder has two blocks of 64 features.
    """
    shapes = {"temp": (), "image_queue": (16, 8), "text_queue": (16, 8), "queue_ptr": (1,)}
    shapes |= linear("itm_head", 2, width)
    for end in ("", "_m"):
        eyes, text = f"visual_encoder{end}", f"text_encoder{end}"
        shapes |= {f"{eyes}.cls_token": (1, 1, 64), f"{eyes}.pos_embed": (1, 10, 64)}
        shapes |= {f"{eyes}.patch_embed.proj.weight": (64, 3, 4, 4), f"{eyes}.patch_embed.proj.bias": (64,)}
        for i in range(2):
            shapes |= norm(f"{eyes}.blocks.{i}.norm1", 64) | norm(f"{eyes}.blocks.{i}.norm2", 64)
            shapes |= linear(f"{eyes}.blocks.{i}.attn.qkv", 192, 64) | linear(f"{eyes}.blocks.{i}.attn.proj", 64, 64)
            shapes |= linear(f"{eyes}.blocks.{i}.mlp.fc1", 256, 64) | linear(f"{eyes}.blocks.{i}.mlp.fc2", 64, 256)
        shapes |= norm(f"{eyes}.norm", 64)
        shapes |= embeddings(f"{text}.bert.embeddings", width=width) | norm(f"{text}.bert.embeddings.LayerNorm", width)
        shapes |= {f"{text}.bert.embeddings.position_ids": (1, POSITIONS)}
        shapes |= blocks(f"{text}.bert.encoder.layer", depth, width)
        for i in range(first, depth):
            shapes |= attention(f"{text}.bert.encoder.layer.{i}.crossattention", width, 64)
        shapes |= language_head(f"{text}.cls.predictions", width) | {f"{text}.cls.predictions.decoder.bias": (WORDS,)}
        shapes |= linear(f"vision_proj{end}", 16, 64) | linear(f"text_proj{end}", 16, width)
    return shapes


def vilbert(width=D, depth=3, meetings=2):
    """https://github.com/facebookresearch/vilbert-multi-task, vilbert/vilbert.py; 20 features, 9 classes.

    The visual stream has two blocks of 256 features and two heads; streams meet at a width of 384, in three heads.
    """
    shapes = embeddings("bert.embeddings", width=width) | norm("bert.embeddings.LayerNorm", width)
    shapes |= blocks("bert.encoder.layer", depth, width)
    shapes |= linear("bert.v_embeddings.image_embeddings", 256, 20) | norm("bert.v_embeddings.LayerNorm", 256)
    shapes |= linear("bert.v_embeddings.image_location_embeddings", 256, 5)
    shapes |= blocks("bert.encoder.v_layer", 2, 256, 64)
    for i in range(meetings):
        meet = f"bert.encoder.c_layer.{i}"
        for number, size in ((1, 256), (2, width)):
            for part in ("query", "key", "value"):
                shapes |= linear(f"{meet}.biattention.{part}{number}", 384, size)
            shapes |= linear(f"{meet}.biOutput.dense{number}", size, 384)
            shapes |= linear(f"{meet}.biOutput.q_dense{number}", size, 384)
            shapes |= norm(f"{meet}.biOutput.LayerNorm{number}", size)
        for stream, size, mlp in (("v", 256, 64), ("t", width, MLP)):
            shapes |= linear(f"{meet}.{stream}_intermediate.dense", mlp, size)
            shapes |= linear(f"{meet}.{stream}_output.dense", size, mlp)
            shapes |= norm(f"{meet}.{stream}_output.LayerNorm", size)
    shapes |= linear("bert.t_pooler.dense", 384, width) | linear("bert.v_pooler.dense", 384, 256)
    shapes |= language_head("cls.predictions", width) | linear("cls.bi_seq_relationship", 2, 384)
    shapes |= linear("cls.imagePredictions.transform.dense", 256, 256)
    shapes |= norm("cls.imagePredictions.transform.LayerNorm", 256)
    return shapes | linear("cls.imagePredictions.decoder", 9, 256)


def vlbert(width=D, depth=2):
    """https://github.com/jackroos/VL-BERT, pretrain/modules; 20 features, 9 classes, 32 numbers for a box."""
    shapes = (
        embeddings("vlbert", types=3, width=width)
        | norm("vlbert.embedding_LayerNorm", width)
        | norm("vlbert.visual_ln_text", width)
        | norm("vlbert.visual_ln_object", width)
        | {"vlbert.end_embedding.weight": (1, width)}
        | blocks("vlbert.encoder.layer", depth, width)
        | language_head("vlbert.mlm_head.predictions", width)
        | linear("vlbert.mvrc_head.transform.dense", width, width)
        | linear("vlbert.mvrc_head.region_cls_pred", 9, width)
        | linear("image_feature_extractor.obj_downsample.1", width, 20 + 32)
        | {"object_mask_visual_embedding.weight": (1, 20)}
        | {f"{name}.weight": (1, width) for name in ("object_linguistic_embeddings", "object_mask_word_embedding")}
        | {"aux_text_visual_embedding.weight": (1, width)}
    )
    return {f"module.{name}": shape for name, shape in shapes.items()}


def decoar2(width=D, depth=2):
    """https://github.com/awslabs/speech-representations, src/speech_reps/models/decoar2.py; 10 bands."""
    shapes = linear("post_extract_proj", width, 10) | norm("encoder.layer_norm", width) | {"mask_emb": (width,)}
    shapes |= {"encoder.pos_conv.0.weight_g": (1, 1, 6), "encoder.pos_conv.0.weight_v": (width, width // 4, 6)}
    shapes |= {"encoder.pos_conv.0.bias": (width,), "quantizer.vars": (1, 8, 4)} | linear("project_q", 5, 8)
    for i in range(depth):
        layer = f"encoder.layers.{i}"
        for part in ("k_proj", "v_proj", "q_proj", "out_proj"):
            shapes |= linear(f"{layer}.self_attn.{part}", width, width)
        shapes |= norm(f"{layer}.self_attn_layer_norm", width) | norm(f"{layer}.final_layer_norm", width)
        shapes |= linear(f"{layer}.fc1", MLP, width) | linear(f"{layer}.fc2", width, MLP)
    return shapes


def released(shapes):
    """Numbers for these shapes, of which those that are kept twice are one tensor."""
    generator = torch.Generator().manual_seed(0)
    tensors = {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    for name in tensors:
        stem = name.partition(".cls.predictions.")[0] + "." if ".cls." in name else ""
        if name.endswith(".position_ids"):
            tensors[name] = torch.arange(POSITIONS)[None]
        if name.endswith("predictions.decoder.weight"):
            table = next(one for one in tensors if one.startswith(stem) and one.endswith("word_embeddings.weight"))
            tensors[name] = tensors[table]
        if name.endswith("predictions.decoder.bias"):
            tensors[name] = tensors[name.replace("decoder.bias", "bias")]
        if "norm" in name.lower() and name.endswith(".weight"):
            tensors[name] += 1
    if "feat_regress.weight" in tensors:
        tensors["feat_regress.weight"] = tensors["uniter.img_embeddings.img_linear.weight"]
        tensors["uniter.img_embeddings.mask_embedding.weight"][0] = 0
    if "temp" in tensors:
        tensors |= {"temp": torch.tensor(0.05), "queue_ptr": torch.tensor([3])}
    return tensors


def faint(tensors, *parts):
    """Those whose names have one of these parts, a hundredth as large: the epsilon of the norm behind them counts."""
    for tensor in {id(x): x for name, x in tensors.items() if any(part in name for part in parts)}.values():
        tensor *= 0.01
    return tensors


def renamed(tensors, names, packed):
    """Under our names, as those that are loaded; names and parts as in ``mmlearn.pretrained``."""
    return {
        ours: tensor
        for ours, (_, tensor) in rename(
            tuple(names), tensors, Path(), {whole: tuple(parts) for whole, parts in packed.items()}
        ).items()
    }
