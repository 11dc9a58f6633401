"""Moving scenes: mechanics, captions and sounds are checked against positions, pixels and waveforms."""

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from mmlearn.data.readers.sound import RATE
from mmlearn.data.synthetic.drawing import COLOURS, SHAPES, SIZES
from mmlearn.data.synthetic.layouts import HELD_OUT, SPLITS
from mmlearn.data.synthetic.motion import WALL, follow
from mmlearn.data.synthetic.scene_sound import PITCHES
from mmlearn.data.synthetic.scene_video import ORDERS, VideoScenes, plan, stage
from mmlearn.data.synthetic.scenes import Scenes

HELD_OUT_NAMES = {(list(COLOURS)[colour], list(SHAPES)[shape]) for colour, shape in HELD_OUT}


@cache
def some(split="train", count=40, size=64, **options):
    return VideoScenes(split, size=size, **options).__getitems__(range(count))


def radii(sample):
    return np.array([SIZES[item.size] for item in sample.objects])


def path(sample, times):
    """Where the objects are at these times, (times, 3, 2), in units of the canvas."""
    return sample.motion.part(np.array([sample.row])).at(np.asarray(times, float)[None])[0]


# Mechanics.


def run(position, velocity, radius=((1, 1),), seconds=100.0, side=20.0, events=4):
    parts = (np.array([part], float) for part in (position, velocity))
    return follow(*parts, np.array(radius, float), side, seconds, events)


def test_a_disc_meets_walls_when_it_should():
    told = run([[5, 5], [15, 15]], [[2, 0], [0, 0]], side=20.0)
    assert told.time[0].tolist() == [7, 16, 25, 34]  # 14 to the wall, and 18 from wall to wall
    assert (told.one[0].tolist(), told.other[0].tolist()) == ([0] * 4, [WALL] * 4)
    assert np.allclose(told.at(np.array([[0, 3, 7, 8.5, 16, 17]]))[0, :, 0, 0], [5, 11, 19, 16, 1, 3])


def test_equal_discs_head_on_exchange_their_velocities():
    told = run([[3, 10], [11, 10]], [[2, 0], [-1, 0]], events=1)
    assert told.time[0, 0] == 2  # 6 between their edges at 3 a second
    assert (told.one[0, 0], told.other[0, 0]) == (0, 1)
    assert told.velocity[0, 1].tolist() == [[-1, 0], [2, 0]]


def test_discs_off_centre_part_at_a_right_angle():
    """Of two equal discs, one at rest, as billiard balls do."""
    told = run([[3, 9], [10, 10]], [[2, 0], [0, 0]], events=1)
    one, other = told.velocity[0, 1]
    assert abs(one @ other) < 1e-12
    assert np.allclose(one + other, [2, 0])
    assert np.linalg.norm(told.position[0, 1, 0] - told.position[0, 1, 1]) == pytest.approx(2)


def test_nothing_happens_after_the_last_second():
    told = run([[5, 5], [15, 15]], [[2, 0], [0, 0]], seconds=16.0)
    assert told.time[0].tolist() == [7, np.inf, np.inf, np.inf]  # the wall at 16 is no longer in the clip
    assert np.allclose(told.at(np.array([[15.9]]))[0, 0, 0], [1.2, 5])


def test_energy_and_momentum_are_kept():
    for sample in some():
        velocity, mass = sample.motion.velocity[sample.row], radii(sample)[:, None] ** 2
        energy = (mass * velocity**2).sum((1, 2))
        assert np.allclose(energy, energy[0], rtol=1e-9)
        for number, event in enumerate(sample.events):
            change = mass * (velocity[number + 1] - velocity[number])
            assert abs(change).sum((0, 1)) > 1
            if len(event.objects) == 2:
                assert np.allclose(change.sum(0), 0, atol=1e-9)
            others = np.delete(change, event.objects, 0)
            assert (others == 0).all()


