"""What does balancing cost? Step time of each method over plain summing of the same losses, in one run.

    deepspeed --num_gpus 2 benchmarks/balancing.py --data SHARDS [--recipe demo] [--ds zero3_fp32] [--write]

One model, one ZeRO-3 engine, the same batches again and again. Plain summing runs the tasks one after the
other and lets DeepSpeed add their gradients; nothing is measured and nothing copied. The variants take turns
step by step, so that a busy moment of the machine hits all alike. Times are of the slowest rank.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist

from ufo_large.balancing import METHODS
from ufo_large.config import apply_overrides
from ufo_large.data.shards import ShardSet
from ufo_large.distributed import comm, ds_config, zero
from ufo_large.recipes import load_recipe
from ufo_large.structures import TaskBatch
from ufo_large.tracking.environment import describe_environment
from ufo_large.train.run import build, trained_tasks
from ufo_large.train.steps import Feed, StepRunner

ROOT = Path(__file__).resolve().parent
COUNTED = ("all_gather_into_tensor", "all_gather", "reduce_scatter_tensor", "all_reduce", "broadcast")
SHOWN = ("fixed", "tbgn", "tbgc", "gradnorm", "pcgrad", "mgda", "cagrad", "nash_mtl", "aligned_mtl", "upgrad")


class Repeat:
    """A loader that hands out one batch for ever."""

    def __init__(self, batch: TaskBatch):
        self.batch = batch

    def __next__(self) -> TaskBatch:
        return self.batch


def plain_step(runner: StepRunner, rates: list[float]) -> None:
    """Sum the losses of all tasks the ordinary way."""
    store, engine = runner.gradients.store, runner.engine
    store.begin_step()
    store.begin_task("all")
    losses = []
    for task, count in runner.mix.next(0).items():
        for _ in range(count):
            values = engine(next(runner.feeds[task].loader).to(engine.device))
            total = torch.stack([v.float() for v in values.values()]).sum() / count
            engine.backward(total)
            store.after_backward()
            losses.append(total.detach())
    comm.all_reduce_mean(torch.stack(losses))
    store.finish()
    engine.step(rates)


def count_collectives(counts: dict[str, int]) -> None:
    """Make every collective of torch.distributed add one to `counts`."""
    for name in COUNTED:
        original = getattr(dist, name)

        def counted(*args, _original=original, _name=name, **options):
            counts[_name] = counts.get(_name, 0) + 1
            return _original(*args, **options)

        setattr(dist, name, counted)


def slowest(seconds: float) -> float:
    value = torch.tensor(seconds, dtype=torch.float64)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return float(value)


def measure(variants: dict[str, Callable[[], None]], rounds: int, warmup: int) -> dict[str, list[float]]:
    """Return each variant's seconds a step, of the slowest rank; the variants take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warmup + rounds):
        for name, step in variants.items():
            comm.barrier()
            start = time.perf_counter()
            step()
            spent = slowest(time.perf_counter() - start)
            if turn >= warmup:
                seconds[name].append(spent)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--ds", default="zero3_fp32")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=SHOWN)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    args = parser.parse_args()

    counts: dict[str, int] = {}
    count_collectives(counts)
    config = apply_overrides(load_recipe(args.recipe), args.set)
    device, shards = zero.init_distributed(), ShardSet.open(args.data)
    tasks = trained_tasks(shards)
    ds = ds_config.read(ROOT.parent / "ds_configs" / f"{args.ds}.json")
    trainer = build(config, tasks, shards, ds, device)
    trainer.model.train()
    rates = [config.optimizer.learning_rate * s for s in trainer.rate_scales]
    frozen = {
        t: Feed(loader=Repeat(next(f.loader)), stages=f.stages) for t, f in trainer.runner.feeds.items()
    }
    runner = StepRunner(trainer.runner.engine, frozen, trainer.runner.balancer, config.steps)
    balancers = {n: METHODS[n].Config().build(tuple(frozen), 0) for n in args.methods}

    def balanced(name: str) -> Callable[[], None]:
        def step() -> None:
            runner.balancer = balancers[name]
            runner.run(0, rates)

        return step

    variants = {"plain": lambda: plain_step(runner, rates)} | {n: balanced(n) for n in args.methods}
    seconds = measure(variants, args.rounds, args.warmup)
    collectives = {}
    for name in ("plain", args.methods[0]):
        counts.clear()
        variants[name]()
        collectives[name] = sum(counts.values())
    if comm.is_main():
        report(args, seconds, collectives, runner, config.model.trunk.checkpointing)


def report(args: argparse.Namespace, seconds: dict, collectives: dict, runner: StepRunner, mode: str) -> None:
    base = seconds["plain"]
    rows = []
    for name, values in seconds.items():
        ratios = [v / b for v, b in zip(values, base, strict=True)]
        rows.append((name, statistics.median(values), min(values), max(values), statistics.median(ratios)))
    environment = describe_environment()
    copies = runner.gradients._rows
    lines = [
        "# Balancing: step time over plain summing",
        "",
        f"`deepspeed --num_gpus {comm.world_size()} benchmarks/balancing.py --recipe {args.recipe} "
        f"--ds {args.ds} --rounds {args.rounds}` on {environment['hardware']['processor']}, "
        f"{environment['hardware']['cores']} cores, {comm.world_size()} ranks, torch {torch.__version__}, "
        f"commit {environment['commit']['hash'][:7]}, checkpointing {mode}.",
        "",
        f"Warm-up {args.warmup} rounds, then {args.rounds} rounds in which the variants take turns. The "
        "ratio is the median over rounds of a method's step over the plain step of the same round.",
        "",
        "| method | median s | min | max | over plain |",
        "| --- | ---: | ---: | ---: | ---: |",
        *[f"| {n} | {m:.3f} | {lo:.3f} | {hi:.3f} | {r:.3f} |" for n, m, lo, hi, r in rows],
        "",
        f"Collectives a step: plain {collectives['plain']}, any method {collectives[args.methods[0]]}. Extra "
        f"memory of any method: {copies.nbytes / 2**20:.1f} MiB a rank ({len(copies)} float32 copies of its "
        "shard of the shared parameters).",
    ]
    text = "\n".join(lines)
    print(text)
    if args.write:
        file = ROOT / "results" / f"balancing_{platform.machine()}_{time.strftime('%Y%m')}.md"
        file.write_text(text + "\n")
    if args.json:
        print(json.dumps({"ratios": {n: r for n, *_, r in rows}, "collectives": collectives}))


if __name__ == "__main__":
    main()
