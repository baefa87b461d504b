"""What balancing costs on this card: whole training steps under ZeRO-3, with each method and plainly summed.

Three tasks with their heads on random images, nothing loaded, about 25,000 tokens a task: smaller
micro-batches wait for the host. The variants take turns, in another order each round; `ratio` is the median
over the rounds of a step over the plain step of its round. What a method adds is timed by itself too, with
the device done before and after: making room for each task's gradient, copying, measuring and combining; as a
share of the plain step it is free of the noise between steps. One JSON line each.
"""

import argparse
import random
import statistics
import time

import clock
import torch
import workload
from balancing import PLAIN, Sum, plain_step
from trunk import TOY, join_world_of_one

from ufo_large.balancing import METHODS
from ufo_large.distributed.task_gradients import TaskGradients
from ufo_large.models.checkpointing import CHECKPOINTING

MEASURING = 45.0  # seconds of a process, at most
METHODS_TIMED = ("tbgn", "pcgrad", "nash_mtl")
SIDES = {"cls": 224, "dec": 1022, "seg": 518}  # pixels
IMAGES = {"cls": 96, "dec": 5, "seg": 18}
TOY_SIDES = dict.fromkeys(SIDES, 28)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", choices=("ViT-g/14", "ViT-G/14"), default="ViT-g/14")
    parser.add_argument("--router", choices=("shared", "task"), default="task")
    parser.add_argument("--mode", choices=CHECKPOINTING, default="none", help="checkpointing")
    parser.add_argument("--rounds", type=int, default=24, help="fewer where the time runs out")
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--wait", action="store_true", help="begin when standard input says so")
    args = parser.parse_args()
    if args.wait:
        clock.wait()
    join_world_of_one()
    seconds: dict[str, list[float]] = {}
    with clock.row(method=f"built: {args.preset}, {args.router}, {args.mode}") as found:
        variants, model, gradients = build(args)
        found["parameters, B"] = sum(p.ds_numel for p in model.parameters()) / 1e9
        found["shared, B"] = gradients.store.shared_numel / 1e9
        seconds = take_turns(variants, 2 if args.toy else args.rounds)
    for name, spent in seconds.items():
        with clock.row(method=name) as found:
            found["seconds"], found["rounds"] = statistics.median(spent), len(spent)
            found["ratio"] = statistics.median(s / p for s, p in zip(spent, seconds[PLAIN], strict=True))
            if torch.cuda.is_available():
                found["peak GiB"] = torch.cuda.max_memory_allocated() / 2**30
    for name in METHODS_TIMED if seconds else ():
        with clock.row(method=f"{name}, what it adds") as found:
            found["seconds"] = statistics.median(seconds_added(variants[name], gradients) for _ in range(3))
            found["ratio"] = 1 + found["seconds"] / statistics.median(seconds[PLAIN])


def build(args: argparse.Namespace) -> tuple[dict, torch.nn.Module, TaskGradients]:
    """Return the variants of a step, by name, the model, and what measures its task gradients."""
    shape = TOY if args.toy else {}
    ds = workload.read_ds("zero3_bf16")
    trunk = workload.trunk_config(args.preset, args.router, args.mode, **shape)
    model = workload.build_model(workload.model_config(trunk, 32 if args.toy else 256), ds)
    engine = workload.build_engine(model, ds, clock.device())
    shapes = (TOY_SIDES, dict.fromkeys(SIDES, 2)) if args.toy else (SIDES, IMAGES)
    runner = workload.build_runner(engine, *shapes)
    runner.log_every = 10**9  # nobody looks: what a method does not read is not measured for the log
    rates, tasks = workload.rates(engine, model, 1e-6), tuple(SIDES)
    measured, summed = runner.gradients, Sum(runner.gradients.store)

    def plain(turn: int) -> None:
        runner.gradients = summed
        plain_step(runner, rates)

    def balanced(name: str):
        balancer = METHODS[name].Config().build(tasks, 0)

        def step(turn: int) -> None:
            runner.gradients, runner.balancer = measured, balancer
            runner.run(turn, rates)

        return step

    return {PLAIN: plain} | {name: balanced(name) for name in METHODS_TIMED}, model, measured


def take_turns(variants: dict, rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Return seconds a step of each variant; the first rounds do not count, ZeRO-3 learns its order there."""
    seconds, order, shuffle = {name: [] for name in variants}, list(variants), random.Random(0)
    end = time.perf_counter() + MEASURING
    for turn in range(warm_up + rounds):
        shuffle.shuffle(order)
        if turn > warm_up + 2 and time.perf_counter() > end:
            break
        for name in order:
            clock.synchronise()
            start = time.perf_counter()
            variants[name](turn)
            clock.synchronise()
            seconds[name] += [time.perf_counter() - start] if turn >= warm_up else []
    return seconds


def seconds_added(step, gradients: TaskGradients) -> float:
    """Return the seconds of one step that go into separating, measuring and combining task gradients."""
    names = ("begin_task", "end_task", "measure", "combine")
    return sum(clock.parts({gradients: names}, lambda: step(0)).values())


if __name__ == "__main__":
    main()
