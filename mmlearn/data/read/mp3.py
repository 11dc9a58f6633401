"""MP3 that does not tell its length, and what comes after its end.

Most MP3 begin with a frame that holds no sound but their count of frames ("Xing" or "Info"). Without one libsndfile
guesses a length as if all frames were of the first one's size, and reads no further: of some it reads a third. Whether
such a file is cut off cannot be known.
"""

import io
from typing import Any

LAYER_3 = 1  # bits of a head
MPEG_1, MPEG_2, MPEG_2_5 = 3, 2, 0
FRAME = 1152  # samples of the longest frame
SMALLEST = 24  # bytes of a frame
ROOM = 4096  # bytes, more than two frames have
_RATES = {MPEG_1: (44_100, 48_000, 32_000), MPEG_2: (22_050, 24_000, 16_000), MPEG_2_5: (11_025, 12_000, 8_000)}
_KBPS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}  # by whether it is MPEG 1


def counted(stream: io.RawIOBase | io.BytesIO) -> io.RawIOBase | None:
    """The stream behind a frame that tells a length beyond any of its size, so that it is read to its end.

    ``None`` where it tells its length itself, or is no MP3. Leaves ``stream`` at its start.
    """
    start, frame = _first_frame(stream)
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    if not frame or _tells_count(frame):
        return None
    return _Joined(_counting_frame(frame, min(size // SMALLEST + 1, 2**31 - 1)), stream, start)


def goes_on(stream: io.RawIOBase | io.BytesIO, end: int) -> bool:
    """Whether another MP3 follows the one that ends here."""
    stream.seek(end)
    rest = stream.read(ROOM)
    return len(rest) == ROOM and (rest.startswith(b"ID3") or _length(rest) > 0)


def _first_frame(stream: io.RawIOBase | io.BytesIO) -> tuple[int, bytes]:
    """Where the first frame is, behind tags of ID3v2, and what begins with it; nothing where there is none."""
    place, content = 0, b"ID3"
    while content.startswith(b"ID3"):
        stream.seek(place)
        content = stream.read(ROOM)
        if content.startswith(b"ID3"):
            place += 10 + sum((byte & 0x7F) << shift for byte, shift in zip(content[6:10], (21, 14, 7, 0)))
    if not place and not _length(content):
        return 0, b""
    first = content.find(b"\xff")
    while first >= 0 and not _begins(content[first:]):
        first = content.find(b"\xff", first + 1)
    return (place + first, content[first:]) if first >= 0 else (0, b"")


def _length(head: bytes) -> int:
    """Bytes of the frame of layer III that begins with this head; 0 where none does."""
    if len(head) < 4:
        return 0
    version, layer, bitrate, rate = head[1] >> 3 & 3, head[1] >> 1 & 3, head[2] >> 4, head[2] >> 2 & 3
    if head[0] != 0xFF or head[1] < 0xE0 or version not in _RATES or layer != LAYER_3 or rate == 3:
        return 0
    return _bytes(version, bitrate, rate) + (head[2] >> 1 & 1) if 0 < bitrate < 15 else 0


def _bytes(version: int, bitrate: int, rate: int) -> int:
    samples = FRAME if version == MPEG_1 else FRAME // 2
    return samples // 8 * 1000 * _KBPS[version == MPEG_1][bitrate] // _RATES[version][rate]


def _begins(content: bytes) -> bool:
    """Whether a frame begins here, and another of its kind follows or the sound ends."""
    length = _length(content)
    if not length or len(content) <= length:
        return length > 0
    after = content[length:]
    return _length(after) > 0 and (after[1], after[2] & 0x0C) == (content[1], content[2] & 0x0C)


def _side(head: bytes) -> int:
    """Bytes between the head of a frame and where a count would stand."""
    mono = head[3] >> 6 == 3
    return (17 if mono else 32) if head[1] >> 3 & 3 == MPEG_1 else (9 if mono else 17)


def _tells_count(frame: bytes) -> bool:
    place = 4 + _side(frame) + (0 if frame[1] & 1 else 2)  # a checksum comes before
    return frame[place : place + 4] in (b"Xing", b"Info") and bool(
        frame[place + 7 : place + 8] and frame[place + 7] & 1
    )


def _counting_frame(head: bytes, frames: int) -> bytes:
    """A frame for the same kind of sound, without a sound, that tells this count."""
    version, rate, side = head[1] >> 3 & 3, head[2] >> 2 & 3, _side(head)
    bitrate = next(i for i in range(1, 15) if _bytes(version, i, rate) >= 4 + side + 120)
    front = bytes([0xFF, head[1] | 1, bitrate << 4 | rate << 2, head[3]]) + bytes(side)
    count = b"Info" + (1).to_bytes(4, "big") + frames.to_bytes(4, "big")
    return (front + count).ljust(_bytes(version, bitrate, rate), b"\0")


class _Joined(io.RawIOBase):
    """Bytes, and behind them a stream from ``start`` on."""

    def __init__(self, head: bytes, stream: io.RawIOBase | io.BytesIO, start: int):
        self.head, self.stream, self.start, self.place = head, stream, start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += len(self.head) + self.stream.seek(0, io.SEEK_END) - self.start
        elif whence == io.SEEK_CUR:
            offset += self.place
        self.place = offset
        return offset

    def readinto(self, buffer: Any) -> int:
        part = self.head[self.place : self.place + len(buffer)]
        if len(part) < len(buffer):
            self.stream.seek(self.start + self.place + len(part) - len(self.head))
            part += self.stream.read(len(buffer) - len(part))
        buffer[: len(part)] = part
        self.place += len(part)
        return len(part)
