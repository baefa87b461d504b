"""Writes the files of one checkpoint on this rank: at once, or in a thread from a copy in host memory.

DeepSpeed's own decoupled writer is not used: it hands tensors to a process in shared memory without a copy,
so the next optimizer step waits for it, and a process that died loses files in silence.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from ufo_large.distributed.checksums import Stamp
from ufo_large.distributed.plain_files import write_plain


class Writer:
    """Writes files of this rank, one after the other. One that cannot be written is told by `finish` alone.

    So no rank leaves the collectives of the engine's saving, in which the others would wait for it.
    """

    def __init__(self, in_background: bool):
        self._host = HostCopies() if in_background else None
        self._executor: Executor = ThreadPoolExecutor(1, "checkpoint") if in_background else _AtOnce()
        self._files: dict[Path, Future[Stamp]] = {}

    def write(self, value: Any, file: Path, constant: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Write tensors and plain values; what becomes of them after the call does not change the file.

        `constant`: more entries of a dict `value`, which nobody changes and which need no copy.
        """
        taken = value if self._host is None else self._host.take(value)
        taken = taken | constant if constant else taken
        self._files[file] = self.submit(write_plain, taken, file)

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future:
        """Call what is to be done after all files that are being written."""
        return self._executor.submit(function, *args)

    def is_done(self) -> bool:
        return all(written.done() for written in self._files.values())

    def finish(self) -> dict[Path, Stamp]:
        """Wait; return what each file holds. ValueError names a file that could not be written, and why."""
        begun, self._files, found = self._files, {}, {}
        for file, written in begun.items():
            with naming_file(file):
                found[file] = written.result()
        if self._host is not None:
            self._host.give_back()
        return found


@contextlib.contextmanager
def naming_file(file: Path) -> Iterator[None]:
    """Turn what is said where a file cannot be written into ValueError with the file and the remedy."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{file}: this file of a checkpoint could not be written ({error}); give the disk of --workdir "
            "room, then go on from the last whole checkpoint with --resume auto"
        ) from error


class _AtOnce(Executor):
    """Runs what it is given before `submit` returns."""

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class HostCopies:
    """Deep copies whose tensors are in host memory, which is kept: the first touch of new memory is slow."""

    def __init__(self) -> None:
        self._free: dict[tuple, list[Tensor]] = {}
        self._taken: list[Tensor] = []

    def take(self, value: Any) -> Any:
        """Return a copy of `value`, good until `give_back`."""
        tensors = {id(t): t for t in tree_leaves(value) if isinstance(t, Tensor)}
        return copy.deepcopy(value, {key: self._copy(t) for key, t in tensors.items()})

    def give_back(self) -> None:
        """Let later copies overwrite all earlier ones; memory that none of these took is freed."""
        self._free = {}
        for tensor in self._taken:
            self._free.setdefault(_kind(tensor), []).append(tensor)
        self._taken = []

    def _copy(self, tensor: Tensor) -> Tensor:
        kept = self._free.get(_kind(tensor))
        host = kept.pop() if kept else torch.empty(tensor.shape, dtype=tensor.dtype)
        self._taken.append(host.copy_(tensor.detach()))
        return host


def _kind(tensor: Tensor) -> tuple:
    return tensor.dtype, tensor.shape
