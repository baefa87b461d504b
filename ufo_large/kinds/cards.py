"""A prediction beside its picture and its truth, and the same as drawn for a page."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ufo_large.kinds.review import GROUPS, SPREAD
from ufo_large.structures import TaskInfo


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictionExample:
    """One image with what the model said and, where known, the truth.

    `image_HW3`: RGB uint8, the stored image. `truth`: as the kind's `truth` gives it; None when the split has
    no ground truth. `long_side`: draw all of the image, this many pixels long; None: the part and the size
    that suit a report. `group`: why it is shown, one of `GROUPS`. `shown_from`: of a prediction of many parts
    draw those from this confidence on; None: as the kind chooses.
    """

    info: TaskInfo
    image_HW3: np.ndarray
    prediction: Any
    truth: Any = None
    long_side: int | None = None
    group: str = SPREAD
    shown_from: float | None = None

    def card(self, headline: str, **values: Any) -> "Card":
        """Return a card of this example."""
        name = self.prediction.sample.file_name
        place = {"task": self.info.name, "kind": self.info.kind, "group": self.group}
        return Card(**place, name=name, headline=headline, **values)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """An example as the report shows it: a drawn picture and words.

    `good` is None where it cannot be said in one word. `wanted`: the right class, if another was said.
    `bars`: (class, probability) of the best guesses. `legend`: (class, "#rrggbb") of what is drawn. `picture`
    is the file's name in the folder. `wide`: it shows several images side by side. `group`: why it is shown.
    """

    task: str
    kind: str
    name: str
    headline: str
    picture: str = ""
    wide: bool = False
    good: bool | None = None
    wanted: str = ""
    details: tuple[str, ...] = ()
    bars: tuple[tuple[str, float], ...] = ()
    legend: tuple[tuple[str, str], ...] = field(default=())
    group: str = SPREAD

    def __post_init__(self):
        if self.group not in GROUPS:
            raise ValueError(f"{self.name}: the group {self.group!r} is none of {', '.join(GROUPS)}")
        for name, color in self.legend:
            if not re.fullmatch("#[0-9a-f]{6}", color):  # it stands in a page's style
                raise ValueError(f"{self.name}: the colour {color!r} of {name!r} is not of the form #rrggbb")

    @property
    def caption(self) -> str:
        """One line: the file, what was found and, where a class was wrong, the right one."""
        wanted = f", wanted {self.wanted}" if self.wanted else ""
        return f"{self.name}: {self.headline}{wanted}"


def hex_color(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)
