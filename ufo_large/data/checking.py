"""Check every picture and annotation of a data set before anything is written.

Two steps: look into each file (in processes, remembered between runs), then hold the annotations
against what the files hold.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from ufo_large.data.datasets.base import FIX_REMEDY, INVALID, Box, Example, Findings, Reporter, SourceTask
from ufo_large.media.pictures import FileFacts, FileKind, inspect_file
from ufo_large.data.ignored_class import report_ignored_class
from ufo_large.data.progress import map_in_processes

CHUNK = 32
ROUNDING_PX = 1.0
Job = tuple[Path, FileKind]


def files_of(tasks: Iterable[SourceTask]) -> list[Job]:
    """Return (file, what it is) of every picture and mask, once each."""
    jobs: dict[Job, None] = {}
    for task in tasks:
        for examples in task.splits.values():
            for example in examples:
                jobs[example.image, "picture"] = None
                if example.mask is not None:
                    jobs[example.mask, "color mask" if example.mask_coding.colors else "mask"] = None
    return list(jobs)


def inspect_files(files: Sequence[Job], jobs: int = 1, memory: Path | None = None) -> dict[Path, FileFacts]:
    """Look into every file; `memory` is a file that keeps the facts, so an interrupted run goes on."""
    known = _recall(memory)
    facts, todo = {}, []
    for path, kind in files:
        if (key := _key(path)) in known:
            facts[path] = known[key]
        else:
            todo.append((path, kind))
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    for chunk, found in map_in_processes(_inspect_chunk, chunks, jobs, "checking files", len):
        for (path, _), one in zip(chunk, found, strict=True):
            facts[path] = one
        _remember(memory, chunk, found)
    return facts


def _inspect_chunk(chunk: list[Job]) -> list[FileFacts]:
    return [inspect_file(path, kind) for path, kind in chunk]


def _key(path: Path) -> str:
    try:
        stat = path.stat()
    except OSError:
        return ""
    return f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"


def _recall(memory: Path | None) -> dict[str, FileFacts]:
    known: dict[str, FileFacts] = {}
    if memory is not None and memory.is_file():
        for line in memory.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
                row["facts"]["values"] = {int(v): n for v, n in row["facts"]["values"].items()}
                known[row["key"]] = FileFacts(**row["facts"])
            except (json.JSONDecodeError, TypeError):  # cut off by a kill, or of another version
                continue
    return known


def _remember(memory: Path | None, chunk: list[Job], found: list[FileFacts]) -> None:
    if memory is None:
        return
    with memory.open("a", encoding="utf-8") as file:
        for (path, _), facts in zip(chunk, found, strict=True):
            if not facts.error:
                file.write(json.dumps({"key": _key(path), "facts": asdict(facts)}) + "\n")


def check_tasks(
    tasks: Iterable[SourceTask], facts: dict[Path, FileFacts], findings: Findings
) -> list[SourceTask]:
    """Report what is wrong and return the tasks as they are after dropping and clipping it."""
    checked = []
    for task in tasks:
        splits = {}
        for split, examples in task.splits.items():
            report = findings.at(task.info.name, split)
            report_ignored_class(task.info, examples, facts, report)
            kept = (check_example(example, facts, task.info.num_classes, report) for example in examples)
            splits[split] = [example for example in kept if example is not None]
        checked.append(SourceTask(task.info, splits))
    return checked


def check_example(
    example: Example, facts: dict[Path, FileFacts], num_classes: int, report: Reporter
) -> Example | None:
    """Return the example, boxes clipped to the picture and empty ones dropped; None if it cannot be used.

    Boxes of test that stick out by no more than rounding stay as they are, as the evaluator reads them.
    """
    picture = facts[example.image]
    if picture.error:
        report.add(
            "picture", f"{example.image}: {picture.error}; replace the file, or {FIX_REMEDY}", example.image
        )
        return None
    height, width = picture.height, picture.width
    if example.size not in (None, (height, width)):
        said = f"annotated as {example.size[1]}x{example.size[0]}, but is {width}x{height} (width x height)"
        report.add("size", f"{example.where}: {said}; {FIX_REMEDY}", example.image)
        return None
    if example.mask is not None:
        return (
            example
            if _mask_is_good(example, facts[example.mask], (height, width), num_classes, report)
            else None
        )
    if example.boxes is not None:
        kept = [_check_box(box, height, width, example, report) for box in example.boxes]
        return replace(example, boxes=tuple(box for box in kept if box is not None))
    return example


def _mask_is_good(
    example: Example, mask: FileFacts, size: tuple[int, int], num_classes: int, report: Reporter
) -> bool:
    where = example.mask
    if mask.error:
        report.add("mask", f"{where}: {mask.error}; replace the file, or {FIX_REMEDY}", where)
        return False
    if (mask.height, mask.width) != size:
        said = f"{mask.width}x{mask.height}, but its picture {example.image.name} is {size[1]}x{size[0]}"
        report.add("mask", f"{where}: {said}; {FIX_REMEDY}", where)
        return False
    wrong = wrong_values(example, mask)
    if wrong:
        colored = example.mask_coding.colors is not None
        show = ", ".join(f"{_show(v, colored)} ({n} pixels)" for v, n in list(wrong.items())[:5])
        remedy = f"give --classes {report.task}=N or a classes.txt if there are more, 255 means ignore"
        report.add(
            "mask",
            f"{where}: value {show} is none of the {num_classes} classes; {remedy}; or {FIX_REMEDY}",
            where,
        )
    return not wrong


def wrong_values(example: Example, mask: FileFacts) -> dict[int, int]:
    """Return the values of a mask that are no class, with their pixel counts."""
    return {v: n for v, n in mask.values.items() if example.mask_coding.label_of(v) == INVALID}


def _show(value: int, colored: bool) -> str:
    return f"#{value:06x}" if colored else str(value)


def _check_box(box: Box, height: int, width: int, example: Example, report: Reporter) -> Box | None:
    """Clip silently what rounding explains (1 px), but not in test, the truth of scores; report the rest."""
    x0, y0, x1, y1 = box.xyxy
    shown = f"box [x {x0:g}, y {y0:g}, width {x1 - x0:g}, height {y1 - y0:g}]"
    if not (x1 > x0 and y1 > y0):
        report.add("box", f"{example.where}: empty {shown}; {FIX_REMEDY}", example.image)
        return None
    clipped = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if max(abs(a - b) for a, b in zip(clipped, box.xyxy, strict=True)) > ROUNDING_PX:
        report.add(
            "box",
            f"{example.where}: {shown} reaches outside its {width}x{height} image; {FIX_REMEDY}",
            example.image,
        )
    elif report.split == "test":
        return box
    if not (clipped[2] > clipped[0] and clipped[3] > clipped[1]):
        return None
    return box if clipped == box.xyxy else replace(box, xyxy=clipped, area=None)
