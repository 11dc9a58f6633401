"""MP3 that does not tell its length, and what comes after its end.

Most MP3 begin with a frame that holds no sound but their count of frames, marked "Xing" or "Info". Without one
libsndfile guesses a length from the sizes of the file and of the first frame, and reads no further: of some files it
reads a third. Whether a file without a count is cut off cannot be known.
"""

import io

DELAY = 529  # samples before the sound, which the decoder leaves out by itself where there is a count
FRAME = 1152  # samples of the longest frame
ROOM = 4096  # bytes, more than two frames have
LARGEST = 64  # times the smallest frame is more than the largest


def tells_length(stream: io.RawIOBase | io.BytesIO) -> bool:
    """Whether the first frame, behind tags of ID3v2, holds a count. ``stream`` stays where it is."""
    frame = behind_tags(stream)
    return b"Xing" in frame or b"Info" in frame


def behind_tags(stream: io.RawIOBase | io.BytesIO) -> bytes:
    """How a file begins behind tags of ID3v2. ``stream`` stays where it is."""
    here, place = stream.tell(), stream.seek(0)
    while (head := stream.read(10)).startswith(b"ID3"):
        place += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0)))
        stream.seek(place)
    frame = head + stream.read(ROOM)
    stream.seek(here)
    return frame


def goes_on(stream: io.RawIOBase | io.BytesIO, end: int) -> bool:
    """Whether another MP3 follows the one that ends here: a tag of ID3v2, or the head of a frame of layer III."""
    stream.seek(end)
    rest = stream.read(ROOM)
    return len(rest) == ROOM and (rest.startswith(b"ID3") or (rest[0] == 0xFF and rest[1] & 0xE6 == 0xE2))


class Endless:
    """A file that seems to be so long that any guess of its length is too long, and so is read to its end."""

    def __init__(self, stream: io.RawIOBase | io.BytesIO):
        self.stream, self.tell = stream, stream.tell
        self.far = LARGEST * stream.seek(0, io.SEEK_END)
        stream.seek(0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Where that is; the end is far."""
        if whence == io.SEEK_END:
            return self.stream.seek(self.far + 128 + offset)
        return self.stream.seek(offset, whence)

    def read(self, count: int) -> bytes:
        """The next bytes. A frame that is cut off is zeros, which sound as silence; the decoder would fail at it."""
        content = self.stream.read(count)
        if len(content) == count:
            return content
        return b"" if count <= 4 else bytes(count)  # no frame begins, or one that began does not end
