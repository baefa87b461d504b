"""Write checkpoints that appear whole or not at all, and remove those that are no longer kept.

A checkpoint is written to `partial-step-<n>`. When every rank's files are on the disk, `complete.json` is
written there, last, with size and SHA-256 of all of them, and the folder takes its name, `step-<n>`. Removal
goes the other way round. So whatever ends the run, no folder with that name lacks anything.
"""

import shutil
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import asdict, astuple, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ufo_large.config import write_json
from ufo_large.distributed import comm
from ufo_large.distributed.checkpoint import COMPLETE, complete_checkpoints, rank_file
from ufo_large.distributed.checksums import Stamp, sealed, stamp_on_disk, sync, sync_tree
from ufo_large.distributed.engine import Engine
from ufo_large.distributed.generators import rng_state
from ufo_large.distributed.writer import Writer, naming_file

PARTIAL = "partial-"


@dataclass(slots=True)
class _Begun:
    """A checkpoint whose files are being written, or, once `published` is set, that is being made whole."""

    step: int
    folder: Path
    at: float = field(default_factory=time.monotonic)
    published: Future[None] | None = None


class Saver:
    """Saves an engine's checkpoints under `root`, one at a time. Every method is called on all ranks.

    `kept`: of the steps of which there are checkpoints, oldest first, those that stay. `in_background`:
    `save` returns once there is a copy in host memory, as large as this rank's part of the checkpoint; the
    checkpoint is there after `finish`, or soon after the first `poll` that finds every rank's files written.
    `longest_s`: the longest time from `save` to when the checkpoint was found to be there.
    """

    def __init__(
        self,
        root: Path,
        engine: Engine,
        kept: Callable[[Sequence[int]], Collection[int]],
        in_background: bool = False,
    ):
        self.root = root
        self.engine = engine
        self.kept = kept
        self.in_background = in_background
        self._writer = Writer(in_background)
        self._layout = {"layout": [[astuple(piece) for piece in pieces] for pieces in engine.layout()]}
        self._persistent = set(engine.module.state_dict())
        self._begun: _Begun | None = None
        self.longest_s = 0.0

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Save the engine and this rank's `state` after `step` finished steps.

        Raises ValueError, on all ranks, where a file of this checkpoint, or of the one before, which is
        finished first, could not be written.
        """
        self.finish()
        folder = self.root / f"{PARTIAL}step-{step:08d}"
        comm.agreed(lambda: self._make(folder) if comm.is_main() else None)
        self._begun = _Begun(step, folder)
        self.engine.save(folder, self._writer.write)
        named = self.engine.module.named_buffers() if comm.is_main() else ()
        buffers = {name: buffer.cpu() for name, buffer in named if name in self._persistent}
        own = {"step": step, "state": state, "rng": rng_state(), "buffers": buffers}
        self._writer.write(own, rank_file(folder, comm.rank()), self._layout)
        if not self.in_background:
            self.finish()

    def poll(self) -> None:
        """Go on with what was begun where no rank has to wait for it."""
        if self._begun is None:
            return
        published = self._begun.published
        if not comm.any_rank(not (self._writer.is_done() if published is None else published.done())):
            self._go_on()

    def finish(self) -> None:
        """Wait until what was begun is a checkpoint, and those are removed that are no longer kept."""
        while self._begun is not None:
            self._go_on()

    def _go_on(self) -> None:
        """When all ranks have written their files, begin to make them a checkpoint; when it is one, end."""
        begun, self._begun = self._begun, None
        if begun.published is not None:
            comm.agreed(begun.published.result)  # it is whole, for a rank that leaves next
            self.longest_s = max(self.longest_s, time.monotonic() - begun.at)
            return
        written = comm.agreed(self._writer.finish)
        files = _recorded(begun.folder, {_name(begun.folder, file): s for file, s in written.items()})
        body = {"step": begun.step, "world_size": comm.world_size(), "engine": self.engine.kind}
        publish = partial(self._publish, begun.folder, sealed(body | {"files": files}))
        begun.published = self._writer.submit(publish if comm.is_main() else lambda: None)
        self._begun = begun

    def _make(self, folder: Path) -> None:
        for left in self.root.glob(f"{PARTIAL}*"):  # by a run that ended while it wrote or removed
            shutil.rmtree(left)
        folder.mkdir(parents=True)

    def _publish(self, unfinished: Path, written: dict[str, Any]) -> None:
        with naming_file(unfinished / COMPLETE):
            write_json(unfinished / COMPLETE, written)
            sync(unfinished / COMPLETE)
        sync_tree(unfinished)
        folder = unfinished.with_name(unfinished.name.removeprefix(PARTIAL))
        if folder.exists():  # one that lacks its complete.json
            remove(folder)
        unfinished.rename(folder)
        sync(self.root)
        found = {int(f.name.removeprefix("step-")): f for f in complete_checkpoints(self.root)}
        kept = self.kept(list(found))
        for step, folder in found.items():
            if step not in kept:
                remove(folder)


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint so that no moment leaves one that seems whole."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    sync(checkpoint)
    shutil.rmtree(checkpoint.rename(checkpoint.with_name(f"{PARTIAL}removed-{checkpoint.name}")))


def _recorded(folder: Path, own: dict[str, Stamp]) -> dict[str, dict[str, Any]]:
    """Return, on all ranks, what each file below `folder` holds and which rank told it.

    What the engine wrote by itself, as weights swapped to NVMe, is read once more, each file by one rank.
    """
    ranks = comm.all_gather_objects(own)
    names = {name for files in ranks for name in files}
    rest = sorted(_name(folder, f) for f in folder.rglob("*") if f.is_file()) if comm.is_main() else []
    rest = [name for name in comm.all_gather_objects(rest)[0] if name not in names]
    mine = comm.agreed(lambda: {n: stamp_on_disk(folder / n) for n in rest[comm.rank() :: comm.world_size()]})
    told = [a | b for a, b in zip(ranks, comm.all_gather_objects(mine), strict=True)]
    return {n: {**asdict(s), "rank": rank} for rank, files in enumerate(told) for n, s in files.items()}


def _name(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
