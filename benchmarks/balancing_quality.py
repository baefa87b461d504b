"""Does balancing help on real data? Single tasks, plain sum, tuned constants and balancers, several seeds.

    python benchmarks/balancing_quality.py --data SHARDS --out RUNS [--steps N] [--seeds 0 1 2] [--jobs 1]
    python benchmarks/balancing_quality.py --data SHARDS --out RUNS --table      # what is there so far
    python benchmarks/balancing_quality.py --data SHARDS --out RUNS --records FILE --only pcgrad upgrad

Every run trains the same recipe on the same batches' order for its seed; only the balancer differs. A
single-task run sees its task as often as the joint run does. The tuned constants are the best of a few by the
mean score on the val split (first seed): each task three times, each a third, and those that make the plain
sum's gradients equally long on average. All others keep their defaults, so the constants get the most care.

delta-m is the mean over the metrics of the relative gain over the single-task runs (their mean over the
seeds). Give the same command again after an interruption: finished runs are skipped, others go on. --records
keeps what the table needs of every finished run, so that the work can be split over days and machines.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Mapping
from datetime import date
from pathlib import Path

from run_queue import PROTOCOL, Run, RunQueue

from ufo_large.balancing import METHODS
from ufo_large.config import apply_overrides
from ufo_large.data.shards import ShardSet
from ufo_large.evaluation.compare import delta_m
from ufo_large.recipes import load_recipe
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo
from ufo_large.tracking.environment import commit_text, describe_environment
from ufo_large.tracking.panels import headlines
from ufo_large.train.run import trained_tasks

RESULTS = Path(__file__).parent / "results"
GRAM = ("pcgrad", "nash_mtl", "upgrad")
SUM, STATIC = "plain sum", "tuned constants"
TUNED_BY = 3.0


class Comparison:
    """The runs of one comparison, by label."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.queue = RunQueue(args.out, args.jobs, args.ranks, args.records)
        self.overrides = [*args.set, *([f"steps={args.steps}"] if args.steps else [])]
        self.config = apply_overrides(load_recipe(args.recipe), self.overrides)
        shards = ShardSet.open(args.data)
        self.tasks = trained_tasks(shards)
        self.default = next(n for n, cls in METHODS.items() if isinstance(self.config.balancer, cls.Config))

    def singles(self) -> list[Run]:
        found = []
        for info in self.tasks:
            data = str(one_task_view(Path(self.args.data), info.name, self.args.out / "shards"))
            overrides = (*self.overrides, *single_overrides(self.config, info))
            found += self._seeds(f"single: {info.name}", overrides, data)
        return found

    def joint(self) -> list[Run]:
        """Return the plain sum, the default as the recipe has it, and the other methods."""
        runs = self._seeds(SUM, (*self.overrides, "balancer=fixed"))
        runs += self._seeds(f"{self.default} (default)", tuple(self.overrides))
        if self.args.heads_too:
            scaled = (*self.overrides, "balancer.scale_private=true")
            runs += self._seeds(f"{self.default}, heads and experts scaled too", scaled)
        for name in self.args.methods:
            runs += self._seeds(name, (*self.overrides, f"balancer={name}"))
        return runs

    def candidates(self) -> list[Run]:
        """Return the first seed's runs with constants; the plain sum of that seed is finished."""
        plain = next(r for r in self.joint() if r.label == SUM)
        choices = [dict.fromkeys((t.name for t in self.tasks), 1.0) | self._equal_lengths(plain)]
        for info in self.tasks:
            for factor in (TUNED_BY, 1 / TUNED_BY):
                choices.append({t.name: factor if t is info else 1.0 for t in self.tasks})
        return [self._constants(c, self.args.seeds[0]) for c in choices]

    def _equal_lengths(self, plain: Run) -> dict[str, float]:
        return equal_lengths(self.queue.traits(plain)["grad_norm"])

    def _constants(self, weights: Mapping[str, float], seed: int) -> Run:
        settings = tuple(f"balancer.by_task.{t}={w:.3g}" for t, w in weights.items())
        label = "constants " + " ".join(f"{t}{w:.3g}" for t, w in weights.items())
        return self._run(label, seed, (*self.overrides, "balancer=fixed", *settings))

    def tuned(self) -> list[Run]:
        """Return the best constants' runs of all seeds; the candidates are finished."""
        plain = next(r for r in self.joint() if r.label == SUM)
        tried = [plain, *self.candidates()]
        best = max(tried, key=lambda run: self.queue.result(run, "val")["score"])
        return [self._run(best.label, seed, best.overrides) for seed in self.args.seeds]

    def _seeds(self, label: str, overrides: tuple[str, ...], data: str | None = None) -> list[Run]:
        return [self._run(label, seed, overrides, data) for seed in self.args.seeds]

    def _run(self, label: str, seed: int, overrides: tuple[str, ...], data: str | None = None) -> Run:
        recipe = self.args.recipe
        return Run(
            label=label, seed=seed, recipe=recipe, data=data or self.args.data, overrides=tuple(overrides)
        )

    def work(self) -> None:
        """Do all that is left to do, seed by seed: what an interruption leaves can be compared."""
        runs = [*self.singles(), *self.joint()]
        labels = [*dict.fromkeys(run.label for run in runs), STATIC]
        wanted = self.args.only or labels
        if unknown := [label for label in wanted if label not in labels]:
            raise ValueError(f"--only: no such rows: {unknown}; there are {labels}")
        chosen = sorted((r for r in runs if r.label in wanted), key=lambda r: self.args.seeds.index(r.seed))
        self.queue.work(chosen)
        if STATIC in wanted:
            self.queue.work([next(r for r in runs if r.label == SUM)])
            self.queue.work(self.candidates())
            self.queue.work(self.tuned())

    def rows(self) -> dict[str, list[Run]]:
        """Return the runs of every row of the table; the tuned constants only once they are known."""
        rows: dict[str, list[Run]] = {}
        for run in [*self.singles(), *self.joint()]:
            rows.setdefault(run.label, []).append(run)
        plain = rows[SUM][0]
        if self.queue.is_there(plain) and all(map(self.queue.is_there, self.candidates())):
            rows[STATIC] = self.tuned()
        return rows


