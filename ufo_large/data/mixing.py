"""How many micro-batches of each task an optimizer step takes, by ratios that may change during training.

All ranks run the same plan, so they are always on the same task; the state is a few numbers.
"""

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """From optimizer step `start` on, task t gets `micro_batches[t]` micro-batches a step on average.

    Fractions are spread evenly: 0.5 is one every second step. A task that is not named gets none.
    """

    start: int = 0
    micro_batches: Mapping[str, float]

    def __post_init__(self):
        if self.start < 0:
            raise ValueError(f"mixing: a stage starts at step {self.start}; give 0 or more")
        ratios = self.micro_batches
        if not all(0 <= ratio < math.inf for ratio in ratios.values()) or sum(ratios.values()) < 1:
            raise ValueError(
                f"mixing: micro_batches {dict(ratios)} from step {self.start}: give 0 or more each and at "
                "least 1 together, or a step would have nothing to learn from"
            )


class TaskMix:
    """The plan of micro-batches by credit: each step a task earns its ratio and spends whole ones.

    When no task has a whole micro-batch to spend, the richest goes into debt for one. So no step is empty
    and no task strays more than a micro-batch or so from its ratio.
    """

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config:
        """`stages` in order of their start, the first at 0."""

        stages: tuple[Stage, ...]

        def __post_init__(self):
            starts = [stage.start for stage in self.stages]
            if not starts or starts[0] != 0 or any(a >= b for a, b in zip(starts, starts[1:], strict=False)):
                raise ValueError(f"mixing: stages start at {starts}; begin with 0 and rise")

        def build(self, tasks: tuple[str, ...]) -> "TaskMix":
            """Return the plan for `tasks`, in the order they run; ValueError for a task that is not there."""
            unknown = {task for stage in self.stages for task in stage.micro_batches} - set(tasks)
            if unknown:
                raise ValueError(
                    f"mixing: no task {', '.join(sorted(unknown))}; the data has {', '.join(tasks)}"
                )
            return TaskMix(self.stages, tasks)

    def __init__(self, stages: tuple[Stage, ...], tasks: tuple[str, ...]):
        self.stages, self.tasks = stages, tasks
        self.step = 0
        self.credits = dict.fromkeys(tasks, 0.0)

    def next(self) -> dict[str, int]:
        """Return the micro-batches of each task at the next optimizer step; 0 for a task that rests."""
        stage = self.stages[bisect_right([s.start for s in self.stages], self.step) - 1]
        for task in self.tasks:
            self.credits[task] += stage.micro_batches.get(task, 0.0)
        active = [task for task in self.tasks if stage.micro_batches.get(task, 0.0) > 0]
        counts = {task: max(0, math.floor(self.credits[task] + 1e-9)) for task in self.tasks}
        counts = {task: counts[task] if task in active else 0 for task in self.tasks}
        if not any(counts.values()):
            counts[max(active, key=self.credits.__getitem__)] = 1
        for task, count in counts.items():
            self.credits[task] -= count
        self.step += 1
        return counts

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "credits": dict(self.credits)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue a plan; raises ValueError when it was one for other tasks."""
        if set(state["credits"]) != set(self.tasks):
            raise ValueError(
                f"mixing: the state is of tasks {', '.join(state['credits'])}, now {', '.join(self.tasks)}"
            )
        self.step, self.credits = state["step"], {task: state["credits"][task] for task in self.tasks}
