"""Put restart markers into a JPEG without touching a pixel, so that crops can be cut out of it coded.

Only three things change: a DRI segment and the markers themselves come in, and the first DC coefficient of
each component behind a marker is coded absolutely, not as a difference (ITU-T T.81, F.1.1.5.1 and F.2.1.3.1).
All other bits are copied. `jpegtran -restart` does the same.
"""

import struct
from dataclasses import dataclass

import numpy as np

from ufo_large.media.jpeg import DHT, DRI, EOI, RST0, RST_COUNT, Frame, read_frame, segments

WISHED_MCUS = 4
MOST_MCUS = 12
WISHED_BYTES = 100
LARGEST_FILE = 4 << 20
LONGEST_CODE = 16
DC_SIZES = 12
END_OF_BLOCK, BLOCK = 0, 64


@dataclass(frozen=True, slots=True)
class HuffmanTable:
    """Code lengths and symbols in the canonical order of a DHT segment."""

    counts: tuple[int, ...]
    symbols: bytes

    def by_prefix(self) -> tuple[np.ndarray, np.ndarray]:
        """Return length and symbol, uint8 [65536], of the code that begins a 16-bit word; 0: none does."""
        lengths = np.repeat(np.arange(1, LONGEST_CODE + 1), self.counts)
        reach = 1 << (LONGEST_CODE - lengths)
        spread = np.zeros((2, 1 << LONGEST_CODE), np.uint8)
        spread[0, : reach.sum()] = np.repeat(lengths, reach)
        spread[1, : reach.sum()] = np.repeat(np.frombuffer(self.symbols, np.uint8), reach)
        return spread[0], spread[1]

    def codes(self) -> dict[int, tuple[int, int]]:
        """Return code and length by symbol."""
        found, code, at = {}, 0, 0
        for length, count in enumerate(self.counts, 1):
            for symbol in self.symbols[at : at + count]:
                found[symbol] = code, length
                code += 1
            at, code = at + count, code << 1
        return found

    def with_symbols(self, wanted: set[int]) -> "HuffmanTable | None":
        """Return a table that has `wanted` too and keeps all codes; None where they do not fit.

        A table leaves the word of all ones free, so it can go on with longer codes, one a length.
        """
        counts, symbols = list(self.counts), self.symbols
        used = max(i for i, c in enumerate(counts) if c)
        for symbol in sorted(wanted - set(symbols)):
            used += 1
            if used >= LONGEST_CODE:
                return None
            counts[used] += 1
            symbols += bytes([symbol])
        return HuffmanTable(tuple(counts), symbols)


class _Unreadable(ValueError):
    """The coded data is not what the headers promise."""


def make_seekable(data: bytes) -> bytes:
    """Return the same picture with restart markers every few MCUs of a row.

    Returns `data` itself where nothing can or need be done: other formats, progressive files, files with
    markers, damaged ones, those above 4 MiB (the work takes some 80 times the memory), and small pictures of
    one interval.
    """
    frame = read_frame(data) if data[:2] == b"\xff\xd8" and len(data) <= LARGEST_FILE else None
    if frame is None or frame.interval:
        return data
    interval = choose_interval(frame.mcu_columns, (len(data) - frame.scan_at) / frame.mcu_rows)
    if interval == frame.mcu_columns and frame.mcu_rows == 1:
        return data
    try:
        return _rewrite(data, frame, interval)
    except (_Unreadable, IndexError, ValueError, KeyError):
        return data


def choose_interval(mcu_columns: int, bytes_per_row: float) -> int:
    """Return the MCUs between two markers: the divisor of a row's nearest to 4, or the whole row.

    Not above 12, and not so small that what a marker costs, about five bytes, is more than a twentieth.
    """
    least = WISHED_BYTES * mcu_columns / bytes_per_row
    divisors = [d for d in range(2, MOST_MCUS + 1) if mcu_columns % d == 0 and d >= least]
    return min(divisors, key=lambda d: abs(d - WISHED_MCUS), default=mcu_columns)


def _rewrite(data: bytes, frame: Frame, interval: int) -> bytes:
    tables = _tables(data)
    coded, scan_end = _coded(data, frame.scan_at)
    walk = _walk(coded, frame, tables, interval)
    dc = [
        _DcBlocks(coded, places, tables[0, c.dc_table])
        for c, places in zip(frame.components, walk.blocks, strict=True)
    ]
    per_mcu = [c.horizontal * c.vertical for c in frame.components]
    firsts = [np.arange(0, frame.mcu_rows * frame.mcu_columns, interval) * n for n in per_mcu]
    wider, changed = {}, b""
    for table in sorted({c.dc_table for c in frame.components}):
        sizes = {
            int(size)
            for c, blocks, first in zip(frame.components, dc, firsts, strict=True)
            if c.dc_table == table
            for size in np.unique(_bit_length(blocks.values[first]))
        }
        extended = tables[0, table].with_symbols(sizes)
        if extended is None:
            raise _Unreadable("no room for longer DC codes")
        wider[table] = extended.codes()
        if extended != tables[0, table]:
            body = bytes([table, *extended.counts]) + extended.symbols
            changed += struct.pack(">BBH", 0xFF, DHT, len(body) + 2) + body
    bits = np.unpackbits(np.frombuffer(coded, np.uint8))
    out = [data[: frame.scan_header_at], changed, struct.pack(">BBHH", 0xFF, DRI, 4, interval)]
    out.append(data[frame.scan_header_at : frame.scan_at])
    ends = [*walk.starts[1:], walk.end]
    for number, (start, end) in enumerate(zip(walk.starts, ends, strict=True)):
        pieces, at = [], start
        for c, blocks, first in zip(frame.components, dc, firsts, strict=True):
            block = first[number]
            absolute = _dc_bits(int(blocks.values[block]), wider[c.dc_table])
            pieces += [bits[at : blocks.places[block]], absolute]
            at = blocks.places[block] + blocks.lengths[block]
        pieces.append(bits[at:end])
        out += [_packed(np.concatenate(pieces)), bytes([0xFF, RST0 + number % RST_COUNT])]
    return b"".join([*out[:-1], data[scan_end:]])


