"""The one problem behind UPGrad, MGDA and CAGrad: the shortest vector that gives every task a wanted gain.

Legend: M tasks.
"""

import numpy as np

ROUNDING = 1e-14
"""What float64 may leave of a condition, relative to the numbers that it subtracts (measured: 3e-16)."""

MOST_PIVOTS = 10_000  # measured: 22 for 8 tasks, 192 for 30


def shortest_with_gains(cosines_MM: np.ndarray, gains_M: np.ndarray) -> np.ndarray:
    """Return the weights y, [M], of the shortest sum of unit gradients that gains enough for every task.

    Its inner product with the unit gradient k is at least gains[k]. `cosines_MM` must be positive definite. y
    minimises y C y / 2 - gains . y over y >= 0; it is the one vector that meets the Karush-Kuhn-Tucker
    conditions: y >= 0, C y >= gains, and equality wherever y > 0.

    Principal pivoting with one pivot at a time (Murty 1974, "Note on a Bard-type scheme for solving the
    complementarity problem"): solve the equalities of the tasks taken, then take or drop the last task whose
    condition is broken. But for rounding no set comes twice: this ends, and only where all conditions hold.
    scipy's non-negative least squares is no substitute: where gradients are orthogonal up to rounding it may
    return weights that break the conditions.

    Raises LinAlgError, a ValueError, where the conditions cannot be met in float64.
    """
    taken_M = np.zeros(len(gains_M), dtype=bool)
    for _ in range(MOST_PIVOTS):
        y_M = np.zeros(len(gains_M))
        y_M[taken_M] = np.linalg.solve(cosines_MM[np.ix_(taken_M, taken_M)], gains_M[taken_M])
        surplus_M = cosines_MM @ y_M - gains_M
        rounding_M = ROUNDING * (np.abs(y_M).sum() + np.abs(gains_M))
        short_M = surplus_M < -rounding_M
        broken_M = np.where(taken_M, (y_M < 0) | short_M | (surplus_M > rounding_M), short_M)
        if not broken_M.any():
            return y_M
        last = np.flatnonzero(broken_M)[-1]
        taken_M[last] = not taken_M[last]
    raise np.linalg.LinAlgError(
        f"no weights found in {MOST_PIVOTS} pivots that give the gains {gains_M.tolist()} with the cosines "
        f"{cosines_MM.tolist()}: choose a method that solves no problem (tbgn, pcgrad)"
    )
