"""Detection seen image by image: curves and sizes from COCO's evaluation, images with most mistakes."""

from math import isnan

from ufo_large.kinds.boxes import Hits, match
from ufo_large.kinds.figures import Bars, Figure, Plot, Trace
from ufo_large.kinds.review import Mistake, Review
from ufo_large.metrics import FoundBoxes, MeanAveragePrecision, TrueBoxes
from ufo_large.metrics.average_precision import Curves

IOUS = (0.5, 0.75, 0.9)
SIZES = {"small": "up to 32 x 32 px", "medium": "up to 96 x 96 px", "large": "larger"}


class BoxReview(Review):
    """Keeps which found boxes hit.

    A mistake is a box missed or wrong, among those from the confidence of the best F1 on.
    """

    def seen(self, said: FoundBoxes, truth: TrueBoxes, confidence: float | None) -> Hits:
        listed = said.labels_N >= 0
        ours = FoundBoxes(
            boxes_xywh_N4=said.boxes_xywh_N4[listed],
            scores_N=said.scores_N[listed],
            labels_N=said.labels_N[listed],
        )
        return match(ours, truth)

    def figures(self, metric: MeanAveragePrecision) -> tuple[Figure, ...]:
        curves = metric.curves(IOUS)
        return () if curves is None else (_precision(curves), _f1(curves), _by_size(metric))

    def mistakes(self, metric: MeanAveragePrecision) -> dict[int, Mistake]:
        least = self.shown_from(metric) or 0.0
        return {image: _mistake(hits, least) for image, hits in self.images.items()}

    def shown_from(self, metric: MeanAveragePrecision) -> float | None:
        curves = metric.curves()
        return None if curves is None else curves.best_confidence


def _mistake(hits: Hits, least: float) -> Mistake:
    found, wrong = hits.from_score(least)
    scores_w = hits.scores_N[(hits.scores_N >= least) & ~hits.found_N]
    return Mistake(hits.total - found + wrong, float(scores_w.max()) if len(scores_w) else None)


def _precision(curves: Curves) -> Plot:
    x = tuple(curves.recall_R.tolist())
    return Plot(
        title="Precision and recall",
        x_name="recall",
        y_name="precision",
        traces=tuple(
            Trace(name=f"IoU {iou:.2f}", x=x, y=tuple(precision_R.tolist()))
            for iou, precision_R in zip(curves.ious, curves.precision_IR, strict=True)
        ),
        note="Mean over the classes; the area under a line is the AP at that IoU.",
    )


def _f1(curves: Curves) -> Plot:
    best = curves.best_confidence
    return Plot(
        title="F1 over confidence",
        x_name="confidence",
        y_name="F1",
        traces=(Trace(name="F1", x=tuple(curves.confidence_C.tolist()), y=tuple(curves.f1_C.tolist())),),
        note=(
            f"Mean over the classes at IoU 0.50: at best {curves.f1_C.max():.2f}, of the boxes from "
            f"{100 * best:.0f} % on. The worst predictions below are chosen and drawn from there."
        ),
    )


def _by_size(metric: MeanAveragePrecision) -> Bars:
    """AP over IoU 0.50:0.95, as COCO has it."""
    values = metric.compute()
    rows = [("all", values["map"], f"AP50 {100 * values['map50']:.1f} %, AP75 {100 * values['map75']:.1f} %")]
    for size, told in SIZES.items():
        value = values[f"map_{size}"]
        rows.append((size, None if isnan(value) else value, told + (", none there" if isnan(value) else "")))
    return Bars(
        title="AP by size",
        rows=tuple(rows),
        note="Mean over IoU 0.50 to 0.95 and the classes; sizes by the area of the true box.",
    )
