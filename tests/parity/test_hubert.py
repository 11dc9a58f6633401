"""HuBERT equals Transformers' HubertModel and HubertForCTC: states of every block, losses, gradients, padding."""

import pytest
import torch
from published import BASE, LARGE, NARROW, real_frames, same_texts, sizes, speech_inputs, speech_of_theirs
from testing_tools import close
from transformers import HubertConfig, HubertForCTC, HubertModel

CASES = {
    "base": BASE | sizes(24, 3, 3, 50, batch=3, samples=461),
    "large": LARGE | sizes(40, 2, 5, 33, batch=4, samples=387),
    "layer norm, post-norm, batch of one": NARROW
    | sizes(16, 1, 1, 24, feat_extract_norm="layer", batch=1, samples=303),
}


def inputs(case, padded=True, **changes):
    return speech_inputs(HubertConfig, CASES[case], padded, **changes)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_states_with_hidden_frames(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, padded)
    published, ours = twins(HubertModel(config))
    masked = torch.rand(ours(**given).mask.shape) < 0.3
    expected = published(**speech_of_theirs(given), mask_time_indices=masked).last_hidden_state
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
    same_texts(published, ours, given, assert_same_gradients)


@pytest.mark.parametrize("case", CASES)
def test_blocks_to_cluster(case, twins):
    """Frames after each block; the last norm of pre-norm blocks does not belong to any."""
    config, given = inputs(case, padded=False)
    published, ours = twins(HubertModel(config))
    clip = given["waveform"][:1]
    expected = published(clip, output_hidden_states=True).hidden_states
    last = config.num_hidden_layers
    for block in range(last + (not config.do_stable_layer_norm)):
        close(ours.block_output(clip[0], block), expected[block][0])
    if config.do_stable_layer_norm:
        close(published.encoder.layer_norm(ours.block_output(clip[0], last)), published(clip).last_hidden_state[0])
