"""What does balancing cost? Step time of each method over plain summing of the same losses, in one run.

    deepspeed --num_gpus 2 benchmarks/balancing.py --data SHARDS [--minutes 6] [--write] [--json]

One model, one ZeRO-3 engine, the same batches again and again. Plain summing runs the tasks one after the
other and lets DeepSpeed add their gradients; nothing is measured and nothing copied. The variants take turns
step by step, in another order each round, until the minutes are over, so that a busy moment of the machine
hits all alike. Wall time is of the slowest rank. Processor time is the sum over the ranks: it does not count
waiting, so it is the steadier of the two where other programs share the cores.
"""

import argparse
import json
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from one_rank import Collectives
from workload import Repeat

from ufo_large.balancing import METHODS, Balancer, method
from ufo_large.config import apply_overrides
from ufo_large.data.shards import ShardSet
from ufo_large.distributed import comm, ds_config, zero
from ufo_large.distributed.task_gradients import GradientStore, TaskGradients
from ufo_large.recipes import load_recipe
from ufo_large.tracking.environment import commit_text, describe_environment
from ufo_large.train.run import build, train_readers, trained_tasks
from ufo_large.train.steps import Feed, StepRunner

ROOT = Path(__file__).resolve().parent
PLAIN = "plain sum"
NORMALISATION = ("tbgn",)
GRAM = ("pcgrad", "mgda", "cagrad", "nash_mtl", "aligned_mtl", "upgrad")
EVERY = 4
PARTS = {"begin_task": "zero", "end_task": "copy", "measure": "measure", "combine": "combine"}


class Clock:
    """Processor seconds of this rank inside named parts of a step."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    @contextmanager
    def of(self, part: str):
        start = time.process_time()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - start

    def watch(self, owner: object, method: str, part: str) -> None:
        """Time every call of a method of one object."""
        original = getattr(owner, method)

        def timed(*args, **options):
            with self.of(part):
                return original(*args, **options)

        setattr(owner, method, timed)


class Sum:
    """In the place of TaskGradients: DeepSpeed adds the tasks' gradients, the ordinary way."""

    def __init__(self, store: GradientStore):
        self.store = store
        self.after_backward = store.after_backward
        self._orders = getattr(store, "_orders", None)
        self._sum_S = torch.zeros(store.shared_numel, device=store.device)

    def begin_step(self) -> None:
        self.store.begin_step()
        self.store.begin_task("all", self._sum_S)

    def begin_task(self, task: str) -> None:
        if self._orders is not None:  # plain summing too fetches each task's parameters in its own order
            self._orders.use(task)

    def end_task(self) -> None:
        """Nothing is copied."""


def plain_step(runner: StepRunner, rates: list[float]) -> None:
    """Take the step of StepRunner.run without its balance: the same losses, the same log of them."""
    runner.gradients.begin_step()
    losses = {}
    for task, count in runner.mix.next(0).items():
        if count:
            losses |= runner._run_task(0, task, count)
    comm.all_reduce_mean(torch.stack([v.double() for v in losses.values()])).tolist()
    runner.gradients.store.finish()
    runner.engine.step(rates)