def single_overrides(config: RunConfig, info: TaskInfo) -> list[str]:
    """Return the settings under which one task alone gets as many micro-batches as beside the others."""
    stages = config.task(info).stages
    if all(count >= 1 for _, count in stages):
        return []
    if len(stages) > 1:
        raise ValueError(
            f"task {info.name!r} rests at times ({stages}); a single-task run of it is not clear"
        )
    key = next(key for key in (info.name, info.kind) if key in config.tasks)
    return [f"steps={round(config.steps * stages[0][1])}", f"tasks.{key}.micro_batches=1"]


def one_task_view(shards: Path, task: str, folder: Path) -> Path:
    """Make a folder of shards that shows only one task of `shards`; nothing is copied."""
    view = folder / task
    view.mkdir(parents=True, exist_ok=True)
    whole = json.loads((shards / "dataset.json").read_text())
    whole["tasks"] = [t for t in whole["tasks"] if t["name"] == task]
    whole["splits"] = {task: whole["splits"][task]}
    (view / "dataset.json").write_text(json.dumps(whole))
    if not (view / task).is_symlink():
        (view / task).symlink_to((shards / task).resolve(), target_is_directory=True)
    return view


def equal_lengths(norms: Mapping[str, float]) -> dict[str, float]:
    """Return constants in proportion to 1 / (typical gradient norm), geometric mean 1."""
    middle = statistics.geometric_mean(norms.values())
    return {task: float(f"{middle / norm:.3g}") for task, norm in norms.items()}


def summarise(comparison: Comparison) -> list[dict]:
    """Return a row a label: metrics and delta-m, mean and standard deviation over the finished seeds."""
    queue, rows = comparison.queue, comparison.rows()
    there = {label: [run for run in runs if queue.is_there(run)] for label, runs in rows.items()}
    found = {label: [queue.result(run, "test") for run in runs] for label, runs in there.items()}
    alone = {label for label in found if label.startswith("single")}
    singles = [r for label in alone for r in found[label]]
    summary = []
    for label, results in found.items():
        row = {"label": label, "seeds": len(results)}
        if label == STATIC:
            row["label"] = f"{STATIC}: {rows[label][0].label.removeprefix('constants ')}"
        for metric in headlines():
            row[metric] = spread([r[metric] for r in results if r.get(metric) is not None])
        gains = [] if label in alone else [delta_m(r, singles) for r in results]
        row["delta_m"] = spread([g for g in gains if g is not None])
        row["ahead"] = paired(there[label], there[SUM], queue) if label not in alone else None
        traits = [queue.traits(run) for run in there[label]]
        conflicts = [t["conflict_rate"] for t in traits if t["conflict_rate"] is not None]
        row["conflict_rate"] = statistics.mean(conflicts) if conflicts else None
        summary.append(row)
    return summary


