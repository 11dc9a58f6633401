"""Whisper equals Transformers' WhisperForConditionalGeneration: states, logits, loss, gradients, and what it writes."""

import pytest
import torch
from testing_tools import close, refused
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from mmlearn import load_pretrained
from mmlearn.data.mel import whisper_log_mel
from mmlearn.generation.constrained import timestamped
from mmlearn.models.speech.whisper_prompt import LANGUAGES

CASES = {
    "odd": dict(d_model=24, layers=(2, 2), heads=3, mlp=50, mels=7, positions=11, length=9, batch=3),
    "relu": dict(d_model=40, layers=(3, 1), heads=5, mlp=33, mels=12, positions=20, length=12, batch=4)
    | dict(activation_function="relu"),
    "batch of one": dict(d_model=16, layers=(1, 2), heads=1, mlp=24, mels=5, positions=6, length=7, batch=1),
}
TOKENS = dict(vocab_size=99, pad_token_id=2, bos_token_id=2, eos_token_id=2, decoder_start_token_id=3)
TOKENS |= dict(suppress_tokens=None, begin_suppress_tokens=None)


def whisper(case):
    """A model, log-mels, and texts of other lengths that begin with the start token."""
    case = dict(CASES[case])
    batch, length, layers, heads, mlp = (case.pop(name) for name in ("batch", "length", "layers", "heads", "mlp"))
    mels, positions = case.pop("mels"), case.pop("positions")
    sizes = dict(num_mel_bins=mels, max_source_positions=positions, max_target_positions=length)
    for stack, depth in zip(("encoder", "decoder"), layers):
        sizes |= {f"{stack}_layers": depth, f"{stack}_attention_heads": heads, f"{stack}_ffn_dim": mlp}
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(WhisperConfig(**case, **sizes, **TOKENS))
    tokens = torch.randint(4, 99, (batch, length))
    tokens[:, 0] = 3
    mask = torch.arange(length) < length - 2 * (torch.arange(batch)[:, None] % 3)
    return model, torch.randn(batch, mels, 2 * positions), tokens, mask


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_hearing_and_writing(case, padded, twins, assert_same_gradients):
    model, mel, tokens, mask = whisper(case)
    published, ours = twins(model)
    mask = mask if padded else torch.ones_like(mask)
    label = tokens.masked_fill(~mask, -100)[:, 1:]
    expected = published(input_features=mel, labels=label)
    output = ours(mel, tokens, mask)
    close(output.frames, expected.encoder_last_hidden_state)
    close(output.token_logits[:, :-1][mask[:, 1:]], expected.logits[mask[:, 1:]])
    loss = ours.loss(dict(mel=mel, tokens=tokens, mask=mask) if padded else dict(mel=mel, tokens=tokens))
    close(loss["transcription"], expected.loss)
    assert_same_gradients(published, ours, loss["transcription"], expected.loss)


@pytest.mark.parametrize("case", CASES)
def test_greedy_tokens_with_the_cache(case, twins):
    """Behind the prompts that ours makes, theirs writes the same."""
    model, mel, *_ = whisper(case)
    model.model.decoder.embed_positions.weight.data.normal_()  # else each text is one token again and again
    published, ours = twins(model)
    prompt = ours.prompts(ours.encode_audio(mel), None, "transcribe", times=False)
    length = ours.config.max_length - prompt.shape[1]
    written = ours.generate(mel, max_length=length)
    plain = super(type(published).__mro__[1], published).generate  # without what guides real prompts
    expected = plain(input_features=mel, decoder_input_ids=prompt, do_sample=False, max_new_tokens=length)
    assert torch.equal(written, expected[:, prompt.shape[1] :][:, : written.shape[1]])
    assert len(written.unique()) > 1


def test_vocabularies_tell_their_languages(twins):
    sizes = dict(d_model=8, encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8)
    sizes |= dict(encoder_layers=1, decoder_layers=1, max_target_positions=8)
    for vocab_size, first, count in ((51_864, 50_258, 99), (51_865, 50_259, 99), (51_866, 50_259, 100)):
        _, ours = twins(WhisperForConditionalGeneration(WhisperConfig(vocab_size=vocab_size, **sizes)))
        special = ours.config.special
        assert special.languages == tuple(LANGUAGES)[:count]
        assert special.first == first
        assert special.multilingual == (vocab_size > 51_864)
        no_times = first + count + 5
        if special.multilingual:
            assert special.prompt("fr") == (special.prompt("French")) == (first + 6, first + count + 1, no_times)
            assert special.prompt("cy", "translate", times=True) == (first + 38, first + count)
        else:
            assert special.prompt(None) == (no_times,)
        assert special.first_time == no_times + 1
        assert vocab_size - special.first_time == 1501


@pytest.mark.parametrize("mels", [80, 128])
@pytest.mark.parametrize("samples", [1000, 16_000, 16_123, 480_000])
def test_the_log_mel(samples, mels):
    """Of a chord, of noise, and of silence."""
    t = torch.arange(samples) / 16_000
    generator = torch.Generator().manual_seed(0)
    chord = sum((6.28 * hertz * t).sin() for hertz in (220, 1300, 5000)) / 4
    clips = torch.stack([chord, 0.1 * torch.randn(samples, generator=generator), torch.zeros(samples)])
    theirs = WhisperFeatureExtractor(feature_size=mels)([clip.numpy() for clip in clips], sampling_rate=16_000)
    close(
        whisper_log_mel(clips, mels, 3000), torch.tensor(theirs["input_features"]), 3e-5
    )  # logarithms of sums of squares


@pytest.mark.parametrize("seed", range(5))
def test_the_grammar_of_times(seed):
    """Where all scores are alike a word is likelier than each time, so that their rule of sums says nothing."""

    class Settings:
        no_timestamps_token_id, eos_token_id, bos_token_id, max_initial_timestamp_index = 29, 20, 20, 3
        _detect_timestamp_from_logprob = False

    theirs = WhisperTimeStampLogitsProcessor(Settings(), begin_index=2)
    ours = timestamped(range(20), range(30, 40), 20, first_within=3)
    generator = torch.Generator().manual_seed(seed)
    written = []
    for _ in range(12):
        scores = theirs(torch.tensor([[21, 29, *written]]), torch.zeros(1, 40))[0]
        expected = [token for token in (scores > -torch.inf).nonzero()[:, 0].tolist() if not 20 < token < 30]
        assert sorted(ours(tuple(written))) == expected, written
        expected = [token for token in expected if token != 20]
        times = [token for token in expected if token >= 30]
        drawn = times if times and torch.rand((), generator=generator) < 0.4 else expected
        if not drawn:
            break
        written.append(drawn[int(torch.randint(len(drawn), (), generator=generator))])


def test_a_grammar_needs_words_and_times():
    for text, times in ((range(5), range(4, 8)), ([], range(5, 8)), (range(5), range(5, 5)), (range(5), range(8, 11))):
        refused("A token is of a text, a time or the end token", timestamped, text, times, 9 if 9 in times else 7)


def test_a_folder_of_weights_loads_in_float32(tmp_path):
    model, mel, tokens, _ = whisper("odd")
    model.eval().half().save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path)
    assert {parameter.dtype for parameter in ours.parameters()} == {torch.float32}
    close(ours(mel, tokens).token_logits, model.float()(input_features=mel, decoder_input_ids=tokens).logits)
