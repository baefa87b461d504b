"""What is true of a test set, image by image in official order; from the user's own files or from shards."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.data.datasets.base import raise_findings
from ufo_large.data.datasets.contest import labeled_tasks
from ufo_large.data.shards import ShardSet, SplitReader
from ufo_large.kinds import StoredPicture, kind_of
from ufo_large.structures import Example, Findings, SampleInfo, SourceTask, TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class GroundTruth:
    """One task's truth; labels are the model's, 0..K-1.

    `samples` are the images in official order; of a user's folder without their sizes. `read(i)` gives image
    i's truth as its kind counts it, read from disk when asked for.
    """

    info: TaskInfo
    samples: tuple[SampleInfo, ...]
    read: Callable[[int], Any]

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def file_names(self) -> tuple[str, ...]:
        return tuple(sample.file_name for sample in self.samples)


def truth_of_folder(
    path: str | Path, *, split: str = "test", known: Mapping[str, TaskInfo] | None = None
) -> dict[str, GroundTruth]:
    """Read the ground truth of a test root in the contest's layout, or of a folder that holds one.

    A task without ground truth is left out. `known` gives class lists that the folder does not state.
    Raises ValueError that lists every unreadable line, missing file and bad box together, and when the folder
    holds no test root or no ground truth at all.
    """
    findings = Findings()
    tasks = labeled_tasks(Path(path), split, findings, known or {})
    raise_findings(findings, f"ground truth of {path}")
    return {task.info.name: _of_source(task, split) for task in tasks}


def truth_of_shards(shards: ShardSet, split: str = "test") -> dict[str, GroundTruth]:
    """Read the ground truth that shards carry; raises ValueError when no task has any for `split`."""
    readers = {i.name: shards.split(i.name, split) for i in shards.tasks if shards.has_split(i.name, split)}
    truths = {name: _of_reader(reader) for name, reader in readers.items() if reader.labeled}
    if not truths:
        raise ValueError(f"{shards.name}: no ground truth in split {split!r}; choose another with --split")
    return truths


def _of_source(source: SourceTask, split: str) -> GroundTruth:
    examples = source.splits[split]
    return GroundTruth(
        info=source.info,
        samples=tuple(_sample_of(example, i) for i, example in enumerate(examples)),
        read=lambda i: _truth_of_example(source.info, examples[i]),
    )


def _sample_of(example: Example, order: int) -> SampleInfo:
    name, image_id = example.file_name, example.image_id
    return SampleInfo(key=name, file_name=name, height=0, width=0, image_id=image_id, order=order)


def _truth_of_example(info: TaskInfo, example: Example) -> Any:
    """Return the truth as a shard would give it back; the picture itself is not opened."""
    kind = kind_of(info)
    try:
        stored = kind.stored(example.truth, StoredPicture(size=None))
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{example.where}: {error}; write the file again") from None
    return kind.truth(stored.annotation, stored.target)


def _of_reader(reader: SplitReader) -> GroundTruth:
    rows = sorted(range(len(reader)), key=lambda row: reader.sample(row).order)
    samples = tuple(reader.sample(row) for row in rows)
    assert [sample.order for sample in samples] == list(range(len(rows)))  # predictions go by it
    return GroundTruth(info=reader.info, samples=samples, read=lambda i: reader.truth(rows[i]))
