"""What BERT and its descendants share: the embedding is a normalised sum, the head reads with the input's table."""

import pytest
import torch
from testing_tools import close
from torch import nn

from mmlearn.layers import MLP, Attention, Transformer
from mmlearn.layers.language import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, initialise_as_bert, pooler


def config(**settings):
    sizes = dict(vocab_size=50, max_length=6, width=8, depth=2, num_heads=2, dropout=0.0)
    return BERTEncoderConfig(**sizes | settings)


def embedding_of(**settings):
    return BERTEmbedding(config(**settings))


def tokens(b=3, t=6, seed=0):
    return torch.randint(0, 50, (b, t), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("epsilon", [1e-12, 0.5])
def test_embedding_by_hand(epsilon):
    embedding = embedding_of(token_types=3, norm_epsilon=epsilon)
    text, types = tokens(), tokens(seed=1) % 3
    got = embedding(text, types)
    for i in range(3):
        for j in range(6):
            total = (
                embedding.tokens.weight[text[i, j]] + embedding.positions[j] + embedding.token_types.weight[types[i, j]]
            )
            expected = (total - total.mean()) / (total.var(unbiased=False) + epsilon).sqrt()
            close(got[i, j], expected)
    close(embedding(text), embedding(text, torch.zeros_like(types)), 0)


def test_without_token_types_none_is_added():
    embedding, text = embedding_of(token_types=0), tokens()
    total = embedding.tokens(text) + embedding.positions
    close(embedding(text), nn.functional.layer_norm(total, (8,), eps=1e-12), 1e-5)


def test_a_shorter_text_takes_the_first_positions():
    embedding, text = embedding_of(), tokens()
    close(embedding(text[:, :4]), embedding(text)[:, :4], 0)


def test_the_pad_token_is_read_but_does_not_learn():
    for pad in (0, 7):
        embedding = embedding_of(pad_token=pad)
        text = torch.tensor([[1, pad, 2, pad]])
        (embedding(text) * torch.randn(1, 4, 8)).sum().backward()
        gradient = embedding.tokens.weight.grad
        assert gradient[pad].abs().max() == 0
        assert gradient[1].abs().max() > 0
        assert embedding.tokens.weight[pad].abs().max() > 0


def test_dropout_acts_in_training_only():
    embedding, text = embedding_of(dropout=0.5), tokens()
    assert (embedding(text) == 0).float().mean() > 0.3
    embedding.eval()
    assert torch.equal(embedding(text), embedding(text))
    assert (embedding(text) != 0).all()


@pytest.mark.usefixtures("unchecked")
def test_texts_that_cannot_be():
    embedding = embedding_of()
    with pytest.raises(ValueError, match="There is no token 50"):
        embedding(torch.tensor([[1, 50]]))
    with pytest.raises(ValueError, match="7 tokens are more than the 6 positions"):
        embedding(tokens(t=7))


@pytest.mark.parametrize(("activation", "phi"), [("gelu", nn.functional.gelu), ("relu", torch.relu)])
def test_the_head_by_hand(activation, phi):
    head, table = MaskedLanguageHead(config(activation=activation, norm_epsilon=1e-3)), torch.randn(50, 8)
    nn.init.normal_(head.bias)
    x = torch.randn(4, 8)
    hidden = phi(x @ head.dense.weight.T + head.dense.bias)
    hidden = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, unbiased=False, keepdim=True) + 1e-3).sqrt()
    close(head(x, table), hidden @ table.T + head.bias)


def test_the_head_reads_any_leading_shape_and_each_state_alone():
    head, table, x = MaskedLanguageHead(config()), torch.randn(50, 8), torch.randn(3, 6, 8)
    whole, mask = head(x, table), torch.rand(3, 6) < 0.4
    assert whole.shape == (3, 6, 50)
    close(head(x[mask], table), whole[mask], 1e-6)
    assert head(x[mask & False], table).shape == (0, 50)


def test_blocks_normalise_after_each_branch():
    transformer = Transformer(config(mlp_width=12, activation="relu", norm_epsilon=1e-3))
    x = torch.randn(2, 5, 8)
    expected = x
    for block in transformer.blocks:
        attention, mlp = block.attention, block.mlp
        assert isinstance(attention, Attention)
        assert isinstance(mlp, MLP)
        expected = block.attention_norm(expected + attention(expected))
        expected = block.mlp_norm(expected + mlp.contract(torch.relu(mlp.expand(expected))))
        assert block.attention_norm.eps == block.mlp_norm.eps == 1e-3
        assert mlp.expand.out_features == 12
    close(transformer(x), expected, 1e-6)


def test_pooler_is_the_tanh_of_a_layer():
    layer, x = pooler(8), torch.randn(3, 8)
    close(layer(x), torch.tanh(x @ layer[0].weight.T + layer[0].bias), 1e-6)


def test_the_start_is_bert_s():
    module = nn.Sequential(
        nn.Embedding(400, 100), nn.Linear(100, 300), nn.LayerNorm(300), nn.Linear(300, 9, bias=False)
    )
    for parameter in module.parameters():
        nn.init.constant_(parameter, 5.0)
    norm = module[2].weight.clone()
    module.apply(initialise_as_bert)
    for weight in (module[0].weight, module[1].weight, module[3].weight):
        assert weight.abs().max() <= 0.04
        assert weight.mean().abs() < 0.002
        assert weight.std().item() == pytest.approx(0.0176, abs=0.001)  # a normal of 0.02, cut at two deviations
    assert (module[1].bias == 0).all()
    assert torch.equal(module[2].weight, norm)
