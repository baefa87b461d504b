"""torch's CUDA caching allocator, replayed on paper: what a sequence of tensors makes it reserve.

After c10/cuda/CUDACachingAllocator.cpp of torch 2.11, its native backend with default settings. Sizes are
rounded up to 512 bytes. Up to 1 MiB come from segments of 2 MiB, below 10 MiB from segments of 20 MiB, larger
ones from segments of their own, rounded up to 2 MiB. The best-fitting free block is taken and split: where it
is small always, else where more than 1 MiB would be left over. A freed block joins its free neighbours. Where
the card is full, free segments are given back and it is tried once more. One pool for each stream.
"""

import bisect
from dataclasses import dataclass, field

ROUNDING = 512
SMALL, SMALL_SEGMENT = 2**20, 2 * 2**20
MEDIUM, MEDIUM_SEGMENT, LARGE_ROUNDING = 10 * 2**20, 20 * 2**20, 2 * 2**20


class OutOfMemory(Exception):
    """The card has no room for a segment, even after all free ones were given back."""


@dataclass(slots=True, eq=False)
class Block:
    """A part of a segment, linked to its neighbours there."""

    size: int
    is_small: bool
    is_free: bool = True
    before: "Block | None" = None
    after: "Block | None" = None

    @property
    def is_segment(self) -> bool:
        """Whether it is a whole segment, which can be given back."""
        return self.before is None and self.after is None


@dataclass(slots=True)
class _Pool:
    """Free blocks by size; of equal ones the first that became free is at the lowest place."""

    entries: list[tuple[int, int, Block]] = field(default_factory=list)
    count: int = 0

    def add(self, block: Block) -> None:
        self.count += 1
        bisect.insort(self.entries, (block.size, self.count, block))

    def remove(self, block: Block) -> None:
        place = bisect.bisect_left(self.entries, (block.size,))
        while self.entries[place][2] is not block:
            place += 1
        del self.entries[place]

    def best_fit(self, size: int) -> Block | None:
        place = bisect.bisect_left(self.entries, (size,))
        return self.entries.pop(place)[2] if place < len(self.entries) else None

    def give_back(self) -> int:
        """Drop all whole segments; return their bytes."""
        whole = [entry for entry in self.entries if entry[2].is_segment]
        self.entries = [entry for entry in self.entries if not entry[2].is_segment]
        return sum(size for size, _, _ in whole)


class CachingAllocator:
    """Counts `live` bytes (rounded, as `torch.cuda.memory_allocated`) and `reserved` ones, with their peaks.

    `limit`: bytes of the card that it may reserve; None has no end. `retries` counts how often free segments
    were given back to make room.
    """

    def __init__(self, limit: float | None = None):
        self.limit = limit
        self.live = self.peak_live = 0
        self.reserved = self.peak_reserved = 0
        self.segments = self.retries = 0
        self._pools: dict[bool, _Pool] = {True: _Pool(), False: _Pool()}

    def allocate(self, num_bytes: int) -> Block:
        """Return a block of at least `num_bytes`. Raises OutOfMemory beyond the limit."""
        size = max(ROUNDING, -(-num_bytes // ROUNDING) * ROUNDING)
        is_small = size <= SMALL
        block = self._pools[is_small].best_fit(size) or self._new_segment(size, is_small)
        self._split(block, size)
        block.is_free = False
        self.live += block.size
        self.peak_live = max(self.peak_live, self.live)
        return block

    def free(self, block: Block) -> None:
        """Take a block back, joined with its free neighbours."""
        self.live -= block.size
        block.is_free = True
        before, after = block.before, block.after
        pool = self._pools[block.is_small]
        if before is not None and before.is_free:
            pool.remove(before)
            block.size += before.size
            block.before = before.before
            if block.before is not None:
                block.before.after = block
        if after is not None and after.is_free:
            pool.remove(after)
            block.size += after.size
            block.after = after.after
            if block.after is not None:
                block.after.before = block
        pool.add(block)

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if not (rest >= ROUNDING if block.is_small else rest > SMALL):
            return
        other = Block(rest, block.is_small, before=block, after=block.after)
        if block.after is not None:
            block.after.before = other
        block.after, block.size = other, size
        self._pools[block.is_small].add(other)

    def _new_segment(self, size: int, is_small: bool) -> Block:
        segment = segment_size(size)
        if self.limit is not None and self.reserved + segment > self.limit:
            self.retries += 1
            self.reserved -= sum(pool.give_back() for pool in self._pools.values())
            if self.reserved + segment > self.limit:
                raise OutOfMemory(f"{size} bytes, {self.reserved} reserved of {self.limit:.0f}")
        self.segments += 1
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        return Block(segment, is_small)


def segment_size(size: int) -> int:
    """Return the bytes that are asked of the driver for a block of `size` rounded bytes."""
    if size <= SMALL:
        return SMALL_SEGMENT
    if size < MEDIUM:
        return MEDIUM_SEGMENT
    return -(-size // LARGE_ROUNDING) * LARGE_ROUNDING
