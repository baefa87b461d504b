"""What is true of a test set, image by image in official order; from the user's own files or from shards.

Legend: H W height and width, G boxes of one image.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ufo_large.media import decode, pictures
from ufo_large.data.datasets.base import Box, Example, Findings, SourceTask
from ufo_large.data.datasets.contest import ROOT_NAMES, contest_roots, read_contest
from ufo_large.data.datasets.contest_seg import CONTEST_CLASSES
from ufo_large.data.shards import ShardSet, SplitReader
from ufo_large.metrics import TrueBoxes
from ufo_large.structures import TaskInfo

Truth = int | TrueBoxes | np.ndarray
TRUTH_FILES = {"cls": "cls/{}.txt", "dec": "dec/{}.json", "seg": "seg/label/{}"}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundTruth:
    """One task's truth; labels are the model's, 0..K-1.

    `file_names` are the images in official order. `read(i)` gives image i's label, its boxes, or its mask
    (uint8 [H, W], 255 = ignore), read from disk when asked for.
    """

    info: TaskInfo
    file_names: tuple[str, ...]
    read: Callable[[int], Truth]

    def __len__(self) -> int:
        return len(self.file_names)

    @property
    def answer_names(self) -> tuple[str, ...]:
        """The names a submission uses: those of the images, and for segmentation those of PNG masks."""
        if self.info.kind != "segmentation":
            return self.file_names
        return tuple(mask_name(name) for name in self.file_names)


def mask_name(file_name: str) -> str:
    """Return the name of an image's mask in a submission: its own with the ending .png."""
    return PurePosixPath(file_name).with_suffix(".png").as_posix()


def truth_of_folder(
    path: str | Path, *, split: str = "test", known: Mapping[str, TaskInfo] | None = None
) -> dict[str, GroundTruth]:
    """Read the ground truth of a test root in the contest's layout, or of a folder that holds one.

    A task without ground truth is left out. `known` gives class lists that the folder does not state. Masks
    without seg/classes.txt have the contest's 19 classes, as its scorer counts: a test set need not show all.
    Raises ValueError that lists every unreadable line, missing file and bad box together, and when the folder
    holds no test root or no ground truth at all.
    """
    path, findings = Path(path), Findings()
    roots = [root for root in contest_roots(path) if _holds(root, split)]
    if not roots:
        raise ValueError(
            f"{path}: no {split} set in the contest's layout (cls/{split}, dec/{split}, seg/images/{split}) "
            f"here or in one of the folders {', '.join(ROOT_NAMES)}; give --data the root that holds it"
        )
    stated_masks = any((root / "seg/classes.txt").is_file() for root in roots)
    known = ({} if stated_masks else {"seg": CONTEST_CLASSES}) | dict(known or {})
    sources = read_contest(roots, findings, {}, known)
    stated = {task for task, place in TRUTH_FILES.items() if any(_there(r, place, split) for r in roots)}
    sources = [s for s in sources if s.info.name in stated]
    unlabeled = {s.info.name for s in sources if s.splits.get(split) and not _labeled(s, split)}
    findings.items = [found for found in findings.items if found.task in stated - unlabeled]
    findings.raise_if_any(f"ground truth of {path}")
    labeled = [s for s in sources if _labeled(s, split)]
    if not labeled:
        places = ", ".join(place.format(split) for place in TRUTH_FILES.values())
        raise ValueError(f"{path}: no ground truth; add at least one of {places}")
    return {source.info.name: _of_source(source, split) for source in labeled}


def truth_of_shards(shards: ShardSet, split: str = "test") -> dict[str, GroundTruth]:
    """Read the ground truth that shards carry; raises ValueError when no task has any for `split`."""
    readers = {i.name: shards.split(i.name, split) for i in shards.tasks if shards.has_split(i.name, split)}
    truths = {name: _of_reader(reader) for name, reader in readers.items() if reader.labeled}
    if not truths:
        raise ValueError(f"{shards.root}: no ground truth in split {split!r}; choose another with --split")
    return truths


def _holds(root: Path, split: str) -> bool:
    return any((root / folder / split).is_dir() for folder in ("cls", "dec", "seg/images"))


def _there(root: Path, place: str, split: str) -> bool:
    return (root / place.format(split)).exists()


def _labeled(source: SourceTask, split: str) -> bool:
    return any(example.labeled for example in source.splits.get(split, []))


def _of_source(source: SourceTask, split: str) -> GroundTruth:
    examples = source.splits[split]
    return GroundTruth(
        info=source.info,
        file_names=tuple(e.file_name for e in examples),
        read=lambda i: _truth_of_example(examples[i]),
    )


def _truth_of_example(example: Example) -> Truth:
    if example.label is not None:
        return example.label
    if example.boxes is not None:
        return _true_boxes(example.boxes)
    try:
        values_HW = pictures.mask_values(example.mask.read_bytes(), example.mask_coding.colors is not None)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(f"{example.mask}: {error}; write the mask again") from None
    labels_HW = example.mask_coding.labels_of(values_HW)
    if labels_HW.min(initial=0) < 0:
        strange = np.unique(values_HW[labels_HW < 0]).tolist()
        raise ValueError(
            f"{example.mask}: the value(s) {strange} are no class; write class ids, and 255 for ignore"
        )
    return labels_HW.astype(np.uint8)


def _true_boxes(boxes: tuple[Box, ...]) -> TrueBoxes:
    xyxy_G4 = np.array([box.xyxy for box in boxes], np.float64).reshape(-1, 4)
    return TrueBoxes(
        boxes_xywh_G4=_xywh(xyxy_G4),
        labels_G=np.array([box.label for box in boxes], np.int64),
        crowds_G=np.array([box.crowd for box in boxes], bool),
        areas_G=_areas(xyxy_G4, [box.area for box in boxes]),
    )


def _of_reader(reader: SplitReader) -> GroundTruth:
    rows = sorted(range(len(reader)), key=lambda row: reader.sample(row).order)
    assert [reader.sample(row).order for row in rows] == list(range(len(rows)))  # predictions go by it
    return GroundTruth(
        info=reader.info,
        file_names=tuple(reader.sample(row).file_name for row in rows),
        read=lambda i: _truth_of_row(reader, rows[i]),
    )


def _truth_of_row(reader: SplitReader, row: int) -> Truth:
    if reader.info.kind == "segmentation":
        return decode.decode_labels(reader.read(row).mask)
    annotation = reader.annotation(row)
    if reader.info.kind == "classification":
        return int(annotation["label"])
    xyxy_G4 = np.array(annotation["boxes_xyxy"], np.float64).reshape(-1, 4)
    return TrueBoxes(
        boxes_xywh_G4=_xywh(xyxy_G4),
        labels_G=np.array(annotation["labels"], np.int64),
        crowds_G=np.array(annotation["iscrowd"], bool),
        areas_G=_areas(xyxy_G4, annotation["area"]),
    )


def _xywh(xyxy_G4: np.ndarray) -> np.ndarray:
    return np.concatenate([xyxy_G4[:, :2], xyxy_G4[:, 2:] - xyxy_G4[:, :2]], axis=1)


def _areas(xyxy_G4: np.ndarray, stated: list[float | None]) -> np.ndarray:
    """COCO's stated area where there is one, else width x height."""
    extent_G2 = xyxy_G4[:, 2:] - xyxy_G4[:, :2]
    pairs = zip(stated, (extent_G2[:, 0] * extent_G2[:, 1]).tolist(), strict=True)
    return np.array([own if area is None else area for area, own in pairs], np.float64)
