"""Components from outside the package: balancers, routers, heads, kinds of task and data layouts.

A plugin is a Python module, or a file, whose import registers what it brings:

    register(METHODS, "mine", MyBalancer)      # ufo_large.balancing; ROUTERS and TRANSFORMS likewise
    register_kind(Counting())                  # ufo_large.kinds
    register_head("count", LinearCounter)      # ufo_large.tasks
    register_layout(Layout(...))               # ufo_large.data.datasets.sources

It is named with `--plugin MODULE_OR_FILE`, or it is installed and names itself in the entry point group
`ufo_large.plugins`, and then is there by itself. A run's config.json remembers the names, but reading a run
imports nothing: who reads it names the plugins again.
"""

import argparse
import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Iterable, MutableMapping
from importlib import metadata
from pathlib import Path
from types import ModuleType

GROUP = "ufo_large.plugins"
_LOADED: list[str] = []


def register(components: MutableMapping[str, type], name: str, component: type) -> None:
    """Add a component to a registry. Raises ValueError where the name belongs to another one."""
    known = components.get(name, component)
    if (known.__module__, known.__qualname__) != (component.__module__, component.__qualname__):
        raise ValueError(f"{name!r} is {known.__module__}.{known.__qualname__} already; choose another name")
    components[name] = component


def load_plugins(names: Iterable[str] = ()) -> None:
    """Import installed plugins, then those of `names`, once each. Raises ValueError that names a bad one."""
    installed = [(entry.value, entry.load) for entry in metadata.entry_points(group=GROUP)]
    named = [(name, lambda name=name: import_named(name)) for name in names]
    for name, load in installed + named:
        if name in _LOADED:
            continue
        try:
            load()
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise ValueError(f"plugin {name}: cannot be loaded ({told}); correct or remove it") from error
        _LOADED.append(name)


def add_plugin_option(parser: argparse.ArgumentParser) -> None:
    """Give a script the option `--plugin`; call `load_plugins(arguments.plugin)` before anything else."""
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="MODULE",
        help="Python module or file with balancers, routers, heads, kinds or layouts of your own",
    )


def loaded_plugins() -> tuple[str, ...]:
    """Return the plugins in use, as they were named, in order."""
    return tuple(_LOADED)


def import_named(name: str) -> ModuleType:
    """Import a module by its name, or a Python file by its path; the same file is imported once."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).resolve()
    known = f"ufo_large_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if known in sys.modules:
        return sys.modules[known]
    if not path.is_file():
        raise ValueError(f"{name}: no such file")
    spec = importlib.util.spec_from_file_location(known, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module  # before it runs: its classes are pickled by this name
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[known]
        raise
    return module