def measure(
    variants: dict[str, Callable[[int], None]], minutes: float, rounds: int, warmup: int
) -> dict[str, list[tuple[float, float]]]:
    """Return each variant's (wall seconds of the slowest rank, processor seconds of all ranks) a step."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    order, shuffle = list(variants), random.Random(0)
    begun = time.perf_counter()
    for turn in range(warmup + rounds):
        shuffle.shuffle(order)
        for name in order:
            comm.barrier()
            wall, processor = time.perf_counter(), time.process_time()
            variants[name](turn)
            spent = (time.perf_counter() - wall, time.process_time() - processor)
            by_rank = comm.all_gather_objects(spent)
            if turn >= warmup:
                seconds[name].append((max(w for w, _ in by_rank), sum(p for _, p in by_rank)))
        over = time.perf_counter() - begun > 60 * minutes
        if turn >= warmup and comm.all_gather_objects(over)[0]:
            break
    return seconds


def collectives_of(step: Callable[[int], None], turn: int) -> int:
    with Collectives() as seen:
        step(turn)
    return sum(seen.calls.values())


def arithmetic_ms(name: str, tasks: tuple[str, ...], calls: int = 50) -> float:
    """Return a method's own milliseconds a step: from a Gram matrix to the weights."""
    from ufo_large.testing.balancing import random_gradients, signals

    balancer, spent = METHODS[name].Config().build(tasks, 0), []
    for step in range(calls):
        rows = random_gradients(len(tasks), 8, step)
        given = signals(tasks, [1.0 + step % 3] * len(tasks), rows @ rows.T, step)
        start = time.perf_counter()
        balancer(given)
        spent.append(time.perf_counter() - start)
    return 1e3 * statistics.median(spent)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--ds", default="zero3_fp32")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--minutes", type=float, default=6.0, help="stop after the round that passes this")
    parser.add_argument("--rounds", type=int, default=40, help="at most")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--methods", nargs="*", default=["fixed", *NORMALISATION, *GRAM])
    parser.add_argument("--write", action="store_true", help="the note's remarks are kept")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        for name in args.methods:
            method(name)
    except ValueError as error:
        parser.error(str(error))
    return args


def balancers_of(methods: list[str], tasks: tuple[str, ...]) -> dict[str, Balancer]:
    """Return the methods to time, and the first Gram method measured every few steps only."""
    found = {name: METHODS[name].Config().build(tasks, 0) for name in methods}
    for name in [m for m in methods if m in GRAM][:1]:
        found[f"{name}, every {EVERY}"] = METHODS[name].Config(every_k_steps=EVERY).build(tasks, 0)
    return found


def main() -> None:
    args = arguments()
    try:
        config = apply_overrides(load_recipe(args.recipe), args.set)
        ds = ds_config.read(ROOT.parent / "ds_configs" / f"{args.ds}.json")
        shards = ShardSet.open(args.data)
        tasks = trained_tasks(shards)
    except ValueError as error:
        sys.exit(f"error: {error}")
    device = zero.init_distributed()
    trainer = build(config, tasks, train_readers(shards, tasks), ds, device)
    trainer.model.train()
    rates = [config.optimizer.learning_rate * s for s in trainer.rate_scales]
    frozen = {
        t: Feed(loader=Repeat(next(f.loader)), stages=f.stages) for t, f in trainer.runner.feeds.items()
    }
    never = 10**9  # nobody looks: what a method does not read is not measured for the log
    runner = StepRunner(trainer.runner.engine, frozen, trainer.runner.balancer, config.steps, never)
    balancers, clocks = balancers_of(args.methods, tuple(frozen)), {}

    measured, summed = runner.gradients, Sum(runner.gradients.store)

    def plain(turn: int) -> None:
        runner.gradients = summed
        plain_step(runner, rates)

    def balanced(name: str) -> Callable[[int], None]:
        def step(turn: int) -> None:
            runner.gradients = measured
            clock.seconds = clocks.setdefault(name, {})
            runner.balancer = balancers[name]
            runner.run(turn, rates)

        return step

    clock = Clock()
    for call, part in PARTS.items():
        clock.watch(runner.gradients, call, part)
    variants = {PLAIN: plain} | {n: balanced(n) for n in balancers}
    seconds = measure(variants, args.minutes, args.rounds, args.warmup)
    turn = EVERY * args.rounds  # a step that everyone measures
    collectives = {n: collectives_of(v, turn) for n, v in variants.items()}
    parts = comm.all_gather_objects(clocks)
    if comm.is_main():
        taken = {n: args.warmup + len(seconds[PLAIN]) for n in balancers}
        report(args, seconds, collectives, shares(parts, seconds, taken), measured, config)


def shares(parts: list[dict], seconds: dict, taken: dict[str, int]) -> dict[str, dict[str, float]]:
    """Return, by method, the part of a plain step's processor time that each part of balancing takes."""
    plain = statistics.median(p for _, p in seconds[PLAIN])
    return {
        name: {part: sum(p[name][part] for p in parts) / (steps + 1) / plain for part in parts[0][name]}
        for name, steps in taken.items()
    }


