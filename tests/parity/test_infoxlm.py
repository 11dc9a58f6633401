"""InfoXLM's encoder equals Transformers' XLM-R, of which its published checkpoints are: states, losses, gradients."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from published import TEXTS, to_guess
from testing_tools import close
from transformers import RobertaConfig, RobertaForMaskedLM, XLMRobertaConfig, XLMRobertaForMaskedLM

from mmlearn.layers import BERTEncoderConfig
from mmlearn.models.many_languages.infoxlm import InfoXLM, InfoXLMConfig

FIRST = 2  # positions count from here, and no word has a smaller number


@pytest.mark.parametrize("case", TEXTS)
def test_texts_are_read_as_by_xlm_r(case, twins):
    torch.manual_seed(1)
    sizes = {name: value for name, value in TEXTS[case].items() if name != "hidden_act"}  # not that of its head
    b, length = sizes.pop("batch"), sizes.pop("max_position_embeddings")
    sizes |= dict(max_position_embeddings=2 * length + FIRST, type_vocab_size=1)
    config, mask = RobertaConfig(**sizes), torch.arange(length) <= torch.arange(b)[:, None] + 2
    tokens = torch.randint(FIRST, sizes["vocab_size"], (b, length)).masked_fill(~mask, 1)
    roberta, bert = twins(RobertaForMaskedLM(config))
    published = XLMRobertaForMaskedLM(XLMRobertaConfig(**config.to_dict() | {"model_type": "xlm-roberta"})).eval()
    published.load_state_dict(roberta.state_dict())
    read = {field.name: getattr(bert.config, field.name) for field in dataclasses.fields(BERTEncoderConfig)}
    read["max_length"] //= 2  # a row holds two texts
    ours = InfoXLM(InfoXLMConfig(**read, contrast_depth=1, queue_size=4)).eval()
    for part, taken in ((ours.online.embedding, bert.embedding), (ours.online.transformer, bert.transformer)):
        part.load_state_dict(taken.state_dict())
    ours.language_head.load_state_dict(bert.language_head.state_dict())
    label = to_guess(tokens, mask)
    expected = published(input_ids=tokens, attention_mask=mask.long(), labels=label, output_hidden_states=True)
    close(ours(tokens, mask).tokens[mask], expected.hidden_states[-1][mask])
    first = expected.hidden_states[1][:, 0] @ ours.online.projection.weight.T
    close(ours.encode_text(tokens, mask), F.normalize(first, dim=-1))
    loss = ours.mlm_loss(tokens, mask, label)
    close(loss, expected.loss)
    loss.backward()
    expected.loss.backward()
    theirs, mine = published.roberta, ours.online
    pairs = [
        (mine.embedding.tokens.weight, theirs.embeddings.word_embeddings.weight),
        (mine.embedding.norm.weight, theirs.embeddings.LayerNorm.weight),
        (ours.language_head.dense.weight, published.lm_head.dense.weight),
        (ours.language_head.bias, published.lm_head.bias),
    ]
    for block, layer in zip(mine.transformer.blocks, theirs.encoder.layer, strict=True):
        pairs += [(block.attention.query.weight, layer.attention.self.query.weight)]
        pairs += [(block.mlp.contract.bias, layer.output.dense.bias)]
    for one, other in pairs:
        close(one.grad, other.grad)
