"""One file an experiment: its docstring is the lab note, its `recipe()` returns the complete config."""

import importlib
import pkgutil

from ufo_large.config import did_you_mean, import_named
from ufo_large.runs.config import RunConfig


def known_recipes() -> list[str]:
    """Return the names of all recipes: every file of this package is one."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load_recipe(name: str) -> RunConfig:
    """Return the config of a recipe: a name, or a Python file (PATH.py) with a function `recipe()`.

    Raises ValueError that lists the known ones, or says what is wrong with the file.
    """
    if not name.endswith(".py"):
        if name not in known_recipes():
            raise ValueError(f"no recipe {name!r}.{did_you_mean(name, known_recipes())}")
        return importlib.import_module(f"{__name__}.{name}").recipe()
    recipe = getattr(import_named(name), "recipe", None)
    config = recipe() if callable(recipe) else None
    if not isinstance(config, RunConfig):
        raise ValueError(f"{name}: needs a function recipe() that returns a RunConfig; see ufo_large/recipes")
    return config
