"""How many micro-batches of each task an optimizer step takes, by ratios that may change during training.

All ranks run the same plan, so they are always on the same task; the state is a number a task.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

Stages = Sequence[tuple[int, float]]
"""(first optimizer step, micro-batches a step on average from then on), rising from step 0."""


class TaskMix:
    """The plan of micro-batches by credit: each step a task earns its ratio and spends whole ones.

    Fractions are spread evenly: 0.5 is one every second step, 0 is a task that rests. When no task has a
    whole micro-batch to spend, the richest goes into debt for one. So no step is empty and no task strays
    more than a micro-batch or so from its ratio.
    """

    def __init__(self, stages: Mapping[str, Stages]):
        """Plan for tasks in the order they run. ValueError where a step would have nothing to learn from."""
        self.stages = stages
        self.credits = dict.fromkeys(stages, 0.0)
        for start in sorted({start for own in stages.values() for start, _ in own}):
            ratios = self._ratios(start)
            if sum(ratios.values()) < 1 - 1e-9:  # 0.7 + 0.2 + 0.1 is a little less than 1
                raise ValueError(
                    f"micro_batches {ratios} from step {start}: give at least 1 together, or a step would "
                    "have nothing to learn from"
                )

    def next(self, step: int) -> dict[str, int]:
        """Return each task's micro-batches at optimizer step `step`, 0 for a task that rests.

        Called once a step, in order.
        """
        ratios = self._ratios(step)
        for task, ratio in ratios.items():
            self.credits[task] += ratio
        active = [task for task, ratio in ratios.items() if ratio > 0]
        counts = dict.fromkeys(ratios, 0)
        counts |= {task: max(0, math.floor(self.credits[task] + 1e-9)) for task in active}
        if not any(counts.values()):
            counts[max(active, key=self.credits.__getitem__)] = 1
        for task, count in counts.items():
            self.credits[task] -= count
        return counts

    def _ratios(self, step: int) -> dict[str, float]:
        found = {}
        for task, stages in self.stages.items():
            starts = [start for start, _ in stages]
            found[task] = stages[bisect_right(starts, step) - 1][1]
        return found

    def state_dict(self) -> dict[str, Any]:
        return {"credits": dict(self.credits)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a plan; raises ValueError when it was one for other tasks."""
        if set(state["credits"]) != set(self.credits):
            raise ValueError(
                f"the checkpoint mixed the tasks {', '.join(state['credits'])}, this run has "
                f"{', '.join(self.credits)}: keep the tasks, or start from the weights alone"
            )
        self.credits = {task: state["credits"][task] for task in self.credits}
