"""Classification from rows that name a picture and its class."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.base import read_class_names
from ufo_large.data.datasets.tables import Pictures
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, TaskInfo, numbered_info

MANY = 20
WRITE_CLASSES = "write one class per row"


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """A row: the cell `said` that names a picture, the split, and the class, None where it has none."""

    where: str
    said: Any
    split: str
    label: Any = None


def classes_of(rows: Iterable[Labelled], task: str, file: Path) -> TaskInfo:
    """Return the classes of train, or of all rows where train has none; whole numbers are their ids.

    Raises ValueError where the values are no classes: fractions, or another one in nearly every row.
    """
    labelled = [row for row in rows if row.label not in (None, "")]
    labels = [str(r.label) for r in labelled if r.split == "train"] or [str(r.label) for r in labelled]
    names = sorted(set(labels))
    if len(names) > MANY and 2 * len(names) > len(labels):
        told = f"{len(names)} different values in {len(labels)} rows are no classes"
        raise ValueError(f"{file}: {told}; {WRITE_CLASSES}")
    if all(name.isdecimal() for name in names):
        return numbered_info(task, "classification", {int(name): str(int(name)) for name in names})
    if fraction := _first_fraction(names):
        raise ValueError(f"{file}: numbers such as {fraction} are no classes; {WRITE_CLASSES}")
    return numbered_info(task, "classification", dict(enumerate(names)))


def _first_fraction(names: Iterable[str]) -> str:
    """Return the first that is no whole number, where all are numbers."""
    try:
        numbers = {name: float(name) for name in names}
    except ValueError:
        return ""
    return next((name for name, value in numbers.items() if value % 1), "")


def with_names(info: TaskInfo, root: Path, report: Reporter) -> TaskInfo:
    """Give numbered classes the names that a classes.txt in `root` has for them."""
    if not (root / "classes.txt").is_file():
        return info
    names = read_class_names(root / "classes.txt", report)
    if not all(name == str(number) for name, number in zip(info.class_names, info.class_ids, strict=True)):
        return info
    if lost := [number for number in info.class_ids if number not in names]:
        report.add("classes", f"{root / 'classes.txt'}: no name for class {lost[0]}; add it", root)
        return info
    return replace(info, class_names=tuple(names[number] for number in info.class_ids))


def labelled_splits(
    rows: Sequence[Labelled], pictures: Pictures, info: TaskInfo, findings: Findings
) -> dict[str, list[Example]]:
    """Return the examples of each split in the order of the rows; what does not fit is reported and left out.

    A test split without any class has no ground truth.
    """
    labelled = {row.split for row in rows if row.label not in (None, "")}
    splits: dict[str, dict[Path, Example]] = {}
    for row in rows:
        examples, report = splits.setdefault(row.split, {}), findings.at(info.name, row.split)
        needs_label = row.split in labelled or row.split != "test"
        path = the_picture(row.where, row.said, row.split, pictures, report)
        label = _label(row, info, path, report) if path and needs_label else None
        if path is None or (label is None and needs_label):
            continue
        if path in examples:
            report.add("duplicate", f"{row.where}: {row.said} stands twice; {FIX_REMEDY}", path)
            continue
        examples[path] = Example(
            image=path,
            file_name="/".join(pictures.parts(path)),
            image_id=len(examples) + 1,
            where=row.where,
            truth=label,
        )
    return {split: list(examples.values()) for split, examples in splits.items()}


def the_picture(where: str, said: Any, split: str, pictures: Pictures, report: Reporter) -> Path | None:
    """Return the one picture that a cell names; reports where it is none or several."""
    found, file = pictures.find(said, split), where.rpartition(":")[0]
    if len(found) == 1:
        return found[0]
    if found:
        shown = ", ".join("/".join(pictures.parts(p)) for p in found[:3])
        report.add("missing", f"{where}: {said!r} may be {shown}; write the folder too", file)
    else:
        told = f"{where}: no picture {said!r} in {pictures.place}; copy it or {FIX_REMEDY}"
        report.add("missing", told, file)
    return None


def _label(row: Labelled, info: TaskInfo, path: Path, report: Reporter) -> int | None:
    name = "" if row.label is None else str(row.label)
    for spelt in (name, str(int(name)) if name.isdecimal() else name):
        if spelt in info.class_names:
            return info.class_names.index(spelt)
    told = f"class {name!r} does not exist in train" if name else "no class"
    report.add("label", f"{row.where}: {told}; {FIX_REMEDY}", path)
    return None


def report_unnamed(pictures: Pictures, named: Iterable[Path], file: Path, report: Reporter) -> None:
    """Report pictures that no row names: they would be lost without a word."""
    named = set(named)
    if unnamed := ["/".join(pictures.parts(p)) for p in pictures.paths if p not in named]:
        told = f"{len(unnamed)} pictures that no row names: {', '.join(unnamed[:5])}"
        report.add("unread", f"{file}: {told}; add rows, or move them out", file)
