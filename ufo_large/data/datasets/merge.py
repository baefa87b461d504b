"""Merge several sources of one task: classes of one name become one class."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ufo_large.data.datasets.base import joined
from ufo_large.kinds import kind_of, require_kind
from ufo_large.structures import Example, Findings, Reporter, SourceTask, TaskInfo


def names_of_several(name: str, tasks: Sequence[str]) -> dict[str, str]:
    """Return what the tasks of one folder are called: <name> where it is alone, else <name>_<task>.

    An empty name changes nothing.
    """
    if not name:
        return {task: task for task in tasks}
    return {task: name if len(tasks) == 1 else f"{name}_{task}" for task in tasks}


def renamed(tasks: list[SourceTask], name: str) -> list[SourceTask]:
    """Call tasks that were read from one folder as `names_of_several` says."""
    names = names_of_several(name, [task.info.name for task in tasks])
    return [replace(task, info=replace(task.info, name=names[task.info.name])) for task in tasks]


def merge_tasks(tasks: list[SourceTask], findings: Findings) -> list[SourceTask]:
    """Return one SourceTask a task name, in order of first appearance."""
    merged: dict[str, SourceTask] = {}
    for task in tasks:
        name = task.info.name
        if name in merged:
            _report_spelt_apart(merged[name].info, task.info, findings.at(name))
        merged[name] = task if name not in merged else _merge(merged[name], task)
    return list(merged.values())


def _report_spelt_apart(first: TaskInfo, second: TaskInfo, report: Reporter) -> None:
    """Report classes of two sources that differ in capitals and signs alone: they would be learned as two."""
    known = {re.sub(r"[\s_-]", "", name).lower(): name for name in first.class_names}
    for name in second.class_names:
        alike = known.get(re.sub(r"[\s_-]", "", name).lower(), name)
        if name not in first.class_names and alike not in (name, *second.class_names):
            told = f"{first.name}: one folder has the class {alike!r}, another {name!r}"
            report.add("classes", f"{told}; spell them alike, or name the tasks apart with NAME=FOLDER", "")


def _merge(first: SourceTask, second: SourceTask) -> SourceTask:
    if first.info.kind != second.info.kind:
        kinds = f"{first.info.kind} in one source and {second.info.kind} in another"
        raise ValueError(f"task {first.info.name!r} is {kinds}; name them apart with --data TASK=FOLDER")
    info, new_labels = _merge_infos(first.info, second.info)
    require_kind(info)  # its classes and ids may be new ones
    splits = {split: list(examples) for split, examples in first.splits.items()}
    for split, examples in second.splits.items():
        moved = [_relabel(info, example, new_labels) for example in examples]
        splits[split] = joined(splits.get(split, []), moved, kind_of(info).answer_name)
    return SourceTask(info, splits)


def _merge_infos(first: TaskInfo, second: TaskInfo) -> tuple[TaskInfo, list[int]]:
    """Return the merged classes and, for each label of `second`, its new label.

    Labels of `first` stay. A new class keeps its id where that is above all others, else gets the next one.
    """
    names, ids = list(first.class_names), list(first.class_ids)
    for name, number in zip(second.class_names, second.class_ids, strict=True):
        if name not in names:
            names.append(name)
            ids.append(max(number, max(ids, default=-1) + 1))
    info = TaskInfo(name=first.name, kind=first.kind, class_names=tuple(names), class_ids=tuple(ids))
    return info, [names.index(name) for name in second.class_names]


def keep_to(tasks: list[SourceTask], known: Mapping[str, TaskInfo]) -> list[SourceTask]:
    """Give tasks the class lists in `known`, matching classes by name.

    Raises ValueError for a class that is not in the list, or a task of another kind.
    """
    kept = []
    for task in tasks:
        info = known.get(task.info.name, task.info)
        extra = [name for name in task.info.class_names if name not in info.class_names]
        if extra or info.kind != task.info.kind:
            told = f"classes {', '.join(extra[:10])}" if extra else f"kind {task.info.kind}"
            raise ValueError(f"task {info.name!r} has {told}, which the shards given with --like do not know")
        if info is task.info:
            kept.append(task)
            continue
        new_labels = [info.class_names.index(name) for name in task.info.class_names]
        splits = {
            split: [_relabel(info, e, new_labels) for e in examples]
            for split, examples in task.splits.items()
        }
        kept.append(SourceTask(info, splits))
    return kept


def _relabel(info: TaskInfo, example: Example, new_labels: list[int]) -> Example:
    if not example.labeled:
        return example
    return replace(example, truth=kind_of(info).relabelled(example.truth, new_labels))
