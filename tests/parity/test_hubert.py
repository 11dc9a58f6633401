"""HuBERT equals Transformers' HubertModel and HubertForCTC: states of every block, losses, gradients, padding."""

import pytest
import torch
from testing_tools import close
from transformers import HubertConfig, HubertForCTC, HubertModel

SILENT = {f"{name}_dropout": 0.0 for name in ("hidden", "activation", "attention", "feat_proj", "final")}
CASES = {
    "base": dict(
        conv_dim=(12, 16, 20),
        conv_kernel=(5, 3, 2),
        conv_stride=(3, 2, 2),
        hidden_size=24,
        num_hidden_layers=3,
        num_attention_heads=3,
        intermediate_size=50,
        num_conv_pos_embeddings=6,
        num_conv_pos_embedding_groups=4,
        batch=3,
        samples=461,
    ),
    "large": dict(
        feat_extract_norm="layer",
        do_stable_layer_norm=True,
        conv_bias=True,
        conv_dim=(10, 14),
        conv_kernel=(7, 4),
        conv_stride=(4, 3),
        hidden_size=40,
        num_hidden_layers=2,
        num_attention_heads=5,
        intermediate_size=33,
        num_conv_pos_embeddings=5,
        num_conv_pos_embedding_groups=2,
        layer_norm_eps=1e-6,
        batch=4,
        samples=387,
    ),
    "layer norm, post-norm, batch of one": dict(
        feat_extract_norm="layer",
        hidden_act="relu",
        conv_dim=(6, 9),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=24,
        num_conv_pos_embeddings=9,
        num_conv_pos_embedding_groups=8,
        batch=1,
        samples=303,
    ),
}


def inputs(case, padded=True, **changes):
    """A configuration, and waveforms with their mask; what is padded is 0."""
    case = dict(CASES[case])
    batch, samples = case.pop("batch"), case.pop("samples")
    mask = torch.arange(samples) < samples - 37 * torch.arange(batch)[:, None] - 11
    mask = mask if padded else torch.ones_like(mask)
    given = {"waveform": torch.randn(batch, samples) * mask, "waveform_mask": mask}
    return HubertConfig(**case | SILENT | dict(layerdrop=0.0, vocab_size=9) | changes), given


def theirs(given):
    """The same under the names of theirs."""
    return {"input_values": given["waveform"], "attention_mask": given["waveform_mask"].long()}


def real_frames(published, given):
    """Which frames see real samples only, by their reckoning."""
    frames = published._get_feat_extract_output_lengths(given["waveform"].shape[1])
    return published._get_feature_vector_attention_mask(int(frames), given["waveform_mask"].long()).bool()


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_states_with_hidden_frames(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, padded)
    published, ours = twins(HubertModel(config))
    masked = torch.rand(ours(**given).mask.shape) < 0.3
    expected = published(**theirs(given), mask_time_indices=masked).last_hidden_state
    output = ours(**given, masked=masked)
    real = real_frames(published, given)  # what stands at padding has no meaning
    assert torch.equal(output.mask, real)
    close(output.tokens[real], expected[real])
    assert output.cluster_logits is output.logits is None
    weight = torch.randn(expected.shape) * real[..., None]
    (output.tokens * weight).mean().backward()
    (expected * weight).mean().backward()
    assert ours.speech.mask_embedding.grad.abs().max() > 1e-4
    assert_same_gradients(published, ours)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_texts(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, padded, pad_token_id=3)
    published, ours = twins(HubertForCTC(config))
    b = len(given["waveform"])
    tokens = torch.randint(4, 9, (b, 6))
    mask = torch.arange(6) < 3 + torch.arange(b)[:, None] % 4
    expected = published(**theirs(given), labels=torch.where(mask, tokens, -100))
    output, real = ours(**given), real_frames(published, given)
    close(output.logits[real], expected.logits[real])
    loss = ours.loss(given | {"tokens": tokens, "mask": mask})["ctc"]
    close(loss, expected.loss / b)
    frames = output.logits.shape[1]  # a text costs about ln v a frame, and so has gradients far above 1
    (loss / frames).backward()
    (expected.loss / b / frames).backward()
    assert_same_gradients(published, ours)


@pytest.mark.parametrize("case", CASES)
def test_blocks_to_cluster(case, twins):
    """Frames after each block; the last norm of pre-norm blocks does not belong to any."""
    config, given = inputs(case, padded=False)
    published, ours = twins(HubertModel(config))
    clip = given["waveform"][:1]
    expected = published(clip, output_hidden_states=True).hidden_states
    last = config.num_hidden_layers
    for block in range(last + (not config.do_stable_layer_norm)):
        close(ours.hidden(clip[0], block), expected[block][0])
    if config.do_stable_layer_norm:
        close(published.encoder.layer_norm(ours.hidden(clip[0], last)), published(clip).last_hidden_state[0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(feat_proj_layer_norm=False), "feat_proj_layer_norm = False"),
        (dict(conv_pos_batch_norm=True), "conv_pos_batch_norm = True"),
        (dict(conv_dim=(12, 16), conv_kernel=(5, 3), conv_stride=(3, 0)), r"conv_stride .* a list of numbers like"),
    ],
)
def test_what_is_not_built_is_told(changes, message, twins, tmp_path):
    import json

    from mmlearn import load_pretrained

    config, _ = inputs("base")
    twins(HubertModel(config))
    path = tmp_path / "weights" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        load_pretrained(path.parent)
