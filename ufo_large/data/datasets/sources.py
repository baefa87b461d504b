"""Find out what layout a user's folder has, read it, and merge several sources of one task."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ufo_large.data.datasets.base import Findings, SourceTask
from ufo_large.data.datasets.camvid import is_camvid_folder, read_camvid_folder
from ufo_large.data.datasets.cityscapes import is_cityscapes_folder, read_cityscapes_folder
from ufo_large.data.datasets.coco import is_coco_folder, read_coco_folder
from ufo_large.data.datasets.contest import contest_roots, read_contest
from ufo_large.data.datasets.fixed import is_fixed_folder, read_fixed_folder
from ufo_large.data.datasets.image_folder import is_image_folder, read_image_folder
from ufo_large.data.datasets.mask_folders import is_mask_folder, read_mask_folder
from ufo_large.data.datasets.merge import keep_to, merge_tasks
from ufo_large.data.datasets.voc import is_voc_folder, read_voc_folder
from ufo_large.structures import TaskInfo

# first match wins: what it is called, does a folder look like it, its task's name, its reader
SINGLE_TASK_LAYOUTS = (
    ("COCO (annotations/instances_<split>.json)", is_coco_folder, "dec", read_coco_folder),
    ("VOC (Annotations/, JPEGImages/)", is_voc_folder, "dec", read_voc_folder),
    ("Cityscapes (leftImg8bit/, gtFine/)", is_cityscapes_folder, "seg", read_cityscapes_folder),
    ("CamVid (<split>annot/, or label_colors.txt)", is_camvid_folder, "seg", read_camvid_folder),
    ("BDD100K, or images/ beside masks/", is_mask_folder, "seg", read_mask_folder),
    ("class folders ([<split>/]<class>/*.jpg)", is_image_folder, "cls", read_image_folder),
)


def read_sources(
    data: Sequence[str | Path],
    findings: Findings,
    counts: Mapping[str, int] | None = None,
    known: Mapping[str, TaskInfo] | None = None,
) -> list[SourceTask]:
    """Read every folder of `data` and return its tasks, those of one name merged.

    A folder may be written TASK=FOLDER to name the task of a single-task layout. `counts` and `known` as in
    `read_contest`. What is wrong inside is added to `findings`; a folder that is missing or has no known
    layout raises ValueError.
    """
    counts, known = counts or {}, known or {}
    contest: list[Path] = []
    others: list[SourceTask] = []
    for entry in data:
        name, path = _split_entry(str(entry))
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; check --data")
        if is_fixed_folder(path):
            others += read_fixed_folder(path)
        elif roots := contest_roots(path):
            contest += [root for root in roots if root not in contest]
        else:
            others.append(_read_single_task(path, name, findings, counts))
    tasks = read_contest(contest, findings, counts, known) if contest else []
    merged = keep_to(merge_tasks(tasks + others), known)
    _refuse_idle_counts(merged, counts)
    return merged


def _refuse_idle_counts(tasks: list[SourceTask], counts: Mapping[str, int]) -> None:
    """A count that the data overrules, or of a task that is not there, would be ignored in silence."""
    found = {task.info.name: task.info.num_classes for task in tasks}
    for task, count in counts.items():
        if found.get(task) != count:
            told = f"its files say {found[task]}" if task in found else f"there are only {', '.join(found)}"
            raise ValueError(f"--classes {task}={count} has no effect: {told}; leave it out")


def _split_entry(entry: str) -> tuple[str, Path]:
    name, separator, path = entry.partition("=")
    if separator and name.isidentifier() and not Path(entry).exists():
        return name, Path(path)
    return "", Path(entry)


def _read_single_task(path: Path, name: str, findings: Findings, counts: Mapping[str, int]) -> SourceTask:
    for _, looks_like, task, read in SINGLE_TASK_LAYOUTS:
        if looks_like(path):
            # only plain masks do not say their classes themselves
            options = {"count": counts.get(name or task)} if read is read_mask_folder else {}
            return read(path, name or task, findings, **options)
    layouts = "; ".join(
        ["the contest's roots (cls/, dec/, seg/)", *(entry[0] for entry in SINGLE_TASK_LAYOUTS)]
    )
    raise ValueError(f"{path}: no layout that is known. Known: {layouts}")
