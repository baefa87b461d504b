"""The interface for Python: open a trained model, predict, save it.

from ufo_large import UFO

model = UFO.from_pretrained("RUN")
result = model.predict("street.jpg", tasks=["seg"])
result.show()
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import overload

import torch

from ufo_large.config import did_you_mean, load_plugins, require_writable
from ufo_large.data.views import PLAIN, Views
from ufo_large.evaluation.changed_feeds import for_all_tasks
from ufo_large.models.multitask import MultitaskModel
from ufo_large.runs.folder import SavedRun
from ufo_large.serving.feeding import Feed, predicted
from ufo_large.serving.one_size import Size, at_one_size, require_possible
from ufo_large.serving.pictures import Named, Source, Unread, named
from ufo_large.serving.pretrained import Opened, find_folder, open_model, require_ours, write_pretrained
from ufo_large.serving.result import Result
from ufo_large.serving.sources import is_video, list_sources
from ufo_large.structures import TaskInfo


class UFO:
    """A trained model that predicts pictures. `tasks`: what it was trained for, with class names and ids."""

    def __init__(self, opened: Opened, settings: Sequence[str] = ()):
        self._opened = opened
        self.settings = tuple(settings)
        """What differs from how the run shows pictures."""

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike,
        *,
        checkpoint: str | os.PathLike | None = None,
        device: torch.device | str | None = None,
        revision: str | None = None,
        plugins: Iterable[str] = (),
    ) -> "UFO":
        """Open a run's folder, what `save_pretrained` wrote, or such a folder on Hugging Face's hub.

        `checkpoint`: a run's checkpoint, or "last", instead of its final weights. `device`: default the first
        GPU, else the processor. `plugins`: modules or files with kinds or heads that the run needs; nothing
        that `source` holds is imported. Raises ValueError that names what is missing or does not fit.
        """
        load_plugins(plugins)
        chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
        opened = open_model(find_folder(source, revision), torch.device(chosen), checkpoint)
        opened.model.eval()
        return cls(opened)

    def seeing(self, views: Views = PLAIN, settings: Sequence[str] = ()) -> "UFO":
        """Return the same model shown pictures in another way than its run says.

        `views`: of each picture, for every task that can have them. `settings`: after that, changes of single
        tasks' feeds, as "tasks.detection.loader.tiles.columns=3". ValueError where no task can have one.
        """
        given = [*for_all_tasks(self.saved, views), *settings]
        saved = self.saved.fed(given)
        for info in self.tasks.values():
            loader = saved.config.task(info).loader
            loader.views.for_task(info)
            loader.tiles.for_task(info)
        return UFO(replace(self._opened, saved=saved), (*self.settings, *given))

    @property
    def model(self) -> MultitaskModel:
        """The torch module."""
        return self._opened.model

    @property
    def folder(self) -> Path:
        """Where the model came from."""
        return self._opened.folder

    @property
    def identity(self) -> dict[str, str]:
        """What tells these weights from others; see `Opened.identity`."""
        return self._opened.identity

    @property
    def saved(self) -> SavedRun:
        """What the folder says of the run."""
        return self._opened.saved

    @property
    def tasks(self) -> dict[str, TaskInfo]:
        return dict(self.model.tasks)

    @overload
    def predict(
        self, pictures: Source, tasks: Sequence[str] | None = None, size: Size | None = None
    ) -> Result: ...
    @overload
    def predict(
        self, pictures: Sequence[Source], tasks: Sequence[str] | None = None, size: Size | None = None
    ) -> list[Result]: ...
    def predict(self, pictures, tasks=None, size=None):
        """Predict one picture, or a folder or list of them; all tasks, or those named.

        A picture is a path, a file's bytes, a PIL image or a NumPy array (uint8 [height, width, 3], RGB). One
        picture gives a `Result`, and ValueError where it cannot be read; several give a list, where such a
        one has `error`. A path gives the very predictions of the run's evaluation; PIL may decode a JPEG by a
        level apart.
        `size`: see `stream`.
        """
        if isinstance(pictures, (str, os.PathLike)) and Path(pictures).is_dir():
            pictures = [source.path for source in list_sources([pictures]) if not is_video(source.path)]
        if isinstance(pictures, (list, tuple)):
            return list(self.stream(named(pictures), tasks, size=size))
        (result,) = self.stream(named([pictures]), tasks, size=size)
        if result.error:
            raise ValueError(f"{result.file_name}: {result.error}")
        return result

    def stream(
        self,
        pictures: Iterable[Named],
        tasks: Sequence[str] | None = None,
        at_once: int | None = None,
        size: Size | None = None,
    ) -> Iterator[Result]:
        """Yield one result per picture, in order, holding no more than a block of `at_once` pictures.

        None fills the batches of every task. `size` (height, width): all tasks see each picture once, whole,
        at this size, so that the trunk's shared blocks run once for all; the evaluation predicts otherwise.
        """
        chosen = self.choose(tasks, size)
        config, patch = self.saved.config, self.model.trunk.stride
        feeds = {name: Feed(info, config.task(info).loader, patch) for name, info in self.tasks.items()}
        feeds = feeds if size is None else at_one_size(feeds, size)
        feeds = [feeds[name] for name in chosen]
        for found in predicted(self.model, feeds, pictures, at_once):
            if isinstance(found, Unread):
                yield Result(file_name=found.name, number=found.number, error=found.error)
            else:
                picture, predictions = found
                yield Result(
                    file_name=picture.sample.file_name,
                    number=picture.sample.image_id,
                    tasks=chosen,
                    predictions=predictions,
                    picture=picture,
                )

    def choose(self, tasks: Sequence[str] | None, size: Size | None = None) -> dict[str, TaskInfo]:
        """Return the tasks of these names, all for None. ValueError names one unknown or unfit for `size`."""
        if isinstance(tasks, str):
            raise ValueError(f"tasks={tasks!r}: give a list of names, such as [{tasks!r}]")
        known = self.tasks
        chosen = list(known) if tasks is None else list(dict.fromkeys(tasks))
        for name in chosen:
            if name not in known:
                raise ValueError(f"task {name!r}: the model has no such task.{did_you_mean(name, known)}")
        if not chosen:
            raise ValueError(f"tasks=[]: give at least one of {', '.join(known)}")
        if size is not None:
            require_possible(size, self.saved.config, [known[name] for name in chosen])
        return {name: known[name] for name in chosen}

    def save_pretrained(self, folder: str | os.PathLike, license: str | None = None) -> Path:
        """Write the model to a folder that `from_pretrained` opens again, bit for bit.

        config.json holds the architecture, the class names, the preprocessing and the licence (an identifier
        of the hub, such as "apache-2.0"; None: that of the opened model, else unknown); model.safetensors the
        weights; README.md is a model card made from the run. Raises ValueError where the folder is that of a
        run, or holds such files of something else.
        """
        folder = Path(folder)
        if (folder / "checkpoints").exists() or (folder / "weights").exists():
            raise ValueError(f"{folder} is a run's folder; give another one")
        require_ours(folder)
        require_writable(folder, "folder")
        write_pretrained(self._opened, folder, license)
        return folder
