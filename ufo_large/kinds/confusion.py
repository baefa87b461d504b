"""Which classes are taken for which, small enough for a page whatever the number of classes.

Legend: K classes, P pairs of a true and a said class that occur, D those in which the two differ.
"""

from collections.abc import Sequence

import numpy as np

from ufo_large.kinds.figures import MAX_CLASSES, MAX_PAIRS, Figure, Matrix, Pairs, shortened

PAIRS_BESIDE_MATRIX = 12


def confusion_figures(
    names: Sequence[str], true_P: np.ndarray, said_P: np.ndarray, counts_P: np.ndarray, unit: str
) -> tuple[Figure, ...]:
    """Return the matrix, where the classes are few enough, and the pairs most often confused.

    `counts_P[p]` of `unit` ("images") are of class `true_P[p]` and taken for `said_P[p]`; each pair comes
    once. Equal counts go in the order of the classes.
    """
    names = [shortened(name) for name in names]
    found: list[Figure] = []
    if len(names) <= MAX_CLASSES and counts_P.sum():
        counts_KK = np.zeros((len(names), len(names)), np.int64)
        counts_KK[true_P, said_P] = counts_P
        counts = tuple(map(tuple, counts_KK.tolist()))
        note = "A row is the true class, a column what was said; colour is the share of the row."
        found.append(
            Matrix(title="Confusion matrix", names=tuple(names), counts=counts, unit=unit, note=note)
        )
    pairs = _most_confused(names, true_P, said_P, counts_P, PAIRS_BESIDE_MATRIX if found else MAX_PAIRS)
    if pairs:
        found.append(Pairs(title="Most often confused", rows=pairs, unit=unit))
    return tuple(found)


def _most_confused(
    names: Sequence[str], true_P: np.ndarray, said_P: np.ndarray, counts_P: np.ndarray, most: int
) -> tuple[tuple[str, str, int, float], ...]:
    totals_K = np.bincount(true_P, weights=counts_P, minlength=len(names))
    differ_D = np.flatnonzero((true_P != said_P) & (counts_P > 0))
    order_D = differ_D[np.lexsort((said_P[differ_D], true_P[differ_D], -counts_P[differ_D]))]
    return tuple(
        (names[true], names[said], int(count), float(count / totals_K[true]))
        for true, said, count in zip(*(a[order_D[:most]] for a in (true_P, said_P, counts_P)), strict=True)
    )
