"""What the readers of users' folders share: listing pictures, reading lines and class names."""

import csv
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

from ufo_large.config import Problems
from ufo_large.structures import IGNORE_INDEX, Example, Findings, Reporter

COLOR_COLUMNS = ("r", "g", "b", "name")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm")


def raise_findings(findings: Findings, subject: str) -> None:
    """Raise one ValueError that lists what a reader found wrong (the first 20 in full)."""
    problems = Problems(subject)
    for item in findings.items:
        problems.add(item.message)
    problems.raise_if_any()


def joined(
    first: list[Example], second: list[Example], answer_name: Callable[[str], str] = str
) -> list[Example]:
    """Append the examples of a second source; its ids and names move aside where any would collide.

    Names tell answers apart at evaluation: "a.jpg" of the second source becomes "2/a.jpg", and so on.
    `answer_name`: under which name an image is answered, where that is not its own.
    """
    ids, names = {e.image_id for e in first}, {answer_name(e.file_name) for e in first}
    if any(e.image_id in ids for e in second):
        shift = max(ids) + 1 - min(e.image_id for e in second)
        second = [replace(e, image_id=e.image_id + shift) for e in second]
    if any(answer_name(e.file_name) in names for e in second):
        free = next(
            n for n in count(2) if all(answer_name(f"{n}/{e.file_name}") not in names for e in second)
        )
        second = [replace(e, file_name=f"{free}/{e.file_name}") for e in second]
    return first + second


def list_images(folder: Path) -> dict[str, Path]:
    """Return the pictures of a folder by file name, sorted; empty when there is no such folder."""
    if not folder.is_dir():
        return {}
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".")]
    return {p.name: p for p in sorted(files)}


def numbered_lines(file: Path, report: Reporter) -> list[tuple[int, str]]:
    """Return (line number from 1, text) of every line that is not blank."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        report.add("label", f"{file}: not UTF-8 text ({error}); save it as UTF-8", file)
        return []
    return [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]


def read_class_names(file: Path, report: Reporter) -> dict[int, str]:
    """Read classes.txt: one name a line, line i (from 0) names id i; or "<id> <name>" on every line."""
    lines = [text for _, text in numbered_lines(file, report)]
    numbered = [line.split(maxsplit=1) for line in lines]
    if lines and all(len(parts) == 2 and parts[0].isdigit() for parts in numbered):
        names = {int(number): name for number, name in numbered}
    else:
        names = dict(enumerate(lines))
    if len(names) != len(lines) or len(set(names.values())) != len(lines) or not lines:
        report.add("classes", f"{file}: empty, or an id or name stands twice; write each class once", file)
    return names


def read_class_colors(file: Path, report: Reporter) -> tuple[dict[int, str], dict[int, int]]:
    """Return (class names by label, label by 0xRRGGBB); the class Void is ignored.

    A line is "<red> <green> <blue> <name>"; a .csv has the columns name, r, g and b. A name that stands twice
    is one class of two colours.
    """
    names: dict[int, str] = {}
    colors: dict[int, int] = {}
    for line, text in _color_lines(file, report):
        parts = text.split(maxsplit=3)
        if len(parts) != 4 or not all(p.isdecimal() and int(p) < 256 for p in parts[:3]):
            report.add("classes", f'{file}:{line}: cannot read {text!r}; write "red green blue name"', file)
            continue
        red, green, blue = map(int, parts[:3])
        void = parts[3].lower() in ("void", "unlabelled", "unlabeled")
        known = next((label for label, name in names.items() if name == parts[3]), len(names))
        label = IGNORE_INDEX if void else known
        colors[red << 16 | green << 8 | blue] = label
        if not void:
            names[label] = parts[3]
    return names, colors


def _color_lines(file: Path, report: Reporter) -> list[tuple[int, str]]:
    lines = numbered_lines(file, report)
    if file.suffix != ".csv" or not lines:
        return lines
    rows = [[cell.strip() for cell in cells] for cells in csv.reader(text for _, text in lines)]
    header = [name.lower() for name in rows[0]]
    if lost := [name for name in COLOR_COLUMNS if name not in header]:
        told = f"{file}: no column {', '.join(lost)}; its first line must name {', '.join(COLOR_COLUMNS)}"
        report.add("classes", told, file)
        return []
    columns = [header.index(name) for name in COLOR_COLUMNS]
    return [
        (line, " ".join(cells[i] for i in columns) if len(cells) == len(header) else text)
        for (line, text), cells in zip(lines[1:], rows[1:], strict=True)
    ]
