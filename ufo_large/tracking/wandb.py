"""Send a run to Weights & Biases; wandb is imported only when a run asks for it."""

import contextlib
import importlib
import os
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ufo_large.config import read_json, without_credentials, write_json
from ufo_large.tracking.pictures import Picture, of_one_size

Mode = Literal["offline", "online"]
ID_FILE = "wandb_run.json"
VALIDATION_STEP = "val/step"
START_SECONDS = 30.0
"""How long a run waits for the server at its start; it then writes offline."""
END_SECONDS = 60.0
"""How long a run waits at its end until everything is sent; the rest stays on the disk for `wandb sync`."""


class WandbRun:
    """One wandb run. Offline it lies under `<workdir>/wandb`; `wandb sync` uploads it later.

    The run's id is kept in the workdir, so a resumed run goes on under the same id. Steps that were
    already sent before the crash are not sent again by wandb (it only moves forward).

    A server that is away neither ends nor delays the steps: a run that cannot be opened online is written
    offline, and what wandb raises later is told once, and wandb is left alone from then on.
    """

    overlays = True

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
        self._own = {"project": project, "name": workdir.name, "dir": str(workdir), "config": dict(config)}
        self.id = _run_id(workdir, resume)
        # wandb's telemetry about itself would hold the end of the process, where its server hangs, for 20 s.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        self._run = self._online() if mode == "online" else self._opened("offline")
        self._is_gone = False
        self._send(lambda: self._run.define_metric(VALIDATION_STEP, hidden=True))
        self._send(lambda: self._run.define_metric("val/*", step_metric=VALIDATION_STEP))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send a step's values; those of a validation have an axis of their own, `val/step`."""
        sent = {k: float(v) for k, v in values.items()}
        if any(key.startswith("val/") for key in values):
            sent[VALIDATION_STEP] = float(step)
        self._send(lambda: self._run.log(sent, step=step))

    def pictures(self, step: int, pictures: Mapping[str, Sequence[Picture]]) -> None:
        """Send galleries of pictures by name, each gallery's padded to one size, as wandb wants it.

        Pictures that say `why` they were chosen become a table.
        """
        found = {
            name: self._table(own) if own and own[0].why else [self._image(p) for p in of_one_size(own)]
            for name, own in pictures.items()
        }
        self._send(lambda: self._run.log(found, step=step))

    def _image(self, picture: Picture) -> Any:
        return self._wandb.Image(picture.image_HW3, caption=picture.caption, **picture.overlay)

    def _table(self, pictures: Sequence[Picture]) -> Any:
        rows = [[self._image(picture), picture.why, picture.caption] for picture in pictures]
        return self._wandb.Table(columns=["picture", "why", "what was said"], data=rows)

    def finish(self) -> None:
        """Wait up to `END_SECONDS` until everything is sent."""
        self._send(self._run.finish)

    def _online(self) -> Any:
        try:
            run = self._opened("online")
            print(f"wandb: {run.url}", flush=True)
            return run
        except Exception as error:  # as in _send
            remedy = f"the run writes to {self._own['dir']}/wandb: `wandb sync` sends it later"
            warnings.warn(f"wandb could not be opened online ({_line(error)}); {remedy}", stacklevel=4)
        with contextlib.suppress(ConnectionError):  # of a process that has crashed
            self._wandb.teardown()  # it still holds the run's id
        return self._opened("offline")

    def _opened(self, mode: Mode) -> Any:
        settings = self._wandb.Settings(
            silent=True,  # else it asks the server for the user's name, up to 10 s more
            console="off",
            init_timeout=START_SECONDS,
            login_timeout=START_SECONDS,
            finish_timeout=END_SECONDS,
            finish_timeout_raises=True,
        )
        resume = "allow" if mode == "online" else None
        with _arguments_without_credentials():
            return self._wandb.init(id=self.id, mode=mode, resume=resume, settings=settings, **self._own)

    def _send(self, call: Callable[[], object]) -> None:
        """Go on without wandb once it has failed: its server hangs, or its process was ended or crashed."""
        if self._is_gone:
            return
        try:
            call()
        except Exception as error:  # a crash of wandb's process is a bare Exception of a private module
            self._is_gone = True
            remedy = "`wandb sync` sends what lies on the disk; all figures are in metrics.jsonl"
            warnings.warn(f"wandb has failed ({_line(error)}); {remedy}", stacklevel=2)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]


def import_wandb() -> Any:
    """Return the wandb module; ValueError with the remedy where it is not installed."""
    try:
        return importlib.import_module("wandb")
    except ImportError as error:
        raise ValueError(
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
