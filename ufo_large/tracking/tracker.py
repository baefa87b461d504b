"""Where a run's numbers go: the local log, the console, wandb, TensorBoard. Trainers know only `Tracker`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from ufo_large.kinds import PredictionExample, kind_of
from ufo_large.kinds.review import SPREAD
from ufo_large.tracking.console import ConsoleProgress
from ufo_large.tracking.examples import draw_examples
from ufo_large.tracking.jsonl import FILE_NAME, MetricsLog
from ufo_large.tracking.pictures import Picture
from ufo_large.tracking.tensorboard import TensorBoardRun, import_writer
from ufo_large.tracking.wandb import WandbRun, import_wandb


class Sink(Protocol):
    """Something that takes values. One that also takes pictures is a `PictureSink`."""

    def log(self, step: int, values: Mapping[str, float]) -> None: ...

    def finish(self) -> None: ...


@runtime_checkable
class PictureSink(Sink, Protocol):
    """A sink for pictures by gallery; `overlays`: it lays boxes and masks over plain ones by itself."""

    overlays: bool

    def pictures(self, step: int, pictures: Mapping[str, Sequence[Picture]]) -> None: ...


class Tracker:
    """Pass values on to every sink. With no sink (every rank but the first) it does nothing.

    `step` counts finished optimizer steps and never goes back within a run.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """`wandb`: offline writes under the workdir, for `wandb sync`; online sends while training.

        `tensorboard`: write event files under the workdir too.
        `pictures`: predictions a task that are drawn at each validation for those two; 0 for none.
        `line_seconds`: time between progress lines where the output is no terminal.
        """

        wandb: Literal["disabled", "offline", "online"] = "disabled"
        project: str = "ufo-large"
        tensorboard: bool = False
        pictures: int = 4
        line_seconds: float = 10.0

        def __post_init__(self):
            if self.pictures < 0:
                raise ValueError(f"pictures={self.pictures}: must be 0 or more")
            if self.line_seconds < 0:
                raise ValueError(f"line_seconds={self.line_seconds}: must be 0 or more")

        def pictures_wanted(self) -> int:
            """Return how many predictions of a task to draw at a validation; 0 where nobody takes them."""
            return self.pictures if self.wandb != "disabled" or self.tensorboard else 0

        def require_packages(self) -> None:
            """Raise ValueError, with the remedy, where one that is asked for is not installed."""
            if self.tensorboard:
                import_writer()
            if self.wandb != "disabled":
                import_wandb()

        def build(
            self,
            workdir: Path,
            *,
            total_steps: int,
            run_config: Mapping[str, Any],
            rank: int = 0,
            resume_step: int | None = None,
        ) -> "Tracker":
            """Open the sinks on rank 0, none elsewhere.

            `run_config`: the run's config as JSON values (`config.to_dict`). `resume_step`: finished
            steps of the checkpoint a resumed run goes on from; later lines of the log are dropped.
            """
            if rank != 0:
                return Tracker(())
            sinks: list[Sink] = [MetricsLog(Path(workdir) / FILE_NAME, resume_step)]
            if self.tensorboard:
                sinks.append(TensorBoardRun(workdir, resume_step))
            if self.wandb != "disabled":
                resume = resume_step is not None
                sinks.append(
                    WandbRun(workdir, self.wandb, project=self.project, config=run_config, resume=resume)
                )
            sinks.append(ConsoleProgress(total_steps, line_seconds=self.line_seconds))
            return Tracker(sinks)

    def __init__(self, sinks: Sequence[Sink]):
        self.sinks = tuple(sinks)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the scalars of a step; several calls with the same step are merged."""
        for sink in self.sinks:
            sink.log(step, values)

    def examples(self, step: int, examples: Sequence[PredictionExample]) -> None:
        """Give predictions to the sinks that take pictures, overlaid or drawn.

        Those that were chosen for their mistakes are `worst/<task>`, the others `examples/<task>`.
        """
        takers = [sink for sink in self.sinks if isinstance(sink, PictureSink)]
        if not takers or not examples:
            return
        plain: dict[str, list[Picture]] = {}
        drawn: dict[str, list[Picture]] = {}
        for example, card, picture_HW3 in draw_examples(examples):
            why = "" if card.group == SPREAD else card.group
            name = f"{'worst' if why else 'examples'}/{card.task}"
            overlay = kind_of(example.info).overlay(example)
            picture = Picture(caption=card.caption, image_HW3=picture_HW3, why=why)
            drawn.setdefault(name, []).append(picture)
            laid = replace(picture, image_HW3=example.image_HW3, overlay=overlay)
            plain.setdefault(name, []).append(laid if overlay else picture)
        for sink in takers:
            sink.pictures(step, plain if sink.overlays else drawn)

    def finish(self) -> None:
        """Close every sink, even where one fails."""
        errors = []
        for sink in self.sinks:
            try:
                sink.finish()
            except Exception as error:  # the others must close too; raised below
                errors.append(error)
        if errors:
            raise errors[0]

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *_: Any) -> None:
        self.finish()
