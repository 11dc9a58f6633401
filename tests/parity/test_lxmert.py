"""LXMERT equals Transformers' LxmertForPreTraining, LxmertModel and LxmertForQuestionAnswering."""

import pytest
import torch
from testing_tools import close, count_parameters
from transformers import LxmertConfig, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertModel

from mmlearn.layers import record_attention
from mmlearn.models.fusion.lxmert import LXMERT, LXMERTConfig


def streams(width, heads, mlp, depths, features, vocabulary, length, **more):
    """Sizes of both streams; depths are of words, of regions, and of both together."""
    names = ("hidden_size", "num_attention_heads", "intermediate_size", "l_layers", "r_layers", "x_layers")
    names += ("visual_feat_dim", "vocab_size", "max_position_embeddings")
    return dict(zip(names, (width, heads, mlp, *depths, features, vocabulary, length))) | more


CASES = {
    "odd": streams(24, 3, 50, (3, 1, 2), 13, 99, 11, batch=3, regions=5)
    | dict(num_object_labels=7, num_attr_labels=5, num_qa_labels=9),
    "relu, no attributes": streams(40, 5, 33, (1, 2, 1), 20, 64, 16, batch=4, regions=7)
    | dict(hidden_act="relu", type_vocab_size=3, num_object_labels=4, visual_attr_loss=False, num_qa_labels=3),
    "batch of one, no questions, no features": streams(16, 1, 24, (2, 3, 3), 9, 50, 6, batch=1, regions=3)
    | dict(num_object_labels=6, num_attr_labels=2, visual_feat_loss=False, task_qa=False),
}
OF_REGIONS = ("mrfr", "mrc", "mrc_attributes")


def inputs(case, padded=True):
    """The published configuration, and a batch as ours."""
    case = dict(CASES[case])
    b, p = case.pop("batch"), case.pop("regions")
    config = LxmertConfig(**case)
    t = config.max_position_embeddings
    corners = torch.rand(b, p, 2, 2).sort(-2).values
    tokens = torch.randint(config.vocab_size, (b, t))
    batch = {
        "tokens": tokens,
        "regions": torch.randn(b, p, config.visual_feat_dim),
        "boxes": corners.flatten(-2),
        "token_type": torch.randint(2, (b, t)),
    }
    if padded:
        batch["mask"] = torch.arange(t) <= torch.arange(b)[:, None] + 2
        batch["region_mask"] = torch.arange(p) <= torch.arange(b)[:, None] + 1
    return config, batch


def real(batch):
    """Where a word is, and where a region."""
    tokens, regions = batch["tokens"], batch["regions"][..., 0]
    masks = (("mask", tokens), ("region_mask", regions))
    return (batch.get(name, torch.ones_like(of, dtype=torch.bool)) for name, of in masks)


def published_inputs(batch):
    masks = {"attention_mask": "mask", "visual_attention_mask": "region_mask"}
    return {
        "input_ids": batch["tokens"],
        "visual_feats": batch["regions"],
        "visual_pos": batch["boxes"],
        "token_type_ids": batch["token_type"],
    } | {theirs: batch[ours].long() for theirs, ours in masks.items() if ours in batch}


def labels(config, batch):
    """What is to be predicted, as ours; the first word and region of each are masked, so that something is."""
    tokens, (b, p) = batch["tokens"], batch["regions"].shape[:2]
    words, _ = real(batch)
    label = torch.where((torch.rand(tokens.shape) < 0.3) & words, tokens, -100)
    label[:, 0] = tokens[:, 0]
    masked = torch.rand(b, p) < 0.3
    masked[:, 0] = True
    target = batch["regions"].clone()
    target[:, 0] *= 3  # beyond 1, where the smooth distance is no longer square
    return {
        "regions": batch["regions"].masked_fill(masked[..., None], 0),
        "token_label": label,
        "masked_regions": masked & batch.get("region_mask", masked),
        "region_target": target,
        "region_classes": torch.randn(b, p, config.num_object_labels).softmax(-1),
        "region_attributes": torch.randn(b, p, config.num_attr_labels).softmax(-1),
        "match_label": torch.ones(b, dtype=torch.long),
        "answer": torch.randint(config.num_qa_labels, (b,)),
    }