def _tables(data: bytes) -> dict[tuple[int, int], HuffmanTable]:
    """Return the Huffman tables by (class: 0 DC, 1 AC; id)."""
    found = {}
    for marker, at, end in segments(data):
        while marker == DHT and at + 17 <= end:
            counts = tuple(data[at + 1 : at + 17])
            after = at + 17 + sum(counts)
            found[divmod(data[at], 16)] = HuffmanTable(counts, data[at + 17 : after])
            at = after
    return found


def _coded(data: bytes, scan_at: int) -> tuple[bytes, int]:
    """Return the scan's bits without stuffing, and where the marker behind them stands."""
    at = scan_at
    while (at := data.find(b"\xff", at)) >= 0 and data[at + 1] == 0:
        at += 2
    if at < 0 or data[at + 1] != EOI:
        raise _Unreadable("the scan does not end with the image")
    return data[scan_at:at].replace(b"\xff\x00", b"\xff"), at


@dataclass(slots=True)
class _Walk:
    """Places in bits: of every interval, of every block by component, of the end."""

    starts: list[int]
    blocks: list[list[int]]
    end: int


def _walk(coded: bytes, frame: Frame, tables: dict, interval: int) -> _Walk:
    """Go through all symbols, because only they tell where a block begins."""
    words = _words(coded)
    skips = {key: _skips(words, table, key[0]) for key, table in tables.items()}
    order, blocks = [], [[] for _ in frame.components]
    for c, places in zip(frame.components, blocks, strict=True):
        dc_bits, _ = skips[0, c.dc_table]
        order += [(places.append, dc_bits, *skips[1, c.ac_table])] * (c.horizontal * c.vertical)
    starts, at = [], 0
    for mcu in range(frame.mcu_rows * frame.mcu_columns):
        if mcu % interval == 0:
            starts.append(at)
        for note, dc_bits, ac_bits, ac_steps in order:
            note(at)
            at += dc_bits[at]
            k = 1
            while k < BLOCK:
                k += ac_steps[at]
                at += ac_bits[at]
    if not 0 <= 8 * len(coded) - at < 8:
        raise _Unreadable("the coded data is shorter or longer than the picture")
    return _Walk(starts, blocks, at)


def _words(coded: bytes) -> np.ndarray:
    """Return the 16 bits from every bit on, uint16 [bits]; zeros follow the end."""
    b = np.frombuffer(coded + b"\0\0", np.uint8).astype(np.uint32)
    three = (b[:-2] << 16) | (b[1:-1] << 8) | b[2:]
    return (three[:, None] >> np.arange(8, 0, -1, dtype=np.uint32)).astype(np.uint16).reshape(-1)


def _skips(words: np.ndarray, table: HuffmanTable, kind: int) -> tuple[bytes, bytes]:
    """Return for every place the bits of the symbol there with its value, and the coefficients it covers."""
    lengths, symbols = table.by_prefix()
    value_bits = symbols & 15 if kind else symbols
    steps = np.where(symbols == END_OF_BLOCK, BLOCK, (symbols >> 4) + 1).astype(np.uint8)
    return (lengths + value_bits)[words].tobytes(), steps[words].tobytes()


class _DcBlocks:
    """The DC coefficients of one component: where they are coded, in how many bits, and what they are."""

    def __init__(self, coded: bytes, places: list[int], table: HuffmanTable):
        self.places = np.array(places)
        b = np.frombuffer(coded + bytes(5), np.uint8).astype(np.int64)
        byte, bit = self.places // 8, self.places % 8
        forty = sum(b[byte + i] << (32 - 8 * i) for i in range(5))
        words = (forty >> (8 - bit)) & 0xFFFFFFFF
        lengths, symbols = (t[words >> 16].astype(np.int64) for t in table.by_prefix())
        if not lengths.all() or symbols.max() >= DC_SIZES:
            raise _Unreadable("no DC code")
        self.lengths = lengths + symbols
        raw = (words >> (32 - self.lengths)) & ((1 << symbols) - 1)
        negative = (symbols > 0) & (raw < (1 << np.maximum(symbols - 1, 0)))
        self.values = np.cumsum(np.where(negative, raw - (1 << symbols) + 1, raw))


def _bit_length(values: np.ndarray) -> np.ndarray:
    return np.frexp(np.abs(values).astype(np.float64))[1]


def _dc_bits(value: int, codes: dict[int, tuple[int, int]]) -> np.ndarray:
    """Return the bits that code a DC coefficient by itself."""
    size = abs(value).bit_length()
    code, length = codes[size]
    extra = value if value >= 0 else value + (1 << size) - 1
    text = f"{code:0{length}b}" + (f"{extra:0{size}b}" if size else "")
    return np.frombuffer(text.encode(), np.uint8) - ord("0")


def _packed(bits: np.ndarray) -> bytes:
    """Return bytes, the last filled with ones, stuffed."""
    filled = np.concatenate([bits, np.ones(-len(bits) % 8, np.uint8)])
    return np.packbits(filled).tobytes().replace(b"\xff", b"\xff\x00")
