"""Whether an Ogg file is whole: its pages have numbers and checksums (RFC 3533).

Decoders pass over a damaged page without a word, and stop early where its neighbours do not fit together.
"""

import io
import zlib

HEAD = 27  # bytes of a page before its table of segments
LONGEST = HEAD + 255 * 256  # bytes of a page
FIRST, LAST = 2, 4  # flags of a page: of its stream
SEVERAL = "is several sounds one after another, of which only the first would be read: write each to a file of its own."
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class Pages:
    """The pages of a file, looked at in their order, no further than the file has been read.

    Where pages are missing at the start, as in what is recorded from a running stream, ``notes`` get a line.
    """

    def __init__(self, stream: io.RawIOBase | io.BytesIO, name: str, notes: list[str]):
        self.stream, self.name, self.notes = stream, name, notes
        self.place = 0  # of the next page
        self.numbers: dict[bytes, int] = {}  # of the last page, by the serial number of a stream
        self.sounding = False  # a page that ends later than 0 has come
        self.ended = self.more = False  # the last page of a stream has come, and another stream after it

    def check(self, whole: bool = False) -> None:
        """Look at pages up to where ``stream`` stands, which does not change; at all pages where it was read whole.

        Raises ``ValueError`` for a page that is damaged or missing, and for a second sound after the first.
        """
        here = self.stream.tell()
        end = self.stream.seek(0, io.SEEK_END) if whole else here
        while not self.more and self._next(end):
            pass
        self.stream.seek(here)
        if whole and self.more:
            raise ValueError(f"{self.name} {SEVERAL}")
        if whole and self.place < end and not self.ended:  # behind the last page others may write what they like
            raise self._damaged(f"the page of Ogg at byte {self.place:,} is not complete", "cut off or damaged")

    def _next(self, end: int) -> bool:
        """Look at one page, unless it goes beyond ``end`` or there is none."""
        self.stream.seek(self.place)
        head = self.stream.read(HEAD) if self.place + HEAD <= end else b""
        if len(head) < HEAD:
            return False
        if not head.startswith(b"OggS\0"):
            if self.ended:
                return False
            raise self._damaged(f"no page of Ogg begins at byte {self.place:,}")
        table = self.stream.read(head[26])
        rest = self.place + HEAD + len(table) + sum(table)
        if rest > end:
            return False
        if not _as_written(head, table + self.stream.read(sum(table))):
            raise self._damaged(f"the page of Ogg at byte {self.place:,} is not as it was written")
        self._check_number(head)
        self.place, self.ended = rest, bool(head[5] & LAST)
        return True

    def _check_number(self, head: bytes) -> None:
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        if head[5] & FIRST:
            self.more = self.sounding or self.ended
        elif serial in self.numbers and number != self.numbers[serial] + 1:
            if self.sounding:
                raise self._damaged(f"after page {self.numbers[serial]:,} of its Ogg comes page {number:,}")
            self.notes.append("its beginning is missing")
        self.numbers[serial] = number
        self.sounding |= int.from_bytes(head[6:14], "little", signed=True) > 0

    def _damaged(self, what: str, how: str = "damaged") -> ValueError:
        return ValueError(f"{self.name} is {how}: {what}. Take another copy, or leave it out.")


def _as_written(head: bytes, rest: bytes) -> bool:
    """Whether a page has its checksum: zlib's, which starts with 0 here and takes the bits of a byte from the left."""
    page = (head[:22] + bytes(4) + head[26:] + rest).translate(_MIRRORED)
    return zlib.crc32(page, 0xFFFFFFFF) ^ 0xFFFFFFFF == int.from_bytes(head[22:26].translate(_MIRRORED), "big")


def last_page(end: bytes) -> tuple[bool, bool]:
    """Whether the last page is complete and whether it is marked as the last, from the last bytes of a file."""
    place = end.rfind(b"OggS\0")
    if place < 0:
        return True, True
    head = end[place : place + HEAD]
    table = end[place + HEAD : place + HEAD + head[26]] if len(head) == HEAD else b""
    complete = len(head) == HEAD and place + HEAD + head[26] + sum(table) <= len(end)
    return complete, complete and bool(head[5] & LAST)
