"""Find out what layout a user's folder has, read it, and merge several sources of one task."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.annotation_files import unread_annotations
from ufo_large.data.datasets.bdd_boxes import (
    a_file_per_picture,
    is_bdd_boxes_folder,
    masks_beside_boxes,
    read_bdd_boxes_folder,
)
from ufo_large.data.datasets.camvid import is_camvid_folder, read_camvid_folder
from ufo_large.data.datasets.cityscapes import is_cityscapes_folder, read_cityscapes_folder
from ufo_large.data.datasets.coco import is_coco_folder, read_coco_folder
from ufo_large.data.datasets.contest import contest_roots, read_contest
from ufo_large.data.datasets.depth_folders import is_depth_folder, read_depth_folder
from ufo_large.data.datasets.fixed import is_fixed_folder, read_fixed_folder
from ufo_large.data.datasets.hugging_face import (
    has_hugging_face_boxes,
    is_hugging_face_folder,
    read_hugging_face_folder,
)
from ufo_large.data.datasets.image_folder import is_image_folder, read_image_folder
from ufo_large.data.datasets.label_tables import unread_tables
from ufo_large.data.datasets.mask_folders import is_mask_folder, read_mask_folder, unread_instead_of_masks
from ufo_large.data.datasets.merge import keep_to, merge_tasks, renamed
from ufo_large.data.datasets.no_classes import no_class_folders
from ufo_large.data.datasets.parquet import has_parquet_boxes, is_parquet_folder, read_parquet_folder
from ufo_large.data.datasets.roboflow_coco import is_roboflow_coco_folder, read_roboflow_coco_folder
from ufo_large.data.datasets.split_names import subfolders
from ufo_large.data.datasets.table_folder import is_table_folder, read_table_folder
from ufo_large.data.datasets.tt100k import is_tt100k_folder, read_tt100k_folder
from ufo_large.data.datasets.voc import is_voc_folder, read_voc_folder
from ufo_large.data.datasets.yolo import is_yolo_folder, read_bare_yolo_folder, read_yolo_folder
from ufo_large.data.datasets.yolo_folders import is_bare_yolo_folder
from ufo_large.kinds import kind_of, require_kind
from ufo_large.structures import Findings, SourceTask, TaskInfo

Read = Callable[[Path, str, Findings], SourceTask]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way to lay out the data of one task in a folder.

    `name`: for messages. `looks_like(root)`: whether a folder has it. `task`: its task's name where the user
    gives none. `read(root, task, findings)`: its reader. `other_tools`: functions that say what tells that a
    folder is another tool's, looked at before it is read, because folders alone say little. `takes_count`:
    the reader takes `count`, the number of classes that its files do not say.
    """

    name: str
    looks_like: Callable[[Path], bool]
    task: str
    read: Read
    other_tools: tuple[Callable[[Path], str], ...] = ()
    takes_count: bool = False


def _layout(name: str, looks_like: Callable[[Path], bool], task: str, read: Read, **more: Any) -> Layout:
    return Layout(name=name, looks_like=looks_like, task=task, read=read, **more)


BY_CLASS = (unread_annotations, unread_tables, no_class_folders)
# the first that fits is taken
LAYOUTS = [
    _layout("COCO (annotations/instances_<split>.json)", is_coco_folder, "dec", read_coco_folder),
    _layout(
        "Roboflow COCO (<split>/_annotations.coco.json)",
        is_roboflow_coco_folder,
        "dec",
        read_roboflow_coco_folder,
    ),
    _layout("VOC (Annotations/, JPEGImages/)", is_voc_folder, "dec", read_voc_folder),
    _layout("YOLO (data.yaml, images/, labels/)", is_yolo_folder, "dec", read_yolo_folder),
    _layout("TT100K (annotations.json, train/, test/)", is_tt100k_folder, "dec", read_tt100k_folder),
    _layout(
        "BDD100K's boxes (images/100k/, labels/det_20/)",
        is_bdd_boxes_folder,
        "dec",
        read_bdd_boxes_folder,
        other_tools=(masks_beside_boxes, a_file_per_picture),
    ),
    _layout("YOLO (images/ beside labels/*.txt)", is_bare_yolo_folder, "dec", read_bare_yolo_folder),
    _layout("depth maps (images/, depth/, depth.json)", is_depth_folder, "depth", read_depth_folder),
    _layout("Cityscapes (leftImg8bit/, gtFine/)", is_cityscapes_folder, "seg", read_cityscapes_folder),
    _layout("CamVid (<split>annot/, or label_colors.txt)", is_camvid_folder, "seg", read_camvid_folder),
    _layout(
        "BDD100K, or images/ beside masks/",
        is_mask_folder,
        "seg",
        read_mask_folder,
        other_tools=(unread_instead_of_masks,),
        takes_count=True,
    ),
    _layout(
        "Hugging Face's imagefolder (metadata.jsonl with objects)",
        has_hugging_face_boxes,
        "dec",
        read_hugging_face_folder,
    ),
    _layout(
        "Hugging Face's imagefolder (metadata.jsonl or .csv)",
        is_hugging_face_folder,
        "cls",
        read_hugging_face_folder,
    ),
    _layout("Hugging Face's Parquet with objects", has_parquet_boxes, "dec", read_parquet_folder),
    _layout("Hugging Face's Parquet with pictures", is_parquet_folder, "cls", read_parquet_folder),
    _layout(
        "a table of names and classes (CSV)",
        is_table_folder,
        "cls",
        read_table_folder,
        other_tools=(unread_annotations,),
    ),
    _layout(
        "class folders ([<split>/]<class>/*.jpg)",
        is_image_folder,
        "cls",
        read_image_folder,
        other_tools=BY_CLASS,
    ),
]


def register_layout(layout: Layout) -> None:
    """Add a layout, as a plugin does; it is asked before those of the package."""
    if layout.name not in (known.name for known in LAYOUTS):
        LAYOUTS.insert(0, layout)


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
        if path.is_file():
            raise ValueError(f"{path}: a file; give the folder of a dataset")
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
    for task in tasks + others:
        require_kind(task.info)
    merged = keep_to(merge_tasks(tasks + others, findings), known)
    _refuse_idle_counts(merged, counts)
    _report_single_classes(merged, findings)
    return merged


def _report_single_classes(tasks: list[SourceTask], findings: Findings) -> None:
    """A network that chooses among one class is always right; such data is most often misread."""
    for task in tasks:
        if task.info.num_classes == 1 and kind_of(task.info).compares_classes:
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
    for layout in LAYOUTS:
        if layout.looks_like(path):
            for told in filter(None, (look(path) for look in layout.other_tools)):
                raise ValueError(told)
            task = name or layout.task
            options = {"count": counts.get(task)} if layout.takes_count else {}
            return layout.read(path, task, findings, **options)
    if told := unread_annotations(path) or unread_tables(path):
        raise ValueError(told)
    if inside := [folder for folder in subfolders(path) if _has_layout(folder)]:
        shown = ", ".join(folder.name for folder in inside[:5])
        raise ValueError(f"{path}: no layout that is known, but its folder {shown} has one; give that")
    known = "; ".join(["the contest's roots (cls/, dec/, seg/)", *(layout.name for layout in LAYOUTS)])
    raise ValueError(f"{path}: no layout that is known. Known: {known}")


def _has_layout(folder: Path) -> bool:
    """True as for the one folder that archives unpack into."""
    return bool(contest_roots(folder)) or any(layout.looks_like(folder) for layout in LAYOUTS)
