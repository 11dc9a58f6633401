"""Systems that hear, by name: fitted to their sounds, saved and read again, and measured."""

import json
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from mmlearn.training.feeding import FEEDS, HEARS
from mmlearn.training.hearing import SOUND_MEASURES, Heard, longest, sound_options
from mmlearn.training.measure import MEASURES
from testing_tools import close

from mmlearn.data import load
from mmlearn.data.batches import fetch
from mmlearn.data.made.scene_sound import SoundScenes
from mmlearn.data.speech_features import mfcc
from mmlearn.models import system as find_system
from mmlearn.models.speech.hubert import HuBERTConfig
from mmlearn.objectives.clusters import nearest
from mmlearn.training import fit
from mmlearn.training.checkpoint import save_model
from mmlearn.training.runs import load_run, new_run, save_run

WORDS = ("low", "middle", "high")


class Tones(torch.utils.data.Dataset):
    """Each word has its tone; what is said, how long and how loud are functions of the number."""

    words = list(WORDS)

    def __init__(self, count=24, words=WORDS):
        self.count, self.said = count, words

    def __len__(self):
        return self.count

    def caption(self, index):
        return self.said[index % len(self.said)]

    def __getitem__(self, index):
        time = torch.arange(8000 + 400 * (index % 5)) / 16_000
        tone = torch.sin(2 * torch.pi * 300 * 2.5 ** (index % 3) * time) * (0.2 + 0.02 * (index % 7))
        noise = 0.01 * torch.randn(len(time), generator=torch.Generator().manual_seed(index))
        return SimpleNamespace(waveform=tone + noise, caption=self.caption(index), source=f"tone {index}")


@pytest.fixture(scope="module")
def made():
    return {name: new_run(name, Tones(), vocab_size=270) for name in HEARS}


@pytest.fixture(scope="module")
def folders(made, tmp_path_factory):
    found = {}
    for name, run in made.items():
        found[name] = tmp_path_factory.mktemp(name)
        save_run(run, found[name], training={})
        save_model(run.system, found[name] / "model.safetensors")
    return found


def test_what_hears_is_fed_and_measured():
    assert set(HEARS) == {"ast", "clap", "decoar2", "hubert", "wav2vec2"}
    assert {objective for name in HEARS for objective in FEEDS[name].always} == set(SOUND_MEASURES)
    assert set(SOUND_MEASURES) <= set(MEASURES)


@pytest.mark.parametrize("name", HEARS)
def test_a_step_trains_all_of_it(made, name):
    """Batches hold what the loss asks for, and no parameter is left without a gradient."""
    run = made[name]
    losses = run.system.train().loss(run.collate(mark_repeats=True)(fetch(Tones(), range(9))))
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert set(FEEDS[name].always) <= set(losses)
    assert [key for key, value in run.system.named_parameters() if value.grad is None] == []
    run.system.zero_grad()


@pytest.mark.parametrize("name", HEARS)
def test_there_and_back(made, folders, name):
    """Configuration, weights, statistics, words and clusters: the same batch has the same loss."""
    run, back = made[name], load_run(folders[name])
    assert (back.name, back.system.config, back.heard) == (name, run.system.config, run.heard)
    samples = fetch(Tones(), range(6))
    batch, again = run.collate()(samples), back.collate()(samples)
    assert batch.keys() == again.keys()
    assert all(torch.equal(batch[key], again[key]) for key in batch)
    close(run.system.eval().loss(batch), back.system.loss(again), tolerance=0)


def test_log_mels_are_normalised(made):
    for name in ("ast", "clap", "decoar2"):
        batch = made[name].collate()(fetch(Tones(), range(24)))
        real = batch["mel"].mT[batch["mel_mask"]]
        close(torch.stack([real.mean(), real.std()]), torch.tensor([0.0, 1.0]), tolerance=0.02)


def test_waveforms_are_standardised(made):
    for name in ("hubert", "wav2vec2"):
        batch = made[name].collate()(fetch(Tones(), range(5)))
        for waveform, mask in zip(batch["waveform"], batch["waveform_mask"]):
            close(waveform[mask].mean(), torch.tensor(0.0), tolerance=1e-4)
            close(waveform[mask].std(correction=0), torch.tensor(1.0), tolerance=1e-3)
            assert not waveform[~mask].any()


def test_hubert_numbers_each_frame(made):
    run, samples = made["hubert"], fetch(Tones(), range(5))
    batch = run.collate()(samples)
    real = run.system.speech.frame_mask(batch["waveform"], batch["waveform_mask"])
    assert ((batch["cluster"] >= 0) == real).all()
    centroids = torch.tensor(run.heard.centroids)
    assert centroids.shape == (run.system.config.clusters, 39)
    for row, sample, mask in zip(batch["cluster"], samples, real):
        assert torch.equal(row[mask], nearest(mfcc(sample.waveform), centroids))
    assert len(batch["cluster"][real].unique()) > 10


