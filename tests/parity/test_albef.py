"""ALBEF's text blocks equal Transformers' BERT, and its blocks that look at pictures equal those of Transformers' BLIP.

Transformers has no ALBEF. Its official code took BERT's first blocks and gave the others cross-attention, as BLIP's
text model has it in every block.
"""

import pytest
import torch
from testing_tools import close
from transformers import BertConfig, BertForMaskedLM, BertModel, BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextModel

from mmlearn.layers import BERTEncoderConfig, ImageEncoderConfig
from mmlearn.models.align.albef import ALBEF, ALBEFConfig

NAMES = {
    "attention.self.query": "attention.query",
    "attention.self.key": "attention.key",
    "attention.self.value": "attention.value",
    "attention.output.dense": "attention.output",
    "attention.output.LayerNorm": "attention_norm",
    "crossattention.self.query": "cross_attention.query",
    "crossattention.self.key": "cross_attention.key",
    "crossattention.self.value": "cross_attention.value",
    "crossattention.output.dense": "cross_attention.output",
    "crossattention.output.LayerNorm": "cross_attention_norm",
    "intermediate.dense": "mlp.expand",
    "output.dense": "mlp.contract",
    "output.LayerNorm": "mlp_norm",
}
CASES = {  # width, heads, text and fusion depth, picture's width, batch, tokens
    "odd": (24, 3, 2, 1, 20, 3, 7),
    "deep": (40, 5, 1, 3, 40, 4, 11),
    "batch of one": (16, 1, 1, 2, 12, 1, 5),
}


def build(case):
    """Ours, a text batch with padding, and a picture's tokens."""
    width, heads, text_depth, fusion_depth, image_width, b, t = CASES[case]
    image = ImageEncoderConfig(image_size=16, patch_size=8, width=image_width, depth=1, num_heads=1)
    config = ALBEFConfig(
        image=image,
        text=BERTEncoderConfig(width, text_depth, heads, vocab_size=99, max_length=t, dropout=0.0),
        fusion_depth=fusion_depth,
        queue_size=4,
    )
    mask = torch.arange(t) <= torch.arange(b)[:, None] + 2
    return ALBEF(config).online, torch.randint(99, (b, t)), mask, torch.randn(b, 5, image_width)


def shaken(published):
    """Noise on every parameter, for norms and biases start at 1 and 0, where they would prove nothing."""
    with torch.no_grad():
        for parameter in published.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return published.eval()


def pair_up(blocks, layers):
    """Every parameter of our blocks with the published one, by name; none is left on either side."""
    pairs = []
    for block, layer in zip(blocks, layers, strict=True):
        ours, theirs = dict(block.named_parameters()), dict(layer.named_parameters())
        for name, parameter in theirs.items():
            stem, kind = name.rsplit(".", 1)
            pairs.append((ours.pop(f"{NAMES[stem]}.{kind}"), parameter))
        assert not ours
    return pairs


def copy_over(pairs):
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs)


def assert_same_gradients(pairs):
    for ours, theirs in pairs:
        close(ours.grad, theirs.grad)
    assert any(ours.grad.abs().max() > 1e-4 for ours, _ in pairs)


@pytest.mark.parametrize("case", CASES)
def test_text_encoder_and_language_head(case):
    """The whole BERT of that depth, embedding and head as well, without its pooler."""
    model, tokens, mask, _ = build(case)
    width, heads, depth = CASES[case][:3]
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=depth, intermediate_size=4 * width)
    published = shaken(BertForMaskedLM(BertConfig(vocab_size=99, max_position_embeddings=tokens.shape[1], **sizes)))
    embedding, head = published.bert.embeddings, published.cls.predictions
    pairs = pair_up(model.text_encoder.blocks, published.bert.encoder.layer)
    pairs += [
        (model.embedding.tokens.weight, embedding.word_embeddings.weight),
        (model.embedding.positions, embedding.position_embeddings.weight),
        (model.embedding.token_types.weight, embedding.token_type_embeddings.weight),
        *zip(model.embedding.norm.parameters(), embedding.LayerNorm.parameters(), strict=True),
        *zip(model.language_head.dense.parameters(), head.transform.dense.parameters(), strict=True),
        *zip(model.language_head.norm.parameters(), head.transform.LayerNorm.parameters(), strict=True),
        (model.language_head.bias, head.bias),
    ]
    copy_over(pairs)
    states = model.read_text(tokens, mask)
    logits = model.predict_tokens(states)
    expected = published(tokens, attention_mask=mask.long(), output_hidden_states=True)
    close(states[mask], expected.hidden_states[-1][mask])
    close(logits[mask], expected.logits[mask])
    for each in (logits, expected.logits):
        torch.nn.functional.cross_entropy(each[mask], tokens[mask]).backward()
    assert_same_gradients(pairs)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_multimodal_encoder(case, padded):
    """From a text encoder's states and a picture's tokens, of another width where the case has one."""
    model, tokens, mask, image = build(case)
    width, heads, _, depth, image_width = CASES[case][:5]
    sizes = dict(hidden_size=width, num_attention_heads=heads, num_hidden_layers=depth, intermediate_size=4 * width)
    config = BlipTextConfig(vocab_size=99, encoder_hidden_size=image_width, max_position_embeddings=16, **sizes)
    published = shaken(BlipTextModel(config, add_pooling_layer=False))
    pairs = pair_up(model.multimodal_encoder.blocks, published.encoder.layer)
    copy_over(pairs)
    mask = mask if padded else torch.ones_like(mask)
    text = torch.randn(*tokens.shape, width)
    states = model.multimodal_encoder(text, mask, context=image)
    expected = published(
        encoder_embeds=text,
        attention_mask=mask.long(),
        encoder_hidden_states=image,
        encoder_attention_mask=torch.ones(image.shape[:2], dtype=torch.long),
        is_decoder=False,
    ).last_hidden_state
    close(states[mask], expected[mask])
    weight = torch.randn_like(states)
    for each in (states, expected):
        (each * weight)[mask].square().mean().backward()
    assert_same_gradients(pairs)


def test_the_first_blocks_of_a_deeper_bert():
    """ALBEF reads BERT-base by halves: blocks 1 to 6 here, 7 to 12 in the multimodal encoder."""
    model, tokens, mask, _ = build("odd")
    sizes = dict(hidden_size=24, num_attention_heads=3, num_hidden_layers=4, intermediate_size=96)
    bert = shaken(BertModel(BertConfig(vocab_size=99, max_position_embeddings=7, **sizes), add_pooling_layer=False))
    copy_over(pair_up(model.text_encoder.blocks, bert.encoder.layer[:2]))
    states = bert(tokens, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    close(model.text_encoder(states[0], mask)[mask], states[2][mask])
