"""What a kind keeps of an evaluation beside the metric: for figures, and to find the images worth a look."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from ufo_large.kinds.figures import Figure
from ufo_large.metrics import Metric
from ufo_large.structures import TaskInfo

WORST = "Worst"
SURE = "Most confidently wrong"
SPREAD = "Evenly spread over the split"
GROUPS = (SPREAD, WORST, SURE)
"""Why an image is shown."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """How wrong a prediction is, in a measure of the kind (0: not said), and how sure what is wrong was."""

    amount: float
    confidence: float | None = None


class Review:
    """Fed with every image of one task, on one rank or several; like `Metric` it merges to the same.

    This one keeps nothing, which suits any kind. A kind's own overrides `seen`, and then `figures`,
    `mistakes` or both.
    """

    def __init__(self, info: TaskInfo):
        self.info = info
        self.images: dict[int, Any] = {}

    def add(self, image: int, said: Any, truth: Any, confidence: float | None = None) -> None:
        """See image number `image`; `said` and `truth` as the metric counts them."""
        found = self.seen(said, truth, confidence)
        if found is not None:
            self.images[image] = found

    def merge(self, other: Self) -> None:
        """Add what another rank has seen."""
        self.images = dict(sorted((self.images | other.images).items()))

    def seen(self, said: Any, truth: Any, confidence: float | None) -> Any:
        """Return the few numbers to keep of an image; None: there is nothing to say of it."""
        return None

    def figures(self, metric: Metric) -> tuple[Figure, ...]:
        """Return up to `MAX_FIGURES` to show; `metric` has been fed with the same images and computed."""
        return ()

    def mistakes(self, metric: Metric) -> dict[int, Mistake]:
        """Return what was wrong, by the number of the image."""
        return {}

    def shown_from(self, metric: Metric) -> float | None:
        """Return the confidence from which on a part of a prediction counts in `mistakes`, if it has one."""
        return None


def worth_a_look(mistakes: dict[int, Mistake], count: int) -> dict[str, list[int]]:
    """Return at most `count` image numbers each: the worst, then others whose mistake was surest.

    Equals go by their number, so that any number of ranks chooses the same.
    """

    def top(key: Callable[[Mistake], float | None], but: list[int]) -> list[int]:
        known = {image: value for image, m in mistakes.items() if (value := key(m)) and image not in but}
        return sorted(known, key=lambda image: (-known[image], image))[:count]

    worst = top(lambda mistake: mistake.amount, [])
    found = {WORST: worst, SURE: top(lambda mistake: mistake.confidence, worst)}
    return {group: images for group, images in found.items() if images}
