"""Whether an Ogg file is whole: its pages have numbers and checksums (RFC 3533).

Decoders pass over a damaged page without a word, and stop early where its neighbours do not fit together.
"""

import io
import zlib
from collections.abc import Iterator
from typing import NamedTuple

HEAD = 27  # bytes of a page before its table of segments
LONGEST = HEAD + 255 * 256  # bytes of a page
FIRST, LAST = 2, 4  # flags of a page: it begins a stream, or ends one
SEVERAL = "is several sounds one after another, of which only the first would be read: write each to a file of its own."
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Page(NamedTuple):
    """A page: its head, the length of each segment of its body, and the body."""

    head: bytes
    table: bytes
    body: bytes

    @property
    def whole(self) -> bool:
        return len(self.head) == HEAD and len(self.table) == self.head[26] and len(self.body) == sum(self.table)

    @property
    def checksum(self) -> bytes:
        """What bytes 22 to 25 of the head should be: a CRC that starts at 0 and takes the high bit of a byte first."""
        page = b"".join([self.head[:22], bytes(4), self.head[26:], self.table, self.body])
        mirrored = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF  # zlib takes the low bit first
        return mirrored.to_bytes(4, "big").translate(_MIRRORED)


def read_page(stream: io.RawIOBase | io.BytesIO) -> Page:
    """The page that begins where ``stream`` stands, or as much of it as is there."""
    head = stream.read(HEAD)
    table = stream.read(head[26]) if len(head) == HEAD else b""
    return Page(head, table, stream.read(sum(table)))


def check_pages(stream: io.RawIOBase | io.BytesIO, name: str, notes: list[str]) -> Iterator[int]:
    """Check one page after another, and yield each time how many bytes are checked so far.

    ``stream`` stays where it is. Where pages are missing at the start, as in a recording of a running stream, ``notes``
    get a line. Raises ``ValueError`` for a page that is damaged or missing, and for a second sound after the first.
    """
    place, sounding, ended = 0, False, False
    numbers: dict[bytes, int] = {}  # of the last page of each stream, by its serial number
    while True:
        here = stream.tell()
        stream.seek(place)
        head, table, body = page = read_page(stream)
        stream.seek(here)
        if not head or (ended and not head.startswith(b"OggS")):  # anything may follow the last page
            return
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        expected = numbers.get(serial, number - 1) + 1
        if not b"OggS\0".startswith(head[:5]):
            raise _damaged(name, f"no page of Ogg begins at byte {place:,}")
        if not page.whole:
            raise _damaged(name, f"the page of Ogg at byte {place:,} is not complete", "cut off or damaged")
        if page.checksum != head[22:26]:
            raise _damaged(name, f"the page of Ogg at byte {place:,} is not as it was written")
        if head[5] & FIRST:
            if sounding or ended:
                raise ValueError(f"{name} {SEVERAL}")
        elif number != expected and sounding:
            raise _damaged(name, f"after page {expected - 1:,} of its Ogg comes page {number:,}")
        elif number != expected:
            notes.append("its beginning is missing")
        numbers[serial], ended = number, bool(head[5] & LAST)
        sounding |= int.from_bytes(head[6:14], "little", signed=True) > 0  # the last sample that ends in this page
        place += HEAD + len(table) + len(body)
        yield place


def _damaged(name: str, what: str, how: str = "damaged") -> ValueError:
    return ValueError(f"{name} is {how}: {what}. Take another copy, or leave it out.")


def check_end(stream: io.RawIOBase | io.BytesIO, name: str, notes: list[str]) -> None:
    """``ValueError`` where the last page is cut off; a line of ``notes`` where it is not marked as the last."""
    here = stream.tell()
    stream.seek(max(0, stream.seek(0, io.SEEK_END) - LONGEST))
    end = stream.read()
    stream.seek(here)
    page = read_page(io.BytesIO(end[max(0, end.rfind(b"OggS\0")) :]))
    if not page.head.startswith(b"OggS"):  # what follows the last page is longer than any page
        return
    if not page.whole:
        raise ValueError(f"{name} is cut off: its last page is not complete.")
    if not page.head[5] & LAST:
        notes.append("its end is not marked, so it may be cut off")
