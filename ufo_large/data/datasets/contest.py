"""The contest's folders: cls/, dec/ and seg/ under a train root and a test root.

    cls/{train,val,test}/*   cls/<split>.txt  "<name> <id>" a line; test.txt may be missing (no ground truth)
    dec/{train,val,test}/*   dec/<split>.json COCO; dec/test.txt gives the order of the test images
    seg/images/<split>/*     seg/label/<split>/*.png, paired by stem; a class's value a pixel, 255 = ignore

Which tasks and splits exist comes from what folders exist. cls/classes.txt and seg/classes.txt may name the
classes. Without them the labels of train decide; see `contest_cls` and `contest_seg`.
"""

from collections.abc import Mapping
from pathlib import Path

from ufo_large.data.datasets.base import read_class_names
from ufo_large.data.datasets.contest_cls import read_contest_cls
from ufo_large.data.datasets.contest_dec import read_contest_dec
from ufo_large.data.datasets.contest_seg import CONTEST_CLASSES, read_contest_seg
from ufo_large.data.datasets.merge import names_of_several
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import Findings, Reporter, SourceTask, TaskInfo

ROOT_NAMES = ("track1_train_data", "train_data", "track1_test_data", "test_data")


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
    roots: list[Path],
    findings: Findings,
    counts: Mapping[str, int],
    known: Mapping[str, TaskInfo],
    name: str = "",
) -> list[SourceTask]:
    """Read every task that the roots hold.

    `counts` gives the number of classes of a task where its files do not say it; `known` gives whole class
    lists, as a data set that was sharded before has them, and wins over everything. `name` names the one task
    that the roots hold; several are <name>_cls, <name>_dec and <name>_seg.
    """
    places = {
        kind: [root / kind for root in roots if (root / kind).is_dir()] for kind in ("cls", "dec", "seg")
    }
    found = [kind for kind, folders in places.items() if folders]
    named = names_of_several(name, found)
    tasks = []
    for kind in found:
        folders, task = places[kind], named[kind]
        if kind == "dec":
            tasks.append(read_contest_dec(folders, task, findings, known.get(task)))
            continue
        read = read_contest_cls if kind == "cls" else read_contest_seg
        names = _class_names(folders, counts.get(task), findings.at(task))
        tasks.append(read(folders, task, findings, names, known.get(task)))
    return [task for task in tasks if task.splits]


def _class_names(folders: list[Path], count: int | None, report: Reporter) -> dict[int, str] | None:
    if count is not None:
        return {i: str(i) for i in range(count)}
    for folder in folders:
        if (folder / "classes.txt").is_file():
            return read_class_names(folder / "classes.txt", report)
    return None


TRUTH_FILES = {"cls": "cls/{}.txt", "dec": "dec/{}.json", "seg": "seg/label/{}"}


def labeled_tasks(
    path: Path, split: str, findings: Findings, known: Mapping[str, TaskInfo]
) -> list[SourceTask]:
    """Read the tasks of a test root, or of a folder that holds one, that have ground truth in `split`.

    Masks without seg/classes.txt have the contest's 19 classes, as its scorer counts: a test set need not
    show all. Findings of other tasks are dropped. Raises ValueError where there is no such root or no ground
    truth.
    """
    roots = [root for root in contest_roots(path) if _holds(root, split)]
    if not roots:
        raise ValueError(
            f"{path}: no {split} set in the contest's layout (cls/{split}, dec/{split}, seg/images/{split}) "
            f"here or in one of the folders {', '.join(ROOT_NAMES)}; give --data the root that holds it"
        )
    if not any((root / "seg/classes.txt").is_file() for root in roots):
        known = {"seg": CONTEST_CLASSES, **known}
    tasks = read_contest(roots, findings, {}, known)
    stated = {name for name, place in TRUTH_FILES.items() if any(_there(r, place, split) for r in roots)}
    tasks = [task for task in tasks if task.info.name in stated]
    unlabeled = {t.info.name for t in tasks if t.splits.get(split) and not _labeled(t, split)}
    findings.items = [found for found in findings.items if found.task in stated - unlabeled]
    labeled = [task for task in tasks if _labeled(task, split)]
    if not labeled and not findings.items:
        places = ", ".join(place.format(split) for place in TRUTH_FILES.values())
        raise ValueError(f"{path}: no ground truth; add at least one of {places}")
    return labeled


def _holds(root: Path, split: str) -> bool:
    return any((root / folder / split).is_dir() for folder in ("cls", "dec", "seg/images"))


def _there(root: Path, place: str, split: str) -> bool:
    return (root / place.format(split)).exists()


def _labeled(task: SourceTask, split: str) -> bool:
    return any(example.labeled for example in task.splits.get(split, []))
