"""Where a balanced step's time goes on this card: its parts, the GPU's busy share, the longest kernels.

The step of balance.py with `tbgn`. Parts are timed with the device done before and after each, so their sum
is more than a step. `retries`: how often the allocator had to give memory back to the card to find room,
which tasks of different shapes can bring about; `--expandable` lets it grow its segments instead. One JSON
line each.
"""

import argparse
import os

import balance
import clock
import torch
from trunk import join_world_of_one

from ufo_large.distributed import zero
from ufo_large.distributed.task_gradients import TaskGradients

PARTS = {
    zero.ZeroEngine: ("__call__", "backward", "step"),
    TaskGradients: ("begin_step", "begin_task", "end_task", "measure", "combine"),
}
STEPS = 3
LONGEST = 15  # kernels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=("ViT-g/14", "ViT-G/14"), default="ViT-g/14")
    parser.add_argument("--router", choices=("shared", "task"), default="shared")
    parser.add_argument("--mode", default="none", help="checkpointing")
    parser.add_argument("--expandable", action="store_true", help="the allocator's expandable segments")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when standard input says so")
    args = parser.parse_args()
    if args.wait:
        clock.wait()
    if args.expandable:
        os.environ["PYTORCH_CUDA_ALLOC_CONF"] = "expandable_segments:True"
    join_world_of_one()
    with clock.row(part="whole step") as found:
        step = balance.build(args)[0]["tbgn"]
        for turn in range(STEPS):
            step(turn)
        before = retries()
        found["seconds"] = clock.median_seconds(lambda: step(0), 0, STEPS)
        found["retries"] = retries() - before
    for part, seconds in clock.parts(PARTS, lambda: step(0)).items():
        with clock.row(part="forward" if part == "__call__" else part) as found:
            found["seconds"] = seconds
    for name, seconds, calls in kernels(step):
        with clock.row(part=name, calls=calls) as found:
            found["seconds"] = seconds


def retries() -> int:
    """Return how often the allocator freed its cache to find room, as far as it was used at all."""
    return torch.cuda.memory_stats().get("num_alloc_retries", 0) if torch.cuda.is_available() else 0


def kernels(step) -> list[tuple[str, float, int]]:
    """Return (name, seconds, calls) of one step: the whole GPU first, then the longest kernels."""
    if not torch.cuda.is_available():
        return []
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        step(0)
        clock.synchronise()
    spent = [e for e in profile.key_averages() if e.self_device_time_total]
    spent.sort(key=lambda event: -event.self_device_time_total)
    rows = [(event.key[:80], event.self_device_time_total / 1e6, event.count) for event in spent]
    return [("GPU busy", sum(row[1] for row in rows), sum(row[2] for row in rows)), *rows[:LONGEST]]


if __name__ == "__main__":
    main()
