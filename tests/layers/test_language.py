"""What BERT and its descendants share: positions of shorter texts, dropout, what cannot be read, and how it starts."""

import pytest
import torch
from testing_tools import close, refused
from torch import nn

from mmlearn.layers.language import BERTEmbedding, BERTEncoderConfig, MaskedLanguageHead, initialise_as_bert


def config(**settings):
    sizes = dict(vocab_size=50, max_length=6, width=8, depth=2, num_heads=2, dropout=0.0)
    return BERTEncoderConfig(**sizes | settings)


def embedding_of(**settings):
    return BERTEmbedding(config(**settings))


def tokens(b=3, t=6, seed=0):
    return torch.randint(0, 50, (b, t), generator=torch.Generator().manual_seed(seed))


def test_without_token_types_none_is_added():
    embedding, text = embedding_of(token_types=0), tokens()
    total = embedding.tokens(text) + embedding.positions
    close(embedding(text), nn.functional.layer_norm(total, (8,), eps=1e-12), 1e-5)


def test_a_shorter_text_takes_the_first_positions():
    embedding, text = embedding_of(), tokens()
    close(embedding(text[:, :4]), embedding(text)[:, :4], 0)


def test_dropout_acts_in_training_only():
    embedding, text = embedding_of(dropout=0.5), tokens()
    assert (embedding(text) == 0).float().mean() > 0.3
    embedding.eval()
    assert torch.equal(embedding(text), embedding(text))
    assert (embedding(text) != 0).all()


@pytest.mark.usefixtures("unchecked")
def test_texts_that_cannot_be():
    embedding = embedding_of()
    refused("There is no token 50", embedding, torch.tensor([[1, 50]]))
    refused("7 tokens are more than the 6 positions", embedding, tokens(t=7))


def test_the_head_reads_any_leading_shape_and_each_state_alone():
    head, table, x = MaskedLanguageHead(config()), torch.randn(50, 8), torch.randn(3, 6, 8)
    whole, mask = head(x, table), torch.rand(3, 6) < 0.4
    assert whole.shape == (3, 6, 50)
    close(head(x[mask], table), whole[mask], 1e-6)
    assert head(x[mask & False], table).shape == (0, 50)


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
