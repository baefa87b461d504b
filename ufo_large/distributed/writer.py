"""Writes the files of one checkpoint on this rank: at once, or in a thread from a copy in host memory.

DeepSpeed's own decoupled writer is not used: it hands tensors to a process in shared memory without a copy,
so the next optimizer step waits for it, and a process that died loses files in silence.
"""

import copy
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from ufo_large.distributed.checksums import Stamp
from ufo_large.distributed.plain_files import write_plain


class Writer:
    """One checkpoint's files of this rank. A file that cannot be written is told by `finish` alone.

    So no rank leaves the collectives of the engine's saving, in which the others would wait for it.
    """

    def __init__(self, in_background: bool):
        self._copies = in_background
        self._executor: Executor = ThreadPoolExecutor(1, "checkpoint") if in_background else _AtOnce()
        self._files: dict[Path, Future[Stamp]] = {}

    def write(self, value: Any, file: Path) -> None:
        """Write tensors and plain values; what becomes of them after the call does not change the file."""
        taken = on_host(value) if self._copies else value
        self._files[file] = self._executor.submit(write_plain, taken, file)

    def is_done(self) -> bool:
        return all(written.done() for written in self._files.values())

    def finish(self) -> dict[Path, Stamp]:
        """Wait; return what each file holds. ValueError names a file that could not be written, and why."""
        self._executor.shutdown()
        found = {}
        for file, written in self._files.items():
            try:
                found[file] = written.result()
            except (OSError, RuntimeError) as error:
                raise ValueError(
                    f"{file}: this file of a checkpoint could not be written ({error}); give the disk of "
                    "--workdir room, then go on from the last whole checkpoint with --resume auto"
                ) from error
        return found


class _AtOnce(Executor):
    """Runs what it is given before `submit` returns."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def on_host(value: Any) -> Any:
    """Return a deep copy whose tensors are in host memory, as compact as their values."""
    tensors = {id(t): t for t in tree_leaves(value) if isinstance(t, Tensor)}
    return copy.deepcopy(value, {key: t.detach().to("cpu", copy=True) for key, t in tensors.items()})
