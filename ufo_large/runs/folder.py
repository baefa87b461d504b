"""What lies where in a run's folder, and how a run is read again."""

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ufo_large.config import (
    apply_overrides,
    from_dict,
    loaded_plugins,
    read_json,
    to_dict,
    without_credentials,
    write_json,
)
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shards import ShardSet
from ufo_large.kinds import require_kind
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo

FORMAT = "ufo-large-run/2"
CONFIG_REMEDY = (
    "put a copy of the run's config.json there: the command that began the run writes the same one into an "
    "empty --workdir before its first step"
)


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`config.json` (recipe, tasks, data fingerprint), `checkpoints/`, `weights/`, and what tracking writes.

    `weights/` holds the whole model as safetensors, written when the run ends; where it then goes on, the
    earlier ones are in `left-<n>-weights/`. `best/` has those of the best validation, where the run keeps
    them. What evaluation writes (submission, metrics, examples, report) lies in the folder itself for the
    test split of the run's own shards, else in `evaluations/`.
    """

    root: Path

    @property
    def config_file(self) -> Path:
        return self.root / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def weights(self) -> Path:
        return self.root / "weights"

    @property
    def not_finite(self) -> Path:
        """The batches of steps whose loss or gradient was not finite."""
        return self.root / "not_finite"

    @property
    def best(self) -> Path:
        """The weights of the best validation, while a run that keeps them goes on and after it."""
        return self.root / "best"

    def write(
        self, config: RunConfig, tasks: tuple[TaskInfo, ...], fingerprint: str, data: str, ds: Any
    ) -> None:
        """Save what the run is, before its first step."""
        self.root.mkdir(parents=True, exist_ok=True)
        body = {
            "format": FORMAT,
            "plugins": list(loaded_plugins()),
            "config": to_dict(config),
            "tasks": [dataclasses.asdict(t) for t in tasks],
            "data": {"path": without_credentials(data), "fingerprint": fingerprint},
            "deepspeed": ds,
        }
        write_json(self.config_file, body)

    def results(self, split: str, shards: ShardSet, trained_on: str) -> Path:
        """Return the folder for results on a split; no other shards or split has the same.

        `trained_on`: the fingerprint of the run's own shards.
        """
        if shards.fingerprint == trained_on:
            return self.own_results(split)
        name = f"{Path(urlsplit(shards.root).path).name}-{shards.fingerprint[:8]}"
        name = name if split == "test" else f"{name}-{split}"
        return self.root / "evaluations" / re.sub(r"[^\w.-]+", "_", name)

    def own_results(self, split: str) -> Path:
        """Return the folder for results on a split of the run's own shards."""
        return self.root if split == "test" else self.root / "evaluations" / split

    def read(self) -> "SavedRun":
        """Read a run back. Raises ValueError where the folder holds none, or a damaged one."""
        if not self.config_file.exists():
            raise ValueError(
                f"{self.root}: not a run folder (config.json is missing); give the --workdir of a run"
            )
        body = self._body()
        absent = [name for name in body["plugins"] if name not in loaded_plugins()]
        wanted = f"; it was trained with --plugin {' --plugin '.join(absent)}" if absent else ""
        try:
            config = from_dict(RunConfig, body["config"])
            tasks = self.read_tasks()
            for info in tasks:
                require_kind(info)
        except ValueError as error:
            raise ValueError(f"{self.config_file}: {error}{wanted}") from None
        data = body["data"]
        return SavedRun(config, tasks, data["fingerprint"], without_credentials(data["path"]))

    def read_tasks(self) -> tuple[TaskInfo, ...]:
        """Read only the run's tasks, which are the same whatever recipe it had."""
        try:
            return tuple(TaskInfo.from_json(task) for task in self._body()["tasks"])
        except (TypeError, KeyError) as error:
            raise ValueError(f"{self.config_file}: 'tasks' is damaged ({error}); {CONFIG_REMEDY}") from None

    def _body(self) -> dict[str, Any]:
        """Return what `write` wrote; ValueError where a part of it is missing."""
        body = read_json(self.config_file, CONFIG_REMEDY)
        found = body.get("format") if isinstance(body, dict) else None
        if isinstance(body, dict) and "config" in body and found != FORMAT:
            raise ValueError(
                f"{self.config_file}: format {found!r}, but this version reads {FORMAT!r}; read the run with "
                "the version that trained it, or start from its weights: --set pretrained=RUN/weights"
            )
        match body:
            case {
                "config": dict(),
                "plugins": list(plugins),
                "tasks": list(tasks),
                "data": {"fingerprint": str(), "path": str()},
            }:
                if all(isinstance(t, dict) for t in tasks) and all(isinstance(p, str) for p in plugins):
                    return body
        raise ValueError(f"{self.config_file}: not what a run writes there; {CONFIG_REMEDY}")


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as its folder describes it."""

    config: RunConfig
    tasks: tuple[TaskInfo, ...]
    fingerprint: str
    data: str

    def fed(self, assignments: Sequence[str]) -> "SavedRun":
        """Return the run with `tasks.<task>.loader.<field>=value` applied, for test time."""
        for assignment in assignments:
            if not re.match(r"tasks\.[^.=]+(\.loader\.|=)", assignment):
                raise ValueError(
                    f"--set {assignment}: a finished run takes only tasks.<task>.loader.<field>=value, and "
                    "tasks.<task>=<kind> for a feed of its own"
                )
        return dataclasses.replace(self, config=apply_overrides(self.config, assignments))

    def test_feeds(self, assignments: Sequence[str] = ()) -> dict[str, LoaderConfig]:
        """Return how each task is fed at test time, with assignments as `fed` takes them."""
        return {key: task.loader for key, task in self.fed(assignments).config.tasks.items()}
