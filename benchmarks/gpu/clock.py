"""How the GPU cases take time, what the card could do, and what becomes of a measurement that fails."""

import contextlib
import functools
import gc
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from unittest import mock

import torch

from ufo_large.planning.peaks import peak_of  # needs no other package


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def peak() -> float | None:
    return peak_of(name())


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_seconds(
    work: Callable[[], object], warm_up: int, repeats: int, calls: int = 1, limit: float = float("inf")
) -> float:
    """Return the median wall-clock time of `work`, the device done before and after.

    Short work is called `calls` times between two readings, so that the wait for the device does not count.
    Past `limit` seconds, the first reading (which may compile) apart, it ends with two repeats or more.
    """
    seconds: list[float] = []
    for _ in range(warm_up + repeats):
        if sum(seconds[1:]) * calls > limit and len(seconds) >= warm_up + 2:
            break
        synchronise()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise()
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds[warm_up:])


def parts(owners: Mapping[Any, Iterable[str]], work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds that the named methods of `owners` (objects or classes) take while `work` runs.

    The device is done before and after each call, so the parts are more together than the whole by itself.
    """
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, method: Callable) -> Callable:
        @functools.wraps(method)
        def call(*arguments, **options):
            synchronise()
            start = time.perf_counter()
            result = method(*arguments, **options)
            synchronise()
            seconds[name] += time.perf_counter() - start
            return result

        return call

    with contextlib.ExitStack() as mended:
        for owner, names in owners.items():
            for name in names:
                method = timed(name, getattr(owner, name))
                mended.enter_context(mock.patch.object(owner, name, method))
        work()
    return dict(seconds)


def wait() -> None:
    """Wait until standard input says `begin`; exit where it closes instead."""
    if sys.stdin.readline() != "begin\n":
        sys.exit("nobody said begin")


def free() -> None:
    """Give back what is no longer used, compiled code included, so that the next measurement has room."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def row(**what: object) -> Iterator[dict]:
    """Print the row that is filled inside as one JSON line; one that fails says why, and the next goes on."""
    found = dict(what)
    try:
        yield found
    except Exception as error:  # out of memory, or a kernel that this card or this torch lacks
        found["failed"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
    print(json.dumps(found), flush=True)
