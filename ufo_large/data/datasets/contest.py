"""The contest's folders: cls/, dec/ and seg/ under a train root and a test root.

    cls/{train,val,test}/*   cls/<split>.txt  "<name> <id>" a line; test.txt may be missing (no ground truth)
    dec/{train,val,test}/*   dec/<split>.json COCO; dec/test.txt gives the order of test images
    seg/images/<split>/*     seg/label/<split>/*.png, paired by stem; 0..K-1 and 255 = ignore

Which tasks and splits exist comes from what folders exist. cls/classes.txt and seg/classes.txt may name
the classes. Without them, classification has the ids that occur in train, and segmentation the 19
classes of the contest.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ufo_large.data.datasets.base import (
    FIX_REMEDY,
    Example,
    Findings,
    MaskCoding,
    Reporter,
    SourceTask,
    list_images,
    numbered_info,
    read_class_names,
)
from ufo_large.data.datasets.coco import CocoReader, load_coco, read_categories
from ufo_large.data.datasets.pairs import by_stem, pair_masks
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import TaskInfo

ROOT_NAMES = ("track1_train_data", "train_data", "track1_test_data", "test_data")
TASKS = ("cls", "dec", "seg")
CITYSCAPES = """road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,
person,rider,car,truck,bus,train,motorcycle,bicycle"""
SEGMENTATION_NAMES = tuple(name.strip() for name in CITYSCAPES.split(","))


def contest_roots(path: Path) -> list[Path]:
    """Return the roots at `path`: itself, or its children with one of the contest's names; else none."""
    if _looks_like_root(path):
        return [path]
    return [path / name for name in ROOT_NAMES if _looks_like_root(path / name)]


def _looks_like_root(path: Path) -> bool:
    lists = [
        path / task / f"{split}.{end}"
        for task in ("cls", "dec")
        for split in SPLITS
        for end in ("txt", "json")
    ]
    folders = [path / "seg" / "images", *(path / task / split for task in ("cls", "dec") for split in SPLITS)]
    return any(f.is_file() for f in lists) or any(f.is_dir() for f in folders)


def read_contest(
    roots: list[Path], findings: Findings, counts: Mapping[str, int], known: Mapping[str, TaskInfo]
) -> list[SourceTask]:
    """Read every task that the roots hold.

    `counts` gives the number of classes of a task where its files do not say it; `known` gives whole class
    lists, as a data set that was sharded before has them, and wins over everything.
    """
    readers = {"cls": _read_cls, "dec": _read_dec, "seg": _read_seg}
    tasks = []
    for name in TASKS:
        folders = [root / name for root in roots if (root / name).is_dir()]
        if folders:
            tasks.append(readers[name](folders, findings, counts.get(name), known.get(name)))
    return [task for task in tasks if task.splits]


def _labels(info: TaskInfo) -> dict[int, int]:
    return {number: label for label, number in enumerate(info.class_ids)}


def _named_classes(folders: list[Path], count: int | None, report: Reporter) -> dict[int, str] | None:
    for folder in folders:
        if (folder / "classes.txt").is_file():
            return read_class_names(folder / "classes.txt", report)
    return None if count is None else {i: str(i) for i in range(count)}


# classification


def _read_cls(
    folders: list[Path], findings: Findings, count: int | None, known: TaskInfo | None
) -> SourceTask:
    splits: dict[str, list[Example]] = {}
    for folder in folders:
        for split in SPLITS:
            if (folder / split).is_dir() or (folder / f"{split}.txt").is_file():
                splits[split] = splits.get(split, []) + _read_label_file(
                    folder, split, findings.at("cls", split)
                )
    info = known or _cls_info(splits, _named_classes(folders, count, findings.at("cls")), folders, findings)
    labels = _labels(info)
    for split, examples in splits.items():
        splits[split] = [e for e in (_relabel(e, labels, findings.at("cls", split)) for e in examples) if e]
    return SourceTask(info, splits)


def _cls_info(
    splits: dict[str, list[Example]], names: dict[int, str] | None, folders: list[Path], findings: Findings
) -> TaskInfo:
    if names is None:
        of = splits.get("train") or [e for examples in splits.values() for e in examples]
        names = {e.label: str(e.label) for e in of if e.label is not None}
    if not names:
        remedy = (
            "give the train root too, write cls/classes.txt, or take the classes of shards with --like SHARDS"
        )
        findings.at("cls").add("classes", f"{folders[0]}: no labels, so no class list; {remedy}", folders[0])
    return numbered_info("cls", "classification", names)


def _relabel(example: Example, labels: dict[int, int], report: Reporter) -> Example | None:
    if example.label is None:
        return example
    if example.label not in labels:
        remedy = "correct it, or list every class in cls/classes.txt"
        message = f"{example.where}: class {example.label} of {example.file_name} is not among the "
        report.add("label", f"{message}{len(labels)} known; {remedy}", example.image)
        return None
    return replace(example, label=labels[example.label])


