"""What lies where in a run's folder, and how a run is read again."""

import dataclasses
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.config import apply_overrides, from_dict, to_dict
from ufo_large.data.loader import LoaderConfig
from ufo_large.structures import TaskInfo
from ufo_large.train.config import RunConfig


@dataclass(frozen=True, slots=True)
class RunFolder:
    """`config.json` (recipe, tasks, data fingerprint), `checkpoints/`, `weights/`, and what tracking writes.

    `weights/` holds the whole model as safetensors, written when the run ends; where it then goes on, the
    earlier ones are in `left-<n>-weights/`.
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

    def write(
        self, config: RunConfig, tasks: tuple[TaskInfo, ...], fingerprint: str, data: str, ds: Any
    ) -> None:
        """Save what the run is, before its first step."""
        self.root.mkdir(parents=True, exist_ok=True)
        body = {
            "config": to_dict(config),
            "tasks": [dataclasses.asdict(t) for t in tasks],
            "data": {"path": data, "fingerprint": fingerprint},
            "deepspeed": ds,
        }
        self.config_file.write_text(json.dumps(body, indent=1), encoding="utf-8")

    def read(self) -> "SavedRun":
        """Read a run back. Raises ValueError where the folder holds none."""
        if not self.config_file.exists():
            raise ValueError(
                f"{self.root}: not a run folder (config.json is missing); give the --workdir of a run"
            )
        body = json.loads(self.config_file.read_text(encoding="utf-8"))
        data = body["data"]
        return SavedRun(from_dict(body["config"]), self.read_tasks(), data["fingerprint"], data["path"])

    def read_tasks(self) -> tuple[TaskInfo, ...]:
        """Read only the run's tasks, which are the same whatever recipe it had."""
        body = json.loads(self.config_file.read_text(encoding="utf-8"))
        return tuple(
            TaskInfo(**{k: tuple(v) if isinstance(v, list) else v for k, v in t.items()})
            for t in body["tasks"]
        )


@dataclass(frozen=True, slots=True)
class SavedRun:
    """A run as its folder describes it."""

    config: RunConfig
    tasks: tuple[TaskInfo, ...]
    fingerprint: str
    data: str

    def test_feeds(self, assignments: Sequence[str] = ()) -> dict[str, LoaderConfig]:
        """Return how each task is fed at test time, with `tasks.<task>.loader.<field>=value` applied."""
        for assignment in assignments:
            if not re.match(r"tasks\.[^.=]+(\.loader\.|=)", assignment):
                raise ValueError(
                    f"--set {assignment}: a finished run takes only tasks.<task>.loader.<field>=value, and "
                    "tasks.<task>=<kind> for a feed of its own"
                )
        config = apply_overrides(self.config, assignments)
        return {key: task.loader for key, task in config.tasks.items()}