def rows_of(seconds: dict, collectives: dict, extra_mib: float, tasks: tuple[str, ...]) -> list[dict]:
    plain, rows = seconds[PLAIN], []
    for name, values in seconds.items():
        wall = [w / base for (w, _), (base, _) in zip(values, plain, strict=True)]
        processor = [p / base for (_, p), (_, base) in zip(values, plain, strict=True)]
        plain_name = name.partition(",")[0]
        rows.append(
            {
                "method": name,
                "seconds": statistics.median(w for w, _ in values),
                "wall": statistics.median(wall),
                "wall_quartiles": statistics.quantiles(wall, n=4)[::2] if len(wall) > 1 else [wall[0]] * 2,
                "processor": statistics.median(processor),
                "arithmetic_ms": arithmetic_ms(plain_name, tasks) if plain_name in METHODS else 0.0,
                "extra_mib": extra_mib if plain_name in METHODS else 0.0,
                "extra_collectives": collectives[name] - collectives[PLAIN],
            }
        )
    return rows


def report(args, seconds: dict, collectives: dict, parts: dict, gradients: TaskGradients, config) -> None:
    found, extra_mib = describe_environment(), gradients._rows.nbytes / 2**20
    rows = rows_of(seconds, collectives, extra_mib, gradients.tasks)
    cells = [
        f"| {r['method']} | {r['seconds']:.3f} | {r['wall']:.3f} | {r['wall_quartiles'][0]:.3f} to "
        f"{r['wall_quartiles'][1]:.3f} | {r['processor']:.3f} | {r['arithmetic_ms']:.2f} | "
        f"{r['extra_mib']:.1f} | {r['extra_collectives']} |"
        for r in rows
    ]
    names = list(dict.fromkeys(PARTS.values()))
    shown = [
        f"| {n} | {' | '.join(f'{p.get(k, 0):.2%}' for k in names)} | {sum(p.values()):.2%} |"
        for n, p in parts.items()
    ]
    lines = [
        "# Balancing: step time over plain summing",
        "",
        f"`deepspeed --num_gpus {comm.world_size()} benchmarks/balancing.py --recipe {args.recipe} --ds "
        f"{args.ds} --minutes {args.minutes:g}` on {found['hardware']['processor']}, "
        f"{found['hardware']['cores']} cores, {comm.world_size()} ranks, torch {torch.__version__}, commit "
        f"{commit_text(found['commit'])}, "
        f"checkpointing {config.model.trunk.checkpointing}.",
        "",
        f"Warm-up {args.warmup} rounds, then {len(seconds[PLAIN])} rounds in which the variants take turns "
        "in random order. Ratios are medians over the rounds of a method's step over the plain step of the "
        "same round: wall time of the slowest rank (with quartiles), processor time of all ranks. Then the "
        "method's own arithmetic on the Gram matrix, extra memory of a rank (float32 copies of its shard of "
        f"the shared parameters, one a task), extra collectives a step beside {collectives[PLAIN]}.",
        "",
        "| method | s a step | wall | quartiles | processor | own ms | extra MiB | extra collectives |",
        "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
        *cells,
        "",
        "Where the processor time goes, in parts of a plain step: zeroing between tasks, copying a task's "
        "gradient, measuring (Gram matrix or norms, one all-reduce), combining and writing back.",
        "",
        f"| method | {' | '.join(names)} | together |",
        f"| --- | {' | '.join('---:' for _ in names)} | ---: |",
        *shown,
    ]
    text = "\n".join(lines)
    print(text, flush=True)
    if args.write:
        file = ROOT / "results" / f"balancing_{platform.machine()}_{time.strftime('%Y%m')}.md"
        remarks = file.read_text().partition("\n## ")[1:] if file.exists() else ()
        file.write_text(text + "\n" + "".join(remarks))
    if args.json:
        print(json.dumps({"rounds": len(seconds[PLAIN]), "rows": rows, "parts": parts}), flush=True)


if __name__ == "__main__":
    main()
