"""Classification: one class per image.

In a shard: `{"label": i}`, one row of the index. In a submission: `{"<image>": <class id>}`.

Legend: B images, K classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ufo_large.kinds.answers import is_int, named_answers, short
from ufo_large.kinds.base import Headline, Kind, Stored, StoredPicture
from ufo_large.kinds.cards import Card, PredictionExample
from ufo_large.kinds.class_review import ClassReview
from ufo_large.kinds.protocols import Protocol
from ufo_large.media.drawing import fit
from ufo_large.metrics import Accuracy
from ufo_large.structures import ClassPrediction, ClassTargets, RawSample, SampleInfo, TaskInfo, Window

BARS = 3
BEST = 5


class Classification(Kind):
    """Truth: the label. Said: probabilities [K], or the label alone (an int, -1: no class of ours)."""

    name = "classification"
    headline = Headline(name="top1", title="Top-1", label="Top-1 accuracy")
    class_metrics = {"top1": "Top-1 accuracy"}
    fusions = ("mean",)
    in_submission = True
    contest = ("cls", 196)
    compares_classes = True
    form = '{"<image>": <class id>}'

    def classes_of(self, truth: int, facts: Any) -> list[int]:
        return [truth]

    def relabelled(self, truth: int, new_labels: Sequence[int]) -> int:
        return new_labels[truth]

    def stored(self, truth: int, picture: StoredPicture) -> Stored:
        return Stored(annotation={"label": truth}, labels=[truth], counts=[1])

    def truth(self, annotation: Mapping[str, Any], target: bytes | None) -> int:
        return int(annotation["label"])

    def load(self, raw: RawSample, window: Window) -> dict[str, Tensor]:
        return {"labels": torch.from_numpy(raw.labels[:1].copy())}

    def random_targets(
        self, info: TaskInfo, images: int, size: tuple[int, int], generator: torch.Generator, objects: int
    ) -> ClassTargets:
        return ClassTargets(labels_B=torch.randint(info.num_classes, (images,), generator=generator))

    def collate(self, targets: Sequence[Mapping[str, Tensor]], sizes: Any, canvas: Any) -> ClassTargets:
        return ClassTargets(labels_B=torch.cat([t["labels"] for t in targets]))

    def mirrored(self, prediction: ClassPrediction) -> ClassPrediction:
        return prediction

    def fused(self, views: Sequence[ClassPrediction], fusion: str) -> ClassPrediction:
        return replace(views[0], scores_K=torch.stack([view.scores_K for view in views]).mean(0))

    def metric(self, info: TaskInfo, protocol: Protocol) -> Accuracy:
        return Accuracy(info.class_names)

    def said(self, prediction: ClassPrediction) -> np.ndarray:
        return prediction.scores_K.float().numpy()

    def confidence(self, prediction: ClassPrediction) -> float:
        return float(prediction.scores_K.max())

    def review(self, info: TaskInfo) -> ClassReview:
        return ClassReview(info)

    def count(self, metric: Accuracy, image: int, said: np.ndarray | int, truth: int) -> None:
        if isinstance(said, int):
            metric.update_best(np.array([said]), np.array([truth]))
        else:
            metric.update(said[None], np.array([truth]))

    def baselines(self, train: Any) -> dict[str, Callable[[SampleInfo], int]]:
        """Always the class most frequent in training."""
        majority = int(np.argmax(train.class_histogram))
        return {"majority_class": lambda sample: majority}

    def described(self, prediction: ClassPrediction, info: TaskInfo) -> dict[str, Any]:
        """The best class, and the `BEST` best with their probabilities."""
        scores_K = self.said(prediction)
        best = [
            {"class": info.class_names[k], "class_id": info.class_ids[k], "score": float(scores_K[k])}
            for k in np.argsort(-scores_K, kind="stable")[:BEST]
        ]
        return {**best[0], "best": best}

    def entries(self, prediction: ClassPrediction, info: TaskInfo) -> list[dict[str, Any]]:
        return [{prediction.sample.file_name: info.class_ids[prediction.label]}]

    def answers(
        self, raw: Any, info: TaskInfo, file_names: Sequence[str], report: Callable[[str], None]
    ) -> list[int | None]:
        return named_answers(raw, file_names, self.form, _class_id, report)

    def answered(self, answer: int, info: TaskInfo, truth: Any, protocol: Protocol) -> int:
        return info.class_ids.index(answer) if answer in info.class_ids else -1

    def draw(self, examples: Sequence[PredictionExample]) -> Iterator[tuple[Card, np.ndarray]]:
        for example in examples:
            yield _drawn(example)


def _class_id(name: str, value: Any, report: Callable[[str], None]) -> int | None:
    if not is_int(value):
        report(f"{name!r} has the class {short(value)}; write a whole number")
        return None
    return value


def _drawn(example: PredictionExample) -> tuple[Card, np.ndarray]:
    names, scores_K = example.info.class_names, example.prediction.scores_K.numpy()
    best = np.argsort(-scores_K, kind="stable")[:BARS]
    bars = tuple((names[i], float(scores_K[i])) for i in best)
    good = None if example.truth is None else int(best[0]) == int(example.truth)
    wanted = "" if good is not False else names[int(example.truth)]
    card = example.card(names[best[0]], good=good, bars=bars, wanted=wanted)
    return card, fit(example.image_HW3, example.long_side or 400)[0]
