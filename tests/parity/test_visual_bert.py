"""VisualBERT equals Transformers' VisualBertModel and VisualBertForPreTraining: states, heads, losses, gradients."""

import pytest
import torch
from published import TEXTS
from testing_tools import close, count_parameters
from transformers import VisualBertConfig, VisualBertForPreTraining, VisualBertModel

from mmlearn.models.fusion.visual_bert import VisualBERT
from mmlearn.models.fusion.visual_bert import VisualBERTConfig as OurConfig

CASES = {
    "odd": TEXTS["odd"] | dict(visual_embedding_dim=7, regions=5),
    "relu": TEXTS["relu"] | dict(visual_embedding_dim=48, pad_token_id=0, special_visual_initialize=False, regions=20),
    "batch of one": TEXTS["batch of one"] | dict(visual_embedding_dim=16, regions=1),
}


def inputs(case, padded=True):
    """A published configuration, and the same batch in the published words and in ours."""
    torch.manual_seed(1)
    case = dict(CASES[case])
    batch, p, t = case.pop("batch"), case.pop("regions"), case["max_position_embeddings"]
    tokens = torch.randint(case["vocab_size"], (batch, t))
    token_type = torch.randint(2, (batch, t))
    regions = torch.randn(batch, p, case["visual_embedding_dim"])
    published = dict(input_ids=tokens, token_type_ids=token_type, visual_embeds=regions)
    published["attention_mask"] = torch.ones_like(tokens)  # its losses ask for masks
    published["visual_attention_mask"] = torch.ones(batch, p).long()
    ours = dict(tokens=tokens, token_type=token_type, regions=regions)
    ours["boxes"] = torch.tensor([0.1, 0.2, 0.6, 0.9]).expand(batch, p, 4)
    if padded:
        ours["mask"] = torch.arange(t) <= torch.arange(batch)[:, None] + 2
        ours["region_mask"] = torch.arange(p) <= torch.arange(batch)[:, None] % p
        published["attention_mask"] = ours["mask"].long()
        published["visual_attention_mask"] = ours["region_mask"].long()
        regions.masked_fill_(~ours["region_mask"][..., None], 0)  # ours does not look there, the published one may
    return VisualBertConfig(**case), published, ours


def close_where_real(batch, got, expected):
    """Words first, then regions."""
    real = torch.cat([batch["attention_mask"], batch["visual_attention_mask"]], dim=1).bool()
    close(got[real], expected[real])


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_pretraining(case, padded, twins, assert_same_gradients):
    config, batch, our_batch = inputs(case, padded)
    published, ours = twins(VisualBertForPreTraining(config))
    assert type(ours) is VisualBERT
    tokens = our_batch["tokens"]
    label = torch.where((torch.rand(tokens.shape) < 0.4) & (batch["attention_mask"] == 1), tokens, -100)
    label[:, 0] = tokens[:, 0]
    match_label = torch.arange(len(tokens)) % 2
    nowhere = torch.full(our_batch["regions"].shape[:2], -100)
    expected = published(**batch, labels=torch.cat([label, nowhere], 1), sentence_image_labels=match_label)
    output = ours(**our_batch)
    states = torch.cat([output.tokens, output.regions], 1)
    close_where_real(batch, ours.token_logits(states), expected.prediction_logits)
    close(output.match_logits, expected.seq_relationship_logits)
    losses = ours.loss(our_batch | dict(token_label=label, match_label=match_label))
    assert set(losses) == {"mlm", "itm"}
    loss = losses["mlm"] + losses["itm"]
    close(loss, expected.loss)
    assert_same_gradients(published, ours, loss, expected.loss)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_encoder_alone(case, padded, twins):
    config, batch, our_batch = inputs(case, padded)
    published, ours = twins(VisualBertModel(config))
    expected, output = published(**batch), ours(**our_batch)
    close_where_real(batch, torch.cat([output.tokens, output.regions], 1), expected.last_hidden_state)
    close(output.pooled, expected.pooler_output)
    assert output.match_logits is ours.language_head is None
    assert ours.config.objectives == ()


def test_encoder_without_pooler(twins):
    config, batch, our_batch = inputs("odd")
    published, ours = twins(VisualBertModel(config, add_pooling_layer=False))
    output = ours(**our_batch)
    expected = published(**batch).last_hidden_state
    close_where_real(batch, torch.cat([output.tokens, output.regions], 1), expected)
    assert torch.equal(output.pooled, output.tokens[:, 0])


def test_the_pad_token_is_the_published_one(twins):
    config, _, our_batch = inputs("odd")
    assert config.pad_token_id == 1
    _, ours = twins(VisualBertModel(config))
    our_batch["tokens"][0, :3] = torch.tensor([0, 1, 2])
    ours(**our_batch).tokens.square().sum().backward()
    gradient = ours.embedding.tokens.weight.grad
    assert (gradient[1] == 0).all()
    assert (gradient[[0, 2]] != 0).any(-1).all()


def test_base_has_the_published_size():
    with torch.device("meta"):
        published = VisualBertForPreTraining(VisualBertConfig(visual_embedding_dim=2048))
    count = sum(parameter.numel() for parameter in published.parameters())
    assert count_parameters(VisualBERT, OurConfig.preset("base")) == count == 112_074_812
