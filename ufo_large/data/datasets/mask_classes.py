"""What the values or colours of plain masks mean.

    label_colors.txt, or classes.txt: "<red> <green> <blue> <name>" on every line: masks of colours
    class_dict.csv: the same with the columns name, r, g and b
    classes.txt: one name per line, the values 0..K-1; or "<value> <name>", where 255 may be a class
    --classes TASK=N: values 0..N-1. N = 2 and masks of 0 and 255 alone: background and foreground
    none of these, and masks of 0 and 255 alone: background and foreground

Elsewhere 255 means ignore where nothing names it; of 0 and 255 alone that would leave a single class.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ufo_large.data.datasets.base import numbered_lines, read_class_colors, read_class_names
from ufo_large.kinds.contest_classes import SEGMENTATION_NAMES
from ufo_large.kinds.masks import MaskCoding
from ufo_large.media.pictures import inspect_file, mask_facts
from ufo_large.structures import IGNORE_INDEX, Findings, Reporter

CLASS_FILE, COLOR_FILE, COLOR_TABLE = "classes.txt", "label_colors.txt", "class_dict.csv"
TWO = ("background", "foreground")
LOOKED_AT = 50  # masks of each split
Classes = tuple[dict[int, str], MaskCoding]


def mask_classes(
    root: Path, masks: Sequence[Sequence[Path]], bdd: bool, count: int | None, report: Reporter
) -> Classes:
    """Return class names by id, and how mask values become labels. `masks`: the files of each split.

    `bdd`: BDD100K's 19 classes where no file says others. What nothing explains is reported.
    """
    if palette := _palette(root):
        names, colors = read_class_colors(palette, report)
        return names, MaskCoding(table=MaskCoding.identity(0).table, colors=colors)
    file = root / CLASS_FILE
    names = read_class_names(file, report) if file.is_file() else {}
    if count is not None and len(names) != count:
        names = {i: str(i) for i in range(count)}
    elif not names and bdd:
        names = dict(enumerate(SEGMENTATION_NAMES))
    elif not names and not file.is_file():
        if (values := _values(masks)) == {0, IGNORE_INDEX}:
            return _numbered(dict(zip((0, IGNORE_INDEX), TWO, strict=True)))
        report.add("classes", f"{root}: {_unexplained(root, values, report.task)}", root)
    if count == 2 and IGNORE_INDEX not in names and _values(masks) == {0, IGNORE_INDEX}:
        said = tuple(names[number] for number in sorted(names))
        names = dict(zip((0, IGNORE_INDEX), said if said != ("0", "1") else TWO, strict=True))
    return _numbered(names)


def _numbered(names: dict[int, str]) -> Classes:
    """Return the classes, from 0 where 255 is one: in shards and submissions it means ignore."""
    coding = MaskCoding.from_values({value: label for label, value in enumerate(sorted(names))})
    if IGNORE_INDEX in names:
        names = {label: names[value] for label, value in enumerate(sorted(names))}
    return names, coding


def _palette(root: Path) -> Path | None:
    """Return the file that says colours."""
    for name in (COLOR_FILE, COLOR_TABLE):
        if (root / name).is_file():
            return root / name
    file = root / CLASS_FILE
    words = numbered_lines(file, Findings().at("")) if file.is_file() else []
    first = words[0][1].split(maxsplit=3) if words else []
    return file if len(first) == 4 and all(word.isdecimal() for word in first[:3]) else None


def _values(masks: Iterable[Sequence[Path]]) -> set[int] | None:
    """Return the values of the first masks of each split; None where they hold colours or cannot be read."""
    facts = [inspect_file(file, mask_facts) for split in masks for file in split[:LOOKED_AT]]
    if any(fact.error for fact in facts):
        return None
    return {value for fact in facts for value in fact.values}


def _unexplained(root: Path, values: set[int] | None, task: str) -> str:
    told = "nothing says how many classes its masks have"
    if values is None:
        colours = f'if they have colours, write {root / COLOR_FILE}, "<red> <green> <blue> <name>" per line'
        return f"{told}; {colours}; else replace those that cannot be read"
    fits = max(values - {IGNORE_INDEX}, default=0) + 1
    remedy = f"write {root / CLASS_FILE}, one class a line, or give --classes {task}=N"
    return f"{told}; {remedy}" + (f" (they hold 0 to {fits - 1}: N={fits})" if fits > 1 else "")
