"""How the GPU cases take time, and what the card could do."""

import statistics
import time
from collections.abc import Callable

import torch

PEAKS = {
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 835e12,
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
}
"""Dense bf16 operations a second on paper; a plain name is the SXM card's."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def peak() -> float | None:
    return next((rate for card, rate in PEAKS.items() if card in name()), None)


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def median_seconds(
    work: Callable[[], object], warm_up: int, repeats: int, limit: float = float("inf")
) -> float:
    """Return the median wall-clock time of `work`, the device done before and after.

    Past `limit` seconds, the first call (which may compile) apart, it ends with two repeats or more.
    """
    seconds: list[float] = []
    for _ in range(warm_up + repeats):
        if sum(seconds[1:]) > limit and len(seconds) >= warm_up + 2:
            break
        synchronise()
        start = time.perf_counter()
        work()
        synchronise()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[warm_up:])
