"""Published BLIP-2 checkpoints: Salesforce/blip2-itm-vit-g, for retrieval; Salesforce/blip2-opt-2.7b and
Salesforce/blip2-flan-t5-xl, which write; and the same layout with a GPT-2. The numbers are defaults of that format."""

from typing import Any

from mmlearn.layers import Config, ImageEncoderConfig
from mmlearn.models.bridges.blip_2 import BLIP2, BLIP2Config
from mmlearn.models.bridges.blip_2_t5 import BLIP2T5, BLIP2T5Config
from mmlearn.models.bridges.q_former import QFormerConfig
from mmlearn.pretrained import gpt2, opt, t5
from mmlearn.pretrained.blip import IMAGE_ENCODER
from mmlearn.pretrained.llava import LANGUAGE_MODEL, check_parts
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, CLIP_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> BLIP2Config | BLIP2T5Config:
    """Our configuration for a published ``config.json``, with the half of the model that the checkpoint has."""
    whole = Settings(published, "config.json")
    image, former, text = (whole.part(f"{part}_config") for part in ("vision", "qformer", "text"))
    heads, speaks = (any(name.startswith(f"{part}.") for name in names) for part in ("itm_head", "language_projection"))
    if heads == speaks:
        raise ValueError(
            "the checkpoint should hold an itm_head for retrieval or a language_projection, and holds "
            f"{'both' if heads else 'neither'}."
        )
    if speaks:
        check_parts(image, "blip_2_vision_model", text, ("gpt2", "opt", "t5"))
    image.require("qkv_bias", True)
    vocabulary = former.vocabulary(30_522, pad_token=0, optional=False)
    vocabulary["vocab_size"] -= 1  # [Decode] is the last
    tower = ImageEncoderConfig(
        image_size=image.size("image_size", 224),
        patch_size=image.get("patch_size", 14),
        **image.transformer(width=1408, depth=39, num_heads=16, mlp_width=6144, norm_epsilon=1e-6, **CLIP_DROPOUTS),
    )
    query_former = QFormerConfig(
        **vocabulary,
        max_length=former.get("max_position_embeddings", 512),
        num_queries=whole.get("num_query_tokens", 32),
        cross_attention_every=former.get("cross_attention_frequency", 2),
        **former.transformer(**BERT_DROPOUTS),
    )
    if speaks and text.values["model_type"] == "t5":
        own = {name.removeprefix("language_model.") for name in names}
        return BLIP2T5Config(tower, query_former, t5.language_model(text, own))
    if speaks:
        speaker = opt if text.values["model_type"] == "opt" else gpt2
        return BLIP2Config(tower, query_former, speaker.language_model(text), objectives=("lm",))
    width = whole.get("image_text_hidden_size", 256)
    return BLIP2Config(tower, query_former, embedding_width=width, objectives=("itc", "itm"))


def build(config: Config) -> BLIP2 | BLIP2T5:
    """The system of this configuration."""
    return BLIP2T5(config) if isinstance(config, BLIP2T5Config) else BLIP2(config)


FAMILY = Family(
    build=build,
    config=config,
    renames=(
        *IMAGE_ENCODER,
        *LANGUAGE_MODEL,
        *opt.renames(r"^language_model\.model\.decoder\.", "language_model."),
        *t5.renames("language_model."),
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
    ignored=(r"\.position_ids$", gpt2.CAUSAL_MASKS, r"^language_model\.(en|de)coder\.embed_tokens\.", t5.UNREAD),
    transposed=gpt2.TRANSPOSED,
    tied={"language_model.language_head.weight": "language_model.embedding.tokens.weight"},  # a T5 has its own
)
