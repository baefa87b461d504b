"""Take a rectangle out of a JPEG without decoding the rest of it.

A restart marker ends an interval of minimum coded units (MCUs) and resets the decoder, so intervals can be
decoded alone (ITU-T T.81, E.1.4). Where their number in a row is whole, those that meet a rectangle,
renumbered under a header with the new size, are again a JPEG, and its pixels are the same to the bit as long
as the decoder does not smooth across MCUs. `seekable.py` puts such markers into files that have none.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

SOI, EOI, SOS, DHT, DRI = 0xD8, 0xD9, 0xDA, 0xC4, 0xDD
RST0, RST_COUNT = 0xD0, 8
SEQUENTIAL = (0xC0, 0xC1)
WITHOUT_LENGTH = (0x01, *range(RST0, SOS))


@dataclass(frozen=True, slots=True)
class Component:
    """One colour channel: sampling factors and the ids of its Huffman tables."""

    horizontal: int
    vertical: int
    dc_table: int
    ac_table: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What the headers of a sequential Huffman JPEG with one scan say; sizes in pixels, places in bytes.

    `interval`: MCUs from one restart marker to the next, 0 without markers. `size_at`: where height and width
    stand. `scan_header_at`, `scan_at`: where the scan's header and its coded data begin.
    """

    height: int
    width: int
    mcu_height: int
    mcu_width: int
    interval: int
    components: tuple[Component, ...]
    size_at: int
    scan_header_at: int
    scan_at: int

    @property
    def mcu_rows(self) -> int:
        return -(-self.height // self.mcu_height)

    @property
    def mcu_columns(self) -> int:
        return -(-self.width // self.mcu_width)

    @property
    def is_seekable(self) -> bool:
        return self.interval > 0 and self.mcu_columns % self.interval == 0


@dataclass(frozen=True, slots=True)
class Piece:
    """A JPEG of a part of another one, which begins at (top, left) of the whole, in pixels."""

    data: bytes | bytearray
    top: int
    left: int


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, place of its parameters, place after them) up to the scan's header, included.

    Stops early where the bytes are not those of a JPEG's headers.
    """
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in WITHOUT_LENGTH:
            at += 2
        else:
            end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
            if end > len(data):
                return
            yield marker, at + 4, end
            if marker == SOS:
                return
            at = end


def read_frame(data: bytes) -> Frame | None:
    """Return the frame of a JPEG that intervals can be taken from, None for any other bytes.

    None: progressive, arithmetic, lossless or 12 bit coding, several scans, a height after the scan.
    """
    size_at, interval, parts = 0, 0, {}
    for marker, at, end in segments(data):
        if marker in SEQUENTIAL and end - at >= 6:
            size_at = at + 1
            if data[at] != 8:
                return None
            count = data[at + 5]
            parts = {data[i]: divmod(data[i + 1], 16) for i in range(at + 6, min(end, at + 6 + 3 * count), 3)}
        elif marker == DRI:
            interval = int.from_bytes(data[at : at + 2])
        elif marker == SOS:
            return _frame(data, size_at, interval, parts, at, end) if size_at else None
    return None


def _frame(data: bytes, size_at: int, interval: int, parts: dict, at: int, end: int) -> Frame | None:
    height, width = struct.unpack_from(">HH", data, size_at)
    pairs = [(data[i], *divmod(data[i + 1], 16)) for i in range(at + 1, at + 1 + 2 * data[at], 2)]
    if len(pairs) != len(parts) or not height or not width or any(i not in parts for i, _, _ in pairs):
        return None
    found = [Component(*parts[i], dc, ac) for i, dc, ac in pairs]
    if len(found) == 1:  # a single component is coded block by block, whatever its factors
        found = [Component(1, 1, found[0].dc_table, found[0].ac_table)]
    if any(not 1 <= f <= 4 for c in found for f in (c.horizontal, c.vertical)):
        return None
    return Frame(
        height=height,
        width=width,
        mcu_height=8 * max(c.vertical for c in found),
        mcu_width=8 * max(c.horizontal for c in found),
        interval=interval,
        components=tuple(found),
        size_at=size_at,
        scan_header_at=at - 4,
        scan_at=end,
    )


def cut(data: bytes, frame: Frame, top: int, left: int, height: int, width: int) -> Piece | None:
    """Return the JPEG of the intervals that meet the rectangle (pixels, inside the image).

    None when that would be all of them, when the file has no markers at the right places or does not have all
    that its header promises: the whole file then shows the decoder what is wrong.
    """
    if not frame.is_seekable:
        return None
    rows, columns = frame.mcu_rows, frame.mcu_columns // frame.interval
    interval_width = frame.mcu_width * frame.interval
    first_row, end_row = top // frame.mcu_height, -(-(top + height) // frame.mcu_height)
    first, end = left // interval_width, -(-(left + width) // interval_width)
    if (end_row - first_row) * (end - first) == rows * columns:
        return None
    ends = _interval_ends(data, frame.scan_at, rows * columns)
    if ends is None:
        return None
    starts = np.concatenate(([frame.scan_at], ends[:-1] + 2)).reshape(rows, columns)
    ends = ends.reshape(rows, columns)[first_row:end_row, first:end] + 2  # each with the marker behind it
    starts = starts[first_row:end_row, first:end]
    new_top, new_left = first_row * frame.mcu_height, first * interval_width
    new_size = (
        min(frame.height, end_row * frame.mcu_height) - new_top,
        min(frame.width, end * interval_width) - new_left,
    )
    header = [data[: frame.size_at], struct.pack(">HH", *new_size), data[frame.size_at + 4 : frame.scan_at]]
    view = memoryview(data)
    runs = [view[a:b] for a, b in zip(starts[:, 0].tolist(), ends[:, -1].tolist(), strict=True)]
    joined = bytearray().join([*header, *runs])
    markers = frame.scan_at + np.cumsum(ends - starts) - 1
    numbers = RST0 + np.arange(len(markers), dtype=np.uint8) % RST_COUNT
    numbers[-1] = EOI
    np.frombuffer(joined, np.uint8)[markers] = numbers
    return Piece(joined, new_top, new_left)


def _interval_ends(data: bytes, scan_at: int, count: int) -> np.ndarray | None:
    """Return where the markers behind the `count` intervals stand, None if they are not in order."""
    coded = np.frombuffer(data, np.uint8, offset=scan_at)
    at = np.flatnonzero(coded[:-1] == 0xFF)
    following = coded[at + 1]
    is_marker = following != 0
    at, following = at[is_marker][:count], following[is_marker][:count]
    whole = len(at) == count and following[-1] == EOI and ((following[:-1] ^ RST0) < RST_COUNT).all()
    return at + scan_at if whole else None
