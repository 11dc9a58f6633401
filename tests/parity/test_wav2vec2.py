"""wav2vec 2.0 equals Transformers' for pretraining and for texts: states, codes, losses, gradients, padding."""

import pytest
import torch
from published import BASE, LARGE, NARROW, convolutions, real_frames, same_texts, sizes, speech_inputs, speech_of_theirs
from testing_tools import close
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2ForPreTraining, Wav2Vec2Model

from mmlearn import load_pretrained
from mmlearn.data.speech_features import standardise
from mmlearn.models.speech.encoder import frame_mask
from mmlearn.objectives.speech import mask_spans, sample_distractors


def codes(entries, groups, width, projected):
    names = ("num_codevectors_per_group", "num_codevector_groups", "codevector_dim", "proj_codevector_dim")
    return dict(zip(names, (entries, groups, width, projected)))


CASES = {
    "base": BASE | sizes(24, 2, 3, 50, batch=3, samples=461) | codes(7, 2, 12, 10),
    "large": LARGE | sizes(40, 3, 5, 33, batch=4, samples=387) | codes(5, 3, 15, 8),
    "group norm, pre-norm, batch of one": NARROW
    | sizes(16, 1, 1, 24, do_stable_layer_norm=True, conv_bias=True, batch=1, samples=303)
    | codes(11, 1, 6, 7),
    "layer norm, post-norm": convolutions((8, 8, 8, 8), (4, 3, 3, 2), (2, 2, 2, 1), 4, 1, feat_extract_norm="layer")
    | sizes(12, 2, 2, 48, contrastive_logits_temperature=0.3, diversity_loss_weight=0.7, batch=2, samples=200)
    | codes(6, 2, 8, 16),
}


def inputs(case, padded=True, **changes):
    """Nothing but the noise of the quantiser is left to chance."""
    return speech_inputs(Wav2Vec2Config, CASES[case], padded, **changes)


def hidden(config, given):
    """Spans and distractors for both models, under the names of ours."""
    real = frame_mask(given["waveform_mask"], config.conv_kernel, config.conv_stride)
    generator = torch.Generator().manual_seed(2)
    masked = mask_spans(real, probability=0.15, length=4, generator=generator)
    return {"masked": masked, "distractor": sample_distractors(masked, 6, generator=generator)}


def exactly_by_row(linear):
    """The same numbers for the same row, wherever it stands, which a product of matrices does not promise."""
    return lambda x: (x[..., None, :] * linear.weight).sum(-1) + linear.bias


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_pretraining(case, padded, twins, assert_same_gradients, monkeypatch):
    """Codes are the likeliest ones, so that several frames have the same, also among distractors.

    These are left out by their codes here, and by their vectors there, which are equal only if each is exact.
    """
    torch.manual_seed(1)
    config, given = inputs(case, padded)
    published, ours = twins(Wav2Vec2ForPreTraining(config))
    monkeypatch.setattr(published.project_q, "forward", exactly_by_row(published.project_q))
    given |= hidden(config, given)
    expected, count = published(**speech_of_theirs(given)), given["masked"].sum()
    output = ours(given["waveform"], given["waveform_mask"], given["masked"])
    real = real_frames(published, given)
    assert torch.equal(output.mask, real)
    close(output.context[real], expected.projected_states[real])  # the rest is of no meaning there
    close(output.target, expected.projected_quantized_states)
    same = (output.codes[:, :, None] == output.codes[:, None]).all(-1)
    assert same.gather(2, given["distractor"])[given["masked"]].any()
    losses = ours.loss(given)
    close(losses["contrastive"], expected.contrastive_loss / count)
    close(losses["diversity"], config.diversity_loss_weight * expected.diversity_loss / count)
    assert_same_gradients(published, ours, sum(losses.values()), expected.loss / count)


@pytest.mark.parametrize("case", CASES)
def test_pretraining_with_noise(case, twins, assert_same_gradients, monkeypatch):
    """In training codes are samples, and the choice has a gradient: the same noise gives the same."""
    torch.manual_seed(1)
    config, given = inputs(case)
    published, ours = twins(Wav2Vec2ForPreTraining(config))
    monkeypatch.setattr(published.project_q, "forward", exactly_by_row(published.project_q))
    given |= hidden(config, given)
    shape = (*given["masked"].shape, config.num_codevector_groups, config.num_codevectors_per_group)
    torch.manual_seed(3)
    given["gumbel"] = -torch.empty(shape).flatten(0, 2).exponential_().log().view(shape)
    codes = ours(given["waveform"], given["waveform_mask"], None, given["gumbel"]).codes
    assert not torch.equal(codes, ours(given["waveform"], given["waveform_mask"]).codes)
    torch.manual_seed(3)
    expected, count = published.train()(**speech_of_theirs(given)), given["masked"].sum()
    losses = ours.train().loss(given)
    close(losses["contrastive"], expected.contrastive_loss / count)
    close(losses["diversity"], config.diversity_loss_weight * expected.diversity_loss / count)
    sum(losses.values()).backward()
    (expected.loss / count).backward()
    assert ours.quantiser.logits.weight.grad.abs().max() > 1e-4
    assert_same_gradients(published, ours)


@pytest.mark.parametrize("case", CASES)
def test_texts(case, twins, assert_same_gradients):
    torch.manual_seed(1)
    config, given = inputs(case, pad_token_id=3)
    published, ours = twins(Wav2Vec2ForCTC(config))
    same_texts(published, ours, given, assert_same_gradients)


@pytest.mark.parametrize("case", CASES)
def test_states(case, twins):
    config, given = inputs(case)
    published, ours = twins(Wav2Vec2Model(config))
    expected = published(**speech_of_theirs(given))
    output = ours.speech(given["waveform"], given["waveform_mask"])
    real = real_frames(published, given)
    assert torch.equal(output.mask, real)
    close(output.tokens[real], expected.last_hidden_state[real])
    close(output.features, expected.extract_features)
    assert ours(given["waveform"]).target is ours(given["waveform"]).logits is None
    close(ours(given["waveform"]).tokens, published(given["waveform"]).last_hidden_state)


def test_older_names_of_the_positions(twins, tmp_path):
    """Checkpoints before PyTorch 2.1 call length and direction of a kernel weight_g and weight_v."""
    from safetensors.torch import load_file, save_file

    _, ours = twins(Wav2Vec2ForPreTraining(inputs("base")[0]))
    path = tmp_path / "weights" / "model.safetensors"
    tensors = load_file(path)
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    older = {}
    for name, tensor in tensors.items():
        for new, old in names.items():
            name = name.replace(new, old)
        older[name] = tensor
    assert older.keys() != tensors.keys()
    save_file(older, path)
    for name, value in load_pretrained(path.parent).state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def test_a_loaded_model_counts_its_own_steps(twins):
    _, ours = twins(Wav2Vec2ForPreTraining(inputs("base")[0]))
    assert ours.steps.item() == 0
    assert ours.gumbel_temperature == 2.0
    ours.after_step()
    assert ours.state_dict()["steps"].item() == 1


def test_clips_are_standardised_as_for_published_models():
    clips = [torch.randn(300) * 0.1 + 0.4, torch.randn(451) - 2]
    extract = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    expected = extract([clip.numpy() for clip in clips], sampling_rate=16_000, padding=True, return_tensors="pt")
    waveform = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True, padding_value=9.0)
    mask = torch.arange(451) < torch.tensor([[300], [451]])
    close(standardise(waveform, mask), expected["input_values"], 1e-4)
