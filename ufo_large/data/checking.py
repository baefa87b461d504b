"""Check every picture and annotation of a data set before anything is written.

Two steps: look into each file (in processes, remembered between runs), then hold the annotations
against what the files hold.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from ufo_large.config import as_utf8, parse_json
from ufo_large.data.progress import map_in_processes
from ufo_large.kinds import kind_of
from ufo_large.media.pictures import FileFacts, Look, inspect_file, picture_facts
from ufo_large.structures import FIX_REMEDY, Example, Findings, Reporter, SourceTask, TaskInfo

CHUNK = 32
Job = tuple[Path, Look]


def files_of(tasks: Iterable[SourceTask]) -> list[Job]:
    """Return (file, what looks into it) of every picture and every file of a truth, once each."""
    jobs: dict[Job, None] = {}
    for task in tasks:
        kind = kind_of(task.info)
        for example in (e for examples in task.splits.values() for e in examples):
            jobs[example.image, picture_facts] = None
            jobs.update(dict.fromkeys(kind.files(example.truth) if example.labeled else ()))
    return list(jobs)


def inspect_files(files: Sequence[Job], jobs: int = 1, memory: Path | None = None) -> dict[Path, FileFacts]:
    """Look into every file; `memory` is a file that keeps the facts, so an interrupted run goes on."""
    known = _recall(memory)
    facts, todo = {}, []
    for path, look in files:
        if (key := _key(path, look)) in known:
            facts[path] = known[key]
        else:
            todo.append((path, look))
    chunks = [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]
    for chunk, found in map_in_processes(_inspect_chunk, chunks, jobs, "checking files", len):
        for (path, _), one in zip(chunk, found, strict=True):
            facts[path] = one
        _remember(memory, chunk, found)
    return facts


def _inspect_chunk(chunk: list[Job]) -> list[FileFacts]:
    return [inspect_file(path, look) for path, look in chunk]


def _key(path: Path, look: Look) -> str:
    """Name a file as it is now, and who looked: a mask's colours are no facts of its palette."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    looked = getattr(look, "__qualname__", repr(look))
    return f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}|{looked}"


def _recall(memory: Path | None) -> dict[str, FileFacts]:
    known: dict[str, FileFacts] = {}
    if memory is not None and memory.is_file():
        for line in memory.read_text(encoding="utf-8").splitlines():
            try:
                row = parse_json(line, memory, "removed")
                row["facts"]["values"] = {int(v): n for v, n in row["facts"]["values"].items()}
                known[row["key"]] = FileFacts(**row["facts"])
            except (ValueError, TypeError, KeyError, AttributeError):
                continue  # cut off by a kill, or of another version
    return known


def _remember(memory: Path | None, chunk: list[Job], found: list[FileFacts]) -> None:
    if memory is None:
        return
    with memory.open("a", encoding="utf-8") as file:
        for (path, look), facts in zip(chunk, found, strict=True):
            if not facts.error:
                file.write(json.dumps({"key": _key(path, look), "facts": asdict(facts)}) + "\n")


def _unusable(example: Example, picture: FileFacts, info: TaskInfo) -> str | None:
    """Return what makes a readable picture useless, with the remedy."""
    if as_utf8(example.file_name) != example.file_name:
        return f"its name is not UTF-8; rename it, or {FIX_REMEDY}"
    if picture.turned and example.truth and example.size is None and kind_of(info).counts_objects:
        return (
            "an EXIF tag turns it, so it is not clear which way its boxes are meant; turn the pixels "
            "(mogrify -auto-orient) if they are of the picture as shown, drop the tag "
            f"(exiftool -Orientation=) if of the picture as stored, or {FIX_REMEDY}"
        )
    return None


def check_tasks(
    tasks: Iterable[SourceTask], facts: dict[Path, FileFacts], findings: Findings
) -> list[SourceTask]:
    """Report what is wrong and return the tasks as they are after dropping and clipping it."""
    checked = []
    for task in tasks:
        splits = {}
        for name in task.info.class_names:
            if as_utf8(name) != name:
                told = f"class {as_utf8(name)}: its name is not UTF-8; rename its folder"
                findings.at(task.info.name).add("label", told, "")
        for split, examples in task.splits.items():
            report = findings.at(task.info.name, split)
            kind_of(task.info).check_split(task.info, examples, facts, report)
            kept = (check_example(example, facts, task.info, report) for example in examples)
            splits[split] = [example for example in kept if example is not None]
        checked.append(SourceTask(task.info, splits))
    return checked


def check_example(
    example: Example, facts: dict[Path, FileFacts], info: TaskInfo, report: Reporter
) -> Example | None:
    """Return the example as it can be used, None if it cannot; see `Kind.checked` for its truth."""
    picture = facts[example.image]
    if picture.error:
        report.add(
            "picture", f"{example.image}: {picture.error}; replace the file, or {FIX_REMEDY}", example.image
        )
        return None
    if (problem := _unusable(example, picture, info)) is not None:
        report.add("picture", f"{as_utf8(example.image)}: {problem}", example.image)
        return None
    height, width = picture.height, picture.width
    if example.size not in (None, (height, width)):
        said = f"annotated as {example.size[1]}x{example.size[0]}, but is {width}x{height} (width x height)"
        report.add("size", f"{example.where}: {said}; {FIX_REMEDY}", example.image)
        return None
    return kind_of(info).checked(example, facts, info, report) if example.labeled else example
