"""Name the rank that holds up the others: all wait for it in every collective, so all steps take as long."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

FACTOR = 1.25
SHARE = 0.1
"""Of the time of the steps; with less to gain a faster rank would hardly be noticed."""
IN_A_ROW = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class RankTimes:
    """Seconds of a rank's steps since the last look, and those of them in which it waited for data.

    `worked_s`: those in which it neither did that nor waited for other ranks.
    """

    host: str
    total_s: float
    waited_s: float
    worked_s: float


class Stragglers:
    """Ranks that work `FACTOR` times as long as the median rank, and lengthen steps by more than `SHARE`."""

    def __init__(self) -> None:
        self._in_a_row: Counter[int] = Counter()

    def told(self, ranks: Sequence[RankTimes]) -> str:
        """Return words for those that are slow for the `IN_A_ROW`-th time in a row; "" where none is."""
        usual = median_low(times.worked_s for times in ranks)
        slow = {
            rank: times.worked_s / usual if usual else float("inf")
            for rank, times in enumerate(ranks)
            if times.worked_s > max(FACTOR * usual, usual + SHARE * times.total_s)
        }
        self._in_a_row = Counter({rank: self._in_a_row[rank] + 1 for rank in slow})
        named = (
            f"rank {rank} on {ranks[rank].host} works {factor:.1f} times as long as the median rank"
            for rank, factor in slow.items()
            if self._in_a_row[rank] == IN_A_ROW
        )
        return "; ".join(named)
