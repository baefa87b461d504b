"""Blocks of a ViT are alike: run a few of each sort, and write the others down from those.

A run of alike blocks longer than `KEPT` is cut to as many. Of these the one in the middle has alike blocks on
both sides, as those that are left out have; what it made, freed and worked, with the storages of its
neighbours named by their distance, is what each of them would have.
"""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from timm.layers import DropPath
from torch import nn

from ufo_large.models import Trunk
from ufo_large.planning.recording import Event, Key, Place, Segment, Work

KEPT = 5
"""Two on either side: the first and the last differ a little in what they begin and end."""


@dataclass(frozen=True, slots=True)
class Shortening:
    """`kept[i]`: the index, in the shortened trunk, of the block that stands for the whole one's block i."""

    kept: tuple[int, ...]

    def stand_ins(self, short: int) -> tuple[int, ...]:
        """Return the blocks that block `short` of the shortened trunk stands for."""
        return tuple(i for i, k in enumerate(self.kept) if k == short)

    def indices(self) -> list[int]:
        """Return which blocks of the whole trunk are run: the first that each stands for."""
        return sorted({short: self.kept.index(short) for short in self.kept}.values())


def shortening(trunk: Trunk, query_blocks: int = 0) -> Shortening:
    """Say which blocks need not run; a head's queries pass through the last `query_blocks`."""
    depth = trunk.depth
    sorts = [(sort_of(b), i >= depth - query_blocks) for i, b in enumerate(trunk.vit.blocks)]
    kept: list[int] = []
    begin = 0
    while begin < depth:
        end = begin
        while end < depth and sorts[end] == sorts[begin]:
            end += 1
        first, left_out = len(set(kept)), max(end - begin - KEPT, 0)
        order = list(range(min(end - begin, KEPT)))
        middle = KEPT // 2
        kept += [first + i for i in (*order[:middle], *[middle] * left_out, *order[middle:])]
        begin = end
    return Shortening(tuple(kept))


def sort_of(block: nn.Module) -> tuple:
    """Return what alike blocks have in common: modules, shapes, what trains; not how often a path drops."""
    modules = tuple(
        (name, type(module), module.drop_prob > 0 if isinstance(module, DropPath) else module.training)
        for name, module in block.named_modules()
    )
    parameters = tuple((n, tuple(p.shape), p.requires_grad) for n, p in block.named_parameters())
    return modules, parameters, len(block._forward_pre_hooks)


@contextlib.contextmanager
def shortened(trunk: Trunk, plan: Shortening) -> Iterator[None]:
    """Leave out, inside, the blocks that need not run."""
    blocks = trunk.vit.blocks
    whole = dict(blocks._modules)
    blocks._modules.clear()
    blocks._modules.update({str(k): whole[str(i)] for k, i in enumerate(plan.indices())})
    try:
        yield
    finally:
        blocks._modules.clear()
        blocks._modules.update(whole)


def expanded(segments: Sequence[Segment], plan: Shortening) -> tuple[list[Event], Counter[Work]]:
    """Return events and work of the whole trunk from what a shortened one recorded."""
    events: list[Event] = []
    work: Counter[Work] = Counter()
    for group in _groups(segments):
        copies = plan.stand_ins(group[0].place.block) if group[0].place.block >= 0 else (-1,)
        for copy in reversed(copies) if group[0].place.part == "backward" else copies:
            for segment in group:
                events += _renamed(segment, copy, plan)
                work += segment.work
    return events, work


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Yield segments in a row of the same place together."""
    group: list[Segment] = []
    for segment in segments:
        if group and group[0].place != segment.place:
            yield group
            group = []
        group.append(segment)
    if group:
        yield group


def _renamed(segment: Segment, copy: int, plan: Shortening) -> Iterable[Event]:
    here = segment.place.block
    for event in segment.events:
        place = event.key.place
        if place.block < 0:
            yield event
        elif here >= 0:
            yield _of_block(event, copy + place.block - here)
        else:  # outside of the blocks: what one left for the end, each left
            for index in plan.stand_ins(place.block):
                yield _of_block(event, index)


def _of_block(event: Event, index: int) -> Event:
    key = event.key
    return event._replace(key=Key(Place(key.place.part, index), key.number))
