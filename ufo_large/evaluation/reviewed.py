"""What an evaluation leaves for the report beside scores: figures of each task, images worth a look."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ufo_large.config import write_json
from ufo_large.kinds.figures import figure_to_json
from ufo_large.kinds.review import Review, worth_a_look
from ufo_large.metrics import Metric
from ufo_large.tracking.analysis import FILE_NAME


@dataclass(frozen=True, slots=True)
class Reviewed:
    """A task's images worth a look: their numbers by the reason (`GROUPS`), and what is shown of each."""

    images: Mapping[str, list[int]] = field(default_factory=dict)
    shown_from: float | None = None

    @classmethod
    def of(cls, review: Review, metric: Metric, count: int) -> "Reviewed":
        return cls(worth_a_look(review.mistakes(metric), count), review.shown_from(metric))


def write_figures(folder: Path, reviews: Mapping[str, Review], metrics: Mapping[str, Metric]) -> None:
    """Write FOLDER/figures.json: every task's figures, of a size that does not grow with the data."""
    figures = {
        task: [figure_to_json(figure) for figure in review.figures(metrics[task])]
        for task, review in reviews.items()
    }
    write_json(folder / FILE_NAME, {"tasks": figures}, allow_nan=False)
