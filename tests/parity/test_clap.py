"""CLAP equals Transformers' ClapModel: embeddings, logits, losses, gradients, padding, clips of any length."""

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from published import sizes
from testing_tools import close
from transformers import ClapConfig, ClapModel

from mmlearn.objectives import pair_cross_entropy


def windows(image, mels, patch, window, depths, heads, width, **more):
    """The tower of sounds, each of whose stages but the first is twice as wide as the one before."""
    return dict(
        spec_size=image,
        num_mel_bins=mels,
        patch_size=patch,
        patch_stride=[patch, patch],
        window_size=window,
        depths=depths,
        num_attention_heads=heads,
        patch_embeds_hidden_size=width,
        hidden_size=width * 2 ** (len(depths) - 1),
        **more,
    )


# Pictures of 16, 24 and 8 patches a side: windows that shift, stages of one window, no merging.
CASES = {
    "shifted": dict(audio=windows(64, 16, 4, 4, [2, 3], [2, 4], 12), text=sizes(20, 2, 5, 33), frames=101, batch=3),
    "three stages": dict(
        audio=windows(48, 24, 2, 6, [2, 1, 2], [1, 2, 1], 6, hidden_act="relu"),
        text=sizes(16, 1, 2, 24, hidden_act="relu", layer_norm_eps=1e-5, pad_token_id=0),
        frames=96,
        batch=4,
    ),
    "batch of one": dict(
        audio=windows(24, 24, 3, 8, [1], [3], 15), text=sizes(16, 1, 4, 64, pad_token_id=3), frames=7, batch=1
    ),
}
LENGTH = 9


def inputs(case, padded=True):
    """A configuration, what ours reads, and what theirs does: a channel, and frames before mels."""
    case = CASES[case]
    text = dict(vocab_size=60, max_position_embeddings=16) | case["text"]
    config = ClapConfig(audio_config=case["audio"], text_config=text, projection_dim=14)
    pad, b = config.text_config.pad_token_id, case["batch"]
    mask = torch.arange(LENGTH) < (3 if padded else LENGTH) + torch.arange(b)[:, None]
    tokens = torch.randint(4, 60, (b, LENGTH)).masked_fill(~mask, pad)
    mel = torch.randn(b, case["audio"]["num_mel_bins"], case["frames"])
    theirs = dict(
        input_features=rearrange(mel, "b mel s -> b 1 s mel").contiguous(), input_ids=tokens, attention_mask=mask.long()
    )
    return config, {"mel": mel, "tokens": tokens, "mask": mask}, theirs


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_embeddings_logits_and_loss(case, padded, twins, assert_same_gradients):
    """Of both directions, from their logits: their own loss is the next test's."""
    torch.manual_seed(1)
    config, given, inputs_of_theirs = inputs(case, padded)
    published, ours = twins(with_statistics(ClapModel(config)))
    expected, output = published(**inputs_of_theirs), ours(**given)
    close(output.audio_embedding, expected.audio_embeds)
    close(output.text_embedding, expected.text_embeds)
    close(output.audio_logit_scale * output.audio_embedding @ output.text_embedding.T, expected.logits_per_audio)
    close(output.text_logit_scale * output.text_embedding @ output.audio_embedding.T, expected.logits_per_text)
    loss = ours.loss(given)["atc"]
    reference = pair_cross_entropy(expected.logits_per_audio, expected.logits_per_text)
    close(loss, reference)
    if len(given["mel"]) > 1:  # one pair has nothing to choose from
        assert_same_gradients(published, ours, loss, reference)


def with_statistics(model):
    """Running means and deviations that are not 0 and 1."""
    norm = model.audio_model.audio_encoder.batch_norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return model


def test_their_loss_reads_one_direction_with_two_scales(twins, assert_same_gradients):
    config, given, inputs_of_theirs = inputs("shifted")
    published, ours = twins(with_statistics(ClapModel(config)))
    output = ours(**given)
    cosine = output.text_embedding @ output.audio_embedding.T
    loss = sum(
        F.cross_entropy(scale * cosine, torch.arange(3)) / 2
        for scale in (output.audio_logit_scale, output.text_logit_scale)
    )
    expected = published(**inputs_of_theirs, return_loss=True).loss
    close(loss, expected)
    assert_same_gradients(published, ours, loss, expected)
    assert abs(ours.loss(given)["atc"] - expected) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_features(case, twins):
    """Each tower by itself; theirs also tells what stands at each place of the picture."""
    config, given, inputs_of_theirs = inputs(case)
    published, ours = twins(with_statistics(ClapModel(config)))
    expected = published.get_audio_features(inputs_of_theirs.pop("input_features"))
    close(ours.encode_audio(given["mel"]), expected.pooler_output)
    positions = rearrange(ours.audio_encoder(given["mel"]), "b band s d -> b d band s")
    close(positions, expected.last_hidden_state)
    close(
        ours.encode_text(given["tokens"], given["mask"]), published.get_text_features(**inputs_of_theirs).pooler_output
    )


def test_batch_norm_learns_the_same(twins, assert_same_gradients):
    """In training, where statistics are the batch's."""
    config, given, inputs_of_theirs = inputs("shifted")
    config.audio_config.hidden_dropout_prob = 0.0
    published, ours = twins(ClapModel(config))
    ours.audio_encoder.train()
    published.audio_model.train()
    expected, output = published(**inputs_of_theirs), ours(**given)
    close(output.audio_embedding, expected.audio_embeds)
    output.audio_embedding.sum().backward()
    expected.audio_embeds.sum().backward()
    norm = published.audio_model.audio_encoder.batch_norm
    close(ours.audio_encoder.mel_norm.running_mean, norm.running_mean)
    close(ours.audio_encoder.mel_norm.running_var, norm.running_var)
    assert_same_gradients(published, ours)
