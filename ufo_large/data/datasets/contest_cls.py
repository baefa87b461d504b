"""Classification in the contest's layout: cls/<split>/ with cls/<split>.txt, "<name> <id>" a line."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ufo_large.data.datasets.base import joined, list_images, numbered_lines
from ufo_large.data.datasets.listing import read_image_list, split_label
from ufo_large.data.shard_index import SPLITS
from ufo_large.structures import Example, Findings, Reporter, SourceTask, TaskInfo, numbered_info


def read_contest_cls(
    folders: list[Path],
    task: str,
    findings: Findings,
    names: Mapping[int, str] | None,
    known: TaskInfo | None,
) -> SourceTask:
    """Read the cls/ folders of all roots. Classes: `known`, else `names`, else the ids that train uses."""
    splits: dict[str, list[Example]] = {}
    for folder in folders:
        for split in SPLITS:
            if (folder / split).is_dir() or (folder / f"{split}.txt").is_file():
                found = _read_split(folder, split, findings.at(task, split))
                splits[split] = joined(splits.get(split, []), found)
    info = known or _infer_info(splits, names, folders[0], findings.at(task))
    labels = {number: label for label, number in enumerate(info.class_ids)}
    for split, examples in splits.items():
        moved = (_relabel(example, labels, findings.at(task, split)) for example in examples)
        splits[split] = [example for example in moved if example is not None]
    return SourceTask(info, splits)


def _read_split(folder: Path, split: str, report: Reporter) -> list[Example]:
    file = folder / f"{split}.txt"
    if file.is_file():
        return read_image_list(file, folder / split, report, with_labels=not _only_names(file, folder, split))
    if split != "test":
        report.add("missing", f'{file}: missing; write "<image name> <class id>" a line', file)
        return []
    images = enumerate(list_images(folder / split).items(), 1)
    return [Example(image=path, file_name=name, image_id=i, where=str(path)) for i, (name, path) in images]


def _only_names(file: Path, folder: Path, split: str) -> bool:
    """True for a test.txt without classes: some line is the name of a picture, and none gives a class."""
    if split != "test":
        return False
    present = list_images(folder / split)
    lines = [text for _, text in numbered_lines(file, Findings().at("cls", split))]
    with_class = (name in present and label is not None for name, label in map(split_label, lines))
    return any(line in present for line in lines) and not any(with_class)


def _infer_info(
    splits: dict[str, list[Example]], names: Mapping[int, str] | None, folder: Path, report: Reporter
) -> TaskInfo:
    if names is None:
        examples = splits.get("train") or [e for split in splits.values() for e in split]
        names = {e.truth: str(e.truth) for e in examples if e.labeled}
    if not names:
        remedy = "give the train root too, write cls/classes.txt, or keep to other shards with --like SHARDS"
        report.add("classes", f"{folder}: no labels, so no class list; {remedy}", folder)
    return numbered_info(report.task, "classification", dict(names))


def _relabel(example: Example, labels: Mapping[int, int], report: Reporter) -> Example | None:
    if not example.labeled:
        return example
    if example.truth not in labels:
        told = f"class {example.truth} of {example.file_name} is none of the {len(labels)} known"
        remedy = "correct it, or list every class in cls/classes.txt"
        report.add("label", f"{example.where}: {told}; {remedy}", example.image)
        return None
    return replace(example, truth=labels[example.truth])
