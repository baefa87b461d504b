"""Name the ranks that hold up all others: those that wait for their loaders, and those that work longer."""

import platform

from ufo_large.distributed import comm
from ufo_large.train.collective_waits import CollectiveWaits
from ufo_large.train.stragglers import SHARE, RankTimes, Stragglers

EVERY = 50
"""Steps that are judged together."""


class RankTimesHook:
    """Every `every` steps, print which ranks waited for data; again only where others do than last time.

    And which rank has been slower than the others for some of these times.
    """

    def __init__(self, waits: CollectiveWaits, every: int = EVERY):
        self.every, self.waits = every, waits
        self._waited_s = self._total_s = 0.0
        self._is_first = True
        self._told: list[int] = []
        self._stragglers = Stragglers()

    def after_step(self, finished: int, values: dict[str, float]) -> None:
        self._total_s += values["train/step_seconds"]
        self._waited_s += values["train/data_wait_share"] * values["train/step_seconds"]
        if finished % self.every:
            return
        ranks = comm.all_gather_objects(self._take())
        if self._is_first:  # in which the workers start
            self._is_first = False
        elif comm.is_main():
            self._tell(finished, ranks)

    def _take(self) -> RankTimes:
        """Return this rank's times since the last call."""
        total_s, waited_s, self._total_s, self._waited_s = self._total_s, self._waited_s, 0.0, 0.0
        worked_s = max(0.0, total_s * (1 - self.waits.take_share()) - waited_s)
        return RankTimes(host=platform.node(), total_s=total_s, waited_s=waited_s, worked_s=worked_s)

    def _tell(self, finished: int, ranks: list[RankTimes]) -> None:
        waiting = {rank: t for rank, t in enumerate(ranks) if t.waited_s > SHARE * t.total_s}
        if waiting and list(waiting) != self._told:
            named = ", ".join(
                f"rank {rank} {t.waited_s:.1f} of {t.total_s:.1f} s" for rank, t in waiting.items()
            )
            print(
                f"step {finished}: waited for data since step {finished - self.every}: {named}; "
                "more loader workers or smaller images help, and a faster disk",
                flush=True,
            )
        self._told = list(waiting)
        if told := self._stragglers.told(ranks):
            print(f"step {finished}: {told}; all wait for it: see what else runs on that machine", flush=True)
