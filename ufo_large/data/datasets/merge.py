"""Merge several sources of one task: classes of one name become one class."""

from dataclasses import replace

from ufo_large.data.datasets.base import Example, SourceTask
from ufo_large.structures import TaskInfo


def merge_tasks(tasks: list[SourceTask]) -> list[SourceTask]:
    """Return one SourceTask a task name, in order of first appearance."""
    merged: dict[str, SourceTask] = {}
    for task in tasks:
        name = task.info.name
        merged[name] = task if name not in merged else _merge(merged[name], task)
    return list(merged.values())


def _merge(first: SourceTask, second: SourceTask) -> SourceTask:
    if first.info.kind != second.info.kind:
        kinds = f"{first.info.kind} in one source and {second.info.kind} in another"
        raise ValueError(f"task {first.info.name!r} is {kinds}; name them apart with --data TASK=FOLDER")
    info, new_labels = _merge_infos(first.info, second.info)
    splits = {split: list(examples) for split, examples in first.splits.items()}
    for split, examples in second.splits.items():
        moved = [_relabel(example, new_labels) for example in examples]
        splits[split] = _append(splits.get(split, []), moved)
    return SourceTask(info, splits)


def _merge_infos(first: TaskInfo, second: TaskInfo) -> tuple[TaskInfo, list[int]]:
    """Return the merged classes and, for each label of `second`, its new label.

    New classes keep their id where it is free, else get the next free one.
    """
    names, ids = list(first.class_names), list(first.class_ids)
    for name, number in zip(second.class_names, second.class_ids, strict=True):
        if name not in names:
            names.append(name)
            ids.append(number if number not in ids else max(ids) + 1)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    names, ids = [names[i] for i in order], [ids[i] for i in order]
    if names[: first.num_classes] != list(first.class_names):
        raise AssertionError("labels of the first source moved")
    info = TaskInfo(name=first.name, kind=first.kind, class_names=tuple(names), class_ids=tuple(ids))
    return info, [names.index(name) for name in second.class_names]


def _relabel(example: Example, new_labels: list[int]) -> Example:
    return replace(
        example,
        label=None if example.label is None else new_labels[example.label],
        boxes=None
        if example.boxes is None
        else tuple(replace(box, label=new_labels[box.label]) for box in example.boxes),
        mask_coding=None if example.mask_coding is None else example.mask_coding.renumbered(new_labels),
    )


def _append(first: list[Example], second: list[Example]) -> list[Example]:
    """Append; ids of the second source move past the first's where they would collide."""
    taken = {example.image_id for example in first}
    if any(example.image_id in taken for example in second):
        shift = max(taken)
        second = [replace(example, image_id=example.image_id + shift) for example in second]
    return first + second
