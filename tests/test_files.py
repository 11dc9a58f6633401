"""Files are there whole or not at all."""

import pytest

from mmlearn.files import remove, removed_on_failure, written_whole


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with written_whole(path) as unfinished:
        unfinished.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("stop", [OSError("no space left on device"), KeyboardInterrupt()])
def test_what_fails_leaves_what_was_there(tmp_path, stop):
    path = tmp_path / "a.json"
    path.write_text("before")

    def write():
        with written_whole(path) as unfinished:
            unfinished.write_text("half")
            raise stop

    with pytest.raises(type(stop)):
        write()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_written_is_told(tmp_path):
    with pytest.raises(FileNotFoundError), written_whole(tmp_path / "a.json"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_is_removed_with_what_is_in_it(tmp_path):
    folder = tmp_path / "step"

    def write():
        with removed_on_failure(folder):
            folder.mkdir()
            (folder / "model").write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write()
    assert not folder.exists()
    remove(folder)  # is no error
