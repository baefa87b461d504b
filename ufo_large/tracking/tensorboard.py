"""Write a run for TensorBoard; its package is imported only when a run asks for it."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ufo_large.tracking.pictures import Picture

FOLDER = "tensorboard"
FLUSH_SECONDS = 10


class TensorBoardRun:
    """Event files under `<workdir>/tensorboard`: `tensorboard --logdir RUN` shows one run across resumes.

    Every start adds a file there and hides what earlier ones hold beyond the step it goes on from: all of it
    where the run starts anew. Pictures are those with the prediction drawn in, one tag each, so that their
    slider goes over the steps.
    """

    overlays = False

    def __init__(self, workdir: Path, resume_step: int | None = None):
        purged = 0 if resume_step is None else resume_step + 1
        folder = Path(workdir) / FOLDER
        self._writer = import_writer()(folder, purge_step=purged, flush_secs=FLUSH_SECONDS)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, float(value), step)

    def pictures(self, step: int, pictures: Mapping[str, Sequence[Picture]]) -> None:
        for name, own in pictures.items():
            for number, picture in enumerate(own):
                self._writer.add_image(f"{name}/{number}", picture.image_HW3, step, dataformats="HWC")

    def finish(self) -> None:
        self._writer.close()


def import_writer() -> Any:
    """Return torch's SummaryWriter; ValueError with the remedy where tensorboard is not installed."""
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError as error:
        raise ValueError(
            "this run asks for TensorBoard, which is not installed: `pip install 'ufo-large[tensorboard]'`, "
            "or train with `--set tracking.tensorboard=false`"
        ) from error
