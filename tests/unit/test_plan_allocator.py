"""The allocator on paper, held against sequences worked out by hand from the rules of torch's own."""

import pytest

from ufo_large.planning.allocator import CachingAllocator, OutOfMemory, segment_size

KIB, MIB = 2**10, 2**20


@pytest.mark.parametrize(
    ("size", "segment"),
    [
        (512, 2 * MIB),
        (MIB, 2 * MIB),
        (MIB + 512, 20 * MIB),
        (10 * MIB - 512, 20 * MIB),
        (10 * MIB, 10 * MIB),
        (10 * MIB + 512, 12 * MIB),
        (33 * MIB, 34 * MIB),
    ],
)
def test_what_is_asked_of_the_driver(size, segment):
    allocator = CachingAllocator()
    allocator.allocate(size)
    assert (segment_size(size), allocator.reserved) == (segment, segment)


def test_sizes_are_rounded_to_512_bytes():
    allocator = CachingAllocator()
    for size in (1, 512, 513):
        allocator.allocate(size)
    assert allocator.live == 512 + 512 + 1024
    assert (allocator.reserved, allocator.segments) == (2 * MIB, 1)


def test_small_blocks_share_a_segment_until_it_is_full():
    allocator = CachingAllocator()
    for _ in range(4):
        allocator.allocate(512 * KIB)
    assert allocator.reserved == 2 * MIB
    allocator.allocate(512)
    assert (allocator.reserved, allocator.segments) == (4 * MIB, 2)


def test_a_large_block_is_split_only_where_more_than_1_mib_is_left():
    allocator = CachingAllocator()
    first = allocator.allocate(12 * MIB)
    allocator.free(first)
    exact = allocator.allocate(11 * MIB)  # 1 MiB would be left: the whole block is given
    assert (exact.size, allocator.live, allocator.reserved) == (12 * MIB, 12 * MIB, 12 * MIB)
    allocator.free(exact)
    split = allocator.allocate(10 * MIB)
    assert (split.size, split.after.size, split.after.is_free) == (10 * MIB, 2 * MIB, True)


def test_the_best_fitting_block_is_taken():
    allocator = CachingAllocator()
    blocks = [allocator.allocate(size * MIB) for size in (40, 30, 20)]
    for block in blocks:
        allocator.free(block)
    assert allocator.allocate(19 * MIB) is blocks[2]
    assert allocator.allocate(25 * MIB) is blocks[1]
    assert allocator.reserved == 90 * MIB


def test_freed_neighbours_are_one_block_again():
    allocator = CachingAllocator()
    first, second, third = (allocator.allocate(6 * MIB) for _ in range(3))  # one segment of 20 MiB
    assert allocator.segments == 1
    allocator.free(first)
    allocator.free(third)  # with the 2 MiB behind it
    assert allocator.allocate(8 * MIB).size == 8 * MIB
    assert allocator.segments == 1
    allocator.free(second)  # with the first: 12 MiB
    assert allocator.allocate(12 * MIB).size == 12 * MIB
    assert (allocator.segments, allocator.live) == (1, 20 * MIB)


def test_a_full_card_gets_free_segments_back_first():
    allocator = CachingAllocator(limit=50 * MIB)
    allocator.free(allocator.allocate(30 * MIB))
    kept = allocator.allocate(12 * MIB)  # from the segment of 30: that one cannot be given back
    with pytest.raises(OutOfMemory):
        allocator.allocate(40 * MIB)
    allocator.free(kept)
    allocator.allocate(40 * MIB)
    assert (allocator.retries, allocator.reserved, allocator.peak_reserved) == (2, 40 * MIB, 40 * MIB)
