"""Steps with a loss or gradient that is not finite: batches are saved for a replay, some steps skipped.

Under `reload` the run first ends with the code that asks for a restart, and so goes back to its last whole
checkpoint: what happened once, as a flipped bit in a memory, does not happen again.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ufo_large.config import read_json, write_json
from ufo_large.distributed import comm
from ufo_large.structures import TaskBatch
from ufo_large.train.saved_batch import save_batch

MOST_NAMED = 8
RELOADS = "reloads.json"


class TriedAgain(FloatingPointError):
    """A step is tried again from the last whole checkpoint once somebody starts the run again."""


@dataclass(slots=True)
class NotFinite:
    """What a run does at such a step.

    `folder`: where batches are saved; without one none is kept. `policy`: `stop`, or `skip` up to `limit`
    steps in the whole run: then neither weights nor optimizer nor balancer see the step. `skipped` counts
    them. Or `reload`: up to `limit` steps are tried once more, and skipped where that does not help; FOLDER/
    reloads.json has those, which no checkpoint that the run goes back to could have.
    """

    folder: Path | None = None
    policy: str = "stop"
    limit: int = 0
    skipped: int = 0
    tried: list[int] = field(default_factory=list)
    _kept: list[tuple[TaskBatch, Tensor]] = field(default_factory=list)

    def begin_step(self) -> None:
        self._kept = []

    def keep(self, batch: TaskBatch, loss: Tensor) -> None:
        """Remember a batch of this step, as the loader gave it, until the next begins."""
        if self.folder is not None:
            self._kept.append((batch, loss.detach()))

    def read_tried(self) -> None:
        """Take up which steps the run went back for before. On all ranks."""
        file = self.folder / RELOADS
        is_there = self.policy == "reload" and comm.is_main() and file.exists()
        read = lambda: _steps(read_json(file, f"remove {file}"), file) if is_there else []
        self.tried = comm.all_gather_objects(comm.agreed(read))[0]

    def may_try_again(self, step: int) -> bool:
        """Note that the run goes back for this step where policy and limit allow it. On all ranks."""
        if self.policy != "reload" or step in self.tried or len(self.tried) >= self.limit:
            return False
        self.tried.append(step)
        comm.agreed(lambda: self._write_tried() if comm.is_main() else None)  # before any rank leaves
        return True

    def _write_tried(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(self.folder / RELOADS, {"steps": self.tried})

    def may_skip(self, step: int) -> bool:
        """Count this step as skipped where the policy and its limit allow it; the same on all ranks."""
        is_meant = self.policy == "skip" or (self.policy == "reload" and step in self.tried)
        if not is_meant or self.skipped >= self.limit:
            return False
        self.skipped += 1
        return True

    def told_limit(self) -> str:
        """Return why a run that skips did not skip this step; empty under `stop`."""
        done = {"skip": "skipped", "reload": "tried again or skipped"}.get(self.policy)
        return f"max_skipped_steps={self.limit} were {done} before. " if done else ""

    def counted(self) -> dict[str, float]:
        """Return what there is to log: nothing under `stop`."""
        return {} if self.policy == "stop" else {"train/skipped_steps": float(self.skipped)}

    def save_batches(self, step: int, tasks: Collection[str]) -> str:
        """Save the batches of `tasks` that may be the cause and return words that name files and images.

        Those whose loss is not finite; where all losses are finite, any may have made the gradient, so all
        are saved. On all ranks.
        """
        mine = [(batch, bool(loss.isfinite())) for batch, loss in self._kept if batch.task in tasks]
        is_a_loss = comm.any_rank(not all(fine for _, fine in mine))
        told = [
            self._save(step, number, batch)
            for number, (batch, fine) in enumerate(mine)
            if not (fine and is_a_loss)
        ]
        lines = [line for by_rank in comm.all_gather_objects(told) for line in by_rank]
        if not lines:
            return ""
        replay = "launchers/replay_batch.py --workdir RUN FILE computes the losses of one again"
        return "\n".join(["", f"The batches of that step ({replay}):", *(f"  {line}" for line in lines)])

    def _save(self, step: int, number: int, batch: TaskBatch) -> str:
        file = self.folder / f"step-{step:08d}-rank-{comm.rank()}-{batch.task}-{number}.pt"
        names = [sample.file_name for sample in batch.samples]
        more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        try:
            save_batch(batch, file)
        except (OSError, RuntimeError, TypeError) as error:  # must not hide what it is about
            file = f"not saved ({error})"
        return f"{file}: {', '.join(names[:MOST_NAMED])}{more}"


def _steps(body: Any, file: Path) -> list[int]:
    match body:
        case {"steps": list(steps)} if all(isinstance(step, int) for step in steps):
            return steps
    raise ValueError(f"{file}: names no steps; remove {file}")
