"""Whether a probability means what it says: of what is predicted with 80 %, 80 % should be right.

Legend: N predictions, M bins, B bins that hold any.
"""

from dataclasses import dataclass

import numpy as np

BINS = 15


@dataclass(frozen=True, slots=True)
class Reliability:
    """Per bin that holds any prediction: how many, their mean confidence, the share that was right."""

    counts_B: np.ndarray
    confidence_B: np.ndarray
    accuracy_B: np.ndarray

    @property
    def expected_error(self) -> float:
        """The expected calibration error, |accuracy - confidence| weighted by predictions; nan for none."""
        if not len(self.counts_B):
            return float("nan")
        return float(np.average(np.abs(self.accuracy_B - self.confidence_B), weights=self.counts_B))


def reliability(confidence_N: np.ndarray, right_N: np.ndarray, bins: int = BINS) -> Reliability:
    """Sort predictions into `bins` equally wide bins ((m-1)/M, m/M] (Guo et al. 2017, arXiv:1706.04599).

    15 bins are those of the paper's tables. `confidence_N`: probabilities of what was predicted.
    """
    place_N = np.clip(np.ceil(confidence_N * bins).astype(int) - 1, 0, bins - 1)
    counts_M = np.bincount(place_N, minlength=bins)
    there = counts_M > 0
    confidence_M, right_M = (np.bincount(place_N, w, minlength=bins) for w in (confidence_N, right_N))
    counts_B = counts_M[there]
    return Reliability(counts_B, confidence_M[there] / counts_B, right_M[there] / counts_B)
