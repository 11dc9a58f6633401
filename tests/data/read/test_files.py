"""What is to be known of sounds is remembered by the file, told once, and said in one line."""

from mmlearn.data.read.files import Files, in_short
from mmlearn.data.read.sound import _Report


def test_a_file_has_one_note_and_each_is_new_once():
    data = Files()
    assert data.notes == data.new_notes() == []
    data.note(["a: b.wav: silent.", "c.wav: 8,000 Hz resampled to 16,000."])
    data.note(["a: b.wav: silent."])
    assert data.notes == data.new_notes() == ["a: b.wav: silent.", "c.wav: 8,000 Hz resampled to 16,000."]
    data.note(["a: b.wav: silent.", "c.wav: 8,000 Hz resampled to 16,000; silent."])
    assert data.new_notes() == ["c.wav: 8,000 Hz resampled to 16,000; silent."]
    data.note(["a: d.wav: silent."])
    assert len(data.notes) == 3
    assert Files().notes == []


def test_many_are_said_in_one_line():
    notes = [f"{i}.wav: 8,000 Hz resampled to 16,000." for i in range(1000)]
    notes += [
        "x: 2 channels mixed into one; only its first 3 s are taken; clipped, 0.5 of its samples are at full scale."
    ]
    notes += ["y.ogg: its end is not marked, so it may be cut off; silent.", "z.ogg: its beginning is missing."]
    assert in_short(notes) == (
        "1003 sounds (1 mixed into one channel, 1000 resampled, 1 cut, 1 silent, 1 clipped, 1 incomplete, "
        "1 perhaps incomplete), such as: 0.wav: 8,000 Hz resampled to 16,000."
    )
    assert in_short(["silent/missing.wav: clipped, 0.5 of its samples are at full scale."]).startswith(
        "1 sounds (1 clipped), such as: silent/missing.wav: "
    )


def test_a_note_has_its_file_before_the_last_colon():
    report = _Report("C: sounds/a: b.wav", ["its last 3 samples are missing"], samples=100, clipped=50)
    assert report.line().rpartition(": ")[0] == "C: sounds/a: b.wav"
