"""A few pictures that a visitor can try: of the run's own shards, where they still lie on this machine."""

from dataclasses import dataclass
from pathlib import Path

from ufo_large.data.opener import is_remote
from ufo_large.data.shards import ShardSet
from ufo_large.evaluation.shown_rows import ShownRows
from ufo_large.media.opening import JPEG_MAGIC
from ufo_large.runs.folder import SavedRun

SPLITS = ("val", "test")
PER_TASK = 2


@dataclass(frozen=True, slots=True)
class Sample:
    """A stored picture, held in memory: no request opens a file."""

    name: str
    task: str
    data: bytes

    @property
    def media_type(self) -> str:
        return "image/jpeg" if self.data[:2] == JPEG_MAGIC else "image/png"


def read_samples(saved: SavedRun, folder: Path, per_task: int = PER_TASK) -> list[Sample]:
    """Return evenly spread pictures of each task's val split, else test; none where the shards are away.

    They are looked for where they lay in training, and by that name in the run's `folder`.
    """
    if not saved.data or is_remote(saved.data):
        return []
    for place in (Path(saved.data), folder / Path(saved.data).name):
        try:
            shards = ShardSet.open(place)
            if shards.fingerprint == saved.fingerprint:  # a relative path may lead to others
                return [sample for info in saved.tasks for sample in _of_task(shards, info.name, per_task)]
        except (OSError, ValueError):
            continue  # moved, removed or damaged: the model serves without
    return []


def _of_task(shards: ShardSet, task: str, most: int) -> list[Sample]:
    split = next((split for split in SPLITS if shards.has_split(task, split)), None)
    if split is None:
        return []
    shown = ShownRows.spread(shards.split(task, split), most)
    return [Sample(shown.sample(i).file_name, task, shown.read(i).image) for i in range(len(shown))]
