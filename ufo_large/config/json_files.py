"""Read and write JSON files; all that is read passes `parse_json`, as any of it may be damaged or hostile."""

import contextlib
import gc
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ufo_large.config.whole import write_text_whole

SMALL_BYTES = 256 << 20
LARGE_BYTES = 16 << 30
MAX_DEPTH = 64
MAX_INTEGER = 1 << 64
UTF8_BOM = b"\xef\xbb\xbf"
Pairs = Callable[[list[tuple[str, Any]]], Any]


class Unreadable(ValueError):
    """A file that cannot be used as it is; the message names it, what is wrong and the remedy."""

    def __init__(self, source: Path | str, told: object, remedy: str):
        super().__init__(f"{source}: {told}; {remedy}")


def read_json(
    file: Path,
    remedy: str,
    *,
    finite: bool = True,
    pairs: Pairs | None = None,
    limit: int = SMALL_BYTES,
) -> Any:
    """Return what `file` holds; a missing one raises OSError, see `parse_json` for the rest.

    `limit` is in bytes: `LARGE_BYTES` for annotations and submissions, which grow with the data.
    """
    with file.open("rb") as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise Unreadable(file, f"larger than {limit} bytes, the most that is read of such a file", remedy)
    return parse_json(content, file, remedy, finite=finite, pairs=pairs)


def parse_json(
    content: bytes | str,
    source: Path | str,
    remedy: str,
    *,
    finite: bool = True,
    pairs: Pairs | None = None,
) -> Any:
    """Parse JSON; Unreadable names `source` and `remedy` for all that another program might choke on.

    That is: no UTF-8, no JSON, a key that stands twice, more than 64 levels, whole numbers beyond 64 bits,
    NaN and infinity. `finite=False` takes the last two, where the caller looks at each number or means them.
    `pairs` makes an object of its (key, value) and may take keys that stand twice.
    """
    if isinstance(content, bytes):
        content = content.removeprefix(UTF8_BOM)
    try:
        with _no_garbage_collection():
            value = json.loads(content, object_pairs_hook=pairs or _once_each)
    except RecursionError:
        raise Unreadable(source, f"nested deeper than {MAX_DEPTH} levels", remedy) from None
    except ValueError as error:  # also bytes that are no UTF-8, and numbers of thousands of digits
        said = error if content.strip() else "it is empty"
        raise Unreadable(source, f"not JSON ({said})", remedy) from error
    if fault := _fault(value, finite):
        raise Unreadable(source, fault, remedy)
    return value


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _fault(value: Any, finite: bool) -> str:
    """Say what is too deep or too large for those who use the value, level by level."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        for one in level:
            if type(one) is int and not -MAX_INTEGER < one < MAX_INTEGER:
                return f"holds a whole number beyond 64 bits ({len(str(abs(one)))} digits)"
            if finite and type(one) is float and not math.isfinite(one):
                return f"holds {one}, which is no number of JSON"
        level = [
            inner
            for one in level
            if isinstance(one, list | dict)
            for inner in (one if isinstance(one, list) else one.values())
        ]
        if not level:
            return ""
    return f"nested deeper than {MAX_DEPTH} levels"


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Millions of new lists that all stay make the collector look at them again and again: 3 times slower."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def write_json(file: Path, value: Any, allow_nan: bool = True) -> None:
    """Write the file whole or not at all. `allow_nan=False` refuses nan and infinity with ValueError."""
    write_text_whole(file, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=allow_nan) + "\n")
