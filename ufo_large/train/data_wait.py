"""Name the ranks that wait for their loaders: one of them holds up all the others."""

from ufo_large.distributed import comm

SHARE = 0.1
"""Of the time of the steps; below it a faster loader would hardly be noticed."""
EVERY = 50
"""Steps that are judged together."""


class DataWaitHook:
    """Every `every` steps, print which ranks waited for data; again only where others do than last time."""

    def __init__(self, every: int = EVERY):
        self.every = every
        self._waited_s = self._total_s = 0.0
        self._is_first = True
        self._told: list[int] = []

    def after_step(self, finished: int, values: dict[str, float]) -> None:
        self._total_s += values["train/step_seconds"]
        self._waited_s += values["train/data_wait_share"] * values["train/step_seconds"]
        if finished % self.every:
            return
        ranks = comm.all_gather_objects((self._waited_s, self._total_s))
        self._waited_s = self._total_s = 0.0
        if self._is_first:  # in which the workers start
            self._is_first = False
        elif comm.is_main():
            self._tell(finished, ranks)

    def _tell(self, finished: int, ranks: list[tuple[float, float]]) -> None:
        waiting = {rank: times for rank, times in enumerate(ranks) if times[0] > SHARE * times[1]}
        if waiting and list(waiting) != self._told:
            named = ", ".join(f"rank {rank} {s[0]:.1f} of {s[1]:.1f} s" for rank, s in waiting.items())
            print(
                f"step {finished}: waited for data since step {finished - self.every}: {named}; "
                "more loader workers or smaller images help, and a faster disk",
                flush=True,
            )
        self._told = list(waiting)
