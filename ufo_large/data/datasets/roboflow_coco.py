"""COCO as Roboflow lays it out: <split>/_annotations.coco.json beside the pictures of each split."""

from pathlib import Path

from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.coco import Coco, CocoReader, load_coco, read_categories
from ufo_large.data.datasets.split_names import report_unread, split_folders, subfolders
from ufo_large.structures import Findings, SourceTask, numbered_info

ANNOTATIONS = "_annotations.coco.json"


def is_roboflow_coco_folder(root: Path) -> bool:
    return bool(_split_files(root))


def _split_files(root: Path) -> dict[str, Path]:
    """Return the file of each split; one in `root` itself, without split folders, is train."""
    files = {split: folder / ANNOTATIONS for split, folder in split_folders(root).items()}
    files = {split: file for split, file in files.items() if file.is_file()}
    alone = root / ANNOTATIONS
    return files or ({"train": alone} if alone.is_file() else {})


def read_roboflow_coco_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    files = _split_files(root)
    cocos = {file: load_coco(file, findings.at(task, split)) for split, file in files.items()}
    _drop_super_categories(cocos)
    info = numbered_info(task, "detection", read_categories(cocos, findings.at(task)))
    labels = {number: label for label, number in enumerate(info.class_ids)}
    splits = {
        split: CocoReader(file, file.parent, labels, findings.at(task, split)).read(cocos[file])
        for split, file in files.items()
    }
    folders = [file.parent for file in files.values() if file.parent != root]
    beside = [p for p in subfolders(root) if list_images(p)] if folders else []
    report_unread([*folders, *beside], folders, findings.at(task))
    return SourceTask(info, splits)


def _drop_super_categories(cocos: dict[Path, Coco]) -> None:
    """Roboflow lists the data set's name as category 0, the super-category of the others: no box has it."""
    used = {a.get("category_id") for coco in cocos.values() for a in coco.get("annotations", [])}
    for coco in cocos.values():
        categories = coco["categories"]
        above = {c.get("supercategory") for c in categories if c.get("supercategory") != c.get("name")}
        coco["categories"] = [c for c in categories if c.get("id") in used or c.get("name") not in above]
