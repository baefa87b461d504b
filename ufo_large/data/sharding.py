"""Turn a user's folders into shards: check everything, write in parallel, go on after an interruption."""

import errno
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ufo_large.config import parse_json
from ufo_large.config.whole import write_text_whole
from ufo_large.data.checking import check_tasks, files_of, inspect_files
from ufo_large.data.datasets.base import raise_findings
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.progress import map_in_processes
from ufo_large.data.shard_index import (
    DATASET_FILE,
    DatasetIndex,
    ShardEntry,
    SplitIndex,
    dataset_json,
    read_dataset,
    shard_entries,
    shard_entry,
)
from ufo_large.data.shard_writer import ShardJob, write_shard
from ufo_large.data.stored_sample import Transcode
from ufo_large.data.val_split import HELD_OUT_FILE, hold_out, write_held_out
from ufo_large.kinds import Kind, kind_of
from ufo_large.media.pictures import FileFacts
from ufo_large.structures import Example, Findings, SourceTask, TaskInfo

JOURNAL_FILE = "written.jsonl"
FACTS_FILE = "checked.jsonl"
MB = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardingOptions:
    """`counts`: classes of a task where the files do not say; `known`: class lists to keep to.

    `val_share`: share of the train split held out for validation in tasks without a val split, drawn by
    `seed`; 0 leaves them without.
    """

    jobs: int = 1
    shard_megabytes: float = 256
    transcode: Transcode = field(default_factory=Transcode)
    counts: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, TaskInfo] = field(default_factory=dict)
    val_share: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if not 0 <= self.val_share < 1:
            raise ValueError(f"--val-share {self.val_share}: give a share from 0 (no val split) to below 1")
        if self.shard_megabytes <= 0:
            raise ValueError(f"--shard-size {self.shard_megabytes}: give megabytes above 0")
        if self.jobs < 1:
            raise ValueError(f"--jobs {self.jobs}: at least 1")


def parse_class_counts(entries: Sequence[str]) -> dict[str, int]:
    """Read "TASK=N" entries; ValueError says how to write them."""
    counts = {}
    for entry in entries:
        task, _, number = entry.partition("=")
        if not task or not number.isdecimal() or not int(number):
            raise ValueError(f"--classes {entry}: write TASK=N, for instance seg=19")
        counts[task] = int(number)
    return counts


def make_shards(data: Sequence[str | Path], out: str | Path, options: ShardingOptions) -> DatasetIndex:
    """Write shards of `data` to the folder `out` and return their index.

    Nothing is written to a shard before every file and annotation is checked; ValueError lists what is
    wrong. A second call goes on where an interrupted one stopped, and rewrites only shards whose input
    changed. Pictures of the test split are never scaled, because predictions speak in their pixels.
    """
    findings = Findings()
    tasks = read_sources(data, findings, options.counts, options.known)
    out = _prepare(Path(out))
    _refuse_removing(tasks, out)
    facts = _disk_errors(out, lambda: inspect_files(files_of(tasks), options.jobs, out / FACTS_FILE))
    tasks = check_tasks(tasks, facts, findings)
    raise_findings(findings, f"data of {', '.join(map(str, data))}")
    _refuse_empty(tasks, data)
    tell_half_labelled(tasks)
    tasks = _with_val(tasks, facts, out, options)
    jobs = plan_shards(tasks, facts, out, options)
    written = _disk_errors(out, lambda: _write_missing(jobs, out, options.jobs))
    return _disk_errors(out, lambda: _finish(tasks, written, out))


