"""Send a run to Weights & Biases; wandb is imported only when a run asks for it."""

import contextlib
import importlib
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ufo_large.config import read_json, without_credentials, write_json
from ufo_large.structures import IGNORE_INDEX

Mode = Literal["offline", "online"]
ID_FILE = "wandb_run.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture for a gallery: RGB uint8 [H, W, 3], and what `wandb.Image` lays over it: `Kind.overlay`."""

    caption: str
    image_HW3: np.ndarray
    overlay: Mapping[str, Any] = field(default_factory=dict)


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
        with _arguments_without_credentials():
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
        found = {
            name: [image(p.image_HW3, caption=p.caption, **p.overlay) for p in own]
            for name, own in galleries.items()
        }
        self._send(lambda: self._run.log(found, step=step))

    def finish(self) -> None:
        self._send(self._run.finish)

    def _send(self, call: Callable[[], None]) -> None:
        """Go on without wandb once its process has ended: a launcher's SIGTERM ends it before the run."""
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
    """Pad pictures, and masks over them, at the right and bottom to the largest height and width."""
    sizes = [p.image_HW3.shape[:2] for p in pictures]
    size = tuple(max((side[i] for side in sizes), default=0) for i in range(2))
    return [_padded(picture, size) for picture in pictures]


def _padded(picture: Picture, size: tuple[int, int]) -> Picture:
    height, width = picture.image_HW3.shape[:2]
    room = ((0, size[0] - height), (0, size[1] - width))
    masks = {
        layer: {**mask, "mask_data": np.pad(mask["mask_data"], room, constant_values=IGNORE_INDEX)}
        for layer, mask in picture.overlay.get("masks", {}).items()
    }
    overlay = {**picture.overlay, **({"masks": masks} if masks else {})}
    return Picture(
        caption=picture.caption, image_HW3=np.pad(picture.image_HW3, (*room, (0, 0))), overlay=overlay
    )


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


@contextlib.contextmanager
def _arguments_without_credentials() -> Iterator[None]:
    """wandb sends the words of the command, among them the address of the shards."""
    before = sys.argv
    sys.argv = [*map(without_credentials, before)]
    try:
        yield
    finally:
        sys.argv = before
