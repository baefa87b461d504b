"""Run a test function on several CPU ranks (gloo), and get back what each rank returned."""

import importlib.util
import multiprocessing
import os
import queue
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from ufo_large.processes.ports import free_port


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 300.0) -> list[Any]:
    """Call `function(*args)` on `world_size` fresh processes with torch.distributed's environment set.

    `function` is a top-level function of a test file. Returns the (picklable) results in rank order; raises
    RuntimeError with the first failing rank's traceback, or TimeoutError. One rank runs without environment.
    The processes are no daemons, so that their loaders may start workers; none outlives the call.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ufo_large.testing.preload"])
    results = context.Queue()
    port = free_port()
    target = (function.__code__.co_filename, function.__name__)
    ranks = [
        context.Process(target=_child, args=(target, rank, world_size, port, args, results))
        for rank in range(world_size)
    ]
    for process in ranks:
        process.start()
    try:
        return _collect(ranks, results, time.monotonic() + timeout)
    finally:
        for process in ranks:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()


def _collect(ranks: list[Any], results: Any, deadline: float) -> list[Any]:
    found: dict[int, Any] = {}
    while len(found) < len(ranks):
        try:
            rank, value, error = results.get(timeout=0.5)
        except queue.Empty:
            dead = [r for r, p in enumerate(ranks) if p.exitcode not in (None, 0) and r not in found]
            if dead:
                raise RuntimeError(
                    f"ranks {dead} died with exit codes {[ranks[r].exitcode for r in dead]}"
                ) from None
            if time.monotonic() > deadline:
                missing = sorted(set(range(len(ranks))) - set(found))
                raise TimeoutError(f"ranks {missing} gave no result in time") from None
            continue
        if error is not None:
            raise RuntimeError(f"rank {rank} failed:\n{error}")
        found[rank] = value
    return [found[rank] for rank in range(len(ranks))]


def _child(target: tuple[str, str], rank: int, world_size: int, port: int, args: tuple, results: Any) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    multiprocessing.set_start_method(None, force=True)  # what `python` has, not the forking process's
    if world_size > 1:
        os.environ.update(rank_environment(rank, world_size, port))
    import torch

    torch.set_num_threads(1)
    try:
        value = _load(*target)(*args)
        results.put((rank, value, None))
    except BaseException:
        results.put((rank, None, traceback.format_exc()))
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _load(path: str, name: str) -> Callable[..., Any]:
    spec = importlib.util.spec_from_file_location("rank_module", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["rank_module"] = module
    spec.loader.exec_module(module)
    return getattr(module, name)


def rank_environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """Return what a launcher would tell this rank of one machine."""
    counts = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    words = {name: str(value) for name, value in counts.items()}
    return words | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
