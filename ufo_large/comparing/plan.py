"""The runs of a comparison: which rows there are, and what each says to the trainer."""

import hashlib
import re
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.balancing import METHODS
from ufo_large.comparing.one_task import one_task_view, require_local, single_overrides
from ufo_large.comparing.options import BALANCER, CONSTANTS, ROUTER, Component, Options
from ufo_large.config import apply_overrides
from ufo_large.data.shard_index import DATASET_FILE
from ufo_large.data.shards import ShardSet
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo
from ufo_large.train.run import trained_tasks

SUM, BEST, SINGLE, BOTH = "plain sum", "best", "single: ", "both: "
RECIPE, CHANGE, CHANGES = "recipe", "change: ", "changes"
SHARED, FIXED = f"{ROUTER}=shared", f"{BALANCER}=fixed"
TUNED_BY = 3.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One training: `label` and `seed` name it, `overrides` go to --set, `data` are its shards.

    `settings`: those of the overrides that all rows have.
    """

    label: str
    seed: int
    recipe: str
    recipe_name: str
    data: Path
    overrides: tuple[str, ...]
    settings: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it goes, below the comparison's folder."""
        return Path(re.sub(r"[^\w.]+", "-", self.label).strip("-")) / f"seed{self.seed}"

    @property
    def plan(self) -> dict[str, Any]:
        return {"recipe": self.recipe_name, "seed": self.seed, "overrides": list(self.overrides)}


