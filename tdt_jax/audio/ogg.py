"""The parts of an Ogg file: each a file of its own, one after the other ("chained")."""

import io
import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

HEADER = struct.Struct("<4sBBqIIIB")  # magic, version, flags, granule, serial, number, CRC, lacing
CONTINUED, FIRST, LAST = 1, 2, 4  # flags
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
CHUNK = 1 << 20  # bytes looked at for the next page


class Part(NamedTuple):
    """One link of the chain."""

    start: int  # bytes
    end: int
    num_streams: int
    fault: str | None  # what is wrong with it
    is_ended: bool  # whether each stream's last page says that it is the last


class Section(io.RawIOBase):
    """Bytes [start, end) of a file as a file."""

    def __init__(self, file: BinaryIO, start: int, end: int):
        self._file, self._start, self._end, self._at = file, start, end, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = max(self._start, base + offset)
        return self.tell()

    def tell(self) -> int:
        return self._at - self._start

    def readinto(self, buffer) -> int:
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), max(self._end - self._at, 0)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def parts(file: BinaryIO) -> list[Part]:
    """The parts of a file, every page checked: its CRC, and that none is missing before it.

    Source: RFC 3533.
    """
    found: list[Part] = []
    file.seek(0)
    position = start = 0
    numbers: dict[int, int] = {}  # serial -> number of the next page
    open_serials: set[int] = set()
    fault, in_header = None, True
    while header := file.read(HEADER.size):
        page = _page(header, file)
        if page is None:
            file.seek(position)
            if position and _is_tag(header):
                break
            following = _next_page(file, position + 1)
            if following is None:
                fault = fault or f"it breaks off in the middle of a page, at byte {position}"
                break
            fault = fault or f"a page is damaged at byte {position}"
            position = following
            file.seek(position)
            continue
        flags, serial, number, size = page
        if flags & FIRST and not in_header:  # the next link
            found.append(Part(start, position, len(numbers), fault, not open_serials))
            start, numbers, open_serials, fault = position, {}, set(), None
        in_header = bool(flags & FIRST)
        if serial in numbers and number != numbers[serial]:
            fault = fault or f"pages are missing before byte {position}"
        numbers[serial] = number + 1 & 0xFFFFFFFF
        (open_serials.discard if flags & LAST else open_serials.add)(serial)
        position += size
    end = file.seek(0, os.SEEK_END)
    found.append(Part(start, end, len(numbers), fault, not open_serials))
    return found


def _page(header: bytes, file: BinaryIO) -> tuple[int, int, int, int] | None:
    """Flags, serial, number and bytes of the page that starts with `header`, if it is whole."""
    if len(header) < HEADER.size or header[:4] != b"OggS":
        return None
    _, _, flags, _, serial, number, crc, num_segments = HEADER.unpack(header)
    lacing = file.read(num_segments)
    body = file.read(sum(lacing))
    if len(lacing) < num_segments or len(body) < sum(lacing):
        return None
    data = header[:22] + bytes(4) + header[26:] + lacing + body
    return (flags, serial, number, len(data)) if _crc(data) == crc else None


def _crc(data: bytes) -> int:
    """Ogg's CRC is zlib's with all bits in the other order, and without its inversions."""
    mirrored = zlib.crc32(data.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _is_tag(header: bytes) -> bool:
    return header[:3] == b"TAG" or not any(header)


def _next_page(file: BinaryIO, position: int) -> int | None:
    """Where the next page may begin."""
    while True:
        file.seek(position)
        data = file.read(CHUNK)
        if (place := data.find(b"OggS")) >= 0:
            return position + place
        if len(data) < 4:
            return None
        position += len(data) - 3
