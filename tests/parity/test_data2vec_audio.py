"""data2vec's encoder of speech equals Transformers' Data2VecAudioModel and Data2VecAudioForCTC."""

import pytest
import torch
from published import BASE, LARGE, NARROW, real_frames, same_texts, sizes, speech_inputs, speech_of_theirs
from testing_tools import close
from transformers import Data2VecAudioConfig, Data2VecAudioForCTC, Data2VecAudioModel

THEIRS = {"feat_extract_norm", "do_stable_layer_norm", "num_conv_pos_embeddings"}  # which this format has not
CASES = {
    "one convolution": BASE | sizes(24, 3, 3, 50, batch=3, samples=461, layers=1, conv_pos_kernel_size=6),
    "three": LARGE | sizes(40, 2, 5, 33, batch=4, samples=387, layers=3, conv_pos_kernel_size=3),
    "two, batch of one": NARROW | sizes(16, 1, 1, 24, batch=1, samples=303, layers=2, conv_pos_kernel_size=9),
}


def inputs(case, padded=True, **changes):
    case = {name: value for name, value in CASES[case].items() if name not in THEIRS}
    case["num_conv_pos_embeddings"] = case.pop("layers")
    return speech_inputs(Data2VecAudioConfig, case, padded, **changes)


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_states_with_hidden_frames(case, padded, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, padded)
    published, ours = twins(Data2VecAudioModel(config))
    masked = torch.rand(ours(**given).mask.shape) < 0.3
    expected = published(**speech_of_theirs(given), mask_time_indices=masked).last_hidden_state
    output, real = ours(**given, masked=masked), real_frames(published, given)
    close(output.tokens[real], expected[real])
    weight = torch.randn(expected.shape) * real[..., None]
    assert_same_gradients(published, ours, (output.tokens * weight).mean(), (expected * weight).mean())


@pytest.mark.parametrize("case", CASES)
def test_texts(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, pad_token_id=3)
    published, ours = twins(Data2VecAudioForCTC(config))
    same_texts(published, ours, given, assert_same_gradients)
