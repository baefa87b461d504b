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

    def update(self, image: int, found: FoundBoxes, truth: TrueBoxes) -> None:
        """Add image number `image` (its position in the official order).

        Boxes of no class of ours are left out, as COCO does, and counted as `boxes_of_unlisted_category`.
        Raises ValueError where the image came before or a found box or score is not finite.
        """
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

    def _evaluated(self) -> COCOeval_faster:
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


def _say_nothing(*_: object) -> None:
    """The counting library reports its progress; a metric prints nothing."""
