"""Show every task the same: one size for all, so that the trunk computes what they share once."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ufo_large.data.tiles import Tiling
from ufo_large.data.views import Views
from ufo_large.kinds import kind_of
from ufo_large.runs.config import RunConfig
from ufo_large.serving.feeding import Feed
from ufo_large.structures import TaskInfo

Size = tuple[int, int]
"""Height, width."""


def parse_size(text: str) -> Size:
    """Return the size of a text such as `252,336`. Raises ValueError where it is none."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--size {text}: give height and width in pixels, as 252,336")
    return int(parts[0]), int(parts[1])


def require_possible(size: Size, config: RunConfig, tasks: Iterable[TaskInfo]) -> None:
    """Raise ValueError for a size that is none, or another than one of `tasks` needs, as in depth."""
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size={size}: give height and width, both at least 1")
    for info in tasks:
        own = tuple(config.task(info).loader.image_size)
        if not kind_of(info).any_scale and own != tuple(size):
            told = f"in {info.kind} the size shown matters"
            raise ValueError(f"size={size}: task {info.name!r} was trained at {own}, and {told}; give {own}")


def at_one_size(feeds: Mapping[str, Feed], size: Size) -> dict[str, Feed]:
    """Return the feeds with whole pictures of `size`, in the smallest of their batches.

    Pictures are stretched unless every task keeps the aspect.
    """
    loaders = [feed.loader for feed in feeds.values()]
    same = {
        "image_size": tuple(size),
        "keep_aspect": all(loader.keep_aspect for loader in loaders),
        "micro_batch": min(loader.micro_batch for loader in loaders),
        "tiles": Tiling(),
        "views": Views(),
    }
    return {name: replace(feed, loader=replace(feed.loader, **same)) for name, feed in feeds.items()}
