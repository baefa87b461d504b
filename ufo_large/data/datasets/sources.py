"""Find out what layout a user's folder has, read it, and merge several sources of one task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ufo_large.data.datasets.base import Findings, SourceTask
from ufo_large.data.datasets.coco import is_coco_folder, read_coco_folder
from ufo_large.data.datasets.contest import contest_roots, read_contest
from ufo_large.data.datasets.merge import merge_tasks
from ufo_large.structures import TaskInfo

LAYOUTS = "contest roots (cls/, dec/, seg/), COCO (annotations/instances_<split>.json)"


def read_sources(
    data: Sequence[str | Path],
    findings: Findings,
    counts: Mapping[str, int] | None = None,
    known: Mapping[str, TaskInfo] | None = None,
) -> list[SourceTask]:
    """Read every folder of `data` and return its tasks, those of one name merged.

    A folder may be written TASK=FOLDER to name the task of a single-task layout. What is wrong inside is
    added to `findings`; a folder that is missing or has no known layout raises ValueError.
    """
    contest: list[Path] = []
    tasks: list[SourceTask] = []
    for entry in data:
        name, path = _split_entry(str(entry))
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; check --data")
        if roots := contest_roots(path):
            contest += [root for root in roots if root not in contest]
        elif is_coco_folder(path):
            tasks.append(read_coco_folder(path, name or "dec", findings))
        else:
            raise ValueError(f"{path}: no layout that is known; known: {LAYOUTS}")
    if contest:
        tasks = read_contest(contest, findings, counts or {}, known or {}) + tasks
    return merge_tasks(tasks)


def _split_entry(entry: str) -> tuple[str, Path]:
    name, separator, path = entry.partition("=")
    if separator and name.isidentifier() and not Path(entry).exists():
        return name, Path(path)
    return "", Path(entry)