def test_objects_never_overlap_nor_leave_and_touch_at_events_exactly():
    for sample in some():
        at, radius = path(sample, np.linspace(0, 2, 801)), radii(sample)
        assert (at >= radius[:, None] - 1e-9).all()
        assert (at <= 64 - radius[:, None] + 1e-9).all()
        for i, j in ((0, 1), (0, 2), (1, 2)):
            assert np.linalg.norm(at[:, i] - at[:, j], axis=1).min() > radius[i] + radius[j] - 1e-9
        for event in sample.events:
            (now,) = path(sample, [event.time])
            if len(event.objects) == 2:
                one, other = event.objects
                assert np.linalg.norm(now[one] - now[other]) == pytest.approx(radius[one] + radius[other], abs=1e-9)
            else:
                (one,) = event.objects
                walls = np.concatenate([now[one] - radius[one], 64 - radius[one] - now[one]])
                assert abs(walls).min() < 1e-9


def test_every_turn_is_an_event():
    """Between events everything goes straight on, as seen in many small steps."""
    for sample in some()[:10]:
        at = path(sample, np.arange(0, 2, 0.005))
        turns = np.flatnonzero(abs(np.diff(at, 2, axis=0)).max((1, 2)) > 1e-6)  # steps next to a turn
        moments = [event.time / 0.005 for event in sample.events]
        assert {round(moment) for moment in moments} <= {int(t) + k for t in turns for k in (0, 1, 2)}
        assert all(any(-1 < moment - t - 1 < 1 for moment in moments) for t in turns)


# What a clip shows.


def test_a_clip_is_one_hit_told_by_its_caption():
    name = rf"({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
    orders = Counter()
    for sample in some(count=200, size=24):
        one, other = sample.objects[:2]
        hits = [event for event in sample.events if len(event.objects) == 2]
        assert [event.objects for event in hits] == [(0, 1)]
        assert sample.hit == hits[0]
        words = re.fullmatch(rf"the {name} hits the {name}", sample.caption).groups()
        assert words == (one.colour, one.shape, other.colour, other.shape)
        # What is hit lies still until then; what hits it comes; only then does the other go.
        before, after = path(sample, [0, hits[0].time]), path(sample, [2])
        assert (before[:, 1] == before[0, 1]).all()
        speed = np.linalg.norm(sample.motion.velocity[sample.row, 0], axis=1)
        assert speed[0] * hits[0].time > 5  # pixels, to be seen
        assert speed[1] == 0
        assert np.linalg.norm(after[0, 1] - before[0, 1]) > 0.5
        # The wall comes before or after, and the story says so.
        walls = [event.time < hits[0].time for event in sample.events if event.objects == (0,)]
        assert len(set(walls)) == 1
        assert ORDERS[sample.order] == ("wall first" if walls[0] else "wall last")
        story = ("the {0} hits a wall, then the {1}", "the {0} hits the {1}, then a wall")[sample.order]
        assert sample.story == story.format(one.name, other.name)
        orders[sample.order] += 1
        assert len({item.colour for item in sample.objects}) == len({item.shape for item in sample.objects}) == 3
    assert abs(orders[0] - 100) < 4 * 50**0.5


def test_neither_the_time_of_the_hit_nor_a_first_look_tells_the_order():
    """No threshold on either gets far beyond a guess; nor does the order choose who may hit whom."""
    index, radius = np.arange(2500), np.full((2500, 3), 7.0)
    motion, (order, moment, away) = stage("train", index, 0, radius, 2.0), plan("train", index, 0)
    hit = np.where((motion.one == 0) & (motion.other == 1) & np.isfinite(motion.time), motion.time, np.inf).min(1)
    first = np.linalg.norm(motion.position[:, 0, 0] - motion.position[:, 0, 1], axis=1)
    for told, planned in ((hit, 2 * moment), (first, away)):
        assert (abs(told - planned) < 1e-6).mean() > 0.97
        shares = [((told > cut) == (order == 0)).mean() for cut in np.quantile(told, np.linspace(0, 1, 41))]
        assert 0.45 < min(shares) <= max(shares) < 0.55
    assert abs(order.mean() - 0.5) < 0.04


