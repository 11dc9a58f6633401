"""Files are there whole or not at all."""

import errno
import os
import re
from contextlib import closing
from pathlib import Path

import pytest
from testing_tools import refused

from mmlearn.files import ProgressStream, open_unlinked, refuse_links, remove, removed_on_failure, written_whole


def test_what_is_written_takes_the_position_of_what_was_there(tmp_path):
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

    refused("stop", write)
    assert not folder.exists()
    remove(folder)  # is no error


def test_what_was_left_by_another_is_not_taken(tmp_path, monkeypatch):
    monkeypatch.setattr("os.getpid", lambda: 7)
    (tmp_path / ".writing-7-a.json").write_text("of a process that was killed")

    def write():
        with written_whole(tmp_path / "a.json"):
            pass

    with pytest.raises(FileNotFoundError):
        write()
    assert not (tmp_path / "a.json").exists()


def test_each_process_has_its_own(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    with written_whole(path) as one:
        monkeypatch.setattr("os.getpid", lambda: 7)
        with written_whole(path) as other:
            one.write_text("one")
            other.write_text("other")
    assert path.read_text() == "one"  # which ended last
    assert list(tmp_path.iterdir()) == [path]


def to_a_file(link):
    link.with_name("a.json").write_text("before")
    link.symlink_to(link.with_name("a.json"))


LINKS = [to_a_file, lambda path: path.symlink_to("nowhere"), Path.mkdir]


@pytest.mark.parametrize(
    ("write", "make"),
    [
        *((written_whole, make) for make in (*LINKS, os.mkfifo)),
        *((lambda path: open_unlinked(path, "a"), make) for make in LINKS),
    ],
)
def test_nothing_is_written_through_a_link_or_into_what_is_no_file(tmp_path, make, write):
    path = tmp_path / "link.json"
    make(path)
    before = sorted((one, one.lstat().st_mtime_ns) for one in tmp_path.iterdir())

    def attempt():
        with write(path):
            pass

    with pytest.raises(OSError, match=r"link|directory"):
        attempt()
    assert sorted((one, one.lstat().st_mtime_ns) for one in tmp_path.iterdir()) == before


def test_devices_stay_what_they_are():
    with written_whole(Path("/dev/null")) as unfinished:
        unfinished.write_text("nothing")
    assert not Path("/dev/null").is_file()


def test_links_in_a_folder_are_found_and_the_folder_may_be_one(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link"
    (folder / "a" / "b").mkdir(parents=True)
    link.symlink_to(folder)
    refuse_links(link)
    refuse_links(link, [link / "a" / "new"])
    refuse_links(tmp_path / "none")
    (folder / "a" / "b" / "c").symlink_to(tmp_path)
    refused("c is a link", refuse_links, link)
    refused("c is a link", refuse_links, link, [link / "a" / "b" / "c" / "d" / "e"])
    refuse_links(link, [link / "a" / "b" / "d"])


def test_a_full_disk_says_where(tmp_path):
    def write():
        with written_whole(tmp_path / "a.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        write()


def test_progress_that_cannot_be_shown_stops_nothing():
    with open("/dev/full", "w") as full, closing(ProgressStream(full)) as stream:
        for _ in range(3):
            print("x" * 10_000, file=stream, flush=True)
        assert not stream.isatty()


def test_only_a_link_is_removed(tmp_path):
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    (folder / "kept").touch()
    link.symlink_to(folder)
    remove(link)
    assert not link.is_symlink()
    assert (folder / "kept").exists()


def test_what_cannot_be_removed_stays(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError

    monkeypatch.setattr(Path, "unlink", refuse)
    (tmp_path / "a").touch()
    remove(tmp_path / "a")
    assert (tmp_path / "a").exists()
