"""What a step does with one rank's shard of task gradients, part by part: three tasks, 1.0 billion elements.

On n ranks a shard is an n-th of the shared parameters. One JSON line each.
"""

import argparse

import clock
import torch

from ufo_large.distributed.task_gradients import TaskGradients

NUMEL, TOY_NUMEL, TASKS = 1_000_000_000, 400_000, ("a", "b", "c")


class Shard:
    """A GradientStore of one tensor."""

    def __init__(self, numel: int):
        self.shared_numel, self.device = numel, clock.device()
        self.gradient_S = torch.zeros(numel, device=self.device)

    def begin_step(self) -> None:
        self.gradient_S.zero_()

    def begin_task(self, task: str) -> None:
        """The gradients are there already."""

    def read_shared(self, out_S: torch.Tensor) -> None:
        out_S.copy_(self.gradient_S)

    def private_square_norm(self, task: str) -> torch.Tensor:
        return torch.zeros((), dtype=torch.float64, device=self.device)

    def write_shared(self, combined_S: torch.Tensor) -> None:
        self.gradient_S.copy_(combined_S)

    def finish(self) -> None:
        """There is no optimizer."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when standard input says so")
    args = parser.parse_args()
    if args.wait:
        clock.wait()
    store = Shard(TOY_NUMEL if args.toy else NUMEL)
    gradients = TaskGradients(store, len(TASKS))
    gradients.begin_step()
    store.gradient_S.normal_()
    for task in TASKS:
        gradients.begin_task(task)
        gradients.end_task()
    nothing, weights_M = torch.zeros(1, dtype=torch.float64), torch.ones(len(TASKS)) / len(TASKS)
    parts = {
        "copy a row": gradients.end_task,
        "norms": lambda: gradients.measure(nothing, pairs=False),
        "Gram matrix": lambda: gradients.measure(nothing),
        "combine and write back": lambda: gradients.combine(weights_M, scale_private=False),
        "zero a row": store.begin_step,
    }
    for name, work in parts.items():
        with clock.row(part=f"{name}, {store.shared_numel:.0e} elements") as found:
            found["seconds"] = clock.median_seconds(work, 2, 5, limit=10.0)


if __name__ == "__main__":
    main()
