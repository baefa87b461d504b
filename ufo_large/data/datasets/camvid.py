"""CamVid in its two forms: index masks beside split folders, or colour masks with label_colors.txt.

indexed: <split>/*.png with <split>annot/*.png, values 0..10, 11 = void; or those of a classes.txt in ROOT.
coloured: images/ (or 701_StillsRaw_full/) with labels/ (or LabeledApproved_full/) named *_L.png, the
colours in label_colors.txt as "r g b name", and the splits in <split>.txt; without these all are train.
"""

from pathlib import Path

from ufo_large.data.datasets.base import numbered_lines, read_class_colors, read_class_names
from ufo_large.data.datasets.pairs import Files, by_stem, masked_source
from ufo_large.data.shard_index import SPLITS
from ufo_large.kinds.masks import MaskCoding
from ufo_large.structures import IGNORE_INDEX, Findings, SourceTask

NAMES = (
    "sky",
    "building",
    "pole",
    "road",
    "sidewalk",
    "tree",
    "sign",
    "fence",
    "car",
    "pedestrian",
    "bicyclist",
)
VOID = 11
COLORS_FILE = "label_colors.txt"
PICTURE_FOLDERS = ("images", "701_StillsRaw_full")
MASK_FOLDERS = ("labels", "LabeledApproved_full")


def is_camvid_folder(root: Path) -> bool:
    return _is_coloured(root) or any((root / f"{split}annot").is_dir() for split in SPLITS)


def _is_coloured(root: Path) -> bool:
    named = (file for name in MASK_FOLDERS for file in (root / name).glob("*_L.*"))
    return (root / COLORS_FILE).is_file() and any(named)


def read_camvid_folder(root: Path, task: str, findings: Findings) -> SourceTask:
    if _is_coloured(root):
        return _read_coloured(root, task, findings)
    pairs = {}
    for split in SPLITS:
        if (root / split).is_dir():
            report, masks = findings.at(task, split), root / f"{split}annot"
            unlabeled = split == "test" and not masks.is_dir()
            pairs[split] = (by_stem(root / split, report), None if unlabeled else by_stem(masks, report))
    names, values = dict(enumerate(NAMES)), {**{i: i for i in range(len(NAMES))}, VOID: IGNORE_INDEX}
    if (root / "classes.txt").is_file():
        names = read_class_names(root / "classes.txt", findings.at(task))
        values = {number: label for label, number in enumerate(sorted(names))}
    return masked_source(task, names, MaskCoding.from_values(values), pairs, findings)


def _read_coloured(root: Path, task: str, findings: Findings) -> SourceTask:
    report = findings.at(task)
    names, colors = read_class_colors(root / COLORS_FILE, report)
    images = by_stem(_first_folder(root, PICTURE_FOLDERS), report)
    masks = by_stem(_first_folder(root, MASK_FOLDERS), report, ending="_L")
    coding = MaskCoding(table=MaskCoding.identity(0).table, colors=colors)
    pairs: dict[str, tuple[Files, Files | None]] = {}
    for split in SPLITS:
        if (root / f"{split}.txt").is_file():
            lines = [text for _, text in numbered_lines(root / f"{split}.txt", report)]
            stems = [Path(text if Path(text).stem in images else text.split()[0]).stem for text in lines]
            chosen = {stem: images.get(stem, root / f"{stem}.png") for stem in stems}
            pairs[split] = (chosen, {stem: masks[stem] for stem in chosen if stem in masks})
    pairs = pairs or {"train": (images, masks)}
    return masked_source(task, names, coding, pairs, findings)


def _first_folder(root: Path, names: tuple[str, ...]) -> Path:
    return next((root / name for name in names if (root / name).is_dir()), root / names[0])