def test_ast_tells_the_words_of_the_data(made):
    run = made["ast"]
    assert run.heard.words == WORDS
    assert run.system.config.num_classes == 3
    assert run.collate()(fetch(Tones(), range(4)))["label"].tolist() == [0, 1, 2, 0]
    with pytest.raises(ValueError, match="tone 0 has the caption 'other', which is none of the words"):
        run.collate()(fetch(Tones(words=("other",)), range(1)))
    unlike = SoundScenes("train", size=24, seconds=0.7, length=24)
    with pytest.raises(ValueError, match="ast tells captions apart, and these are 24 different ones of 24"):
        new_run("ast", unlike, vocab_size=270)


def test_words_that_do_not_fit_are_told(folders, tmp_path):
    for file in folders["ast"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["heard"]["words"] = ["low", "low", "high"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="2 words do not fit 3 classes"):
        load_run(tmp_path)


def test_clap_reads_the_captions(made):
    run = made["clap"]
    config = run.system.config
    assert (config.vocab_size, config.max_length) == (run.tokenizer.vocab_size, run.tokenizer.max_length)
    batch = run.collate(mark_repeats=True)(fetch(Tones(), range(6)))
    assert torch.equal(batch["tokens"], run.tokenizer([Tones().caption(i) for i in range(6)])[0])
    assert batch["caption_id"][:3].tolist() == batch["caption_id"][3:].tolist()


def test_how_long_a_sound_may_be():
    for name, preset, seconds in (
        ("ast", "tiny", 2.0), ("ast", "base", 10.24), ("clap", "tiny", 2.56), ("wav2vec2", "tiny", None),
        ("hubert", "base", None), ("decoar2", "tiny", None),
    ):  # fmt: skip
        config = find_system(name)[1].preset(preset)
        assert longest(config) == (None if seconds is None else pytest.approx(seconds))
        assert sound_options(name, config) == {"seconds": longest(config), "speech": True}
    assert sound_options("clip", find_system("clip")[1].tiny()) == {}


def test_longer_sounds_are_cut(made):
    """Also where the data set cannot do it."""
    long = [SimpleNamespace(waveform=torch.randn(60_000), caption="low", source="long")]
    for name, samples in (("ast", 32_000), ("clap", 40_960), ("decoar2", 60_000), ("wav2vec2", 60_000)):
        assert made[name].collate()(long)["waveform"].shape == (1, samples)


@pytest.mark.parametrize("name", HEARS)
def test_pictures_alone_are_told(name):
    with pytest.raises(ValueError, match=f"{name} reads sounds, and these samples have none: use --data scenes-sound"):
        new_run(name, load("emoji", size=16), vocab_size=270)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (dict(mean=float("nan")), "mean and std of log-mels are finite, and std above 0, not nan and 1.0"),
        (dict(std=0.0), "std above 0, not 0.0 and 0.0"),
        (dict(centroids=[[1.0, 2.0], [1.0]]), "centroids are of different lengths"),
        (dict(centroids=[["a"]]), "could not convert string to float"),
        (dict(centroids=[]), "centroids are 50 rows of 39 finite numbers"),
        (dict(centroids=[[float("nan")] * 39] * 50), "centroids are 50 rows of 39 finite numbers"),
    ],
)
def test_damaged_settings_are_told(folders, changes, says, tmp_path):
    with pytest.raises(ValueError, match=says):
        Heard.from_dict(asdict(Heard()) | changes).check("hubert", HuBERTConfig.tiny())
    for file in folders["hubert"].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["heard"] |= changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"was not written by mmlearn train, or is damaged: .*{says}"):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("clap", dict(objectives=["itc"]), "clap learns atc, and there is nothing to choose"),
        ("wav2vec2", dict(queue_size=4), "wav2vec2 has no queue"),
        ("hubert", dict(preset="xl"), "xl"),
    ],
)
def test_runs_that_cannot_be(name, options, says):
    with pytest.raises(ValueError, match=says):
        new_run(name, Tones(), vocab_size=270, **options)


@pytest.mark.parametrize("name", HEARS)
def test_augmentation_is_for_log_mels(made, name):
    run, samples = made[name], fetch(Tones(), range(4))
    if name not in ("ast", "clap"):
        with pytest.raises(ValueError, match=f"{name} re(ads waveforms|builds log-mels), and augmentation .*: leave"):
            run.collate(augmented=True)
    else:
        plain, hidden = run.collate()(samples)["mel"], run.collate(augmented=True)(samples)["mel"]
        assert 0.05 < (plain != hidden).float().mean() < 0.9


# Measures: what an untrained system gets is near chance, and what a trained one gets is not.


def rows_of(run, data, objective):
    return SOUND_MEASURES[objective](run, fetch(data, range(len(data))))


def train(name, data, steps, **options):
    run = new_run(name, data, vocab_size=270)
    collate = run.collate(mark_repeats=True)
    fit(run.system, data, collate, steps=steps, batch_size=12, warmup=5, progress=False, **options)
    return run


