"""Published ELECTRA checkpoints, such as google/electra-small-discriminator and google/electra-small-generator.

Each is one half of the model. The numbers are defaults of that format.
"""

from typing import Any

from mmlearn.models.text.electra import ELECTRA, ELECTRAConfig
from mmlearn.pretrained.bert import BLOCK as BERT_BLOCK
from mmlearn.pretrained.loading import Family, Renames
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> ELECTRAConfig:
    """Our configuration for a published ``config.json``, with the half of the model that the checkpoint is."""
    whole = Settings(published, "config.json")
    whole.refuse("is_decoder", True)
    whole.refuse("add_cross_attention", True)
    whole.require("position_embedding_type", "absolute")
    generator = is_generator(names)
    if generator:
        whole.refuse("tie_word_embeddings", False)
    sizes = whole.transformer(width=256, num_heads=4, mlp_width=1024, **BERT_DROPOUTS)
    if generator:
        for ours, name in (("width", "width"), ("depth", "depth"), ("heads", "num_heads"), ("mlp_width", "mlp_width")):
            sizes[f"generator_{ours}"] = sizes[name]
    return ELECTRAConfig(
        **whole.vocabulary(30_522, pad_token=0),
        max_length=whole.get("max_position_embeddings", 512),
        token_types=whole.get("type_vocab_size", 2),
        embedding_width=whole.get("embedding_size", 128),
        **sizes,
        generator=generator,
        discriminator=not generator,
    )


def is_generator(names: set[str]) -> bool:
    """Whether a checkpoint with these names fills gaps; else it judges words."""
    return any(name.startswith("generator_") for name in names)


def renames(names: set[str]) -> Renames:
    """The table of names for the half that this checkpoint is."""
    half = "generator" if is_generator(names) else "discriminator"
    return (
        (r"^electra\.embeddings_project", f"{half}.project"),
        (r"^electra\.encoder\.layer", f"{half}.transformer.blocks"),
        (r"^electra\.embeddings\.word_embeddings", "embedding.tokens"),
        (r"^electra\.embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^electra\.embeddings\.token_type_embeddings", "embedding.token_types"),
        (r"^electra\.embeddings\.LayerNorm", "embedding.norm"),
        *BERT_BLOCK,
        (r"^generator_predictions\.dense", "language_head.dense"),
        (r"^generator_predictions\.LayerNorm", "language_head.norm"),
        (r"^generator_lm_head\.bias", "language_head.bias"),
        (r"^discriminator_predictions\.dense\.", "detection_head.dense."),
        (r"^discriminator_predictions\.dense_prediction\.", "detection_head.output."),
    )


FAMILY = Family(
    build=ELECTRA,
    config=config,
    renames=renames,
    packed={},
    ignored=(r"\.position_ids$", r"^generator_lm_head\.weight$"),  # the token table again
    fresh=("steps",),
)
