"""A kind of task that the package does not know, in one file: how bright an image is, one real number.

`ROOT/brightness.json` says {"<split>": {"<picture>": number}}; the pictures lie in ROOT. Error is the mean
absolute one, so less is better. Nothing of it is in the contest's submission.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from ufo_large.data.datasets.sources import Layout, register_layout
from ufo_large.kinds import (
    Card,
    Column,
    Headline,
    Kind,
    PredictionExample,
    Stored,
    StoredPicture,
    register_kind,
)
from ufo_large.kinds.figures import Bars
from ufo_large.kinds.protocols import Protocol
from ufo_large.kinds.review import Mistake, Review
from ufo_large.metrics import Metric
from ufo_large.structures import (
    Example,
    Features,
    Findings,
    RawSample,
    SampleInfo,
    SourceTask,
    TaskBatch,
    TaskInfo,
    Window,
)
from ufo_large.tasks import TaskHead, register_head

FILE = "brightness.json"


@dataclass(slots=True)
class NumberTargets:
    """`numbers_B`: float32."""

    numbers_B: Tensor


@dataclass(slots=True)
class NumberPrediction:
    """`number`: float32, no dimensions."""

    sample: SampleInfo
    number: Tensor


class MeanAbsoluteError(Metric):
    """The mean over images of |said - true|."""

    def reset(self) -> None:
        self.errors: dict[int, float] = {}

    def update(self, image: int, said: float, truth: float) -> None:
        self.errors[image] = abs(said - truth)

    def merge(self, other: Self) -> None:
        self.errors |= other.errors

    def compute(self) -> dict[str, float]:
        return {"mae": float(np.mean([e for _, e in sorted(self.errors.items())])) if self.errors else np.nan}


class NumberReview(Review):
    """Keeps each image's error."""

    def seen(self, said: float, truth: float, confidence: float | None) -> float:
        return abs(said - truth)

    def figures(self, metric: MeanAbsoluteError) -> tuple[Bars, ...]:
        errors = list(self.images.values())
        rows = tuple((f"within {limit}", float(np.mean(np.less(errors, limit))), "") for limit in (0.1, 0.5))
        return (Bars(title="How close", rows=rows, note=f"{len(errors)} images"),)

    def mistakes(self, metric: MeanAbsoluteError) -> dict[int, Mistake]:
        return {image: Mistake(error) for image, error in self.images.items()}


class Brightness(Kind):
    """Truth and said: a number."""

    name = "brightness"
    headline = Headline(name="mae", title="MAE", label="mean absolute error", higher_is_better=False)
    columns = {"numbers": Column(dtype=np.float32)}

    def stored(self, truth: float, picture: StoredPicture) -> Stored:
        return Stored(annotation={"number": truth}, labels=[0], counts=[1], columns={"numbers": [truth]})

    def truth(self, annotation: Mapping[str, Any], target: bytes | None) -> float:
        return float(annotation["number"])

    def load(self, raw: RawSample, window: Window) -> dict[str, Tensor]:
        return {"numbers": torch.from_numpy(raw.columns["numbers"].copy())}

    def collate(self, targets: Sequence[Mapping[str, Tensor]], sizes: Any, canvas: Any) -> NumberTargets:
        return NumberTargets(torch.cat([t["numbers"] for t in targets]))

    def metric(self, info: TaskInfo, protocol: Protocol) -> MeanAbsoluteError:
        return MeanAbsoluteError()

    def said(self, prediction: NumberPrediction) -> float:
        return float(prediction.number)

    def count(self, metric: MeanAbsoluteError, image: int, said: float, truth: float) -> None:
        metric.update(image, said, truth)

    def review(self, info: TaskInfo) -> NumberReview:
        return NumberReview(info)

    def baselines(self, train: Any) -> dict[str, Callable[[SampleInfo], float]]:
        mean = float(train.columns["numbers"].mean())
        return {"mean_of_training": lambda sample: mean}

    def draw(self, examples: Sequence[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
        for example in examples:
            yield example.card(f"said {self.said(example.prediction):.2f}"), example.image_HW3


class NumberHead(TaskHead):
    """One linear layer on the pooled feature, squared error."""

    kind = "brightness"

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(TaskHead.Config):
        """`scale`: factor on the loss."""

        scale: float = 1.0

        def build(self, info: TaskInfo, trunk_width: int, pyramid_width: int) -> "NumberHead":
            return NumberHead(self, info, trunk_width)

    def __init__(self, config: Config, info: TaskInfo, trunk_width: int):
        super().__init__(info)
        self.config, self.linear = config, nn.Linear(trunk_width, 1)

    def forward(self, features: Features) -> dict[str, Tensor]:
        return {"number_B": self.linear(features.pooled_BD)[:, 0]}

    def losses(self, outputs: dict[str, Tensor], batch: TaskBatch) -> dict[str, Tensor]:
        error_B = outputs["number_B"].float() - batch.targets.numbers_B
        return self.watch.losses({"square": self.config.scale * error_B.square().mean()})

    def predict(self, outputs: dict[str, Tensor], batch: TaskBatch) -> list[NumberPrediction]:
        numbers = outputs["number_B"].detach().float().cpu()
        return [
            NumberPrediction(sample, number) for sample, number in zip(batch.samples, numbers, strict=True)
        ]


def read(root: Path, task: str, findings: Findings) -> SourceTask:
    """Read ROOT/brightness.json."""
    splits = json.loads((root / FILE).read_text(encoding="utf-8"))
    return SourceTask(
        TaskInfo(name=task, kind="brightness"),
        {
            split: [
                Example(
                    image=root / name,
                    file_name=name,
                    image_id=i,
                    where=f"{root / FILE}: {name}",
                    truth=number,
                )
                for i, (name, number) in enumerate(numbers.items(), 1)
            ]
            for split, numbers in splits.items()
        },
    )


register_kind(Brightness())
register_head("number", NumberHead)
register_layout(
    Layout(
        name=f"pictures with {FILE}",
        looks_like=lambda root: (root / FILE).is_file(),
        task="brightness",
        read=read,
    )
)
