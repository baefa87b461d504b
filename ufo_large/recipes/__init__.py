"""One file an experiment: its docstring is the lab note, its `recipe()` returns the complete config.

Importing this package imports none of them, so that a command's `--help` can list them at once.
"""

import importlib
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING

from ufo_large.config import did_you_mean, from_dict, import_named, read_json

if TYPE_CHECKING:
    from ufo_large.runs.config import RunConfig


def known_recipes() -> list[str]:
    """Return the names of all recipes: every file of this package is one."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def load_recipe(name: str) -> "RunConfig":
    """Return the config of a recipe: a name, a Python file (PATH.py) with `recipe()`, or a run's config.json.

    Raises ValueError that lists the known ones, or says what is wrong with the file.
    """
    if name.endswith((".json", ".py")):
        return _read_recipe(name)
    if name not in known_recipes():
        raise ValueError(f"no recipe {name!r}.{did_you_mean(name, known_recipes())}")
    return importlib.import_module(f"{__name__}.{name}").recipe()


def _read_recipe(name: str) -> "RunConfig":
    from ufo_large.runs.config import RunConfig

    if name.endswith(".json"):
        body = read_json(Path(name), "give the config.json of a run, or a recipe's name")
        if not isinstance(body, dict) or "config" not in body:
            raise ValueError(f"{name}: holds no 'config'; give the config.json of a run, or a recipe's name")
        return from_dict(RunConfig, body["config"], name)
    recipe = getattr(import_named(name), "recipe", None)
    config = recipe() if callable(recipe) else None
    if not isinstance(config, RunConfig):
        raise ValueError(f"{name}: needs a function recipe() that returns a RunConfig; see ufo_large/recipes")
    return config
