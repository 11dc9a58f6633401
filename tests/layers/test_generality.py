"""The layers are general: architectures that are not in the library, in a few lines each, equal to Transformers'."""

import pytest
import torch
from testing_tools import close
from torch import nn
from transformers import BartConfig, GPT2Config, GPT2Model
from transformers.models.bart.modeling_bart import BartDecoderLayer

from mmlearn.layers import MLP, Attention, TextEmbedding, Transformer, TransformerBlock, TransformerConfig

B, T, P = 3, 7, 5


def random(module):
    """Weights that prove something also where a module starts at 0 or 1."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


def copy(pairs):
    for ours, theirs in pairs:
        ours.load_state_dict(theirs.state_dict())


def padding(length):
    return torch.arange(length) < torch.tensor([[length], [2], [length - 1]])


def additive(mask):
    """(b, n) as Transformers' layers want it."""
    return torch.where(mask, 0.0, torch.finfo(torch.float32).min)[:, None, None]


class GPT2(nn.Module):
    def __init__(self, vocab_size, max_length, width, depth, num_heads):
        super().__init__()
        self.embedding = TextEmbedding(vocab_size, width, max_length)
        self.transformer = Transformer(TransformerConfig(width, depth, num_heads, activation="gelu_tanh"))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens, mask=None):
        return self.norm(self.transformer(self.embedding(tokens), mask, causal=True))


@pytest.mark.parametrize("padded", [False, True])
def test_gpt2(padded):
    theirs = random(GPT2Model(GPT2Config(vocab_size=50, n_positions=9, n_embd=24, n_layer=2, n_head=4)))
    ours = GPT2(50, 9, 24, 2, 4).eval()
    copy([(ours.embedding.tokens, theirs.wte), (ours.norm, theirs.ln_f)])
    ours.embedding.positions.data.copy_(theirs.wpe.weight)
    for block, layer in zip(ours.transformer.blocks, theirs.h):
        copy([(block.attention_norm, layer.ln_1), (block.mlp_norm, layer.ln_2)])
        attention, mlp, packed = block.attention, block.mlp, layer.attn.c_attn
        for linear, weight, bias in [
            *zip((attention.query, attention.key, attention.value), packed.weight.chunk(3, 1), packed.bias.chunk(3)),
            (attention.output, layer.attn.c_proj.weight, layer.attn.c_proj.bias),
            (mlp.expand, layer.mlp.c_fc.weight, layer.mlp.c_fc.bias),
            (mlp.contract, layer.mlp.c_proj.weight, layer.mlp.c_proj.bias),
        ]:
            linear.load_state_dict(dict(weight=weight.T, bias=bias))  # GPT-2 multiplies from the left
    tokens, mask = torch.randint(50, (B, T)), padding(T) if padded else torch.ones(B, T, dtype=torch.bool)
    expected = theirs(tokens, attention_mask=mask.long()).last_hidden_state
    close(ours(tokens, mask)[mask], expected[mask])


def copy_bart_attention(ours, theirs):
    copy(
        [
            (ours.query, theirs.q_proj),
            (ours.key, theirs.k_proj),
            (ours.value, theirs.v_proj),
            (ours.output, theirs.out_proj),
        ]
    )


def test_bart_decoder_layer():
    """Post-norm, causal self-attention, then attention to a padded source."""
    config = BartConfig(d_model=24, decoder_attention_heads=4, decoder_ffn_dim=40, attn_implementation="eager")
    theirs, ours = (
        random(BartDecoderLayer(config)),
        TransformerBlock(TransformerConfig(24, 1, 4, mlp_width=40, norm_first=False), context_width=24),
    )
    copy_bart_attention(ours.attention, theirs.self_attn)
    copy_bart_attention(ours.cross_attention, theirs.encoder_attn)
    copy(
        [
            (ours.attention_norm, theirs.self_attn_layer_norm),
            (ours.cross_attention_norm, theirs.encoder_attn_layer_norm),
            (ours.mlp.expand, theirs.fc1),
            (ours.mlp.contract, theirs.fc2),
            (ours.mlp_norm, theirs.final_layer_norm),
        ]
    )
    x, source, mask = torch.randn(B, T, 24), torch.randn(B, P, 24), padding(P)
    future = torch.full((T, T), torch.finfo(torch.float32).min).triu(1)[None, None]
    expected = theirs(x, future, encoder_hidden_states=source, encoder_attention_mask=additive(mask))
    expected = expected[0] if isinstance(expected, tuple) else expected
    close(ours(x, causal=True, context=source, context_mask=mask), expected)


class GatedCrossAttention(nn.Module):
    """Flamingo: a frozen language model sees pictures through gates that start closed."""

    def __init__(self, width, num_heads, context_width):
        super().__init__()
        self.norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.cross, self.mlp = Attention(width, num_heads, context_width=context_width), MLP(width)
        self.gates = nn.Parameter(torch.zeros(2))

    def forward(self, x, context, mask=None):
        x = x + self.gates[0].tanh() * self.cross(self.norm(x), context, mask)
        return x + self.gates[1].tanh() * self.mlp(self.mlp_norm(x))


def test_flamingo_gates_at_zero_are_the_identity_and_learn():
    block, x, context = GatedCrossAttention(24, 4, 10), torch.randn(B, T, 24), torch.randn(B, P, 10)
    language = Transformer(TransformerConfig(24, 2, 4))
    assert torch.equal(block(x, context), x)
    assert torch.equal(language(block(x, context), causal=True), language(x, causal=True))
    block(x, context).square().sum().backward()
    assert (block.gates.grad.abs() > 1e-3).all()
    with torch.no_grad():
        block.gates.fill_(0.5)
    opened = block(x, context, padding(P))
    assert not torch.allclose(opened, x, atol=1e-2)
    changed = context.masked_fill(~padding(P)[..., None], 100)
    close(block(x, changed, padding(P)), opened, 1e-6)
