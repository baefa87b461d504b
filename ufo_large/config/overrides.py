"""`--set a.b=value`: change one field of a frozen, nested config, typed by its declaration."""

import dataclasses
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from ufo_large.config.fields import default_group, elsewhere
from ufo_large.config.near_names import did_you_mean, near_names


class UnknownName(ValueError):
    """A path of `--set` leads to no field or entry."""


def apply_overrides(config: Any, assignments: Iterable[str]) -> Any:
    """Return `config` with every "dotted.path=value" applied, in order.

    Values are read by the field's declared type: int, float, bool (true/false), str, Literal, tuples
    (comma separated), optional (`none`, `null`); a field declared with `choice`, or an entry of one declared
    with `choice_of_entries`, takes a component's name; a group among entries takes another's, to copy it.
    Setting a field of an optional group that is none makes the group, with its defaults, first.
    Raises ValueError that lists the known names for an unknown path, and the wanted type for a bad value.
    """
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path:
            raise ValueError(f"--set {assignment!r}: write it as path.to.field=value")
        try:
            config = _assign(config, path.split("."), text, path)
        except UnknownName as error:
            raise ValueError(f"{error}{elsewhere(config, path)}") from None
    return config


def _assign(node: Any, keys: list[str], text: str, path: str) -> Any:
    key, rest = keys[0], keys[1:]
    if isinstance(node, Mapping):
        if not rest and all(isinstance(v, float | int) for v in node.values()):
            return {**node, key: parse(text, float, path)}
        if not rest and text in node:
            return {**node, key: node[text]}
        if key not in node:
            raise _no_entry(node, key, path, ".".join(path.split(".")[: -len(rest) or None]))
        if not rest:
            raise ValueError(
                f"--set {path}={text}: {key!r} is a group; set a field of it, or give an entry to copy."
                f"{did_you_mean(text, node)}"
            )
        return {**node, key: _assign(node[key], rest, text, path)}
    if not dataclasses.is_dataclass(node):
        raise ValueError(f"--set {path}: {type(node).__name__} value has no field {key!r}; shorten the path")
    fields = {f.name: f for f in dataclasses.fields(node)}
    if key not in fields:
        told = f"--set {path}: no field {key!r} in {type(node).__qualname__}.{did_you_mean(key, fields)}"
        raise ValueError(told) if near_names(key, fields) else UnknownName(told)
    metadata = fields[key].metadata
    if len(rest) == 1 and "entry_choices" in metadata:
        value = {**getattr(node, key), rest[0]: _chosen(metadata["entry_choices"], text, path)}
    elif rest:
        group = getattr(node, key)
        group = default_group(node, key) if group is None else group
        value = _assign(group, rest, text, path)
    elif "choices" in metadata:
        value = _chosen(metadata["choices"], text, path)
    else:
        value = parse(text, typing.get_type_hints(type(node))[key], path)
    return dataclasses.replace(node, **{key: value})


def _chosen(choices: Mapping[str, Any], text: str, path: str) -> Any:
    if text not in choices:
        raise ValueError(f"--set {path}={text}: unknown choice.{did_you_mean(text, choices)}")
    return choices[text].Config()


def _no_entry(entries: Mapping[str, Any], key: str, path: str, entry: str) -> ValueError:
    """Return the error for a missing entry; the entries' keys may be kinds where a task was named."""
    near = near_names(key, entries)
    like, meant = (near[0] if near else "ENTRY"), entry.rpartition(".")[0]
    whole = f" --set {path.replace(entry, f'{meant}.{near[0]}', 1)}=... sets that one." if near else ""
    return ValueError(
        f"--set {path}: no entry {key!r}.{did_you_mean(key, entries)}{whole} --set {entry}={like} before it "
        f"makes an entry {key!r}, a copy"
    )


def parse(text: str, hint: Any, path: str) -> Any:
    """Read `text` as the type `hint`; ValueError names the path, the value and the wanted type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", "null"):
            return None
        return _first_that_parses(text, [a for a in arguments if a is not type(None)], path)
    if origin is Literal:
        by_text = {str(a): a for a in arguments}
        if text not in by_text:
            raise ValueError(
                f"--set {path}={text}: not one of the allowed values.{did_you_mean(text, by_text)}"
            )
        return by_text[text]
    if origin is tuple:
        parts = [p for p in text.strip("()[] ").split(",") if p.strip()]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(parse(p.strip(), arguments[0], path) for p in parts)
        if len(parts) != len(arguments):
            example = f"; write {','.join(parts * len(arguments))}" if len(parts) == 1 else ""
            raise ValueError(f"--set {path}={text}: needs {len(arguments)} comma-separated values{example}")
        return tuple(parse(p.strip(), a, path) for p, a in zip(parts, arguments, strict=True))
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"--set {path}={text}: write true or false")
        return text.lower() == "true"
    if hint in (int, float, str):
        try:
            return hint(text)
        except ValueError:
            raise ValueError(f"--set {path}={text}: not a valid {hint.__name__}") from None
    raise ValueError(
        f"--set {path}: a field of type {hint} cannot be set from the command line; set its parts"
    )


def _first_that_parses(text: str, hints: list[Any], path: str) -> Any:
    for hint in hints[:-1]:
        try:
            return parse(text, hint, path)
        except ValueError:
            continue
    return parse(text, hints[-1], path)
