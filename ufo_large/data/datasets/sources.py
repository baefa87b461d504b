"""Find out what layout a user's folder has, read it, and merge several sources of one task."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from ufo_large.data.datasets.annotation_files import unread_annotations
from ufo_large.data.datasets.base import Findings, SourceTask
from ufo_large.data.datasets.camvid import is_camvid_folder, read_camvid_folder
from ufo_large.data.datasets.cityscapes import is_cityscapes_folder, read_cityscapes_folder
from ufo_large.data.datasets.coco import is_coco_folder, read_coco_folder
from ufo_large.data.datasets.contest import contest_roots, read_contest
from ufo_large.data.datasets.fixed import is_fixed_folder, read_fixed_folder
from ufo_large.data.datasets.image_folder import is_image_folder, read_image_folder
from ufo_large.data.datasets.label_tables import unread_tables
from ufo_large.data.datasets.mask_folders import is_mask_folder, read_mask_folder, unread_instead_of_masks
from ufo_large.data.datasets.merge import keep_to, merge_tasks, renamed
from ufo_large.data.datasets.no_classes import no_class_folders
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
# folders alone say little: what tells that they are another tool's is looked for before they are read
OTHER_TOOLS = {
    read_mask_folder: (unread_instead_of_masks,),
    read_image_folder: (unread_annotations, unread_tables, no_class_folders),
}


def read_sources(
    data: Sequence[str | Path],
    findings: Findings,
    counts: Mapping[str, int] | None = None,
    known: Mapping[str, TaskInfo] | None = None,
) -> list[SourceTask]:
    """Read every folder of `data` and return its tasks, those of one name merged.

    A folder may be written NAME=FOLDER to name its task; several tasks of one folder are NAME_<task>.
    `counts` and `known` as in `read_contest`. What is wrong inside is added to `findings`; a folder that is
    missing, has no known layout or one that is not read raises ValueError.
    """
    counts, known = counts or {}, known or {}
    contest: dict[str, list[Path]] = defaultdict(list)
    others: list[SourceTask] = []
    for entry in data:
        name, path = _split_entry(str(entry))
        if not path.is_dir():
            raise ValueError(f"{path}: no such folder; check --data")
        if is_fixed_folder(path):
            others += renamed(read_fixed_folder(path), name)
        elif roots := contest_roots(path):
            contest[name] += [root for root in roots if root not in contest[name]]
        else:
            others.append(_read_single_task(path, name, findings, counts))
    tasks = [
        task for name, roots in contest.items() for task in read_contest(roots, findings, counts, known, name)
    ]
    merged = keep_to(merge_tasks(tasks + others), known)
    _refuse_idle_counts(merged, counts)
    _report_single_classes(merged, findings)
    return merged


def _report_single_classes(tasks: list[SourceTask], findings: Findings) -> None:
    """A network that chooses among one class is always right; such data is most often misread."""
    for task in tasks:
        if task.info.num_classes == 1 and task.info.kind != "detection":
            told = f"{task.info.class_names[0]} is its only class, so every answer is right"
            remedy = "add a folder or list with another class, or keep to other shards with --like SHARDS"
            findings.at(task.info.name).add("classes", f"{task.info.name}: {told}; {remedy}", "")


def _refuse_idle_counts(tasks: list[SourceTask], counts: Mapping[str, int]) -> None:
    """A count that the data overrules, or of a task that is not there, would be ignored in silence."""
    found = {task.info.name: task.info.num_classes for task in tasks}
    for task, count in counts.items():
        if found.get(task) != count:
            told = f"its files say {found[task]}" if task in found else f"there are only {', '.join(found)}"
            raise ValueError(f"--classes {task}={count} has no effect: {told}; leave it out")


def _split_entry(entry: str) -> tuple[str, Path]:
    name, separator, path = entry.partition("=")
    if not separator or "/" in name or Path(entry).exists():
        return "", Path(entry)
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ValueError(f"--data {entry!r}: {name!r} is no name for a task; letters, digits, _ and - alone")
    return name, Path(path)


def _read_single_task(path: Path, name: str, findings: Findings, counts: Mapping[str, int]) -> SourceTask:
    for _, looks_like, task, read in SINGLE_TASK_LAYOUTS:
        if looks_like(path):
            for told in filter(None, (look(path) for look in OTHER_TOOLS.get(read, ()))):
                raise ValueError(told)
            # only plain masks do not say their classes themselves
            options = {"count": counts.get(name or task)} if read is read_mask_folder else {}
            return read(path, name or task, findings, **options)
    if told := unread_annotations(path) or unread_tables(path):
        raise ValueError(told)
    layouts = "; ".join(
        ["the contest's roots (cls/, dec/, seg/)", *(entry[0] for entry in SINGLE_TASK_LAYOUTS)]
    )
    raise ValueError(f"{path}: no layout that is known. Known: {layouts}")
