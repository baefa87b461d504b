"""Detection: COCO average precision of boxes.

Legend: N predicted boxes of one image, G true boxes of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

from ufo_large.metrics.base import Metric

_SUMMARY = ("map", "map50", "map75", "map_small", "map_medium", "map_large")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrueBoxes:
    """What is to be found in one image: `boxes_xywh_G4` in pixels and `labels_G`.

    `crowds_G` marks regions where detections are neither right nor wrong. `areas_G` decides between small
    (under 32 x 32), medium and large (from 96 x 96); without it width x height does.
    """

    boxes_xywh_G4: np.ndarray
    labels_G: np.ndarray
    crowds_G: np.ndarray | None = None
    areas_G: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundBoxes:
    """What a model found: `boxes_xywh_N4` in pixels, `scores_N`, `labels_N` (-1: none of ours)."""

    boxes_xywh_N4: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    scores_N: np.ndarray = field(default_factory=lambda: np.zeros(0))
    labels_N: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass(frozen=True, kw_only=True, slots=True)
class Curves:
    """COCO's curves as means over the classes that have true boxes, at most 100 boxes an image and class.

    `precision_IR`: interpolated precision for each of `ious` and each recall of `recall_R`, whose mean is the
    AP. `f1_C`: F1 at IoU 0.50 of the boxes from each confidence of `confidence_C` on, by that precision.
    """

    ious: tuple[float, ...]
    recall_R: np.ndarray
    precision_IR: np.ndarray
    confidence_C: np.ndarray
    f1_C: np.ndarray

    @property
    def best_confidence(self) -> float:
        """Where F1 is best; the highest of equals, which leaves fewer boxes."""
        return float(self.confidence_C[len(self.f1_C) - 1 - self.f1_C[::-1].argmax()])


class MeanAveragePrecision(Metric):
    """COCO's box AP: over IoU 0.50:0.95 (`map`), at 0.50 (`map50`), by size, and AP50 of every class.

    At most 100 detections an image and class count; a class without true boxes is left out of the means.
    Counted by faster-coco-eval, equal to pycocotools up to a float64 last bit. Images are sorted first,
    because COCO breaks ties between equal scores by the order of images; so it does not matter which rank saw
    which image.
    """

    def __init__(self, class_names: Sequence[str]):
        self.class_names = tuple(class_names)
        super().__init__()

    def reset(self) -> None:
        self.images: dict[int, tuple[FoundBoxes, TrueBoxes]] = {}
        self.unlisted = 0
        self._evaluation: COCOeval_faster | None = None

    def update(self, image: int, found: FoundBoxes, truth: TrueBoxes) -> None:
        """Add image number `image` (its position in the official order).

        Boxes of no class of ours are left out, as COCO does, and counted as `boxes_of_unlisted_category`.
        Raises ValueError where the image came before or a found box or score is not finite.
        """
        self._evaluation = None
        if image in self.images:
            raise ValueError(
                f"image number {image} was given twice; detections of one image must come together"
            )
        if not (np.isfinite(found.boxes_xywh_N4).all() and np.isfinite(found.scores_N).all()):
            raise ValueError(f"image number {image}: a box or score is not finite; the model has diverged")
        listed = found.labels_N >= 0
        self.unlisted += int((~listed).sum())
        if not listed.all():
            found = FoundBoxes(
                boxes_xywh_N4=found.boxes_xywh_N4[listed],
                scores_N=found.scores_N[listed],
                labels_N=found.labels_N[listed],
            )
        self.images[image] = (found, truth)

    def merge(self, other: Self) -> None:
        self._evaluation = None
        twice = sorted(self.images.keys() & other.images.keys())
        if twice:
            raise ValueError(f"image number(s) {twice[:10]} were evaluated on two ranks")
        self.images |= other.images
        self.unlisted += other.unlisted

    @property
    def num_true(self) -> int:
        """How many true boxes there are that must be found: crowds need not."""
        truths = [truth for _, truth in self.images.values()]
        return sum(len(t.labels_G) if t.crowds_G is None else int((~t.crowds_G).sum()) for t in truths)

    def compute(self) -> dict[str, float]:
        if not self.num_true:
            return dict.fromkeys(_SUMMARY, float("nan"))
        evaluation = self._evaluated()
        values = {
            name: float(value) if value >= 0 else float("nan")
            for name, value in zip(_SUMMARY, evaluation.stats[:6], strict=True)
        }
        if self.unlisted:
            values["boxes_of_unlisted_category"] = float(self.unlisted)
        return values | self._by_class(evaluation)

    def curves(self, ious: Sequence[float] = (0.5,)) -> Curves | None:
        """Return the curves at some of COCO's IoUs 0.50, 0.55 ... 0.95; None without a box to be found."""
        if not self.num_true:
            return None
        evaluation = self._evaluated()
        recall_R, thresholds = evaluation.params.recThrs, np.round(evaluation.params.iouThrs, 2).tolist()
        precision_TRK, scores_TRK = (evaluation.eval[name][..., 0, -1] for name in ("precision", "scores"))
        there_K = precision_TRK[0, 0] >= 0
        rows = [thresholds.index(iou) for iou in ious]
        confidence_C = np.linspace(0, 1, 101)
        of_class = zip(precision_TRK[0].T[there_K], scores_TRK[0].T[there_K], strict=True)
        return Curves(
            ious=tuple(ious),
            recall_R=recall_R,
            precision_IR=precision_TRK[rows][..., there_K].mean(axis=-1),
            confidence_C=confidence_C,
            f1_C=np.mean([_f1(recall_R, p, s, confidence_C) for p, s in of_class], axis=0),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_evaluation": None}  # what it is made from travels

    def _evaluated(self) -> COCOeval_faster:
        if self._evaluation is None:
            self._evaluation = self._evaluate()
        return self._evaluation

    def _evaluate(self) -> COCOeval_faster:
        truth = COCO(self._coco_truth())
        found = truth.loadRes(self._coco_found())
        evaluation = COCOeval_faster(truth, found, iouType="bbox", print_function=_say_nothing)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return evaluation

    def _coco_truth(self) -> dict[str, Any]:
        annotations = []
        for image, (_, truth) in sorted(self.images.items()):
            crowds = np.zeros(len(truth.labels_G)) if truth.crowds_G is None else truth.crowds_G
            areas = (
                truth.boxes_xywh_G4[:, 2] * truth.boxes_xywh_G4[:, 3]
                if truth.areas_G is None
                else truth.areas_G
            )
            for box, label, crowd, area in zip(
                truth.boxes_xywh_G4, truth.labels_G, crowds, areas, strict=True
            ):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image,
                        "category_id": int(label),
                        "bbox": [float(v) for v in box],
                        "area": float(area),
                        "iscrowd": int(crowd),
                    }
                )
        return {
            "info": {},
            "images": [{"id": image} for image in sorted(self.images)],
            "categories": [{"id": i, "name": name} for i, name in enumerate(self.class_names)],
            "annotations": annotations,
        }

    def _coco_found(self) -> list[dict[str, Any]]:
        return [
            {
                "image_id": image,
                "category_id": int(label),
                "bbox": [float(v) for v in box],
                "score": float(score),
            }
            for image, (found, _) in sorted(self.images.items())
            for box, score, label in zip(found.boxes_xywh_N4, found.scores_N, found.labels_N, strict=True)
        ]

    def _by_class(self, evaluation: COCOeval_faster) -> dict[str, float]:
        precision_RK = evaluation.eval["precision"][0, :, :, 0, -1]
        pairs = zip(self.class_names, precision_RK.T, strict=True)
        return {f"ap50/{name}": float(curve.mean()) for name, curve in pairs if curve[0] >= 0}


def _f1(
    recall_R: np.ndarray, precision_R: np.ndarray, scores_R: np.ndarray, confidence_C: np.ndarray
) -> np.ndarray:
    """Return one class's F1 of the boxes from each confidence on: at the largest recall these reach."""
    f1_R = 2 * precision_R * recall_R / np.maximum(precision_R + recall_R, 1e-300)
    reached_C = ((scores_R >= confidence_C[:, None]) & (precision_R > 0)).sum(axis=1)
    return np.where(reached_C > 0, f1_R[reached_C - 1], 0.0)


def _say_nothing(*_: object) -> None:
    """The counting library reports its progress; a metric prints nothing."""
