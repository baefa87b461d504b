"""What a comparison is asked for, and the components that its rows try."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ufo_large.balancing import METHODS
from ufo_large.config import apply_overrides, did_you_mean
from ufo_large.recipes import load_recipe
from ufo_large.routing import ROUTERS
from ufo_large.runs.config import RunConfig

ROUTER, BALANCER = "model.trunk.router", "balancer"
CONSTANTS = "constants"
OWN = {ROUTER: "--routers", BALANCER: "--balancers", "seed": "--seeds"}
"""Fields that the rows differ in, and the option that says how."""


@dataclass(frozen=True, slots=True)
class Component:
    """A router or balancer by name, with settings: written as `residual:fraction=0.5:blocks=3,5`."""

    name: str
    settings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ":".join((self.name, *self.settings))

    @classmethod
    def parse(cls, text: str, known: Mapping[str, object] | tuple[str, ...], option: str) -> "Component":
        """Read one; ValueError where no component has the name, or a setting is not `field=value`."""
        name, *settings = text.split(":")
        if name not in known:
            raise ValueError(f"{option} {text}: no {name!r}.{did_you_mean(name, known)}")
        for setting in settings:
            if "=" not in setting:
                raise ValueError(
                    f"{option} {text}: {setting!r} is no setting; write {name}:field=value, several as "
                    f"{name}:field=value:other=value"
                )
        return cls(name, tuple(settings))

    def overrides(self, field: str, of_recipe: Any, known: Mapping[str, type]) -> tuple[str, ...]:
        """Return the words for `--set` that choose it for `field`; the recipe's own keeps its settings."""
        is_its_own = type(of_recipe) is known[self.name].Config
        chosen = () if is_its_own else (f"{field}={self.name}",)
        return (*chosen, *(f"{field}.{setting}" for setting in self.settings))


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """`settings`: `a.b=value` for all rows. `routers`, `balancers`: as `Component.parse` reads them.

    `pairs`: a router and a balancer together, as `task+tbgn`. `changes`: `a.b=value`, each for one row beside
    the recipe's own.
    `seeds`: how many, from `first_seed`. `jobs`: trainings at a time, each of `ranks` processes (None: one a
    GPU, else one) on its own `cores` (None: all). `only`: labels of the rows to train; empty means all.
    """

    recipe: str
    data: str
    out: Path
    seeds: int = 3
    first_seed: int = 0
    jobs: int = 1
    ranks: int | None = None
    cores: int | None = None
    only: tuple[str, ...] = ()
    routers: tuple[str, ...] = ()
    balancers: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()

    def __post_init__(self):
        for name in ("seeds", "jobs", "ranks", "cores"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"--{name} {getattr(self, name)}: give 1 or more")
        if self.first_seed < 0:
            raise ValueError(f"--first-seed {self.first_seed}: give 0 or more")
        if self.first_seed and any(text.startswith(CONSTANTS) for text in self.balancers):
            raise ValueError(f"--first-seed {self.first_seed}: constants are tuned on seed 0; leave one out")
        for change in self.changes:
            if change.partition("=")[0] in ("seed", "patience"):
                raise ValueError(f"--changes {change}: rows have equal seeds and images; leave it out")
        for setting in self.settings:
            path = setting.partition("=")[0]
            for field, option in OWN.items():
                if path == field or path.startswith(f"{field}."):
                    raise ValueError(
                        f"--set {setting}: the rows differ in {field}; say it with {option}"
                        f"{'' if field == 'seed' else ' NAME:field=value'}"
                    )

    @property
    def chosen_routers(self) -> list[Component]:
        """Return the routers to try; `shared` is the plain sum's and no row of its own."""
        found = [Component.parse(text, ROUTERS, "--routers") for text in dict.fromkeys(self.routers)]
        return [c for c in found if c != Component("shared")]

    @property
    def chosen_balancers(self) -> list[Component]:
        """Return the balancers to try; `fixed` is the plain sum. `constants`: fixed ones, tuned on val."""
        known = (*METHODS, CONSTANTS)
        found = [Component.parse(text, known, "--balancers") for text in dict.fromkeys(self.balancers)]
        return [c for c in found if c != Component("fixed")]

    @property
    def chosen_pairs(self) -> list[tuple[Component, Component]]:
        """Return the pairs to train; ValueError for one that is a row of its own already."""
        found = []
        for text in dict.fromkeys(self.pairs):
            router, plus, balancer = text.partition("+")
            if not plus or router == "shared" or balancer == "fixed":
                raise ValueError(f"--pairs {text}: write ROUTER+BALANCER, other than shared and fixed")
            parts = ((router, ROUTERS), (balancer, METHODS))
            found.append(tuple(Component.parse(part, known, "--pairs") for part, known in parts))
        return found

    @property
    def common(self) -> tuple[str, ...]:
        """The words for `--set` of every row. None may stop early: all rows see equally many images."""
        early = ("patience=0",) if load_recipe(self.recipe).patience else ()
        return (*early, *self.settings)

    def config(self) -> RunConfig:
        """Return the recipe with the settings of all rows; ValueError where one of them does not fit."""
        config = apply_overrides(load_recipe(self.recipe), self.common)
        if config.patience:
            raise ValueError(
                f"--set patience={config.patience} ends rows after different numbers of images; leave it out"
            )
        return config

    @property
    def recipe_name(self) -> str:
        """The recipe's name; a file's with a hash of what it says, by which a changed one is noticed."""
        file = Path(self.recipe)
        if file.suffix not in (".py", ".json"):
            return self.recipe
        return f"{file.name} sha256:{hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