def test_no_two_events_are_in_the_same_frame():
    for sample in some(count=200, size=24):
        times = [0, *(event.time for event in sample.events), 2]
        assert np.diff(times).min() >= 0.1
        assert [event.frame for event in sample.events] == [int(event.time * 10) for event in sample.events]
        assert len({event.frame for event in sample.events}) == len(sample.events) >= 2


def test_an_event_is_in_the_frame_that_shows_it_best():
    for sample in some(count=200, size=24):
        centres, radius = sample.centres * 64 / 24, torch.from_numpy(radii(sample))
        for event in sample.events:
            one = event.objects[0]
            if len(event.objects) == 2:
                gap = (centres[:, one] - centres[:, event.objects[1]]).norm(dim=1)
            else:
                near = centres[:, one] - radius[one], 64 - radius[one] - centres[:, one]
                near, now = torch.cat(near, 1), path(sample, [event.time])[0, one]
                wall = np.concatenate([now - radii(sample)[one], 64 - radii(sample)[one] - now]).argmin()
                gap = near[:, wall]
            around = gap[event.frame - 1 : event.frame + 2]
            assert around.argmin() == 1 or len(around) == 0


def test_pixels_are_where_the_centres_say():
    found = Counter()
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    for sample in some(count=80):
        for k, item in enumerate(sample.objects):
            if item.shape not in ("circle", "square", "diamond", "cross", "ring", "bar") or item.texture != "solid":
                continue
            colour = torch.tensor(COLOURS[item.colour])
            away = sample.centres[:, [other for other in range(3) if other != k]] - sample.centres[:, [k]]
            alone = away.norm(dim=-1).amin(1) > 20
            for frame, centre in zip(sample.video[alone], sample.centres[alone, k]):
                ground = frame.flatten(1).median(1).values
                toward = (colour - ground) / (colour - ground).square().sum()
                cover = ((frame - ground[:, None, None]) * toward[:, None, None]).sum(0)
                cover = torch.where(((x - centre[0]).abs() < 9) & ((y - centre[1]).abs() < 9), cover, 0)
                middle = torch.stack([(cover * x).sum(), (cover * y).sum()]) / cover.sum()
                assert (middle - centre).abs().max() < 0.5, (item, middle, centre)
                found[item.shape] += 1
    assert min(found.values()) > 30
    assert len(found) == 6


@pytest.mark.parametrize("size", [24, 32, 96])
def test_other_sizes_show_the_same_clip(size):
    for sample, known in zip(some(count=6, size=size), some()):
        assert sample.video.shape == (20, 3, size, size)
        assert 0 <= sample.video.min() <= sample.video.max() <= 1
        assert torch.allclose(sample.centres * 64 / size, known.centres, atol=1e-4)
        assert (sample.caption, sample.events, sample.objects) == (known.caption, known.events, known.objects)
        assert torch.equal(sample.waveform, known.waveform)
        assert torch.equal(sample.image, sample.video[sample.hit.frame])


def test_frames_a_second_change_how_often_one_looks_and_nothing_else():
    for sample, known in zip(some(count=6, size=24, fps=50), some(count=6, size=24)):
        assert sample.video.shape == (100, 3, 24, 24)
        assert torch.equal(sample.waveform, known.waveform)
        assert [event.time for event in sample.events] == [event.time for event in known.events]
        assert torch.allclose(sample.centres[2::5], known.centres, atol=1e-4)  # frames with the same middle
        assert torch.equal(sample.video[2::5], known.video)


@pytest.mark.parametrize("seconds", [1.0, 4.0])
def test_longer_clips_are_slower_not_fuller(seconds):
    samples = some(count=60, size=24, seconds=seconds)
    assert all(sample.video.shape[0] == 10 * seconds for sample in samples)
    assert all(len(sample.waveform) == seconds * RATE for sample in samples)
    known = some(count=200, size=24)
    mean = [np.mean([len(sample.events) for sample in group]) for group in (samples, known)]
    assert abs(mean[0] - mean[1]) < 0.7


# In step.