def _prepare(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: not a folder; choose another --out")
    known = (DATASET_FILE, JOURNAL_FILE, FACTS_FILE)
    if out.is_dir() and any(out.iterdir()) and not any((out / name).is_file() for name in known):
        raise ValueError(f"{out}: holds files that are not shards; choose a new or empty folder for --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out}: {error.strerror}; choose another --out") from None
    return out


def _with_val(
    tasks: list[SourceTask], facts: Mapping[Path, FileFacts], out: Path, options: ShardingOptions
) -> list[SourceTask]:
    """Hold images out for validation where that is wanted; OUT/held_out.json says which."""
    (out / HELD_OUT_FILE).unlink(missing_ok=True)
    if not options.val_share:
        return tasks
    tasks, held = hold_out(tasks, facts, options.val_share, options.seed)
    if held:
        write_held_out(out, held)
    return tasks


def _refuse_empty(tasks: list[SourceTask], data: Sequence[str | Path]) -> None:
    empty = [f"{t.info.name}/{split}" for t in tasks for split, examples in t.splits.items() if not examples]
    if empty or not tasks:
        what = ", ".join(empty) if empty else "every task"
        raise ValueError(f"{', '.join(map(str, data))}: no images for {what}; add some or remove the folder")


def tell_half_labelled(tasks: Sequence[SourceTask]) -> None:
    """Warn of splits joined from sources with and without ground truth: they are predicted, not scored."""
    for task in tasks:
        for split, examples in task.splits.items():
            without = sum(not example.labeled for example in examples)
            if 0 < without < len(examples):
                told = f"{task.info.name}/{split}: {without} of {len(examples)} images have no ground truth"
                remedy = "leave their source out, or give it a task of its own with --data NAME=FOLDER"
                warnings.warn(f"{told}, so the split will not be scored; {remedy}", stacklevel=3)


def _refuse_removing(tasks: list[SourceTask], out: Path) -> None:
    """Refuse a folder whose finished data set has tasks that this data lacks: they would be removed."""
    try:
        earlier = read_dataset(out, check_files=False).tasks if (out / DATASET_FILE).is_file() else {}
    except ValueError:  # of another version or damaged
        return
    if lost := ", ".join(sorted(earlier.keys() - {task.info.name for task in tasks})):
        raise ValueError(
            f"{out} holds finished shards of {lost}, which are not in this data and would be removed; choose "
            f"another --out, give their data too, or remove {out} first"
        )


def plan_shards(
    tasks: list[SourceTask], facts: Mapping[Path, FileFacts], out: Path, options: ShardingOptions
) -> list[ShardJob]:
    """Cut every split, in its official order, into shards of about `shard_megabytes` of input."""
    jobs = []
    for task in tasks:
        for split, examples in task.splits.items():
            first = 0
            for number, part in enumerate(_cut(kind_of(task.info), examples, options.shard_megabytes * MB)):
                transcode = Transcode() if split == "test" else options.transcode
                part_facts = tuple(facts[e.image] for e in part)
                jobs.append(
                    ShardJob(
                        out=out,
                        split=split,
                        number=number,
                        first_order=first,
                        info=task.info,
                        examples=tuple(part),
                        facts=part_facts,
                        transcode=transcode,
                        inputs=_inputs_checksum(task.info, part, facts, first, transcode),
                    )
                )
                first += len(part)
    return jobs


def _cut(kind: Kind, examples: list[Example], limit: float) -> Iterator[list[Example]]:
    part: list[Example] = []
    size = 0
    for example in examples:
        beside = kind.files(example.truth) if example.labeled else ()
        grown = example.image.stat().st_size + sum(path.stat().st_size for path, _ in beside)
        if part and size + grown > limit:
            yield part
            part, size = [], 0
        part.append(example)
        size += grown
    if part:
        yield part


def _inputs_checksum(
    info: TaskInfo, part: list[Example], facts: Mapping[Path, FileFacts], first: int, transcode: Transcode
) -> str:
    """Hash everything that decides a shard's bytes; where the files lie does not matter."""
    kind = kind_of(info)
    digest = hashlib.sha256(repr((info.kind, first, transcode, info.num_classes)).encode())
    for e in part:
        truth = kind.inputs(e.truth, facts) if e.labeled else None
        digest.update(repr((e.file_name, e.image_id, facts[e.image].sha256, truth)).encode())
    return digest.hexdigest()


def _write_missing(jobs: list[ShardJob], out: Path, processes: int) -> dict[str, ShardEntry]:
    """Write the shards that no earlier run wrote, noting each in a journal when it is done."""
    done = _recall_shards(out)
    keep = {job.name: done[job.name] for job in jobs if _is_there(job, done.get(job.name), out)}
    journal = out / JOURNAL_FILE
    journal.write_text("".join(map(_journal_line, keep.values())), encoding="utf-8")
    (out / DATASET_FILE).unlink(missing_ok=True)
    todo = [job for job in jobs if job.name not in keep]
    for job, entry in map_in_processes(
        write_shard, todo, processes, "writing samples", lambda j: len(j.examples)
    ):
        keep[job.name] = entry
        with journal.open("a", encoding="utf-8") as file:
            file.write(_journal_line(entry))
    return keep


def _journal_line(entry: ShardEntry) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _recall_shards(out: Path) -> dict[str, ShardEntry]:
    """Return, by name, the shards of a finished data set or of the journal of a run that was cut off."""
    if (out / DATASET_FILE).is_file():
        try:
            return {_name(entry): entry for entry in shard_entries(read_dataset(out, check_files=False))}
        except ValueError:  # of another version or damaged: write everything again
            return {}
    done: dict[str, ShardEntry] = {}
    if (out / JOURNAL_FILE).is_file():
        for line in (out / JOURNAL_FILE).read_text(encoding="utf-8").splitlines():
            try:
                entry = shard_entry(parse_json(line, JOURNAL_FILE, "written again"))
            except ValueError:  # cut off by a kill, or not written by us
                continue
            done[_name(entry)] = entry
    return done


def _name(entry: ShardEntry) -> str:
    return entry.file.removesuffix(".tar")


def _is_there(job: ShardJob, entry: ShardEntry | None, out: Path) -> bool:
    if entry is None or entry.inputs != job.inputs:
        return False
    tar = out / entry.file
    return tar.is_file() and tar.stat().st_size == entry.bytes and (out / entry.index).is_file()


def _finish(tasks: list[SourceTask], written: Mapping[str, ShardEntry], out: Path) -> DatasetIndex:
    """Write dataset.json last, in one move, and remove shards of an earlier input."""
    splits = [
        _split_index(task.info.name, split, examples, written)
        for task in tasks
        for split, examples in task.splits.items()
    ]
    write_text_whole(out / DATASET_FILE, dataset_json([t.info for t in tasks], splits))
    wanted = {out / name for entry in written.values() for name in (entry.file, entry.index)}
    for stale in [*out.glob("*/*-??????.tar"), *out.glob("*/*-??????.index.npz"), *out.glob("*/*.tmp")]:
        if stale not in wanted:
            stale.unlink()
    for name in (FACTS_FILE, JOURNAL_FILE):
        (out / name).unlink(missing_ok=True)
    return read_dataset(out)


def _split_index(
    task: str, split: str, examples: list[Example], written: Mapping[str, ShardEntry]
) -> SplitIndex:
    entries = [written[name] for name in sorted(written) if name.startswith(f"{task}/{split}-")]
    histograms = (entry.class_histogram for entry in entries)
    return SplitIndex(
        task=task,
        split=split,
        count=len(examples),
        labeled=all(example.labeled for example in examples),
        class_histogram=tuple(sum(counts) for counts in zip(*histograms, strict=True)),
        shards=tuple(entries),
    )


def _disk_errors(out: Path, action):
    """Run `action`; a disk that refuses bytes becomes a ValueError that says how to go on."""
    try:
        return action()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        raise ValueError(
            f"{out}: {error.strerror}; the partial shard was removed and finished ones are kept. Free some "
            f"space and run the same command again: it goes on where it stopped{notes}"
        ) from None
