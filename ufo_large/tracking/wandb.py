"""Send a run to Weights & Biases; wandb is imported only when a run asks for it."""

import importlib
import secrets
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ufo_large.config import read_json, write_json

Mode = Literal["offline", "online"]
Picture = tuple[str, np.ndarray]  # caption; RGB uint8 [H, W, 3]
ID_FILE = "wandb_run.json"


class WandbRun:
    """One wandb run. Offline it lies under `<workdir>/wandb`; `wandb sync` uploads it later.

    The run's id is kept in the workdir, so a resumed run goes on under the same id. Steps that were
    already sent before the crash are not sent again by wandb (it only moves forward).
    """

    def __init__(
        self,
        workdir: Path,
        mode: Mode,
        *,
        project: str,
        config: Mapping[str, Any],
        resume: bool = False,
    ):
        self._wandb = import_wandb()
        workdir = Path(workdir).resolve()
        workdir.mkdir(parents=True, exist_ok=True)
        run_id = _run_id(workdir, resume)
        self._run = self._wandb.init(
            project=project,
            name=workdir.name,
            id=run_id,
            dir=str(workdir),
            mode=mode,
            config=dict(config),
            resume="allow" if resume and mode == "online" else None,
            settings=self._wandb.Settings(silent=mode == "offline", console="off"),
        )
        self._is_gone = False
        self.id = run_id

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._send(lambda: self._run.log({k: float(v) for k, v in values.items()}, step=step))

    def pictures(self, step: int, pictures: Mapping[str, Sequence[Picture]]) -> None:
        """Send galleries of pictures by name, each gallery's padded to one size, as wandb wants it."""
        image, galleries = self._wandb.Image, {name: of_one_size(own) for name, own in pictures.items()}
        found = {name: [image(p, caption=text) for text, p in own] for name, own in galleries.items()}
        self._send(lambda: self._run.log(found, step=step))

    def finish(self) -> None:
        self._send(self._run.finish)

    def _send(self, call: Callable[[], None]) -> None:
        """Go on without wandb once its process has ended, as a launcher's SIGTERM ends it before the run."""
        if self._is_gone:
            return
        try:
            call()
        except ConnectionError as error:
            self._is_gone = True
            warnings.warn(
                f"wandb's process has ended ({error}); later figures are in metrics.jsonl alone",
                stacklevel=2,
            )


def of_one_size(pictures: Sequence[Picture]) -> list[Picture]:
    """Pad pictures at the right and bottom with black to the largest height and width among them."""
    height = max((picture.shape[0] for _, picture in pictures), default=0)
    width = max((picture.shape[1] for _, picture in pictures), default=0)
    return [
        (text, np.pad(p, ((0, height - p.shape[0]), (0, width - p.shape[1]), (0, 0)))) for text, p in pictures
    ]


def import_wandb() -> Any:
    """Return the wandb module; RuntimeError with the remedy where it is not installed."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise RuntimeError(
            "this run asks for wandb, which is not installed: `pip install wandb`, "
            "or train with `--set tracking.wandb=disabled`"
        ) from error


def _run_id(workdir: Path, resume: bool) -> str:
    path = workdir / ID_FILE
    if resume and path.exists():
        return read_json(path, "remove it, and the run goes on as another one of wandb's")["id"]
    run_id = secrets.token_hex(4)
    write_json(path, {"id": run_id})
    return run_id
