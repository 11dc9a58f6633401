"""VirTex: two decoders, of which one writes backwards, and a network that is kept."""

import torch
import torch.nn.functional as F
from testing_tools import close, overfit, pairs, refused, shaken
from torch import nn

from mmlearn.layers.recording import record_attention
from mmlearn.models import VirTex, VirTexConfig
from mmlearn.objectives import backwards

TINY = VirTexConfig.tiny()


def build(seed=0):
    torch.manual_seed(seed)
    return shaken(VirTex(TINY)).eval()


def test_the_decoder_is_that_of_pytorch():
    """The official code's ``nn.TransformerDecoderLayer``, with its weights: post-norm, GELU, one mask of the future."""
    system, batch = build(), pairs()
    positions, block = system.feature_map(batch["image"]), system.backward_decoder.blocks[0]
    layer = nn.TransformerDecoderLayer(64, 4, 256, 0.0, F.gelu, batch_first=True).eval()
    names = {"self_attn": block.attention, "multihead_attn": block.cross_attention}
    with torch.no_grad():
        for name, attention in names.items():
            theirs = getattr(layer, name)
            parts = (attention.query, attention.key, attention.value)
            theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            theirs.out_proj.load_state_dict(attention.output.state_dict())
        for theirs, ours in (
            (layer.linear1, block.mlp.expand),
            (layer.linear2, block.mlp.contract),
            (layer.norm1, block.attention_norm),
            (layer.norm2, block.cross_attention_norm),
            (layer.norm3, block.mlp_norm),
        ):
            theirs.load_state_dict(ours.state_dict())
        turned = backwards(batch["tokens"], batch["mask"])
        future = nn.Transformer.generate_square_subsequent_mask(12).isinf()
        x = layer(
            system.embedding(turned),
            system.image_projection(positions),
            tgt_mask=future,
            tgt_key_padding_mask=~batch["mask"],
        )
        expected = F.linear(x, system.embedding.tokens.weight, system.bias)
        output = system(**batch)
    close(output.backward_logits[batch["mask"]], expected[batch["mask"]])


def test_backwards_says_what_stands_before():
    """Learned by heart, the backward decoder guesses a caption from its end to its start."""
    torch.manual_seed(0)
    system, batch = VirTex(TINY).eval(), pairs(b=3, length=6)
    batch["image"] = batch["image"][..., :24, :24]
    overfit(system, batch, 40, 4e-3)
    with torch.no_grad():
        for row, (tokens, real) in enumerate(zip(batch["tokens"], batch["mask"])):
            text = tokens[real]
            image = batch["image"][row : row + 1]
            said = system(image, text[None]).backward_logits[0].argmax(-1)
            assert torch.equal(said[:-1], text.flip(0)[1:])
            forward = system(image, text[None]).token_logits[0].argmax(-1)
            assert torch.equal(forward[:-1], text[1:])


def test_neither_direction_sees_what_it_is_to_say():
    system, batch = build(), pairs()
    tokens, image = batch["tokens"][5:6, :7], batch["image"][5:6]
    other = tokens.clone()
    other[:, 3] = 400
    with torch.no_grad():
        one, two = system(image, tokens), system(image, other)
    there = (one.token_logits - two.token_logits).abs().amax(-1)[0]
    back = (one.backward_logits - two.backward_logits).abs().amax(-1)[0]
    assert (there[:3] == 0).all()
    assert (there[3:] > 1e-4).all()
    assert (back[:3] == 0).all()  # tokens 6, 5 and 4
    assert (back[3:] > 1e-4).all()


def test_what_is_kept_is_the_network_and_images_may_have_other_sizes():
    system, batch = build(), pairs()
    with torch.no_grad():
        features = system.encode_image(batch["image"])
        close(features, system.image_encoder(batch["image"]).mean((2, 3)))
        wide = torch.randn(2, 3, 40, 100)
        with record_attention(system) as maps:
            system(wide, batch["tokens"][:2])
    assert maps["forward_decoder.blocks.0.cross_attention"].shape == (2, 4, 12, 5 * 13)
    refused("smaller than one 8-pixel patch", system, torch.randn(1, 3, 4, 64), batch["tokens"][:1])
    refused("33 tokens are more than the 32", system, batch["image"][:1], torch.zeros(1, 33, dtype=torch.long))