def test_words_are_told_after_training():
    (row,) = rows_of(train("ast", Tones(), 15, learning_rate=2e-3), Tones(18), "classification").values()
    assert row["chance"] == pytest.approx(1 / 3)
    assert row["obtained"] > 0.9


def test_captions_are_found_after_training():
    rows = rows_of(train("clap", Tones(), 15, optimizer="muon", learning_rate=4e-3), Tones(18), "atc")
    assert rows["sound to text R@1 of 3"]["obtained"] > 0.9
    assert rows["sound to text R@1 of 3"]["chance"] == pytest.approx(1 / 3)
    assert rows["text to sound R@1 of 18"]["obtained"] == 1
    assert rows["text to sound R@1 of 18"]["chance"] == pytest.approx(1 / 3)  # six of eighteen fit
    with pytest.raises(ValueError, match="Retrieval needs at least two different captions, and these sounds have one"):
        rows_of(new_run("clap", Tones(), vocab_size=270), Tones(6, words=("low",)), "atc")


def test_no_caption_of_a_sound_is_wrong(made):
    """As in Clotho, where a sound has five captions."""
    told = [
        SimpleNamespace(waveform=Tones()[i].waveform, caption=f"{Tones().caption(i)} {one}")
        for i in (0, 1)
        for one in "ab"
    ]
    rows = SOUND_MEASURES["atc"](made["clap"], told)
    assert rows["sound to text R@1 of 4"]["chance"] == rows["text to sound R@1 of 2"]["chance"] == 0.5


def test_what_is_hidden_is_rebuilt_after_training():
    before = rows_of(new_run("decoar2", Tones(), vocab_size=270), Tones(18), "reconstruction")
    after = rows_of(train("decoar2", Tones(), 120, optimizer="muon", learning_rate=4e-3), Tones(18), "reconstruction")
    name, codes = after
    assert before[name]["obtained"] > 0.9 * before[name]["chance"]
    assert after[name]["obtained"] < 0.6 * after[name]["chance"]
    assert 1 <= after[codes]["obtained"] <= 32
    assert after[codes]["chance"] is None


def test_numbers_are_guessed_after_training():
    (row,) = rows_of(train("hubert", Tones(), 25, optimizer="muon", learning_rate=4e-3), Tones(18), "cluster").values()
    assert row["obtained"] > 2 * row["chance"]


def test_frames_are_found_among_others(monkeypatch):
    """Of a model that hears what it should guess all are found; of one that is untrained hardly more than by chance."""
    run = new_run("wav2vec2", Tones(), vocab_size=270)
    found = rows_of(run, Tones(18), "contrastive")["hidden frames found"]
    assert 1 / 21 <= found["chance"] < 0.4
    assert found["obtained"] < 0.4 + found["chance"]
    forward = run.system.forward
    knowing = lambda *inputs: (lambda output: output._replace(context=output.target))(forward(*inputs))  # noqa: E731
    monkeypatch.setattr(run.system, "forward", knowing)
    rows = rows_of(run, Tones(18), "contrastive")
    assert rows["hidden frames found"] == {"obtained": 1.0, "chance": found["chance"]}
    assert 1 <= rows["perplexity of 32 codes"]["obtained"] <= 32


@pytest.mark.parametrize("name", ["decoar2", "hubert", "wav2vec2"])
def test_sounds_that_are_too_short_are_told(made, name):
    short = [SimpleNamespace(waveform=torch.randn(900), caption="low", source="short")]
    with pytest.raises(ValueError, match="These sounds are too short: none has more frames than one hidden span"):
        SOUND_MEASURES[FEEDS[name].always[0]](made[name], short)


def test_too_few_frames_for_the_clusters():
    with pytest.raises(ValueError, match="hubert numbers frames by 50 clusters, and these sounds have 24 frames"):
        new_run("hubert", Tones(1), vocab_size=270)


def test_a_run_goes_on_with_the_same_sounds_only(made):
    heard = made["hubert"].heard
    assert heard.like(Heard.from_dict(json.loads(json.dumps(asdict(heard)))))
    other = new_run("hubert", Tones(12, words=WORDS[::-1]), vocab_size=270, seed=1).heard
    assert not heard.like(other)
    assert not Heard(words=("a",)).like(Heard(words=("b",)))
    assert not Heard(mean=0.0).like(Heard(mean=0.1))


def test_pictures_beside_sounds_are_left_alone(made):
    batch = made["clap"].collate()(fetch(SoundScenes("train", size=24, seconds=0.7, length=4), range(2)))
    assert "image" not in batch


def test_scenes_that_sound_can_be_learned_from():
    run = new_run("clap", SoundScenes("train", size=24, seconds=0.7, length=40), vocab_size=300)
    batch = run.collate()(fetch(SoundScenes("train", size=24, seconds=0.7, length=40), range(4)))
    assert run.system.loss(batch)["atc"].isfinite()
