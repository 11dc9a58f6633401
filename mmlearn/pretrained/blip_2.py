"""BLIP-2 checkpoints in the published layout: for retrieval, or with a GPT-2 as the language model that is spoken to.

The published ones that write have OPT or FlanT5, which are not built here; those for retrieval, such as
Salesforce/blip2-itm-vit-g, are. The numbers are defaults of that format.
"""

from typing import Any

from mmlearn.layers import ImageEncoderConfig
from mmlearn.models.bridges.blip_2 import BLIP2, BLIP2Config
from mmlearn.models.bridges.q_former import QFormerConfig
from mmlearn.models.text.gpt2 import GPT2Config
from mmlearn.pretrained import gpt2
from mmlearn.pretrained.blip import IMAGE_ENCODER
from mmlearn.pretrained.llava import LANGUAGE_MODEL, check_parts
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, CLIP_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> BLIP2Config:
    """Our configuration for a published ``config.json``, with the half of the model that the checkpoint has."""
    whole = Settings(published, "config.json")
    image, former, text = (whole.part(f"{part}_config") for part in ("vision", "qformer", "text"))
    heads, speaks = (any(name.startswith(f"{part}.") for name in names) for part in ("itm_head", "language_projection"))
    if heads == speaks:
        raise ValueError(
            "the checkpoint should hold an itm_head for retrieval or a language_projection, and holds "
            f"{'both' if heads else 'neither'}."
        )
    language = GPT2Config()
    if speaks:
        check_parts(image, "blip_2_vision_model", text)
        language = gpt2.language_model(text)
    image.require("qkv_bias", True)
    vocabulary = former.vocabulary(30_522, pad_token=0, optional=False)
    vocabulary["vocab_size"] -= 1  # [Decode] is the last
    return BLIP2Config(
        image_encoder=ImageEncoderConfig(
            image_size=image.size("image_size", 224),
            patch_size=image.get("patch_size", 14),
            **image.transformer(width=1408, depth=39, num_heads=16, mlp_width=6144, norm_epsilon=1e-6, **CLIP_DROPOUTS),
        ),
        query_former=QFormerConfig(
            **vocabulary,
            max_length=former.get("max_position_embeddings", 512),
            num_queries=whole.get("num_query_tokens", 32),
            cross_attention_every=former.get("cross_attention_frequency", 2),
            **former.transformer(**BERT_DROPOUTS),
        ),
        language_model=language,
        embedding_width=whole.get("image_text_hidden_size", 256),
        objectives=("itc", "itm") if heads else ("lm",),
    )


FAMILY = Family(
    build=BLIP2,
    config=config,
    renames=(
        *IMAGE_ENCODER,
        *LANGUAGE_MODEL,
        (r"^query_tokens", "query_former.queries"),
        (r"^vision_projection", "image_projection"),
        (r"^itm_head", "match_head"),
        (r"^embeddings\.word_embeddings", "text.embedding.tokens"),
        (r"^embeddings\.position_embeddings\.weight", "text.embedding.positions"),
        (r"^qformer\.layernorm", "query_former.norm"),
        (r"^qformer\.encoder\.layer\.(\d+)\.intermediate\.dense", r"text.mlps.\1.expand"),
        (r"^qformer\.encoder\.layer\.(\d+)\.output\.dense", r"text.mlps.\1.contract"),
        (r"^qformer\.encoder\.layer\.(\d+)\.output\.LayerNorm", r"text.mlp_norms.\1"),
        (r"^qformer\.encoder\.layer", "query_former.transformer.blocks"),
        (r"\.(attention|crossattention)\.attention\.", r".\1."),
        (r"\.(attention|crossattention)\.output\.dense", r".\1.output"),
        (r"\.(attention|crossattention)\.output\.LayerNorm", r".\1_norm"),
        (r"\.crossattention", ".cross_attention"),
        (r"\.intermediate_query\.dense", ".mlp.expand"),
        (r"\.output_query\.dense", ".mlp.contract"),
        (r"\.output_query\.LayerNorm", ".mlp_norm"),
    ),
    packed=gpt2.PACKED,  # queries, keys and values of both encoders
    ignored=(r"\.position_ids$", *gpt2.IGNORED),
    transposed=gpt2.TRANSPOSED,
)
