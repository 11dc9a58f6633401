"""Attention on attention: the gate on what attention found, the layers around it, and the fusion."""

import torch
import torch.nn.functional as F
from testing_tools import close, pairs, shaken

from mmlearn.models import AoA
from mmlearn.models.question_answering.aoa import AoAConfig, AoALayer, AttentionOnAttention, AttentionReduction

TINY = AoAConfig.tiny()


def test_the_gate_against_pytorch_attention():
    part, generator = shaken(AttentionOnAttention(16, 4)), torch.Generator().manual_seed(0)
    q, x = torch.randn(2, 3, 16, generator=generator), torch.randn(2, 5, 16, generator=generator)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    a = part.attention
    found, _ = F.multi_head_attention_forward(
        q.transpose(0, 1), x.transpose(0, 1), x.transpose(0, 1), 16, 4,
        torch.cat([a.query.weight, a.key.weight, a.value.weight]), torch.cat([a.query.bias, a.key.bias, a.value.bias]),
        None, None, False, 0.0, a.output.weight, a.output.bias, key_padding_mask=~mask,
    )  # fmt: skip
    both = torch.cat([q, found.transpose(0, 1)], -1)
    gate = 1 / (1 + torch.exp(-F.linear(both, part.gate.weight, part.gate.bias)))
    close(part(q, x, mask), gate * F.linear(both, part.information.weight, part.information.bias))


def test_a_closed_gate_lets_nothing_through():
    part = AttentionOnAttention(8, 2)
    with torch.no_grad():
        part.gate.weight.zero_()
        part.gate.bias.fill_(-100.0)
    assert part(torch.randn(1, 2, 8), torch.randn(1, 3, 8)).abs().max() == 0


def test_a_layer_adds_and_norms_three_times():
    layer = shaken(AoALayer(TINY, guided=True)).eval()
    x, guide = torch.randn(2, 4, 64), torch.randn(2, 3, 64)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    y = layer.norms[0](x + layer.self_attention(x, x))
    y = layer.norms[1](y + layer.guided_attention(y, guide, mask))
    hidden = torch.relu(F.linear(y, layer.mlp.expand.weight, layer.mlp.expand.bias))
    y = layer.norms[2](y + F.linear(hidden, layer.mlp.contract.weight, layer.mlp.contract.bias))
    close(layer(x, guide=guide, guide_mask=mask), y)
    other = guide.clone()
    other[1, 1:] += 1
    assert torch.equal(layer(x, guide=other, guide_mask=mask), layer(x, guide=guide, guide_mask=mask))


def test_a_reduction_is_a_weighted_mean_of_what_is_real():
    part, x = shaken(AttentionReduction(8)), torch.randn(1, 4, 8)
    mask = torch.tensor([[True, True, False, True]])
    mean, weights = part(x, mask)
    real = x[0, [0, 1, 3]]
    close(weights[0, [0, 1, 3]], part.score(real)[:, 0].softmax(0))
    assert weights[0, 2] == 0
    close(mean[0], weights[0, [0, 1, 3]] @ real)


def test_the_question_reads_itself_and_the_image_the_question():
    torch.manual_seed(0)
    system, batch = shaken(AoA(TINY)).eval(), pairs(4)
    output = system(batch["image"], batch["tokens"], batch["mask"])
    y, mask, _ = system.question_encoder(batch["tokens"], batch["mask"])
    y = system.encoder[0](y, mask)
    x = system.decoder[0](system.image_encoder(batch["image"]), None, y, mask)
    (image, maps), (question, _) = system.image_pooling(x), system.question_pooling(y, mask)
    shares = system.modality_score(torch.cat([image, question], -1)).softmax(-1)
    fused = shares[:, [0]] * system.image_projection(image) + shares[:, [1]] * system.question_projection(question)
    close(output.answer_logits, system.answer_head(system.norm(fused)))
    close(output.maps, maps)
    close(output.modality_weights.sum(-1), torch.ones(4))
