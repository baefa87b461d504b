"""A task alone: shards that show nothing else, and as many images of it as beside the others."""

import json
from pathlib import Path

from ufo_large.config import read_json, without_credentials, write_text_whole
from ufo_large.data.opener import is_remote
from ufo_large.data.shard_index import DATASET_FILE, fingerprint_of
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo


def one_task_view(shards: Path, task: str, folder: Path) -> Path:
    """Make a folder of shards that shows only one task of `shards`; nothing is copied."""
    view = folder / task
    view.mkdir(parents=True, exist_ok=True)
    whole = read_json(shards / DATASET_FILE, "run make_shards.py again")
    whole["tasks"] = [t for t in whole["tasks"] if t["name"] == task]
    whole["splits"] = {task: whole["splits"][task]}
    whole["fingerprint"] = fingerprint_of(whole)
    write_text_whole(view / DATASET_FILE, json.dumps(whole))
    link = view / task
    if link.is_symlink() and link.resolve() != (shards / task).resolve():
        link.unlink()
    if not link.is_symlink():
        link.symlink_to((shards / task).resolve(), target_is_directory=True)
    return view


def require_local(data: str) -> None:
    """Raise ValueError for shards that a folder cannot show in part."""
    if is_remote(data):
        told = "single-task runs need the shards in a local folder; copy them"
        raise ValueError(f"--data {without_credentials(data)}: {told}")


def single_overrides(config: RunConfig, info: TaskInfo) -> tuple[str, ...]:
    """Return the settings under which one task alone sees as many images as beside the others.

    Where it takes part in a fraction of the steps, there are as many fewer steps, and what is counted in
    steps (warm-up, validations) shrinks with them. ValueError where that fraction changes during training.
    """
    stages = config.task(info).stages
    if all(count >= 1 for _, count in stages):
        return ()
    share = stages[0][1]
    if len(stages) > 1 or share == 0:
        raise ValueError(
            f"task {info.name!r} rests at times ({stages}); a single-task run of it is not clear. Give it "
            "one number of micro_batches above 0"
        )
    key = next(key for key in (info.name, info.kind) if key in config.tasks)
    shrunk = {"steps": config.steps, "schedule.warmup_steps": config.schedule.warmup_steps}
    if config.evaluate_every:
        shrunk["evaluate_every"] = config.evaluate_every
    fewer = tuple(f"{field}={max(1, round(share * count))}" for field, count in shrunk.items() if count)
    return (*fewer, f"tasks.{key}.micro_batches=1")