def published_labels(batch):
    seen = batch["masked_regions"].float()
    return {
        "labels": batch["token_label"],
        "matched_label": batch["match_label"],
        "ans": batch["answer"],
        "obj_labels": {
            "feat": (batch["region_target"], seen),
            "obj": (batch["region_classes"].argmax(-1), seen),
            "attr": (batch["region_attributes"].argmax(-1), seen),
        },
    }


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_pretraining(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, batch = inputs(case, padded)
    batch |= labels(config, batch)
    published, ours = twins(LxmertForPreTraining(config))
    expected = published(**published_inputs(batch), **published_labels(batch))
    given = ("tokens", "regions", "boxes", "mask", "region_mask", "token_type")
    output = ours(**{name: batch[name] for name in given if name in batch})
    words, positions = real(batch)
    close(ours.token_logits(output.tokens[words]), expected.prediction_logits[words])
    close(output.match_logits, expected.cross_relationship_score)
    if config.task_qa:
        close(output.answer_logits, expected.question_answering_score)
    predicted = published.obj_predict_head(published.lxmert(**published_inputs(batch)).vision_output)
    for name, theirs in (("features", "feat"), ("classes", "obj"), ("attributes", "attr")):
        if theirs in predicted:
            close(ours.region_head(output.regions)[name][positions], predicted[theirs][positions])
    losses = ours.loss(batch)
    built = {"mrfr": config.visual_feat_loss, "mrc_attributes": config.visual_attr_loss, "vqa": config.task_qa}
    assert set(losses) == {"mlm", "itm", "mrc"} | {name for name in built if built[name]}
    # Theirs divides by all regions, ours by the masked ones.
    share = config.visual_loss_normalizer * batch["masked_regions"].float().mean()
    loss = sum(value * (share if name in OF_REGIONS else 1) for name, value in losses.items())
    close(loss, expected.loss)
    loss.backward()
    expected.loss.backward()
    # The deviation: the first position and token type learn here, and there they are declared to be padding.
    theirs, mine = published.lxmert.embeddings, ours.embedding
    for frozen, learned in (
        (theirs.position_embeddings.weight.grad, mine.positions.grad),
        (theirs.token_type_embeddings.weight.grad, mine.token_types.weight.grad),
    ):
        assert (frozen[0] == 0).all()
        assert (learned[0] != 0).any()
        learned[0] = 0
    assert_same_gradients(published, ours)


@pytest.mark.parametrize("case", CASES)
def test_encoders_alone(case, twins):
    config, batch = inputs(case)
    published, ours = twins(LxmertModel(config))
    expected, output = published(**published_inputs(batch)), ours(**batch)
    words, positions = real(batch)
    close(output.tokens[words], expected.language_output[words])
    close(output.regions[positions], expected.vision_output[positions])
    close(output.pooled, expected.pooled_output)
    assert output.match_logits is output.answer_logits is ours.region_head is None


def test_question_answering(twins, assert_same_gradients):
    config, batch = inputs("odd")
    published, ours = twins(LxmertForQuestionAnswering(config))
    answer = torch.tensor([3, 8, 0])
    expected = published(**published_inputs(batch), labels=answer)
    close(ours(**batch).answer_logits, expected.question_answering_score)
    losses = ours.loss(batch | {"answer": answer})
    assert set(losses) == {"vqa"}
    close(losses["vqa"], expected.loss)
    expected.loss.backward()
    losses["vqa"].backward()
    ours.embedding.positions.grad[0] = 0
    ours.embedding.token_types.weight.grad[0] = 0
    assert_same_gradients(published, ours)


def test_attention_maps(twins):
    """Theirs shows words that look at regions; ours also the other way, which it records second."""
    config, batch = inputs("odd")
    published, ours = twins(LxmertModel(config))
    published.set_attn_implementation("eager")
    expected = published(**published_inputs(batch), output_attentions=True)
    with record_attention(ours) as maps:
        ours(**batch)
    for i in range(config.x_layers):
        assert maps[f"cross_layers.{i}.cross_attention#2"].shape == (3, 3, 5, 11)
    words, positions = real(batch)
    compared = [(f"cross_layers.{i}.cross_attention", expected.cross_encoder_attentions[i], words) for i in range(2)]
    compared.append(("language_encoder.blocks.2.attention", expected.language_attentions[2], words))
    compared.append(("region_encoder.blocks.0.attention", expected.vision_attentions[0], positions))
    for name, theirs, asking in compared:
        close(maps[name].transpose(1, 2)[asking], theirs.transpose(1, 2)[asking])


def test_the_published_size():
    """Of unc-nlp/lxmert-base-uncased, whose configuration is the default one."""
    with torch.device("meta"):
        published = LxmertForPreTraining(LxmertConfig())
    expected = sum(parameter.numel() for parameter in published.parameters())
    assert count_parameters(LXMERT, LXMERTConfig.preset("base")) == expected == 228_051_752


def test_targets_reach_both_branches_of_the_smooth_distance():
    config, batch = inputs("odd")
    target = labels(config, batch)["region_target"].abs()
    assert (target > 1.5).any()
    assert (target < 0.5).any()
