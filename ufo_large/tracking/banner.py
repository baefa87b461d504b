"""What a run says of itself before its first step and after its last."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ufo_large.tracking.console import format_duration

LARGE = 200_000_000
"""Parameters from which a trunk (ViT-L and larger) needs pretrained weights on any data set of one's own."""
LOG_WIDTH = 110


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskFacts:
    """One task of a run.

    `parameters`: those that the task uses. `images`: in its train split. `micro_batch` images on each rank,
    `mean_images` where canvases differ, `micro_batches` of them a step at the start. `seen`: images in all
    steps and on all ranks together.
    """

    name: str
    kind: str
    parameters: int
    images: int
    micro_batch: int
    mean_images: float
    micro_batches: float
    seen: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """A run before its next step.

    `weights`: where they come from; `is_random`: nowhere. `trunk`: the trunk's parameters. `trained`: those
    of `parameters` that are not frozen.
    """

    recipe: str
    steps: int
    ranks: int
    memory: str
    weights: str
    is_random: bool
    parameters: int
    trained: int
    trunk: int
    tasks: tuple[TaskFacts, ...]


def print_start(facts: RunFacts, console: Console | None = None) -> None:
    """Print what the run is, and in colour what its user may not have meant."""
    console = console or wide_console()
    ranks = "1 rank" if facts.ranks == 1 else f"{facts.ranks} ranks"
    frozen = "" if facts.trained == facts.parameters else f", {short(facts.trained)} trained"
    for name, text in (
        ("recipe", f"{facts.recipe}: {thousands(facts.steps)} steps on {ranks}, {facts.memory}"),
        ("weights", facts.weights),
        ("parameters", f"{short(facts.parameters)} in all{frozen}"),
    ):
        console.print(Text(f"{name:<12}{text}"), soft_wrap=True)
    console.print(_task_table(facts))
    for text, style in warnings_of(facts):
        console.print(Text(text, style=style), soft_wrap=True)


def warnings_of(facts: RunFacts) -> list[tuple[str, str]]:
    """Return (text, style) of what is accepted, but seldom meant."""
    found = []
    if facts.is_random and facts.trunk >= LARGE:
        told = (
            f"the trunk's {short(facts.trunk)} parameters start at random, and no data set of usual size can "
            "train them: give --set pretrained=hub or --set pretrained=FILE"
        )
        found.append((f"WARNING: {told}", "bold red"))
    for task in facts.tasks:
        at_once = task.micro_batch * facts.ranks
        if at_once > task.images:
            told = (
                f"task {task.name!r}: a micro-batch takes {at_once} images and the train split has "
                f"{task.images}, so that each comes several times; lower "
                f"tasks.{task.kind}.loader.micro_batch={task.micro_batch}"
            )
            found.append((f"WARNING: {told}", "yellow"))
    return found


def print_end(
    places: Sequence[tuple[str, Path]],
    commands: Iterable[Sequence[str]],
    steps: int,
    seconds: float,
    console: Console | None = None,
) -> None:
    """Print where everything lies, and what to type next."""
    console = console or wide_console()
    told = f"finished: {thousands(steps)} steps in {format_duration(seconds)}"
    console.print(Text(told), soft_wrap=True)
    print_places(places, commands, console)


def print_places(
    places: Sequence[tuple[str, Path]], commands: Iterable[Sequence[str]], console: Console | None = None
) -> None:
    """Print (what, where) and the commands to type next."""
    console = console or wide_console()
    lines = [f"  {name:<12}{path}" for name, path in places]
    lines += ["next:", *(f"  {shlex.join(command)}" for command in commands)]
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def wide_console() -> Console:
    """Return the terminal, or a log wide enough for the table of tasks."""
    console = Console()
    return console if console.is_terminal else Console(width=LOG_WIDTH)


def _task_table(facts: RunFacts) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("task", "kind"):
        table.add_column(title)
    for title in ("parameters used", "images per step", "train images", "epochs"):
        table.add_column(title, justify="right")
    for task in facts.tasks:
        times = "" if task.micro_batches == 1 else f" x {task.micro_batches:g}"
        product = f"{task.mean_images:.3g} x {facts.ranks} ranks{times}" if facts.ranks > 1 or times else ""
        per_step = f"{task.mean_images * facts.ranks * task.micro_batches:.4g}"
        table.add_row(
            *(task.name, task.kind, short(task.parameters)),
            f"{product} = {per_step}" if product else per_step,
            *(thousands(task.images), f"{task.seen / task.images:.3g}"),
        )
    return table


def short(count: int) -> str:
    """Return "1.71 B", "86.4 M" or "12.3 k"."""
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {letter}"
    return str(count)


def thousands(count: int) -> str:
    return f"{count:,}".replace(",", " ")
