"""The contest's folders: cls/, dec/ and seg/ under a train root and a test root.

    cls/{train,val,test}/*   cls/<split>.txt  "<name> <id>" a line; test.txt may be missing (no ground truth)
    dec/{train,val,test}/*   dec/<split>.json COCO; dec/test.txt gives the order of the test images
    seg/images/<split>/*     seg/label/<split>/*.png, paired by stem; a class's value a pixel, 255 = ignore

Which tasks and splits exist comes from what folders exist. cls/classes.txt and seg/classes.txt may name the
classes. Without them, classification has the ids that occur in train, and segmentation the 19 classes of
the contest.
"""

from collections.abc import Mapping
from pathlib import Path

from ufo_large.data.datasets.base import (
    Example,
    Findings,
    MaskCoding,
    Reporter,
    SourceTask,
    joined,
    numbered_info,
    read_class_names,
)
from ufo_large.data.datasets.contest_cls import read_contest_cls
from ufo_large.data.datasets.contest_dec import read_contest_dec
from ufo_large.data.datasets.pairs import by_stem, pair_masks
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import TaskInfo

ROOT_NAMES = ("track1_train_data", "train_data", "track1_test_data", "test_data")
SEGMENTATION_NAMES = (
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
    *("terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)


def contest_roots(path: Path) -> list[Path]:
    """Return the roots at `path`: itself, or its children with one of the contest's names; else none."""
    if _looks_like_root(path):
        return [path]
    return [path / name for name in ROOT_NAMES if _looks_like_root(path / name)]


def _looks_like_root(path: Path) -> bool:
    lists = [path / "cls" / f"{split}.txt" for split in SPLITS]
    lists += [path / "dec" / f"{split}.json" for split in SPLITS]
    folders = [path / task / split for task in ("cls", "dec") for split in SPLITS]
    # BDD100K's own folder seg/ has labels/, not label/
    return (
        ((path / "seg" / "images").is_dir() and not (path / "seg" / "labels").is_dir())
        or any(f.is_file() for f in lists)
        or any(f.is_dir() for f in folders)
    )


def read_contest(
    roots: list[Path], findings: Findings, counts: Mapping[str, int], known: Mapping[str, TaskInfo]
) -> list[SourceTask]:
    """Read every task that the roots hold.

    `counts` gives the number of classes of a task where its files do not say it; `known` gives whole class
    lists, as a data set that was sharded before has them, and wins over everything.
    """
    folders = {
        name: [root / name for root in roots if (root / name).is_dir()] for name in ("cls", "dec", "seg")
    }
    tasks = []
    if folders["cls"]:
        names = _class_names(folders["cls"], counts.get("cls"), findings.at("cls"))
        tasks.append(read_contest_cls(folders["cls"], findings, names, known.get("cls")))
    if folders["dec"]:
        tasks.append(read_contest_dec(folders["dec"], findings, known.get("dec")))
    if folders["seg"]:
        names = _class_names(folders["seg"], counts.get("seg"), findings.at("seg"))
        tasks.append(_read_seg(folders["seg"], findings, names, known.get("seg")))
    return [task for task in tasks if task.splits]


def _class_names(folders: list[Path], count: int | None, report: Reporter) -> dict[int, str] | None:
    if count is not None:
        return {i: str(i) for i in range(count)}
    for folder in folders:
        if (folder / "classes.txt").is_file():
            return read_class_names(folder / "classes.txt", report)
    return None


def _read_seg(
    folders: list[Path], findings: Findings, names: dict[int, str] | None, known: TaskInfo | None
) -> SourceTask:
    info = known or numbered_info("seg", "segmentation", names or dict(enumerate(SEGMENTATION_NAMES)))
    coding = MaskCoding.from_values({number: label for label, number in enumerate(info.class_ids)})
    splits: dict[str, list[Example]] = {}
    for folder in folders:
        for split in SPLITS:
            images, masks = folder / "images" / split, folder / "label" / split
            if images.is_dir():
                report = findings.at("seg", split)
                labels = by_stem(masks, report) if masks.is_dir() or split != "test" else None
                found = pair_masks(by_stem(images, report), labels, coding, report)
                splits[split] = joined(splits.get(split, []), found)
    return SourceTask(info, splits)
