"""What a person sees while training runs: a live progress line, or plain lines where there is no terminal."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ufo_large.tracking.panels import headlines

WINDOW = 50
MARKS_TO_ESTIMATE = 4
"""Logged steps until the first estimate; the first step, which is slow, is not timed."""


class Pace:
    """Steps a second over the last steps, and the time that is left at that pace."""

    def __init__(
        self, total_steps: int, clock: Callable[[], float], now: Callable[[], datetime] = datetime.now
    ):
        self.total_steps = total_steps
        self.clock = clock
        self.now = now
        self._marks: deque[tuple[int, float]] = deque(maxlen=WINDOW)
        self._is_estimated = False

    def mark(self, step: int) -> None:
        self._marks.append((step, self.clock()))

    @property
    def steps_per_second(self) -> float | None:
        """None until two steps were seen."""
        if len(self._marks) < 2:
            return None
        (first, start), (last, end) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if end > start and last > first else None

    def estimate(self, step: int) -> str | None:
        """Return how long all steps take and when the last ends; None but once, after a few logged steps."""
        rate = self.steps_per_second
        if (
            self._is_estimated
            or len(self._marks) < MARKS_TO_ESTIMATE
            or rate is None
            or step >= self.total_steps
        ):
            return None
        self._is_estimated = True
        left = max(0, self.total_steps - step) / rate
        end = (self.now() + timedelta(seconds=left)).strftime("%a %d %b %H:%M")
        return (
            f"expected: {format_duration(self.total_steps / rate)} for all {self.total_steps} steps without "
            f"validation, {format_duration(left)} from now, until {end}"
        )

    def text(self, step: int) -> str:
        rate = self.steps_per_second
        if rate is None:
            return ""
        speed = f"{rate:.2f} it/s" if rate >= 1 else f"{1 / rate:.2f} s/it"
        return f"{speed}  left {format_duration(max(0, self.total_steps - step) / rate)}"


class ConsoleProgress:
    """Show step, total loss of each task, speed and time left.

    On a terminal one live line with a bar; elsewhere (a log file, a pipe) a line at the first and last
    step and every `line_seconds` between. The headline metrics under `val/` get a line of their own in both.
    """

    def __init__(
        self,
        total_steps: int,
        *,
        line_seconds: float = 10.0,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total_steps = total_steps
        self.line_seconds = line_seconds
        self.console = console or Console()
        self.clock = clock
        self.pace = Pace(total_steps, clock)
        self._last_line: float | None = None
        self._bar = self._start_bar() if self.console.is_terminal else None

    def log(self, step: int, values: Mapping[str, float]) -> None:
        losses = losses_text(values)
        if losses:
            self.pace.mark(step)
            if estimate := self.pace.estimate(step):
                self._print(estimate)
            self._show(step, "  ".join(filter(None, [losses, self.pace.text(step), speed_text(values)])))
        validation = {k.removeprefix("val/"): v for k, v in values.items() if k.startswith("val/")}
        metrics = [f"{k} {v:.4g}" for k, v in validation.items() if k.rsplit("/", 1)[-1] in headlines()]
        if metrics:
            self._print(f"step {step}  validation  " + "  ".join(metrics))

    def finish(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _start_bar(self) -> Progress:
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        bar = Progress(TextColumn("train"), *columns, console=self.console)
        self._bar_task = bar.add_task("train", total=self.total_steps, text="")
        bar.start()
        return bar

    def _show(self, step: int, text: str) -> None:
        if self._bar is not None:
            self._bar.update(self._bar_task, completed=step, text=text)
            return
        now = self.clock()
        due = self._last_line is None or now - self._last_line >= self.line_seconds
        if due or step >= self.total_steps:
            self._last_line = now
            self._print(f"step {step}/{self.total_steps} ({100 * step / self.total_steps:.0f} %)  {text}")

    def _print(self, line: str) -> None:
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)


def speed_text(values: Mapping[str, float]) -> str:
    """Return "12 k tokens/s  MFU 41.3 %", or TFLOP/s where no peak is known; empty where neither is there."""
    found = []
    if (tokens := values.get("train/tokens_per_second")) is not None:
        found.append(f"{tokens / 1e3:.3g} k tokens/s")
    if (share := values.get("train/mfu")) is not None:
        found.append(f"MFU {100 * share:.1f} %")
    elif (rate := values.get("train/tflops")) is not None:
        found.append(f"{rate:.3g} TFLOP/s")
    return "  ".join(found)


def losses_text(values: Mapping[str, float]) -> str:
    """Return "cls 2.310  dec 0.802" from the keys `<task>/total`; empty where none is present."""
    totals = [(k.removesuffix("/total"), v) for k, v in values.items() if k.endswith("/total")]
    return "  ".join(f"{task} {value:.3f}" for task, value in totals if "/" not in task)


def format_duration(seconds: float) -> str:
    """Return "1:02:03" or "2:03"."""
    minutes, second = divmod(int(seconds + 0.5), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"
