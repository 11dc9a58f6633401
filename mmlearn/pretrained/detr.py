"""Published DETR checkpoints, such as facebook/detr-resnet-50. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.vision.detr import DETR, DETRConfig
from mmlearn.models.vision.resnet import RESNETS, ResNetConfig
from mmlearn.pretrained.bart import BLOCK
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import Settings

BACKBONES = {"resnet18": "resnet-18", "resnet50": "resnet-50", "resnet101": "resnet-101"}  # timm's names


def backbone(whole: Settings) -> ResNetConfig:
    """The residual network: one of timm's by its name, or one of Transformers' own with its sizes."""
    part = whole.part("backbone_config")
    if part.values.get("model_type", "timm_backbone") == "resnet":
        part.require("hidden_act", "relu")
        part.refuse("downsample_in_first_stage", True)
        part.refuse("downsample_in_bottleneck", True)
        widths, blocks = (tuple(part.get(*item)) for item in (("hidden_sizes", []), ("depths", [])))
        bottleneck = part.get("layer_type", "bottleneck") == "bottleneck"
        return ResNetConfig(part.get("embedding_size", 64), widths, blocks, bottleneck)
    name = part.values.get("backbone") or whole.values.get("backbone") or "resnet50"
    if name not in BACKBONES:
        raise ValueError(f"backbone {name!r} in {whole.where} is not built here; known are {', '.join(BACKBONES)}.")
    return RESNETS[BACKBONES[name]]


def config(published: dict[str, Any], names: set[str]) -> DETRConfig:
    """Our configuration for a published ``config.json``."""
    whole = Settings(published, "config.json")
    whole.require("position_embedding_type", "sine")
    whole.refuse("dilation", True)
    whole.require("num_channels", 3)
    whole.require("activation_dropout", 0.0)
    for what, default in (("bbox", 5.0), ("giou", 2.0)):
        cost, weight = whole.get(f"{what}_cost", default), whole.get(f"{what}_loss_coefficient", default)
        if cost != weight:
            raise ValueError(f"{what}_cost {cost} and {what}_loss_coefficient {weight} in config.json differ.")
    whole.require("class_cost", 1)
    return DETRConfig(
        backbone=backbone(whole),
        num_classes=whole.classes(),
        num_queries=whole.get("num_queries", 100),
        auxiliary=whole.get("auxiliary_loss", False),
        l1_weight=whole.get("bbox_cost", 5.0),
        giou_weight=whole.get("giou_cost", 2.0),
        no_object_weight=whole.get("eos_coefficient", 0.1),
        width=whole.get("d_model", 256),
        depth=whole.get("encoder_layers", 6),
        decoder_depth=whole.get("decoder_layers", 6),
        num_heads=whole.of_both("attention_heads", 8),
        mlp_width=whole.of_both("ffn_dim", 2048),
        activation=whole.activation("relu", name="activation_function"),
        dropout=whole.get("dropout", 0.1),
        attention_dropout=whole.get("attention_dropout", 0.0),
    )


def _own_resnet() -> tuple[tuple[str, str], ...]:
    """From the names of Transformers' ResNet to torchvision's, which count stages and layers from 1."""
    found = [
        (r"\.embedder\.embedder\.convolution", ".conv1"),
        (r"\.embedder\.embedder\.normalization", ".bn1"),
        (r"\.shortcut\.convolution", ".downsample.0"),
        (r"\.shortcut\.normalization", ".downsample.1"),
    ]
    for i in range(4):
        found += [
            (rf"\.encoder\.stages\.{i}\.layers\.", f".layer{i + 1}."),
            (rf"\.layer\.{i}\.convolution", f".conv{i + 1}"),
            (rf"\.layer\.{i}\.normalization", f".bn{i + 1}"),
        ]
    return tuple(found)


FAMILY = Family(
    build=DETR,
    config=config,
    renames=(
        (r"^model\.", ""),
        (r"^backbone\.(conv_encoder\.)?model\.", "backbone."),
        (r"^backbone\.", ".backbone."),  # so that patterns of its names have a dot before them
        *_own_resnet(),
        (r"^\.backbone\.", "encoder.backbone."),
        (r"^input_projection", "encoder.projection"),
        (r"^query_position_embeddings\.weight", "query_positions"),
        (r"^class_labels_classifier", "class_head"),
        (r"^bbox_predictor", "box_head"),
        (r"^decoder\.layernorm", "decoder.norm"),
        (r"^(en|de)coder\.layers\.", r"\1coder.blocks."),
        (r"\.o_proj\.", ".out_proj."),
        (r"\.mlp\.fc", ".fc"),
        *BLOCK,
    ),
    packed={},
    ignored=(r"num_batches_tracked$",),
)
