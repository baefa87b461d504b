"""Examine a user's data set: what stops sharding, what is suspicious, and an index without the defects.

Errors are what make_shards refuses. Warnings are judgement: leaks between splits, equal pictures of different
classes, a file whose name hides its format, a class that train hardly has.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ufo_large.data.checking import check_tasks, files_of, inspect_files
from ufo_large.data.datasets.base import IMAGE_SUFFIXES, raise_findings
from ufo_large.data.datasets.fixed import write_fixed_index
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.duplicates import find_duplicates, leaked_copies
from ufo_large.kinds import kind_of
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import FIX_REMEDY, Example, Finding, Findings, SourceTask, TaskInfo

FEW = 5
IMBALANCE = 50.0
SUFFIXES = {"jpeg": (".jpg", ".jpeg"), "jpeg-cmyk": (".jpg", ".jpeg"), "png": (".png",), "png-16": (".png",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Diagnosis:
    """`tasks`: as the folders have it; `healthy`: after dropping and clipping.

    `unread`: errors that readers reported, who left the entry out themselves; `unfit`: the other errors.
    `classes`: by task and class name, how many images, boxes, or images showing it train has. `facts`: what
    the files hold.
    """

    tasks: list[SourceTask]
    healthy: list[SourceTask]
    unread: list[Finding]
    unfit: list[Finding]
    warnings: list[Finding]
    classes: dict[str, dict[str, int]]
    facts: dict[Path, FileFacts]

    @property
    def errors(self) -> list[Finding]:
        return [*self.unread, *self.unfit]

    def to_json(self) -> dict[str, Any]:
        counts = {
            t.info.name: {split: len(examples) for split, examples in t.splits.items()} for t in self.tasks
        }
        return {
            "images": counts,
            "errors": [asdict(f) for f in self.errors],
            "warnings": [asdict(f) for f in self.warnings],
            "train_classes": self.classes,
        }


def diagnose(data: Sequence[str | Path], counts: Mapping[str, int] | None = None, jobs: int = 1) -> Diagnosis:
    """Read and check everything; never raises for what is wrong inside the folders, never writes to them."""
    unread, unfit, warnings = Findings(), Findings(), Findings()
    tasks = read_sources(data, unread, counts)
    facts = inspect_files(files_of(tasks), jobs)
    healthy = check_tasks(tasks, facts, unfit)
    classes = {}
    for i, task in enumerate(healthy):
        name = task.info.name
        _warn_of_files(task, facts, warnings)
        warnings.items += find_duplicates(task, facts)
        classes[name] = count_classes(task, "train", facts)
        _warn_of_imbalance(name, _warn_of_assumed_classes(task.info, classes[name], warnings), warnings)
        healthy[i] = _without_leaks(task, facts)
    return Diagnosis(
        tasks=tasks,
        healthy=healthy,
        unread=unread.items,
        unfit=unfit.items,
        warnings=warnings.items,
        classes=classes,
        facts=facts,
    )


def _warn_of_files(task: SourceTask, facts: Mapping[Path, FileFacts], warnings: Findings) -> None:
    for split, examples in task.splits.items():
        for path in (e.image for e in examples):
            kind = facts[path].format
            if kind in SUFFIXES and path.suffix.lower() not in SUFFIXES[kind]:
                warnings.at(task.info.name, split).add("format", f"{path}: is a {kind} by its content", path)
            if facts[path].turned:
                told = f"{path}: an EXIF tag turns it in viewers; it is used as stored"
                warnings.at(task.info.name, split).add("turned", told, path)


def count_classes(task: SourceTask, split: str, facts: Mapping[Path, FileFacts]) -> dict[str, int]:
    """Count images, boxes, or images that show the class, by class name."""
    counted: Counter[int] = Counter()
    kind = kind_of(task.info)
    for example in task.splits.get(split, ()):
        counted.update(kind.classes_of(example.truth, facts) if example.labeled else ())
    return {name: counted[label] for label, name in enumerate(task.info.class_names)}


def _warn_of_assumed_classes(info: TaskInfo, classes: dict[str, int], warnings: Findings) -> dict[str, int]:
    """Return the classes to judge: without those that only the contest's list has, where it was assumed.

    Most of that list never occurring, the user's masks have classes of their own.
    """
    labels = [label for label, n in enumerate(classes.values()) if n]
    if not labels or not kind_of(info).has_contest_classes(info) or 2 * len(labels) >= len(classes):
        return classes
    told = (
        f"{info.name}: train shows {len(labels)} of the contest's {len(classes)} classes, which the folder "
        "does not name; if they are not these, list yours in classes.txt, or give --classes "
        f"{info.name}={labels[-1] + 1} for the values up to {labels[-1]}"
    )
    warnings.at(info.name, "train").add("assumed classes", told, "")
    return {name: n for name, n in classes.items() if n}


def _warn_of_imbalance(task: str, classes: dict[str, int], warnings: Findings) -> None:
    report, total = warnings.at(task, "train"), sum(classes.values())
    if not total:
        return
    rare = {name: n for name, n in classes.items() if n < FEW}
    if rare:
        listed = ", ".join(f"{name} ({n})" for name, n in sorted(rare.items(), key=lambda x: x[1])[:20])
        report.add("rare class", f"{task}: {len(rare)} classes with fewer than {FEW} in train: {listed}", "")
    present = [n for n in classes.values() if n]
    if max(present) > IMBALANCE * min(present):
        most, least = max(classes, key=classes.get), min((n for n in classes if classes[n]), key=classes.get)
        told = f"{most} has {classes[most]}, {least} has {classes[least]}"
        report.add("imbalance", f"{task}: {told}; consider class-balanced sampling", "")


def _without_leaks(task: SourceTask, facts: Mapping[Path, FileFacts]) -> SourceTask:
    leaked = leaked_copies(task, facts)
    train = [e for e in task.splits.get("train", ()) if e.image not in leaked]
    return SourceTask(task.info, {**task.splits, "train": train}) if leaked else task


def write_fix(diagnosis: Diagnosis, out: Path) -> list[str]:
    """Write the healthy index and a list of what was done to OUT; returns that list.

    The user's files stay as they are: the index only points at them. Raises ValueError where an image of test
    would be left out, and where the classes are not told: what to leave out would be a guess.
    """
    _refuse_source(out, diagnosis.tasks)
    _refuse_unknown_classes(diagnosis)
    _refuse_gaps_in_test(diagnosis)
    done = [f"left out while reading: {f.message.removesuffix(f'; {FIX_REMEDY}')}" for f in diagnosis.unread]
    reasons = {f.path: f.kind for f in (*diagnosis.warnings, *diagnosis.unfit) if f.kind in DROPPING_KINDS}
    for before, after in zip(diagnosis.tasks, diagnosis.healthy, strict=True):
        for split, examples in before.splits.items():
            kept = {e.image: e for e in after.splits[split]}
            for example in examples:
                done += _changes(before.info, example, kept.get(example.image), reasons)
    healthy = [replace_empty(task) for task in diagnosis.healthy]
    write_fixed_index(out, healthy)
    (out / "changes.txt").write_text("".join(f"{line}\n" for line in done), encoding="utf-8")
    return done


# for which a whole image goes
DROPPING_KINDS = ("picture", "size", "mask", "depth", "leak")


def _refuse_source(out: Path, tasks: list[SourceTask]) -> None:
    """The index would stand among the user's files, and hide them from the next reading."""
    for task in tasks:
        for example in (e for split in task.splits.values() for e in split):
            if out.resolve() in example.image.resolve().parents:
                raise ValueError(f"--fix {out}: holds your own pictures; give a new folder")