def test_each_collision_sounds_from_its_own_sample():
    for sample in some():
        for k, source in enumerate(sample.sources):
            expected = [event.sample for event in sample.events if k in event.objects]
            if not expected:
                assert not source.any()
                continue
            assert not source[: expected[0]].any()
            assert source[expected[0] : expected[0] + 3].any()
            # A new sound is where 10 ms are louder than the 10 ms before.
            for at in expected:
                before, after = source[at - 160 : at], source[at : at + 160]
                assert after.square().sum() > 5 * before.square().sum()
            energy = source.unfold(0, 160, 16).square().sum(1)
            louder = torch.nonzero(energy[10:] > 2 * energy[:-10] + 1e-7).flatten() * 16 + 160  # where the later begins
            assert all(min(abs(int(sample_) - at) for at in expected) <= 160 for sample_ in louder)


def test_the_spectrum_rises_at_the_pitch_of_each_object_that_collides():
    """In the mixture, from the tenth of a second before an event to that after it, and for no one else."""
    window = torch.hann_window(1600)
    turns = torch.tensor(list(PITCHES.values()))[:, None] * torch.arange(1600) / RATE
    waves, told = torch.exp(-2j * torch.pi * turns) * window, Counter()
    for sample in some(count=80):
        for event in sample.events:
            at = event.sample
            if at + 1600 > len(sample.waveform):
                continue
            before, after = ((waves @ part.to(waves.dtype)).abs() for part in
                             (sample.waveform[at - 1600 : at], sample.waveform[at : at + 1600]))  # fmt: skip
            for k, item in enumerate(sample.objects):
                if any(k in e.objects and 0 < event.time - e.time < 0.2 for e in sample.events):
                    continue  # it still sounds from before
                pitch = list(SHAPES).index(item.shape)
                rises = bool(after[pitch] > 1.5 * before[pitch]) and bool(after[pitch] > 2)
                struck = [PITCHES[sample.objects[j].shape] for j in event.objects]
                if k not in event.objects and any(
                    abs(h * f - PITCHES[item.shape]) < 30 for f in struck for h in (1, 2)
                ):
                    continue  # a harmonic of what is struck lies there
                told[rises] += 1
                assert rises == (k in event.objects), (sample.source, event, item)
    assert told[True] > 100
    assert told[False] > 100


def test_sources_add_up_and_stay_in_range():
    for sample in some(count=200, size=24):
        assert torch.equal(sample.waveform, sample.sources.sum(0))
        assert 0.05 < sample.waveform.abs().max() <= 1
        assert sample.sources[0].any()
        assert sample.sources[1].any()


# Splits.


def test_combinations_held_out_move_in_composition_alone():
    for split in SPLITS:
        for sample in some(split, 40, 24):
            held_out = [(item.colour, item.shape) in HELD_OUT_NAMES for item in sample.objects]
            assert any(held_out[:2]) if split == "composition" else not any(held_out)


def test_no_image_of_one_split_can_be_in_another():
    grounds = {s: {int(x.attributes.ground[x.row]) for x in some(s, 40, 24)} for s in SPLITS}
    assert sum(map(len, grounds.values())) == len(set().union(*grounds.values()))
    frames = [frame.numpy().tobytes() for split in SPLITS for x in some(split, 40, 24) for frame in x.video[::6]]
    assert len(set(frames)) == len(frames)
    moves = [tuple(event.time for event in x.events) for split in SPLITS for x in some(split, 40, 24)]
    assert len(set(moves)) == len(moves)


def test_its_objects_are_those_of_a_scene_of_three():
    for sample, scene in zip(some(), Scenes(size=24, objects=3).__getitems__(range(40))):
        assert sorted(map(str, sample.objects)) == sorted(
            f"MovingObject(size={x.size!r}, texture={x.texture!r}, colour={x.colour!r}, shape={x.shape!r})"
            for x in scene.objects
        )
        assert [f"{item.colour} {item.shape}" for item in sample.objects[:2]] == [
            f"{scene.objects[k].colour} {scene.objects[k].shape}" for k in (scene.relation[0], scene.relation[2])
        ]
