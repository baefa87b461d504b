"""The two ways to turn a submission into numbers. What they share and where they differ stands here, once.

Both count top-1 as hits over images and mAP50 as COCO's box AP at IoU 0.50 (area all, at most 100 detections
an image and class, classes without ground truth left out). They differ in segmentation:

                              official                               standard
    canvas                    the true mask's size, 0 everywhere     the true mask's size, 255 everywhere
    where no ring paints      class 0 ("road")                       not counted; the share is reported
    rings of 1 or 2 points    dropped                                painted
    class with empty union    counts 0 in the mean                   left out of the mean

In both, classes are painted in the order of the submission, a later over an earlier one, each with one
even-odd fill; pixels whose truth is 255 are not counted; one confusion matrix is summed over the set. The
contest's masks are all 720 high and 1280 wide, so `official` paints what its scorer paints; for masks of
another size that scorer has no rule, and we take the mask's own size instead of stretching anything. The mean
of `official` is over the data set's class list, which for a folder in the contest's layout without
seg/classes.txt is the contest's 19.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ufo_large.config import did_you_mean
from ufo_large.kinds.polygons import paint_rings
from ufo_large.structures import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, slots=True)
class Protocol:
    """How masks are painted and averaged; see the table above."""

    name: str
    background: int
    min_ring_points: int
    empty_classes: Literal["skip", "zero"]

    def paint(
        self, rings: Mapping[int, Iterable[np.ndarray]], height: int, width: int, class_ids: Sequence[int]
    ) -> np.ndarray:
        """Return labels, uint8 [height, width]: places in `class_ids`, by which `rings` go; 255 is none."""
        label_of = {number: label for label, number in enumerate(class_ids)}
        background = label_of.get(self.background, IGNORE_INDEX)
        labelled = {label_of[number]: of_class for number, of_class in rings.items()}
        return paint_rings(labelled, height, width, background=background, min_points=self.min_ring_points)


PROTOCOLS = {
    "official": Protocol(name="official", background=0, min_ring_points=3, empty_classes="zero"),
    "standard": Protocol(name="standard", background=IGNORE_INDEX, min_ring_points=1, empty_classes="skip"),
}


def get_protocol(name: str) -> Protocol:
    """Return a protocol by name; ValueError lists the known ones."""
    if name not in PROTOCOLS:
        raise ValueError(f"no protocol {name!r}.{did_you_mean(name, PROTOCOLS)}")
    return PROTOCOLS[name]
