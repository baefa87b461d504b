"""Masks in which 255 was meant as a class, but means ignore: every pixel of the class would be left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from ufo_large.kinds.masks import MaskFile
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import IGNORE_INDEX, Example, Reporter, TaskInfo


def report_ignored_class(
    info: TaskInfo, examples: Iterable[Example], facts: Mapping[Path, FileFacts], report: Reporter
) -> None:
    """Report a split whose masks show one class, or none, beside 255 as ignore, where the task has several.

    Masks of 0 and 255, as many tools write them for two classes, are the usual case.
    """
    masks = [e.truth for e in examples if e.labeled and _ignores_255(e.truth)]
    masks = [mask for mask in masks if not facts[mask.path].error]
    values = Counter(value for mask in masks for value in facts[mask.path].values)
    labels = {mask.coding.label_of(value) for mask in masks for value in facts[mask.path].values}
    shown = labels - {IGNORE_INDEX}
    if not values[IGNORE_INDEX] or len(shown) > 1 or info.num_classes < 2:
        return
    unseen = ", ".join(name for label, name in enumerate(info.class_names) if label not in shown)
    told = f"{len(masks)} masks hold {' and '.join(map(str, sorted(values)))} alone"
    remedy = f"write {_first_unseen(info, shown)} for 255 if it is that class, or add masks that show it"
    if info.num_classes == 2 and values.keys() == {0, IGNORE_INDEX}:
        lines = " and ".join(f'"{v} {name}"' for v, name in zip((0, 255), info.class_names, strict=True))
        remedy += f"; beside images/ and masks/, a classes.txt with the lines {lines} says it too"
    first = next(mask.path for mask in masks if IGNORE_INDEX in facts[mask.path].values)
    why = f"255 means ignore, so no pixel is of {unseen}"
    report.add("classes", f"{info.name}/{report.split}: {told}; {why}; {remedy}", first)


def _ignores_255(mask: MaskFile) -> bool:
    return mask.coding.colors is None and mask.coding.label_of(IGNORE_INDEX) == IGNORE_INDEX


def _first_unseen(info: TaskInfo, shown: set[int]) -> int:
    return next(number for label, number in enumerate(info.class_ids) if label not in shown)
