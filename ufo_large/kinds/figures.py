"""What shows a task's results beside its headline: curves, bars, a confusion matrix, a list of pairs.

A kind makes them (`Review.figures`), `figures.json` keeps them, the report draws them without knowing the
kind. All are of bounded size, and checked again when read, since a run's files may come from anywhere.

Legend: K classes.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

MAX_POINTS = 256
MAX_LINES = 10
MAX_CLASSES = 60
MAX_PAIRS = 30
MAX_BARS = 30
MAX_TEXT = 400
MAX_FIGURES = 8
"""Of one task; the report draws no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One line of a plot; `dashed`: it is there to compare with."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    dashed: bool = False

    def __post_init__(self):
        _check_text(self.name)
        if len(self.x) != len(self.y) or not 1 <= len(self.x) <= MAX_POINTS:
            raise ValueError(f"{len(self.x)} x and {len(self.y)} y; give as many of both, 1 to {MAX_POINTS}")
        _check_shares(*self.x, *self.y)
        if any(a > b for a, b in zip(self.x, self.x[1:], strict=False)):
            raise ValueError(f"the x of {self.name!r} fall; sort them")


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """Lines over 0..1 in both directions; `x_name` and `y_name` say what is shown."""

    type: ClassVar[str] = "plot"
    title: str
    x_name: str
    y_name: str
    traces: tuple[Trace, ...]
    note: str = ""

    def __post_init__(self):
        _check_text(self.title, self.x_name, self.y_name, self.note)
        _check_count("lines", self.traces, MAX_LINES)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Plot":
        traces = tuple(Trace(**{**t, "x": tuple(t["x"]), "y": tuple(t["y"])}) for t in value["traces"])
        return cls(**{**value, "traces": traces})


@dataclass(frozen=True, kw_only=True, slots=True)
class Bars:
    """Shares of 1 with names, as (name, share, text behind it); a share that nothing can tell is None."""

    type: ClassVar[str] = "bars"
    title: str
    rows: tuple[tuple[str, float | None, str], ...]
    note: str = ""

    def __post_init__(self):
        _check_text(
            self.title, self.note, *(text for name, _, behind in self.rows for text in (name, behind))
        )
        _check_count("bars", self.rows, MAX_BARS)
        _check_shares(*(share for _, share, _ in self.rows if share is not None))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Bars":
        return cls(**{**value, "rows": tuple((name, share, text) for name, share, text in value["rows"])})


@dataclass(frozen=True, kw_only=True, slots=True)
class Matrix:
    """A confusion matrix of at most `MAX_CLASSES` classes: `counts[true][said]` of `unit` ("images")."""

    type: ClassVar[str] = "matrix"
    title: str
    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    unit: str
    note: str = ""

    def __post_init__(self):
        _check_text(self.title, self.unit, self.note, *self.names)
        _check_count("classes", self.names, MAX_CLASSES)
        if {len(self.names)} != {len(self.counts), *map(len, self.counts)}:
            raise ValueError(f"counts are not of {len(self.names)} x {len(self.names)} classes")
        _check_counts(*(count for row in self.counts for count in row))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Matrix":
        counts = tuple(map(tuple, value["counts"]))
        return cls(**{**value, "names": tuple(value["names"]), "counts": counts})


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """The classes taken for one another most often: (true, said, how often, share of the true class)."""

    type: ClassVar[str] = "pairs"
    title: str
    rows: tuple[tuple[str, str, int, float], ...]
    unit: str
    note: str = ""

    def __post_init__(self):
        _check_text(self.title, self.unit, self.note, *(name for row in self.rows for name in row[:2]))
        if len(self.rows) > MAX_PAIRS:
            raise ValueError(f"{len(self.rows)} pairs; give at most {MAX_PAIRS}")
        _check_counts(*(count for _, _, count, _ in self.rows))
        _check_shares(*(share for *_, share in self.rows))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Pairs":
        return cls(
            **{**value, "rows": tuple((true, said, n, share) for true, said, n, share in value["rows"])}
        )


Figure = Plot | Bars | Matrix | Pairs
TYPES: dict[str, type[Figure]] = {figure.type: figure for figure in (Plot, Bars, Matrix, Pairs)}


def figure_to_json(figure: Figure) -> dict[str, Any]:
    return {"type": figure.type, **asdict(figure)}


def figure_from_json(value: Any) -> Figure:
    """Return what `figure_to_json` was given; ValueError for anything else."""
    try:
        rest = dict(value)
        return TYPES[rest.pop("type")].from_json(rest)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a figure ({type(error).__name__}: {error})") from None


def shortened(name: str) -> str:
    """Return a class name that a figure can hold."""
    return name if len(name) <= MAX_TEXT else name[: MAX_TEXT - 3] + "..."


def _check_text(*texts: Any) -> None:
    for text in texts:
        if not isinstance(text, str) or len(text) > MAX_TEXT:
            raise ValueError(f"{str(text)[:60]!r} is no text of at most {MAX_TEXT} characters")


def _check_count(what: str, values: tuple[Any, ...], most: int) -> None:
    if not 1 <= len(values) <= most:
        raise ValueError(f"{len(values)} {what}; give 1 to {most}")


def _check_shares(*values: Any) -> None:
    for value in values:
        if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 1:
            raise ValueError(f"{str(value)[:60]} is no number from 0 to 1")


def _check_counts(*values: Any) -> None:
    for value in values:
        if type(value) is not int or value < 0:
            raise ValueError(f"{str(value)[:60]} is no count")
