"""Classification seen image by image: the confusion matrix, calibration, and the surest of the wrong answers.

Legend: N images, P pairs of a true and a said class.
"""

import numpy as np

from ufo_large.kinds.confusion import confusion_figures
from ufo_large.kinds.figures import Figure, Plot, Trace
from ufo_large.kinds.review import Mistake, Review
from ufo_large.metrics import Metric, reliability

ROUNDING = 1e-5
JUST = 0.005
"""A gap between mean probability and accuracy that is not worth a word."""


class ClassReview(Review):
    """Keeps (true, said, confidence) per image. Said: the label, -1 for no class of ours."""

    def seen(
        self, said: np.ndarray | int, truth: int, confidence: float | None
    ) -> tuple[int, int, float | None]:
        return int(truth), said if isinstance(said, int) else int(said.argmax()), confidence

    def figures(self, metric: Metric) -> tuple[Figure, ...]:
        rows = [self.images[image] for image in sorted(self.images)]
        true_N, said_N = (np.array([row[i] for row in rows], np.int64) for i in (0, 1))
        ours = said_N >= 0
        codes_N = true_N[ours] * self.info.num_classes + said_N[ours]
        codes_P, counts_P = np.unique(codes_N, return_counts=True)
        pairs = np.divmod(codes_P, self.info.num_classes)
        found = confusion_figures(self.info.class_names, *pairs, counts_P, "images")
        return (*found, *_calibration([(conf, true == said) for true, said, conf in rows]))

    def mistakes(self, metric: Metric) -> dict[int, Mistake]:
        """The wrong images: all are equally wrong, so that they differ in confidence alone."""
        return {
            image: Mistake(0.0, confidence)
            for image, (true, said, confidence) in self.images.items()
            if true != said
        }


def _calibration(rows: list[tuple[float | None, bool]]) -> tuple[Plot, ...]:
    """Return the reliability diagram; nothing where an image came without a probability."""
    if not rows or any(c is None or not 0 <= c <= 1 + ROUNDING for c, _ in rows):
        return ()
    confidence_N, right_N = np.array([c for c, _ in rows], np.float64), np.array([r for _, r in rows])
    found = reliability(confidence_N, right_N)
    mean, right = float(confidence_N.mean()), float(right_N.mean())
    side = "too sure of itself" if mean > right else "too cautious"
    side = side if abs(mean - right) >= JUST else "on the whole as sure as it is right"
    x = tuple(found.confidence_B.clip(max=1).tolist())
    share_B = found.counts_B / found.counts_B.sum()
    return (
        Plot(
            title="Calibration",
            x_name="probability of the predicted class",
            y_name="share",
            traces=(
                Trace(name="share right", x=x, y=tuple(found.accuracy_B.tolist())),
                Trace(name="share of images", x=x, y=tuple(share_B.tolist())),
                Trace(name="perfect", x=(0.0, 1.0), y=(0.0, 1.0), dashed=True),
            ),
            note=(
                f"Expected calibration error {100 * found.expected_error:.1f} % over {len(rows)} images: "
                f"mean probability {100 * mean:.1f} %, right {100 * right:.1f} %, so the model is {side}."
            ),
        ),
    )
