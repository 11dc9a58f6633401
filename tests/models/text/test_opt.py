"""OPT: what differs from GPT-2."""

import dataclasses

import torch
from testing_tools import close, refused, seeded, shaken

from mmlearn.models.text.gpt2 import GPT2
from mmlearn.models.text.opt import OPT, OPTConfig

TINY = OPTConfig.tiny()


def test_with_positions_from_row_2_it_is_a_gpt2_with_relu():
    config = dataclasses.replace(TINY, dropout=0.5)
    ours, other = shaken(OPT(config)).eval(), GPT2(config).eval()
    state = ours.state_dict()
    other.load_state_dict(state | {"embedding.positions": state["embedding.positions"][2:]})
    tokens = torch.randint(4, 500, (3, 9), generator=seeded())
    assert torch.equal(ours(tokens).token_logits, other(tokens).token_logits)
    assert len(state["embedding.positions"]) == TINY.max_length + 2


def test_embeddings_are_not_dropped():
    system = OPT(dataclasses.replace(TINY, dropout=0.5)).train()
    system.transformer.eval()
    tokens = torch.randint(4, 500, (3, 9), generator=seeded())
    assert torch.equal(system(tokens).tokens, system(tokens).tokens)


def test_a_narrow_table_is_projected_on_both_sides():
    system = shaken(OPT(dataclasses.replace(TINY, embedding_width=24, norm_first=False))).eval()
    tokens = torch.randint(4, 500, (3, 9), generator=seeded())
    table = system.embedding.tokens.weight
    words = table[tokens] @ system.embedding.projection.weight.T
    close(system.embedding(tokens), words + system.embedding.positions[2:11])
    output = system(tokens)
    close(output.token_logits, output.tokens @ system.output_projection.weight.T @ table.T)
    close(output.tokens, system.transformer(system.embedding(tokens), causal=True))  # no norm behind the last


def test_what_is_too_long():
    refused("more than the 32 positions", OPT(TINY), torch.full((1, 33), 5))
