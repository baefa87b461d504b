"""Every path of a nested config that `--set` takes, and which of them an unknown one may have meant."""

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from ufo_large.config.near_names import near_names

SHOWN = 4


def settings(node: Any, prefix: str = "", absent: bool = False) -> Iterator[tuple[str, str]]:
    """Yield every path below a config with its value, both as `--set path=value` takes them.

    `absent`: also the fields of optional groups that are none, with their defaults.
    """
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _below(f"{prefix}{key}", value, absent)
        return
    for field in dataclasses.fields(node):
        path, value = f"{prefix}{field.name}", getattr(node, field.name)
        if "choices" in field.metadata:
            yield path, _component(field.metadata["choices"], value)
            yield from settings(value, f"{path}.", absent)
        elif "entry_choices" in field.metadata:
            for key, entry in value.items():
                yield f"{path}.{key}", _component(field.metadata["entry_choices"], entry)
                yield from settings(entry, f"{path}.{key}.", absent)
        else:
            yield from _below(path, value, absent)
            if absent and value is None and (group := default_group(node, field.name)) is not None:
                yield from settings(group, f"{path}.", absent)


def default_group(node: Any, key: str) -> Any:
    """Return the config with its defaults that the field, declared `Config | None`, could hold; else None."""
    hint = typing.get_type_hints(type(node))[key]
    groups = [a for a in typing.get_args(hint) if dataclasses.is_dataclass(a)]
    return groups[0]() if groups else None


def elsewhere(config: Any, path: str) -> str:
    """Return " Did you mean ...?" with the paths whose last name is near that of an unknown `path`.

    Those that share most of the path come first; empty where none is near.
    """
    *before, name = path.split(".")
    by_name: dict[str, list[str]] = {}
    for known, _ in settings(config, absent=True):
        by_name.setdefault(known.rpartition(".")[2], []).append(known)
    for found in near_names(name, by_name)[:1]:
        paths = sorted(by_name[found], key=lambda known: -len(set(before) & set(known.split("."))))
        return f" Did you mean {' or '.join(paths[:SHOWN])}?"
    return ""


def _below(path: str, value: Any, absent: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) or dataclasses.is_dataclass(value):
        yield from settings(value, f"{path}.", absent)
    else:
        yield path, _text(value)


def _component(components: Mapping[str, Any], config: Any) -> str:
    """Return a component's name in its registry; its type's, where a recipe has one of its own."""
    named = (name for name, component in components.items() if component.Config is type(config))
    return next(named, type(config).__qualname__)


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_text, value)) if isinstance(value, tuple) else str(value)
