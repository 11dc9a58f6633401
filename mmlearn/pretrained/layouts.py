"""What released checkpoints call their tensors, and what configuration their shapes tell.

Names are those of the official codes, which each layout names; heads, which no shape tells, are as wide as in all that
was released.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mmlearn.pretrained.bart import BLOCK as BART_BLOCK
from mmlearn.pretrained.bert import FAMILY as BERT
from mmlearn.pretrained.blip import CROSS_BLOCK

Tensors = dict[str, Tensor]
HEAD_WIDTH = 64  # of all of them, but for the visual stream of ViLBERT and its co-attention, which have twice that


@dataclass(frozen=True)
class Layout:
    """How one released checkpoint maps to ours.

    ``mark`` is a pattern for a name that only this layout has; ``renames`` and ``packed`` are those of
    :class:`~mmlearn.pretrained.loading.Family`. ``tied`` are names that hold one of our tensors once more, and must
    equal it. ``unread`` are names that nothing here reads, with what they are. ``settings`` reads the configuration off
    the shapes, under our names; ``finish`` changes tensors whose form is another.
    """

    system: str
    mark: str
    renames: tuple[tuple[str, str], ...]
    settings: Callable[[Tensors], dict[str, Any]]
    tied: dict[str, str]
    unread: dict[str, str]
    finish: Callable[[Tensors], Tensors] = lambda tensors: tensors
    packed: dict[str, tuple[str, ...]] = field(default_factory=dict)


def count_blocks(tensors: Tensors, before: str) -> int:
    """How many blocks there are whose names begin so."""
    numbers = (re.match(rf"{re.escape(before)}\.(\d+)\.", name) for name in tensors)
    return 1 + max((int(found.group(1)) for found in numbers if found), default=-1)


def count_heads(width: int, head_width: int = HEAD_WIDTH) -> int:
    """How many heads of this width there are. ``ValueError`` where they do not fill the width."""
    if width % head_width:
        raise ValueError(f"its width {width} is no multiple of {head_width}, the width of a head in all released ones.")
    return width // head_width


def _bert(tensors: Tensors, embedding: str, blocks: str) -> dict[str, Any]:
    """The settings of a BERT whose embedding and blocks have these names."""
    words, positions = tensors[f"{embedding}.tokens.weight"], tensors[f"{embedding}.positions"]
    return dict(
        vocab_size=len(words),
        max_length=len(positions),
        token_types=len(tensors[f"{embedding}.token_types.weight"]),
        width=words.shape[1],
        depth=count_blocks(tensors, blocks),
        num_heads=count_heads(words.shape[1]),
        mlp_width=len(tensors[f"{blocks}.0.mlp.expand.weight"]),
    )


def _objectives(tensors: Tensors, heads: dict[str, tuple[str, ...]]) -> list[str]:
    """What was learned: that for which there is a head."""
    return [one for head, several in heads.items() if any(name.startswith(head) for name in tensors) for one in several]


def _row(tensors: Tensors, name: str, row: int = 0) -> None:
    """A vector that is kept as a table becomes a vector."""
    if name in tensors:
        tensors[name] = tensors[name][row]


UNITER_HEADS = {
    "language_head.": ("mlm",),
    "region_regression.": ("mrfr",),
    "region_classifier.": ("mrc_kl",),
    "match_head.": ("itm", "wra"),
}


def _uniter(tensors: Tensors) -> dict[str, Any]:
    classes = tensors.get("region_classifier.3.weight")
    return _bert(tensors, "embedding", "transformer.blocks") | dict(
        region_width=tensors["region_projection.weight"].shape[1],
        pooler="pooler.0.weight" in tensors,
        objectives=_objectives(tensors, UNITER_HEADS),
        **({} if classes is None else {"region_classes": len(classes)}),
    )


def _finish_uniter(tensors: Tensors) -> Tensors:
    _row(tensors, "masked_region", 1)  # row 0 is what is added where nothing is masked: zeros
    return tensors


def _albef(tensors: Tensors) -> dict[str, Any]:
    patches = tensors["online.image_encoder.embedding.patches.weight"]
    patch = round((patches.shape[1] / 3) ** 0.5)
    side = round((len(tensors["online.image_encoder.embedding.positions"]) - 1) ** 0.5)
    blocks = "online.image_encoder.transformer.blocks"
    return dict(
        image=dict(
            image_size=side * patch,
            patch_size=patch,
            width=len(patches),
            depth=count_blocks(tensors, blocks),
            num_heads=count_heads(len(patches)),
            mlp_width=len(tensors[f"{blocks}.0.mlp.expand.weight"]),
            norm_epsilon=1e-6,
        ),
        text=_bert(tensors, "online.embedding", "online.text_encoder.blocks"),
        fusion_depth=count_blocks(tensors, "online.multimodal_encoder.blocks"),
        embedding_width=len(tensors["online.image_projection.weight"]),
        queue_size=len(tensors["queue.image"]),
    )


def _finish_albef(tensors: Tensors) -> Tensors:
    done = {}
    first = _fusion_layer(tensors)
    for name, value in tensors.items():
        name = re.sub(
            r"\.layer\.(\d+)\.",
            lambda found: (
                f".{'text' if int(found[1]) < first else 'multimodal'}_encoder.blocks."
                f"{int(found[1]) - (0 if int(found[1]) < first else first)}."
            ),
            name,
        )
        if name.endswith((".class_token", "embedding.positions")):
            value = value.squeeze()
        done[name] = value.flatten(1) if name.endswith("patches.weight") else value
    done["logit_scale"] = -done.pop("temp").log()  # theirs is τ
    done["queue.image"], done["queue.text"] = done["queue.image"].T, done["queue.text"].T
    done["queue.caption_id"] = torch.full((len(done["queue.image"]),), -1)  # not kept there
    done["steps"] = torch.tensor(0)
    return done


def _fusion_layer(tensors: Tensors) -> int:
    """The first block that attends to the picture."""
    numbers = (re.search(r"\.layer\.(\d+)\.cross_attention\.", name) for name in tensors)
    return min((int(found[1]) for found in numbers if found), default=0)


def _vilbert(tensors: Tensors) -> dict[str, Any]:
    visual, meetings = tensors["visual_embedding.features.weight"], count_blocks(tensors, "co_attention")
    depth, visual_depth = count_blocks(tensors, "text_blocks"), count_blocks(tensors, "visual_blocks")
    width = len(tensors["text_pooler.weight"])
    return _bert(tensors, "embedding", "text_blocks") | dict(
        visual=dict(
            width=len(visual),
            depth=visual_depth,
            num_heads=count_heads(len(visual), 2 * HEAD_WIDTH),
            mlp_width=len(tensors["visual_blocks.0.mlp.expand.weight"]),
        ),
        region_width=visual.shape[1],
        region_classes=len(tensors["region_head.3.weight"]),
        co_attention_width=width,
        co_attention_heads=count_heads(width, 2 * HEAD_WIDTH),
        # As in all configurations of the official code: the last blocks of words meet the first ones of regions.
        text_connections=list(range(depth - meetings, depth)),
        visual_connections=list(range(meetings)),
    )


def _finish_vilbert(tensors: Tensors) -> Tensors:
    for part in ("weight", "bias"):  # theirs has 0 for a text that belongs to its picture
        if f"match_head.{part}" in tensors:
            tensors[f"match_head.{part}"] = tensors[f"match_head.{part}"].flip(0)
    return tensors


VLBERT_HEADS = {"language_head.": ("mlm",), "region_classifier.": ("mrc_kl",), "match_head.": ("itm",)}


def _vlbert(tensors: Tensors) -> dict[str, Any]:
    region_width, classes = len(tensors["masked_region"]), tensors.get("region_classifier.2.weight")
    return _bert(tensors, "embedding", "transformer.blocks") | dict(
        region_width=region_width,
        geometry_width=tensors["visual.1.weight"].shape[1] - region_width,
        pooler="pooler.0.weight" in tensors,
        objectives=_objectives(tensors, VLBERT_HEADS),
        **({} if classes is None else {"region_classes": len(classes)}),
    )


def _finish_vlbert(tensors: Tensors) -> Tensors:
    for name in ("image_token", "masked_image_token", "masked_region", "end_token"):
        _row(tensors, name)
    return tensors


def _decoar2(tensors: Tensors) -> dict[str, Any]:
    projection, direction = tensors["projection.weight"], tensors["context.positions.direction"]
    blocks = "context.transformer.blocks"
    return dict(
        mels=projection.shape[1],
        width=len(projection),
        depth=count_blocks(tensors, blocks),
        num_heads=count_heads(len(projection)),
        mlp_width=len(tensors[f"{blocks}.0.mlp.expand.weight"]),
        position_kernel=direction.shape[2],
        position_groups=len(projection) // direction.shape[1],
        codebooks=0,
    )


def _finish_decoar2(tensors: Tensors) -> Tensors:
    tensors["context.positions.length"] = tensors["context.positions.length"].flatten()
    tensors.setdefault("mask_embedding", torch.zeros(len(tensors["projection.weight"])))
    tensors["steps"] = torch.tensor(0)
    return tensors


BLOCK = BERT.renames[3:]  # all that a BERT has below its name
LAYOUTS = (
    Layout(  # https://github.com/ChenRocks/UNITER, model/model.py and model/pretrain.py
        system="uniter",
        mark=r"img_embeddings\.pos_linear",
        renames=(
            (r"^(uniter|bert)\.", ""),
            (r"^img_embeddings\.img_linear", "region_projection"),
            (r"^img_embeddings\.img_layer_norm", "region_norm"),
            (r"^img_embeddings\.pos_linear", "box_projection"),
            (r"^img_embeddings\.pos_layer_norm", "box_norm"),
            (r"^img_embeddings\.LayerNorm", "sum_norm"),
            (r"^img_embeddings\.mask_embedding\.weight", "masked_region"),
            (r"^feat_regress\.net", "region_regression"),
            (r"^feat_regress\.bias", "region_regression_bias"),
            (r"^region_classifier\.net", "region_classifier"),
            (r"^itm_output", "match_head"),
            *BLOCK,
        ),
        settings=_uniter,
        tied={
            r"^cls\.predictions\.decoder\.weight": "embedding.tokens.weight",
            r"^feat_regress\.weight": "region_projection.weight",
        },
        unread={r"\.position_ids$": "counts of positions"},
        finish=_finish_uniter,
    ),
    Layout(  # https://github.com/salesforce/ALBEF, models/model_pretrain.py, vit.py and xbert.py
        system="albef",
        mark=r"^text_encoder\.bert\..*\.crossattention\.",
        renames=(
            (r"^(visual_encoder|text_encoder|vision_proj|text_proj)_m\.", r"momentum_encoder.\1."),
            (r"^(visual_encoder|text_encoder|vision_proj|text_proj)\.", r"online.\1."),
            (r"\.visual_encoder\.cls_token", ".image_encoder.embedding.class_token"),
            (r"\.visual_encoder\.pos_embed", ".image_encoder.embedding.positions"),
            (r"\.visual_encoder\.patch_embed\.proj", ".image_encoder.embedding.patches"),
            (r"\.visual_encoder\.blocks", ".image_encoder.transformer.blocks"),
            (r"\.visual_encoder\.norm", ".image_encoder.norm"),
            (r"\.norm1\.", ".attention_norm."),
            (r"\.norm2\.", ".mlp_norm."),
            (r"\.attn\.qkv", ".attention.qkv"),
            (r"\.attn\.proj", ".attention.output"),
            (r"\.mlp\.fc1", ".mlp.expand"),
            (r"\.mlp\.fc2", ".mlp.contract"),
            (r"\.text_encoder\.bert\.embeddings\.word_embeddings", ".embedding.tokens"),
            (r"\.text_encoder\.bert\.embeddings\.position_embeddings\.weight", ".embedding.positions"),
            (r"\.text_encoder\.bert\.embeddings\.token_type_embeddings", ".embedding.token_types"),
            (r"\.text_encoder\.bert\.embeddings\.LayerNorm", ".embedding.norm"),
            (r"\.text_encoder\.bert\.encoder\.layer", ".layer"),  # below is said in which encoder
            (r"\.text_encoder\.cls\.predictions\.transform\.dense", ".language_head.dense"),
            (r"\.text_encoder\.cls\.predictions\.transform\.LayerNorm", ".language_head.norm"),
            (r"\.text_encoder\.cls\.predictions\.bias", ".language_head.bias"),
            *CROSS_BLOCK,
            (r"\.vision_proj", ".image_projection"),
            (r"\.text_proj", ".text_projection"),
            (r"^itm_head", "match_head"),
            (r"^image_queue", "queue.image"),
            (r"^text_queue", "queue.text"),
            (r"^queue_ptr", "queue.pointer"),
        ),
        settings=_albef,
        tied={
            rf"^text_encoder{end}\.cls\.predictions\.decoder\.{part}": f"{ours}.{twin}"
            for end, ours in (("", "online"), ("_m", "momentum_encoder"))
            for part, twin in (("weight", "embedding.tokens.weight"), ("bias", "language_head.bias"))
        },
        unread={r"\.position_ids$": "counts of positions"},
        finish=_finish_albef,
        packed={r"(.*\.attention)\.qkv": (r"\1.query", r"\1.key", r"\1.value")},
    ),
    Layout(  # https://github.com/facebookresearch/vilbert-multi-task, vilbert/vilbert.py
        system="vilbert",
        mark=r"v_embeddings\.image_location_embeddings",
        renames=(
            (r"^bert\.", ""),
            (r"^v_embeddings\.image_embeddings", "visual_embedding.features"),
            (r"^v_embeddings\.image_location_embeddings", "visual_embedding.boxes"),
            (r"^v_embeddings\.LayerNorm", "visual_embedding.norm"),
            (r"^encoder\.v_layer\.", "visual_blocks."),
            (r"^encoder\.layer\.", "text_blocks."),
            # The visual stream asks with query1, and the words answer with key2 and value2.
            (r"^encoder\.c_layer\.(\d+)\.biattention\.query1", r"co_attention.\1.visual.attention.query"),
            (r"^encoder\.c_layer\.(\d+)\.biattention\.(key|value)2", r"co_attention.\1.visual.attention.\2"),
            (r"^encoder\.c_layer\.(\d+)\.biattention\.query2", r"co_attention.\1.text.attention.query"),
            (r"^encoder\.c_layer\.(\d+)\.biattention\.(key|value)1", r"co_attention.\1.text.attention.\2"),
            (r"^encoder\.c_layer\.(\d+)\.biOutput\.dense1", r"co_attention.\1.visual.attention.output"),
            (r"^encoder\.c_layer\.(\d+)\.biOutput\.dense2", r"co_attention.\1.text.attention.output"),
            (r"^encoder\.c_layer\.(\d+)\.biOutput\.LayerNorm1", r"co_attention.\1.visual.attention_norm"),
            (r"^encoder\.c_layer\.(\d+)\.biOutput\.LayerNorm2", r"co_attention.\1.text.attention_norm"),
            (r"^encoder\.c_layer\.(\d+)\.v_", r"co_attention.\1.visual."),
            (r"^encoder\.c_layer\.(\d+)\.t_", r"co_attention.\1.text."),
            (r"^t_pooler\.dense", "text_pooler"),
            (r"^v_pooler\.dense", "visual_pooler"),
            (r"^cls\.bi_seq_relationship", "match_head"),
            (r"^cls\.imagePredictions\.transform\.dense", "region_head.0"),
            (r"^cls\.imagePredictions\.transform\.LayerNorm", "region_head.2"),
            (r"^cls\.imagePredictions\.decoder", "region_head.3"),
            *BLOCK,
            (r"(_blocks\.\d+|\.visual|\.text)\.output\.dense", r"\1.mlp.contract"),
            (r"(_blocks\.\d+|\.visual|\.text)\.output\.LayerNorm", r"\1.mlp_norm"),
        ),
        settings=_vilbert,
        tied={r"^cls\.predictions\.decoder\.weight": "embedding.tokens.weight"},
        unread={r"\.biOutput\.q_dense[12]\.": "layers that nothing reads"},
        finish=_finish_vilbert,
    ),
    Layout(  # https://github.com/jackroos/VL-BERT, common/visual_linguistic_bert.py and pretrain/modules
        system="vl-bert",
        mark=r"^vlbert\.",
        renames=(
            (r"^object_linguistic_embeddings\.weight", "image_token"),
            (r"^object_mask_word_embedding\.weight", "masked_image_token"),
            (r"^object_mask_visual_embedding\.weight", "masked_region"),
            (r"^image_feature_extractor\.obj_downsample\.1", "visual.1"),
            (r"^vlbert\.end_embedding\.weight", "end_token"),
            (r"^vlbert\.visual_ln_text", "word_visual_norm"),
            (r"^vlbert\.visual_ln_object", "region_visual_norm"),
            (r"^vlbert\.embedding_LayerNorm", "embedding.norm"),
            (r"^vlbert\.(word|position|token_type)_embeddings", r"embeddings.\1_embeddings"),
            (r"^vlbert\.mlm_head", "cls"),
            (r"^vlbert\.mvrc_head\.transform\.dense", "region_classifier.0"),
            (r"^vlbert\.mvrc_head\.region_cls_pred", "region_classifier.2"),
            (r"^vlbert\.relationsip_head\.caption_image_relationship", "match_head"),
            (r"^vlbert\.", ""),
            *BLOCK,
        ),
        settings=_vlbert,
        tied={r"^vlbert\.mlm_head\.predictions\.decoder\.weight": "embedding.tokens.weight"},
        unread={r"^aux_text_visual_embedding\.": "the picture of texts that have none"},
        finish=_finish_vlbert,
    ),
    Layout(  # https://github.com/awslabs/speech-representations, src/speech_reps/models/decoar2.py
        system="decoar2",
        mark=r"^post_extract_proj\.",
        renames=(
            (r"^post_extract_proj", "projection"),
            (r"^mask_emb$", "mask_embedding"),
            (r"^encoder\.pos_conv\.0\.bias", "context.positions.bias"),
            (r"^encoder\.pos_conv\.0\.weight_g", "context.positions.length"),
            (r"^encoder\.pos_conv\.0\.weight_v", "context.positions.direction"),
            (r"^encoder\.layer_norm", "context.norm"),
            (r"^encoder\.layers", "context.transformer.blocks"),
            *BART_BLOCK,
        ),
        settings=_decoar2,
        tied={},
        # The official code, too, passes over all that reads or rebuilds in pretraining alone.
        unread={r"^(?!post_extract_proj\.|encoder\.|mask_emb$)": "what only pretraining reads"},
        finish=_finish_decoar2,
    ),
)