class Plan:
    """Every run that the options ask for. A row is the runs of one label, one per seed."""

    def __init__(self, options: Options):
        require_local(options.data)
        self.options, self.common, self.config = options, options.common, options.config()
        self.routers, self.balancers = options.chosen_routers, options.chosen_balancers
        self.tasks = trained_tasks(ShardSet.open(options.data))
        if len(self.tasks) < 2:
            raise ValueError(f"--data {options.data}: one task, {self.tasks[0].name}, has nothing to compare")

    def known_rows(self) -> list[list[Run]]:
        """Return the rows that need no other row's result: single tasks, the plain sum, each component.

        Of single tasks only those that are asked for: not every recipe can be trained on one task.
        """
        only = self.options.only or self.single_labels
        rows = [self.single(info) for info in self.tasks if f"{SINGLE}{info.name}" in only]
        rows.append(self.joint(SUM, SHARED, FIXED))
        rows += [self.joint(f"router: {c}", *self._router(c), FIXED) for c in self.routers]
        measured = [c for c in self.balancers if c.name != CONSTANTS]
        rows += [self.joint(f"balancer: {c}", SHARED, *self._balancer(c)) for c in measured]
        return rows + [self.pair(*pair) for pair in self.options.chosen_pairs] + self.changed()

    def changed(self) -> list[list[Run]]:
        """Return the recipe's own row and those with one setting changed; none without changes."""
        rows = [self.joint(f"{CHANGE}{setting}", setting) for setting in dict.fromkeys(self.options.changes)]
        return [self.joint(RECIPE), *rows] if rows else []

    def require_change(self, run: Run, config: RunConfig) -> None:
        """Raise ValueError for a row of a change whose config is the recipe's own."""
        if run.label.startswith(CHANGE) and config == apply_overrides(self.config, [f"seed={run.seed}"]):
            raise ValueError("the recipe says so already; leave the change out")

    def single(self, info: TaskInfo) -> list[Run]:
        view = one_task_view(Path(self.options.data), info.name, self.options.out / "shards")
        overrides = (SHARED, FIXED, *single_overrides(self.config, info))
        return [self._run(f"{SINGLE}{info.name}", seed, overrides, view) for seed in self.seeds]

    def joint(self, label: str, *overrides: str) -> list[Run]:
        return [self._run(label, seed, overrides) for seed in self.seeds]

    def pair(self, router: Component, balancer: Component) -> list[Run]:
        return self.joint(f"{BOTH}{router} + {balancer}", *self._router(router), *self._balancer(balancer))

    def best(self, router: Run, balancer: Run) -> list[Run]:
        """Return the row that has the router of one run and the balancer of another."""
        routed = [o for o in self._own(router) if o != FIXED]
        balanced = [o for o in self._own(balancer) if o != SHARED]
        name = f"{router.label.removeprefix('router: ')} + {balancer.label.removeprefix('balancer: ')}"
        return self.joint(f"{BOTH}{name}", *routed, *balanced)

    def constants(self, weights: Mapping[str, float]) -> list[Run]:
        words = tuple(f"{BALANCER}.by_task.{task}={weight:.3g}" for task, weight in weights.items())
        label = f"{CONSTANTS} " + " ".join(f"{task}{weight:.3g}" for task, weight in weights.items())
        return self.joint(label, SHARED, FIXED, *words)

    def candidates(self, grad_norms: Mapping[str, float]) -> Iterator[list[Run]]:
        """Yield rows of constants to choose from: equal gradient lengths, each task three times and a third.

        `grad_norms`: each task's typical gradient norm under the plain sum.
        """
        yield self.constants(equal_lengths(grad_norms))
        names = [info.name for info in self.tasks]
        for name in names:
            for factor in (TUNED_BY, 1 / TUNED_BY):
                yield self.constants({task: factor if task == name else 1.0 for task in names})

    def config_of(self, run: Run) -> RunConfig:
        """Return the whole config of a run; ValueError where a setting does not fit."""
        return apply_overrides(self.config, [*self._own(run), f"seed={run.seed}"])

    def tasks_of(self, run: Run) -> tuple[TaskInfo, ...]:
        return tuple(t for t in self.tasks if not is_single(run.label) or run.label == f"{SINGLE}{t.name}")

    @property
    def single_labels(self) -> list[str]:
        return [f"{SINGLE}{info.name}" for info in self.tasks]

    @property
    def seeds(self) -> range:
        return range(self.options.first_seed, self.options.first_seed + self.options.seeds)

    def _own(self, run: Run) -> tuple[str, ...]:
        return run.overrides[len(self.common) :]

    def _router(self, chosen: Component) -> tuple[str, ...]:
        return chosen.overrides(ROUTER, self.config.model.trunk.router, ROUTERS)

    def _balancer(self, chosen: Component) -> tuple[str, ...]:
        return chosen.overrides(BALANCER, self.config.balancer, METHODS)

    def _run(self, label: str, seed: int, overrides: tuple[str, ...], data: Path | None = None) -> Run:
        return Run(
            label=label,
            seed=seed,
            recipe=self.options.recipe,
            recipe_name=self.options.recipe_name,
            data=data or Path(self.options.data),
            overrides=(*self.common, *overrides),
            settings=self.common,
        )


def scored_splits(data: str) -> tuple[str, ...]:
    """Return val, on which choices are made, and test where each task has it labelled."""
    shards = ShardSet.open(data)

    def lacking(split: str) -> list[str]:
        tasks = (t.name for t in trained_tasks(shards))
        return [t for t in tasks if not (shards.has_split(t, split) and shards.split(t, split).labeled)]

    if without := lacking("val"):
        raise ValueError(
            f"--data {data}: no labelled val split of {', '.join(without)}, on which the best router and "
            "balancer are chosen; make the shards with make_shards.py --val-share 0.15"
        )
    return ("val",) if lacking("test") else ("val", "test")


def data_hash(shards: Path) -> str:
    """Return what tells shards apart."""
    return hashlib.sha256((shards / DATASET_FILE).read_bytes()).hexdigest()[:16]


def is_single(label: str) -> bool:
    """Whether a row trains one task alone."""
    return label.startswith(SINGLE)


def equal_lengths(norms: Mapping[str, float]) -> dict[str, float]:
    """Return constants in proportion to 1 / (typical gradient norm), geometric mean 1."""
    middle = statistics.geometric_mean(norms.values())
    return {task: float(f"{middle / norm:.3g}") for task, norm in norms.items()}