def spread(values: list[float]) -> tuple[float, float] | None:
    if not values:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def paired(runs: list[Run], others: list[Run], queue: RunQueue) -> tuple[float, float] | None:
    """Return the lead in the mean of the metrics over the others at equal seeds: mean, standard error."""
    base = {run.seed: queue.result(run, "test")["score"] for run in others}
    apart = [queue.result(run, "test")["score"] - base[run.seed] for run in runs if run.seed in base]
    if runs == others or len(apart) < 2:
        return None
    return statistics.mean(apart), statistics.stdev(apart) / len(apart) ** 0.5


def table_of(summary: list[dict]) -> list[str]:
    """Return the Markdown table, figures in percent."""
    columns = {"top1": "Top-1", "map50": "mAP50", "miou": "mIoU", "score": "mean"}
    columns |= {"ahead": "above the sum", "delta_m": "delta-m"}
    lines = [
        f"| run | seeds | {' | '.join(columns.values())} | conflict |",
        "|---|---:|" + "---:|" * (len(columns) + 1),
    ]
    for row in summary:
        cells = [
            "" if row[key] is None else f"{100 * row[key][0]:.2f} ± {100 * row[key][1]:.2f}"
            for key in columns
        ]
        conflict = "" if row["conflict_rate"] is None else f"{row['conflict_rate']:.0%}"
        lines.append(f"| {row['label']} | {row['seeds']} | {' | '.join(cells)} | {conflict} |")
    return lines


def verdict(summary: list[dict]) -> str:
    """Return one sentence on who is first, whoever that is."""
    ranked = sorted((r for r in summary if r["delta_m"]), key=lambda r: -r["delta_m"][0])
    if len(ranked) < 2:
        return "Not enough runs to compare yet."
    first, second = ranked[:2]
    apart = first["delta_m"][0] - second["delta_m"][0]
    noise = max(first["delta_m"][1], second["delta_m"][1])
    sure = "more" if apart > noise else "less"
    return (
        f"First by delta-m: {first['label']}, then {second['label']}, {100 * apart:.2f} points behind, which "
        f"is {sure} than their spread over the seeds ({100 * noise:.2f})."
    )


def report(comparison: Comparison, summary: list[dict]) -> str:
    args, found = comparison.args, describe_environment()
    steps, settings = comparison.config.steps, "".join(f" --set {s}" for s in args.set)
    return "\n".join(
        [
            "# Does balancing help on real data?",
            "",
            f"`python benchmarks/balancing_quality.py --recipe {args.recipe} --steps {steps} --seeds "
            f"{' '.join(map(str, args.seeds))} --ranks {args.ranks}{settings}` "
            f"on {found['hardware']['processor']}, "
            f"{found['hardware']['cores']} cores, commit "
            f"{commit_text(found['commit'])}; protocol {PROTOCOL}, test split.",
            "",
            f"Per cent, mean and standard deviation over seeds. {steps} optimizer steps. Constants: the best "
            "on the val split of the plain sum, each task three times and a third, and equal gradient "
            "lengths. Above the sum: the mean's lead over the plain sum of the same seed, with its standard "
            "error. Conflict: the part of task pairs with a cosine below zero, mean over the steps.",
            "",
            *table_of(summary),
            "",
            verdict(summary),
        ]
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--out", required=True, type=Path, help="folder for the runs")
    parser.add_argument("--recipe", default="mini")
    parser.add_argument("--steps", type=int, help="optimizer steps of a joint run (default: the recipe's)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="*", default=list(GRAM), choices=METHODS, metavar="METHOD")
    parser.add_argument(
        "--heads-too",
        action="store_true",
        help="also the default that scales heads and experts with the trunk",
    )
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time")
    parser.add_argument("--ranks", type=int, default=2, help="ranks of a training")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value", help="for all runs")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="train only these rows of the table")
    parser.add_argument("--records", type=Path, metavar="FILE", help="JSON lines of finished runs, kept here")
    parser.add_argument("--table", action="store_true", help="train nothing, print what is there")
    parser.add_argument("--write", action="store_true", help="write the note under benchmarks/results")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    try:
        comparison = Comparison(args)
        if not args.table:
            comparison.work()
    except (RuntimeError, ValueError) as error:
        sys.exit(f"error: {error}")
    summary = summarise(comparison)
    text = report(comparison, summary)
    print(text)
    if args.write:
        name = f"balancing_quality_{args.recipe}_{platform.machine()}_{date.today():%Y%m}.md"
        (RESULTS / name).write_text(text + "\n")
    if args.json:
        print(json.dumps({"steps": comparison.config.steps, "rows": summary}))


if __name__ == "__main__":
    main()
