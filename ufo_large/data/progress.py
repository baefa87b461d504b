"""Run a function over many items in processes, with a progress bar that estimates the end."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from multiprocessing import connection, get_context, parent_process
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ufo_large.config import load_plugins, loaded_plugins

START_S = 3.0
"""About what it takes to start processes."""
LIGHT = 64
"""The weight of an item that is surely done before they have started."""


def progress_bar() -> Progress:
    """Return a bar with counts, elapsed and remaining time; use it as a context manager."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )


def map_in_processes(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    jobs: int,
    description: str,
    weigh: Callable[[Any], int] = lambda item: 1,
) -> Iterator[tuple[Any, Any]]:
    """Yield (item, function(item)) as they finish; `jobs` 1 stays in this process, in order.

    So does the beginning, which for little work is all of it: processes take seconds to start. The bar counts
    `weigh(item)`. The first exception stops what has not begun and is raised.
    """
    with progress_bar() as bar:
        line = bar.add_task(description, total=sum(weigh(item) for item in items))
        results = _serial(function, items) if jobs <= 1 else _parallel_if_long(function, items, jobs, weigh)
        for item, result in results:
            bar.advance(line, weigh(item))
            yield item, result


def _serial(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    for item in items:
        yield item, function(item)


def _parallel_if_long(
    function: Callable[[Any], Any], items: Sequence[Any], jobs: int, weigh: Callable[[Any], int]
) -> Iterator[tuple[Any, Any]]:
    done, end = 0, time.monotonic() + START_S
    while done < len(items) and weigh(items[done]) <= LIGHT and time.monotonic() < end:
        yield items[done], function(items[done])
        done += 1
    if left := items[done:]:
        yield from _parallel(function, left, jobs)


def _parallel(function: Callable[[Any], Any], items: Sequence[Any], jobs: int) -> Iterator[tuple[Any, Any]]:
    # a fork server: forking a process with torch threads can hang, and spawning would import torch every time
    context = get_context("forkserver")
    context.set_forkserver_preload([function.__module__])
    plugins = loaded_plugins()
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_prepare_worker, initargs=(plugins,)
    ) as pool:
        waiting = {pool.submit(function, item): item for item in items}
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    yield waiting.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _prepare_worker(plugins: tuple[str, ...]) -> None:
    """Leave Ctrl-C, which reaches all processes of a terminal, to the parent; end when that is killed."""
    load_plugins(plugins)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)