def _refuse_unknown_classes(diagnosis: Diagnosis) -> None:
    """Leaving entries out does not say what the rest means."""
    told = Findings([finding for finding in diagnosis.errors if finding.kind == "classes"])
    raise_findings(told, "--fix cannot say what the classes are")


def _refuse_gaps_in_test(diagnosis: Diagnosis) -> None:
    """A submission numbers its images by their line in the test list: after a gap all would be wrong."""
    gaps = [f for f in diagnosis.unread if f.split == "test" and not f.keeps_images]
    lost = [_image_or_entry(finding) for finding in gaps]
    for before, after in zip(diagnosis.tasks, diagnosis.healthy, strict=True):
        kept = {e.image for e in after.splits.get("test", ())}
        lost += [e.image.name for e in before.splits.get("test", ()) if e.image not in kept]
    if lost:
        raise ValueError(
            f"--fix: of the test images {', '.join(sorted(set(lost))[:20])} cannot be left out, since a "
            "submission numbers its images by their line in the list; put whole files there, or correct "
            "the list"
        )


def _image_or_entry(finding: Finding) -> str:
    """Name the image, or the file and line that should name it."""
    path = Path(finding.path)
    return path.name if path.suffix.lower() in IMAGE_SUFFIXES else finding.message.split(": ")[0]


def _changes(info: TaskInfo, before: Example, after: Example | None, reasons: Mapping[str, str]) -> list[str]:
    if after is None:
        beside = kind_of(info).files(before.truth) if before.labeled else ()
        found = (reasons.get(str(path)) for path in (before.image, *(path for path, _ in beside)))
        return [f"dropped image {before.image}: {next((r for r in found if r), None)}"]
    told = kind_of(info).change(before.truth, after.truth) if before.labeled else ""
    return [f"{before.image}: {told}"] if told else []


def replace_empty(task: SourceTask) -> SourceTask:
    """Drop splits of which nothing is left."""
    return replace(task, splits={split: examples for split, examples in task.splits.items() if examples})


def write_json(diagnosis: Diagnosis, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(diagnosis.to_json(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
