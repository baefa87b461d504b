"""Show every task the same: one size for all, so that the trunk computes what they share once."""

from collections.abc import Mapping
from dataclasses import replace

from ufo_large.data.tiles import Tiling
from ufo_large.data.views import Views
from ufo_large.kinds import kind_of
from ufo_large.serving.feeding import Feed

Size = tuple[int, int]
"""Height, width."""


def parse_size(text: str) -> Size:
    """Return the size of a text such as `252,336`. Raises ValueError where it is none."""
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"--size {text}: give height and width in pixels, as 252,336")
    return int(parts[0]), int(parts[1])


def at_one_size(feeds: Mapping[str, Feed], size: Size) -> dict[str, Feed]:
    """Return the feeds with whole pictures of `size`, in the smallest of their batches.

    Pictures are stretched unless every task keeps the aspect. Raises ValueError for a size that is none, and
    where the size that a task sees matters, as in depth, and is another.
    """
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"size={size}: give height and width, both at least 1")
    for name, feed in feeds.items():
        own = tuple(feed.loader.image_size)
        if not kind_of(feed.info).any_scale and own != tuple(size):
            told = f"in {feed.info.kind} the size shown matters"
            raise ValueError(f"size={size}: task {name!r} was trained at {own}, and {told}; give {own}")
    loaders = [feed.loader for feed in feeds.values()]
    same = {
        "image_size": tuple(size),
        "keep_aspect": all(loader.keep_aspect for loader in loaders),
        "micro_batch": min(loader.micro_batch for loader in loaders),
        "tiles": Tiling(),
        "views": Views(),
    }
    return {name: replace(feed, loader=replace(feed.loader, **same)) for name, feed in feeds.items()}
