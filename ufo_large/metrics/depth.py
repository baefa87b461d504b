"""Depth estimation: errors over the pixels whose depth is known.

Legend: H W height and width, N known pixels of an image, I images.
"""

from typing import Self

import numpy as np

from ufo_large.metrics.base import Metric

_NAMES = ("delta1", "delta2", "delta3", "absrel", "rmse", "silog")


class DepthError(Metric):
    """Each figure per image over its known pixels, then the mean over the images that have any.

    That is how NYUv2 is evaluated in BTS and AdaBins (a pooled mean over all pixels of the set would favour
    large and densely measured images). With p predicted and t true depth in metres:

        delta1, 2, 3    share of pixels with max(p / t, t / p) below 1.25, 1.25^2, 1.25^3
        absrel          mean |p - t| / t
        rmse            sqrt(mean (p - t)^2), in metres
        silog           100 sqrt(var(log p - log t)), blind to a common factor

    There is neither a crop nor a limit on depth: what shall not count is 0 in the truth. An image's figures
    come from that image alone and are averaged in the order of image numbers, so it does not matter which
    rank saw which image.
    """

    def reset(self) -> None:
        self.images: dict[int, np.ndarray | None] = {}

    def update(self, image: int, predicted_HW: np.ndarray, truth_HW: np.ndarray) -> None:
        """Add image number `image` (its position in the official order); `truth_HW` is 0 where missing.

        Raises ValueError where the image came before, the sizes differ, a predicted depth is not a finite
        number above 0 or a true one not finite or below 0.
        """
        if image in self.images:
            raise ValueError(f"image number {image} was given twice; count each image once")
        if predicted_HW.shape != truth_HW.shape:
            raise ValueError(
                f"image number {image}: predicted depth is {predicted_HW.shape}, "
                f"the truth {truth_HW.shape} (height, width)"
            )
        _check(image, predicted_HW > 0, predicted_HW, "predicted depths are not finite and above 0")
        _check(image, truth_HW >= 0, truth_HW, "true depths are not finite, or below 0")
        known_HW = truth_HW > 0
        self.images[image] = (
            _figures(predicted_HW[known_HW].astype(np.float64), truth_HW[known_HW].astype(np.float64))
            if known_HW.any()
            else None
        )

    def merge(self, other: Self) -> None:
        twice = sorted(self.images.keys() & other.images.keys())
        if twice:
            raise ValueError(f"image number(s) {twice[:10]} were evaluated on two ranks")
        self.images |= other.images

    def compute(self) -> dict[str, float]:
        figures = [of_image for _, of_image in sorted(self.images.items()) if of_image is not None]
        if not figures:
            return dict.fromkeys(_NAMES, float("nan"))
        means = np.stack(figures).mean(axis=0)
        return {name: float(mean) for name, mean in zip(_NAMES, means, strict=True)}


def _figures(predicted_N: np.ndarray, truth_N: np.ndarray) -> np.ndarray:
    """Return the figures of one image in the order of `_NAMES`."""
    ratio_N = np.maximum(predicted_N / truth_N, truth_N / predicted_N)
    error_N = predicted_N - truth_N
    return np.array(
        [
            *((ratio_N < 1.25**power).mean() for power in (1, 2, 3)),
            (np.abs(error_N) / truth_N).mean(),
            np.sqrt(np.square(error_N).mean()),
            100 * np.log(predicted_N / truth_N).std(),
        ]
    )


def _check(image: int, positive_HW: np.ndarray, depth_HW: np.ndarray, what: str) -> None:
    bad_HW = ~(positive_HW & np.isfinite(depth_HW))
    if bad_HW.any():
        first = tuple(np.argwhere(bad_HW)[0].tolist())
        raise ValueError(
            f"image number {image}: {bad_HW.sum()} of {bad_HW.size} {what}; "
            f"the first is {depth_HW[first]} at (row, column) {first}"
        )
