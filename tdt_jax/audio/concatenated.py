"""Files that are several, joined end to end: chained Ogg, joined MP3."""

import functools
import io
import os
import struct
import zlib
from typing import BinaryIO, NamedTuple

HEADER = struct.Struct("<4sBBqIIIB")  # magic, version, flags, granule, serial, number, CRC, lacing
FIRST, LAST = 2, 4  # flags of a page
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
CHUNK = 1 << 20  # bytes searched at a time


class Part(NamedTuple):
    """The bytes [start, end) of a file that are a file of their own."""

    start: int
    end: int
    fault: str | None = None  # why it is damaged
    is_ended: bool = True  # it has a mark at its end, or its format has none


def parts(file: BinaryIO) -> list[Part]:
    """Returns the parts of a file in order; one, unless it is an Ogg or MP3 file of several."""
    file.seek(0)
    head = file.read(4)
    if head == b"OggS":
        return _ogg_parts(file)
    if is_mp3(head):
        return _mp3_parts(file)
    return [Part(0, file.seek(0, os.SEEK_END))]


def is_mp3(head: bytes) -> bool:
    """Returns whether these first bytes may be of an MP3: an ID3 tag, or a frame of MPEG audio."""
    return head[:3] == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def tag_size(header: bytes) -> int | None:
    """Returns the bytes of the ID3v2 tag that begins with these 10; None if they begin none."""
    if header[:3] != b"ID3" or len(header) < 10 or max(header[6:10]) > 127:
        return None
    return 10 + functools.reduce(lambda size, byte: size << 7 | byte, header[6:10], 0)


def open_part(file: BinaryIO, part: Part) -> BinaryIO:
    """Returns a part of an open file as a file of its own."""
    return io.BufferedReader(_Section(file, part.start, part.end))


def _mp3_parts(file: BinaryIO) -> list[Part]:
    """Splits at tags, which decoders take for sound unless they begin the file."""
    starts, position = [0], 0
    while (position := _find(file, b"ID3", position + 1)) is not None:
        file.seek(position)
        size = tag_size(file.read(10))
        if size is not None:
            file.seek(position + size)
            if is_mp3(file.read(4)):
                starts.append(position)
    end = file.seek(0, os.SEEK_END)
    return [Part(*span) for span in zip(starts, [*starts[1:], end], strict=True)]


def _ogg_parts(file: BinaryIO) -> list[Part]:
    """Returns the links of a chain, with every page checked: its CRC and its number.

    Source: RFC 3533.
    """
    links: list[Part] = []
    file.seek(0)
    position = start = 0
    numbers: dict[int, int] = {}  # serial -> number of the next page
    open_serials: set[int] = set()
    fault, in_header = None, True
    while header := file.read(HEADER.size):
        page = _page(header, file)
        if page is None:
            following = _find(file, b"OggS", position + 1)
            if following is None and position and _is_tag(header):
                break
            if following is None:
                fault = fault or f"it breaks off in the middle of a page, at byte {position}"
                break
            fault = fault or f"a page is damaged at byte {position}"
            position = following
            file.seek(position)
            continue
        flags, serial, number, size = page
        if flags & FIRST and not in_header:  # the next link
            links.append(Part(start, position, fault, not open_serials))
            start, numbers, open_serials, fault = position, {}, set(), None
        in_header = bool(flags & FIRST)
        if serial in numbers and number != numbers[serial]:
            fault = fault or f"pages are missing before byte {position}"
        numbers[serial] = number + 1 & 0xFFFFFFFF
        (open_serials.discard if flags & LAST else open_serials.add)(serial)
        position += size
    end = file.seek(0, os.SEEK_END)
    links.append(Part(start, end, fault, not open_serials))
    return links


def _page(header: bytes, file: BinaryIO) -> tuple[int, int, int, int] | None:
    """Returns flags, serial, number and bytes of the page that `header` begins, if it is whole."""
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
    """Returns Ogg's CRC: that of zlib with all bits reversed, and without its inversions."""
    mirrored = zlib.crc32(data.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def _is_tag(header: bytes) -> bool:
    return header[:3] == b"TAG" or not any(header)


def _find(file: BinaryIO, pattern: bytes, position: int) -> int | None:
    """Returns where `pattern` next occurs from `position` on."""
    while True:
        file.seek(position)
        data = file.read(CHUNK)
        if (place := data.find(pattern)) >= 0:
            return position + place
        if len(data) < len(pattern):
            return None
        position += len(data) - len(pattern) + 1


class _Section(io.RawIOBase):
    """The bytes [start, end) of an open file, as a file."""

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
