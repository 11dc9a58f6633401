"""Published LXMERT checkpoints, such as unc-nlp/lxmert-base-uncased. The numbers are defaults of that format."""

from typing import Any

from mmlearn.models.fusion.lxmert import LXMERT, LXMERTConfig
from mmlearn.pretrained.loading import Family
from mmlearn.pretrained.settings import BERT_DROPOUTS, Settings


def config(published: dict[str, Any], names: set[str]) -> LXMERTConfig:
    """Our configuration for a published ``config.json``, with the heads that the checkpoint has."""
    whole = Settings(published, "config.json")
    whole.require("visual_pos_dim", 4)
    pretraining_heads = any(name.startswith("cls.") for name in names)
    if pretraining_heads:
        for setting in ("tie_word_embeddings", "task_matched", "task_mask_lm"):
            whole.refuse(setting, False)

    def head(kind: str, objective: str) -> bool:
        """Whether the checkpoint has this head; its ``objective`` must not be switched off."""
        found = any(kind in name for name in names)
        if found:
            whole.refuse(objective, False)
        return found

    if head("obj_predict_head.", "task_obj_predict"):
        whole.require("visual_loss_normalizer", 6.67)  # of its losses, which are means over all regions

    return LXMERTConfig(
        vocab_size=whole.get("vocab_size", 30_522),
        max_length=whole.get("max_position_embeddings", 512),
        token_types=whole.get("type_vocab_size", 2),
        width=whole.get("hidden_size", 768),
        depth=whole.get("l_layers", 9),
        region_depth=whole.get("r_layers", 5),
        cross_depth=whole.get("x_layers", 5),
        num_heads=whole.get("num_attention_heads", 12),
        mlp_width=whole.get("intermediate_size", 3072),
        activation=whole.activation("gelu"),
        **whole.dropouts(**BERT_DROPOUTS),
        region_width=whole.get("visual_feat_dim", 2048),
        pretraining_heads=pretraining_heads,
        feature_head=head("decoder_dict.feat.", "visual_feat_loss"),
        region_classes=whole.get("num_object_labels", 1600) if head("decoder_dict.obj.", "visual_obj_loss") else 0,
        region_attributes=whole.get("num_attr_labels", 400) if head("decoder_dict.attr.", "visual_attr_loss") else 0,
        answers=whole.get("num_qa_labels", 9500) if head("answer_head.", "task_qa") else 0,
    )


FAMILY = Family(
    build=LXMERT,
    config=config,
    renames=(
        (r"^lxmert\.", ""),
        (r"\.gamma$", ".weight"),  # the names that norms had in TensorFlow
        (r"\.beta$", ".bias"),
        (r"^embeddings\.word_embeddings", "embedding.tokens"),
        (r"^embeddings\.position_embeddings\.weight", "embedding.positions"),
        (r"^embeddings\.token_type_embeddings", "embedding.token_types"),
        (r"^embeddings\.LayerNorm", "embedding.norm"),
        (r"^encoder\.visn_fc\.visn_fc", "region_embedding.features"),
        (r"^encoder\.visn_fc\.visn_layer_norm", "region_embedding.feature_norm"),
        (r"^encoder\.visn_fc\.box_fc", "region_embedding.boxes"),
        (r"^encoder\.visn_fc\.box_layer_norm", "region_embedding.box_norm"),
        (r"^encoder\.layer", "language_encoder.blocks"),
        (r"^encoder\.r_layers", "region_encoder.blocks"),
        (r"^encoder\.x_layers", "cross_layers"),
        (r"\.visual_attention\.att", ".cross_attention"),
        (r"\.visual_attention\.output\.dense", ".cross_attention.output"),
        (r"\.visual_attention\.output\.LayerNorm", ".cross_norm"),
        (r"\.lang_self_att\.", ".language.attention."),  # from here on a stream of a cross layer is an encoder layer
        (r"\.visn_self_att\.", ".regions.attention."),
        (r"\.lang_inter\.", ".language.intermediate."),
        (r"\.visn_inter\.", ".regions.intermediate."),
        (r"\.lang_output\.", ".language.output."),
        (r"\.visn_output\.", ".regions.output."),
        (r"\.attention\.self", ".attention"),
        (r"\.attention\.output\.dense", ".attention.output"),
        (r"\.attention\.output\.LayerNorm", ".attention_norm"),
        (r"\.intermediate\.dense", ".mlp.expand"),
        (r"(blocks\.\d+|language|regions)\.output\.dense", r"\1.mlp.contract"),
        (r"(blocks\.\d+|language|regions)\.output\.LayerNorm", r"\1.mlp_norm"),
        (r"^pooler\.dense", "pooler.0"),
        (r"^cls\.predictions\.transform\.dense", "language_head.dense"),
        (r"^cls\.predictions\.transform\.LayerNorm", "language_head.norm"),
        (r"^cls\.predictions\.bias", "language_head.bias"),
        (r"^cls\.seq_relationship", "match_head"),
        (r"^obj_predict_head\.transform\.dense", "region_head.dense"),
        (r"^obj_predict_head\.transform\.LayerNorm", "region_head.norm"),
        (r"^obj_predict_head\.decoder_dict\.feat", "region_head.outputs.features"),
        (r"^obj_predict_head\.decoder_dict\.obj", "region_head.outputs.classes"),
        (r"^obj_predict_head\.decoder_dict\.attr", "region_head.outputs.attributes"),
        (r"^answer_head\.logit_fc", "answer_head.classifier"),
    ),
    packed={},
    ignored=(r"\.position_ids$", r"^cls\.predictions\.decoder\."),  # the decoder is the token table
)
