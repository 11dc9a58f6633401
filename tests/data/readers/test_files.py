"""What is to be known of sounds is remembered by the file, told once, and said in one line."""

from mmlearn.data.readers.files import Files, in_short


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
    notes += ["y.ogg: its end is not marked, so it may be cut off; silent.", "z: clipped, 0.3 of its samples are at …."]
    assert in_short(notes) == (
        "1003 sounds (1000 × 8,000 Hz resampled to 16,000, 2 × clipped, 1 × 2 channels mixed into one, "
        "1 × only its first 3 s are taken, 1 × its end is not marked, 1 × silent), "
        "such as: 0.wav: 8,000 Hz resampled to 16,000."
    )
    expected = "1 sounds (1 × clipped), such as: C: silent/missing.wav: "
    assert in_short(["C: silent/missing.wav: clipped, 0.5 of its samples are at full scale."]).startswith(expected)
