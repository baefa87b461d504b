"""One file an experiment: its docstring is the lab note, its `recipe()` returns the complete config."""

import importlib
import pkgutil

from ufo_large.config import did_you_mean
from ufo_large.train.config import RunConfig


def known_recipes() -> list[str]:
    """Return the names of all recipes: every file of this package is one."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load_recipe(name: str) -> RunConfig:
    """Return the config of a recipe. Raises ValueError that lists the known ones."""
    if name not in known_recipes():
        raise ValueError(f"no recipe {name!r}.{did_you_mean(name, known_recipes())}")
    return importlib.import_module(f"{__name__}.{name}").recipe()