def _read_label_file(folder: Path, split: str, report: Reporter) -> list[Example]:
    """Read cls/<split>.txt; labels stay the user's ids here."""
    present, file = list_images(folder / split), folder / f"{split}.txt"
    if not file.is_file():
        if split != "test":
            report.add("missing", f'{file}: missing; write "<image name> <class id>" a line', file)
            return []
        return [
            Example(image=path, file_name=name, image_id=number, where=str(path))
            for number, (name, path) in enumerate(present.items(), 1)
        ]
    lines = _numbered_lines(file, report)
    unlabeled = split == "test" and all(text in present for _, text in lines)
    examples: dict[str, Example] = {}
    for line, text in lines:
        name, label = (text, None) if unlabeled else _split_label(text)
        problem = _line_problem(text, name, label, unlabeled, present, examples, folder / split)
        if problem:
            report.add(
                problem[0],
                f"{file}:{line}: {problem[1]}; {FIX_REMEDY}",
                folder / split / name if name else file,
            )
            continue
        examples[name] = Example(
            image=present[name],
            file_name=name,
            image_id=len(examples) + 1,
            where=f"{file}:{line}",
            label=label,
        )
    return list(examples.values())


def _split_label(text: str) -> tuple[str, int | None]:
    name, _, label = text.rpartition(" ")
    return name.strip(), int(label) if label.isdigit() else None


def _line_problem(text, name, label, unlabeled, present, seen, folder) -> tuple[str, str] | None:
    if not unlabeled and (not name or label is None):
        return "label", f'cannot read {text!r}; write "<image name> <class id>"'
    if name in seen:
        return "duplicate", f"{name} stands twice"
    if name not in present:
        return "missing", f"{name} is not in {folder}"
    return None


def _numbered_lines(file: Path, report: Reporter) -> list[tuple[int, str]]:
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        report.add("label", f"{file}: not UTF-8 text ({error}); save it as UTF-8", file)
        return []
    return [(i, line.strip()) for i, line in enumerate(lines, 1) if line.strip()]


# detection


def _read_dec(
    folders: list[Path], findings: Findings, count: int | None, known: TaskInfo | None
) -> SourceTask:
    """A val.json beside no val/ folder only tells the categories, as in the contest's test root."""
    files = {
        file: split for folder in folders for split in SPLITS if (file := folder / f"{split}.json").is_file()
    }
    cocos = {file: load_coco(file, findings.at("dec", split)) for file, split in files.items()}
    names = read_categories(cocos, findings.at("dec"))
    info = known or numbered_info("dec", "detection", names)
    splits: dict[str, list[Example]] = {}
    for folder in folders:
        for split in SPLITS:
            if (folder / split).is_dir():
                report = findings.at("dec", split)
                file = folder / f"{split}.json"
                if file in cocos:
                    found = CocoReader(file, folder / split, _labels(info), report).read(cocos[file])
                    found = _in_listed_order(found, folder / f"{split}.txt", report)
                else:
                    found = _read_listed(folder, split, report)
                splits[split] = splits.get(split, []) + found
    return SourceTask(info, splits)


def _read_listed(folder: Path, split: str, report: Reporter) -> list[Example]:
    """Read dec/test.txt, a file name a line: images without ground truth."""
    file, present = folder / f"{split}.txt", list_images(folder / split)
    if split != "test" or not file.is_file():
        missing = folder / f"{split}.json" if split != "test" else file
        remedy = "write it in COCO form" if split != "test" else "write the image names a line each, in order"
        report.add("missing", f"{missing}: missing; {remedy}", missing)
        return []
    examples: dict[str, Example] = {}
    for number, (line, name) in enumerate(_numbered_lines(file, report), 1):
        problem = _line_problem(name, name, None, True, present, examples, folder / split)
        if problem:
            report.add(problem[0], f"{file}:{line}: {problem[1]}; correct the list", folder / split / name)
            continue
        examples[name] = Example(image=present[name], file_name=name, image_id=number, where=f"{file}:{line}")
    return list(examples.values())


def _in_listed_order(examples: list[Example], file: Path, report: Reporter) -> list[Example]:
    """Order by dec/test.txt where it stands beside the JSON; both must name the same images."""
    if not file.is_file():
        return examples
    names = [text for _, text in _numbered_lines(file, report)]
    by_name = {e.file_name: e for e in examples}
    for name in sorted(set(names) ^ set(by_name)):
        where = "only here" if name in names else "only in the JSON"
        report.add("missing", f"{file}: {name} stands {where}; make both lists agree", file)
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]


# segmentation


def _read_seg(
    folders: list[Path], findings: Findings, count: int | None, known: TaskInfo | None
) -> SourceTask:
    names = _named_classes(folders, count, findings.at("seg")) or dict(enumerate(SEGMENTATION_NAMES))
    info = known or numbered_info("seg", "segmentation", names)
    coding = MaskCoding.from_values(_labels(info))
    splits: dict[str, list[Example]] = {}
    for folder in folders:
        for split in SPLITS:
            images, masks = folder / "images" / split, folder / "label" / split
            if images.is_dir():
                report = findings.at("seg", split)
                labels = by_stem(masks, report) if masks.is_dir() or split != "test" else None
                splits[split] = splits.get(split, []) + pair_masks(
                    by_stem(images, report), labels, coding, report
                )
    return SourceTask(info, splits)
