"""Detection in the contest's layout: dec/<split>/, dec/<split>.json, and dec/test.txt for the order."""

from collections.abc import Mapping
from pathlib import Path

from ufo_large.data.datasets.base import joined, numbered_lines
from ufo_large.data.datasets.coco import Coco, CocoReader, load_coco, read_categories
from ufo_large.data.datasets.listing import read_image_list
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import Example, Findings, Reporter, SourceTask, TaskInfo, numbered_info


def read_contest_dec(
    folders: list[Path], task: str, findings: Findings, known: TaskInfo | None
) -> SourceTask:
    """Read the dec/ folders of all roots.

    A val.json beside no val/ folder only tells the categories, as in the contest's test root.
    """
    cocos = _load_all(folders, task, findings)
    info = known or _infer_info(cocos, folders[0], findings.at(task))
    labels = {number: label for label, number in enumerate(info.class_ids)}
    splits: dict[str, list[Example]] = {}
    for folder in folders:
        for split in SPLITS:
            if (folder / split).is_dir():
                found = _read_split(folder, split, cocos, labels, findings.at(task, split))
                splits[split] = joined(splits.get(split, []), found)
    return SourceTask(info, splits)


def _load_all(folders: list[Path], task: str, findings: Findings) -> dict[Path, Coco]:
    files = [(folder / f"{split}.json", split) for folder in folders for split in SPLITS]
    return {file: load_coco(file, findings.at(task, split)) for file, split in files if file.is_file()}


def _infer_info(cocos: dict[Path, Coco], folder: Path, report: Reporter) -> TaskInfo:
    names = read_categories(cocos, report)
    if not names:
        remedy = "add `categories` to a JSON there, or keep to other shards with --like SHARDS"
        report.add("classes", f"{folder}: no categories; {remedy}", folder)
    return numbered_info(report.task, "detection", names)


def _read_split(
    folder: Path, split: str, cocos: dict[Path, Coco], labels: Mapping[int, int], report: Reporter
) -> list[Example]:
    file, order = folder / f"{split}.json", folder / f"{split}.txt"
    if file in cocos:
        examples = CocoReader(file, folder / split, dict(labels), report).read(cocos[file])
        return _in_listed_order(examples, order, report) if order.is_file() else examples
    if split != "test":
        report.add("missing", f"{file}: missing; write it in COCO form", file)
        return []
    if not order.is_file():
        report.add("missing", f"{order}: missing; write the image names in order, one a line", order)
        return []
    return read_image_list(order, folder / split, report, with_labels=False)


def _in_listed_order(examples: list[Example], file: Path, report: Reporter) -> list[Example]:
    """Order by the list; it and the JSON must name the same images."""
    names = [text for _, text in numbered_lines(file, report)]
    by_name = {example.file_name: example for example in examples}
    for name in sorted(set(names) ^ set(by_name)):
        where = "only here" if name in names else "only in the JSON"
        report.add("missing", f"{file}: {name} stands {where}; make both agree", file)
    return [by_name[name] for name in dict.fromkeys(names) if name in by_name]
