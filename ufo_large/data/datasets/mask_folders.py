"""Segmentation by folders of pictures and masks: BDD100K's names, and plain images/ beside masks/.

BDD100K: images/10k/<split>/*.jpg with labels/sem_seg/masks/<split>/*.png, or (older) seg/images/<split>/ with
seg/labels/<split>/*_train_id.png. Plain: images/<split>/ with masks/<split>/ (also label/, labels/,
annotations/), or both without split folders, which is train alone; or <split>/images/ with <split>/masks/; or
<split>/ with <split>_masks/ or <split>_labels/. A mask has the stem of its picture, perhaps with one of
`ENDINGS` behind it. What mask values mean: see `mask_classes`.
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
ENDINGS = (TRAIN_ID, "_mask", "_L")
"""BDD100K's, beside which it keeps coloured masks; Carvana's; CamVid's."""
MASK_NAMES = ("masks", "labels", "label", "annotations")


@dataclass(frozen=True, slots=True)
class _Place:
    """A folder of pictures and one of masks, both by split or both without."""

    images: Path
    masks: Path
    bdd: bool


def _find(root: Path) -> _Place | None:
    bdd = (
        _Place(root / "images/10k", root / "labels/sem_seg/masks", True),
        _Place(root / "seg/images", root / "seg/labels", True),
        _Place(root / "images", root / "labels/sem_seg/masks", True),
    )
    plain = (_Place(root / "images", root / name, False) for name in MASK_NAMES)
    return next((p for p in (*bdd, *plain) if p.images.is_dir() and p.masks.is_dir()), None)


def _find_by_split(root: Path) -> dict[str, tuple[Path, Path]]:
    """Return (pictures, masks) of each split where the splits are the outer folders, train among them."""
    found = {}
    for split, folder in split_folders(root).items():
        inside = [(folder / "images", folder / name) for name in MASK_NAMES]
        beside = [(folder, folder.with_name(f"{folder.name}_{name}")) for name in ("masks", "labels")]
        for images, masks in (*inside, *beside):
            without = split == "test" and not masks.exists()
            if (without or list_images(masks)) and list_images(images):
                found[split] = (images, masks)
                break
    return found if "train" in found else {}


def is_mask_folder(root: Path) -> bool:
    return _find(root) is not None or bool(_find_by_split(root))


def unread_instead_of_masks(root: Path) -> str:
    """Return which annotations lie where masks are looked for, with the remedy; empty where masks do."""
    place = _find(root)
    if place is None or any(map(list_images, (place.masks, *subfolders(place.masks)))):
        return ""
    if told := unread_annotations(root):
        return told
    if {folder.name for folder in split_folders(place.images).values()} == {"test"}:
        return ""
    told = f"{place.masks}: no mask in it or in its train/ or val/"
    return f"{told}; put those of the pictures there, of the same names, or name the folder for what it holds"


def read_mask_folder(root: Path, task: str, findings: Findings, count: int | None = None) -> SourceTask:
    """Read pictures with masks; `count` classes where no file says more."""
    place, report = _find(root), findings.at(task)
    places = _places(place, report) if place else _places_by_split(root, report)
    pairs = {split: _pair(*folders, split, findings.at(task, split)) for split, folders in places.items()}
    masks = [list((files or {}).values()) for _, files in pairs.values()]
    names, coding = mask_classes(root, masks, bool(place and place.bdd), count, report)
    return masked_source(task, names, coding, pairs, findings)


def _places(place: _Place, report: Reporter) -> dict[str, tuple[Path, Path]]:
    folders = subfolders(place.images)
    splits = splits_among((folder.name, folder) for folder in folders)
    if not splits:
        return {"train": (place.images, place.masks)}
    report_unread(folders, splits.values(), report)
    return {split: (folder, place.masks / folder.name) for split, folder in splits.items()}


def _places_by_split(root: Path, report: Reporter) -> dict[str, tuple[Path, Path]]:
    found = _find_by_split(root)
    for split, folder in split_folders(root).items():
        if split not in found:
            told = f"{folder}: not read, it has no pictures with masks as {found['train'][1]} has them"
            report.add("unread", f"{told}; put them there, or move it out", folder)
    return found


def _pair(images: Path, masks: Path, split: str, report: Reporter) -> tuple[Files, Files | None]:
    pictures = by_stem(images, report)
    if split == "test" and not list_images(masks):
        return pictures, None
    return pictures, by_stem(masks, report, _ending(pictures, masks))


def _ending(pictures: Files, masks: Path) -> str:
    """Return what the masks of these pictures have behind the stem: the first that any of them has."""
    stems = [path.stem for path in list_images(masks).values()]
    for ending in ENDINGS:
        if any(stem.endswith(ending) and stem.removesuffix(ending) in pictures for stem in stems):
            return ending
    return ""
