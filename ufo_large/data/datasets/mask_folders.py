"""Segmentation by folders of pictures and masks: BDD100K's names, and plain images/ beside masks/.

BDD100K: images/10k/<split>/*.jpg with labels/sem_seg/masks/<split>/*.png, or (older) seg/images/<split>/ with
seg/labels/<split>/*_train_id.png. Plain: images/<split>/ with masks/<split>/ (also label/, labels/,
annotations/), or both without split folders, which is train alone. What mask values mean: see `mask_classes`.
"""

from dataclasses import dataclass
from pathlib import Path

from ufo_large.data.datasets.annotation_files import unread_annotations
from ufo_large.data.datasets.base import list_images
from ufo_large.data.datasets.mask_classes import mask_classes
from ufo_large.data.datasets.pairs import Files, by_stem, masked_source
from ufo_large.data.datasets.split_names import report_unread, split_folders, splits_among, subfolders
from ufo_large.structures import Findings, Reporter, SourceTask

TRAIN_ID = "_train_id"


@dataclass(frozen=True, slots=True)
class _Place:
    images: Path
    masks: Path
    bdd: bool


def _find(root: Path) -> _Place | None:
    bdd = (
        _Place(root / "images/10k", root / "labels/sem_seg/masks", True),
        _Place(root / "seg/images", root / "seg/labels", True),
        _Place(root / "images", root / "labels/sem_seg/masks", True),
    )
    plain = (
        _Place(root / "images", root / name, False) for name in ("masks", "labels", "label", "annotations")
    )
    return next((p for p in (*bdd, *plain) if p.images.is_dir() and p.masks.is_dir()), None)


def is_mask_folder(root: Path) -> bool:
    return _find(root) is not None


def unread_instead_of_masks(root: Path) -> str:
    """Return which annotations lie where masks are looked for, with the remedy; empty where masks do."""
    place = _find(root)
    if any(map(list_images, (place.masks, *subfolders(place.masks)))):
        return ""
    if told := unread_annotations(root):
        return told
    if {folder.name for folder in split_folders(place.images).values()} == {"test"}:
        return ""
    told = f"{place.masks}: no mask in it or in its train/ or val/"
    return f"{told}; put those of the pictures there, of the same names, or name the folder for what it holds"


def read_mask_folder(root: Path, task: str, findings: Findings, count: int | None = None) -> SourceTask:
    """Read pictures with masks; `count` classes where no file says more."""
    place = _find(root)
    report = findings.at(task)
    folders = subfolders(place.images)
    splits = splits_among((folder.name, folder) for folder in folders)
    if splits:
        report_unread(folders, splits.values(), report)
    pairs = {split: _pair(folder, place.masks / folder.name, split, findings.at(task, split))
             for split, folder in splits.items()}  # fmt: skip
    if not splits:
        pairs = {"train": _pair(place.images, place.masks, "train", findings.at(task, "train"))}
    masks = [list((files or {}).values()) for _, files in pairs.values()]
    names, coding = mask_classes(root, masks, place.bdd, count, report)
    return masked_source(task, names, coding, pairs, findings)


def _pair(images: Path, masks: Path, split: str, report: Reporter) -> tuple[Files, Files | None]:
    """Prefer masks named *_train_id, beside which BDD100K keeps coloured ones."""
    if split == "test" and not list_images(masks):
        return by_stem(images, report), None
    with_train_ids = any(name.endswith(f"{TRAIN_ID}.png") for name in list_images(masks))
    return by_stem(images, report), by_stem(masks, report, TRAIN_ID if with_train_ids else "")
