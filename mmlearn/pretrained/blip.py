"""Published BLIP checkpoints for retrieval and for captioning, such as Salesforce/blip-itm-base-coco and
Salesforce/blip-image-captioning-base. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
from mmlearn.models.align.blip import BLIP, BLIPConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import CLIP_DROPOUTS, VIT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> BLIPConfig:
    """Our configuration for a published ``config.json``, with the half of the model that the checkpoint has."""
    whole = Settings(published, "config.json")
    image, text = whole.part("vision_config"), whole.part("text_config")
    encoder, decoder = (
        any(name.startswith(part) for name in names) for part in ("text_encoder.", "text_decoder.bert.")
    )
    if encoder == decoder:
        raise ValueError(
            "the checkpoint should hold a text_encoder for retrieval or a text_decoder for captions, and holds "
            f"{'both' if encoder else 'neither'}; question answering and the older BlipModel are not built here."
        )
    text.refuse("is_decoder", False)
    if decoder:
        whole.refuse("tie_word_embeddings", False)
        text.refuse("tie_word_embeddings", False)
    vocabulary = text.vocabulary(30_524, pad_token=0, optional=False)
    vocabulary["vocab_size"] -= 2  # [Decode] and [Encode] are the last
    text.require("bos_token_id", vocabulary["vocab_size"])
    return BLIPConfig(
        image=ImageEncoderConfig(
            image_size=image.size("image_size", 384),
            patch_size=image.get("patch_size", 16),
            **image.transformer(norm_epsilon=1e-5, **CLIP_DROPOUTS),
        ),
        text=BERTEncoderConfig(
            **vocabulary,
            max_length=text.get("max_position_embeddings", 512),
            token_types=0,
            **text.transformer(num_heads=8, **VIT_DROPOUTS),
        ),
        end_token=text.get("sep_token_id", 102),
        embedding_width=whole.get("image_text_hidden_size", 256),
        encoder=encoder,
        decoder=decoder,
        label_smoothing=text.get("label_smoothing", 0.0),
        queue_size=0,
    )


CROSS_BLOCK = (  # a BERT's block that also attends to a picture
    (r"\.(attention|crossattention)\.self\.", r".\1."),
    (r"\.(attention|crossattention)\.output\.dense", r".\1.output"),
    (r"\.(attention|crossattention)\.output\.LayerNorm", r".\1_norm"),
    (r"\.crossattention", ".cross_attention"),
    (r"\.intermediate\.dense", ".mlp.expand"),
    (r"((?:layer|blocks)\.\d+)\.output\.dense", r"\1.mlp.contract"),
    (r"((?:layer|blocks)\.\d+)\.output\.LayerNorm", r"\1.mlp_norm"),
)

IMAGE_ENCODER = (
    (r"^vision_model\.embeddings\.class_embedding", "image_encoder.embedding.class_token"),
    (r"^vision_model\.embeddings\.position_embedding", "image_encoder.embedding.positions"),
    (r"^vision_model\.embeddings\.patch_embedding", "image_encoder.embedding.patches"),
    (r"^vision_model\.encoder\.layers", "image_encoder.transformer.blocks"),
    (r"^vision_model\.post_layernorm", "image_encoder.norm"),
    (r"\.self_attn\.qkv", ".attention.qkv"),
    (r"\.self_attn\.projection", ".attention.output"),
    (r"\.layer_norm1", ".attention_norm"),
    (r"\.layer_norm2", ".mlp_norm"),
    (r"\.mlp\.fc1", ".mlp.expand"),
    (r"\.mlp\.fc2", ".mlp.contract"),
)

FAMILY = Family(
    build=BLIP,
    config=config,
    fresh=("steps",),
    renames=(
        *IMAGE_ENCODER,
        (r"^image_encoder\.", "online.image_encoder."),
        (r"^vision_proj", "online.image_projection"),
        (r"^text_proj", "online.text_projection"),
        (r"^itm_head", "match_head"),
        (r"^text_decoder\.cls\.predictions\.transform\.dense", "language_head.dense"),
        (r"^text_decoder\.cls\.predictions\.transform\.LayerNorm", "language_head.norm"),
        (r"^text_decoder\.cls\.predictions\.bias", "language_head.bias"),
        (r"^(text_encoder|text_decoder\.bert)\.", "online.text."),
        (r"\.embeddings\.word_embeddings", ".embedding.tokens"),
        (r"\.embeddings\.position_embeddings\.weight", ".embedding.positions"),
        (r"\.embeddings\.LayerNorm", ".embedding.norm"),
        (r"\.encoder\.layer\.", ".transformer.blocks."),
        *CROSS_BLOCK,
    ),
    packed={
        r"(online\.image_encoder\.transformer\.blocks\.\d+\.attention)\.qkv": (r"\1.query", r"\1.key", r"\1.value")
    },
    # The decoder's last layer is the token table, and its bias the head's, stored twice.
    ignored=(r"\.position_ids$", r"^text_decoder\.cls\.predictions\.decoder\."),
)
