"""How the GPU cases take time, what the card could do, and what becomes of a measurement that fails."""

import contextlib
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch

PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H200": 989e12, "H100": 989e12, "A100": 312e12}
"""Dense bf16 operations a second on paper; the first name that a card's name holds counts."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def peak(card: str | None = None) -> float | None:
    card = name() if card is None else card
    return next((rate for known, rate in PEAKS.items() if known in card), None)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_seconds(work: Callable[[], object], warm_up: int, repeats: int, calls: int = 1) -> float:
    """Return the median wall-clock time of `work`, the device done before and after.

    Short work is called `calls` times between two readings, so that the wait for the device does not count.
    """
    seconds = []
    for _ in range(warm_up + repeats):
        synchronise()
        start = time.perf_counter()
        for _ in range(calls):
            work()
        synchronise()
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds[warm_up:])


def wait() -> None:
    """Wait until standard input says `begin`; exit where it closes instead."""
    if sys.stdin.readline() != "begin\n":
        sys.exit("nobody said begin")


def free() -> None:
    """Give cached device memory back, so that one measurement's leaves room for the next."""
    gc.collect()
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
