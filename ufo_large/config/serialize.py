"""Save a config with a run and build it again: plain JSON in which components stand under their names.

The declared types say what each value is, so a file names nothing but entries of the registries that the
fields were declared with (`choice`): `"router": {"task": {...options...}}`. It decides neither what is
imported nor what is called, and source files may move without breaking it.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from ufo_large.config.near_names import did_you_mean


def to_dict(value: Any) -> Any:
    """Turn a config into JSON values. Raises TypeError for what does not belong in one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _field_to_dict(f, getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} does not belong in a config; pass it to build()")


def from_dict(cls: type, value: Any, path: str = "config") -> Any:
    """Build a config of the dataclass `cls` from what `to_dict` wrote.

    `to_dict` writes every field, so one that is absent is newer than the file: it gets its default, which
    must mean what was done before the field existed. Raises ValueError that names the value's path, and what
    it should be, for an unknown field, a missing one without default, an unknown component, a value of
    another type, and whatever the config itself refuses.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: {_short(value)} is no group of fields ({cls.__qualname__})")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in value:
        if key not in fields:
            raise ValueError(
                f"{path}: {cls.__qualname__} has no field {key!r}.{did_you_mean(str(key), fields)}"
            )
    if missing := [name for name, f in fields.items() if name not in value and _is_required(f)]:
        raise ValueError(f"{path}: {cls.__qualname__} lacks {', '.join(missing)}")
    hints = typing.get_type_hints(cls)
    found = {n: _field_from_dict(fields[n], hints[n], v, f"{path}.{n}") for n, v in value.items()}
    try:
        return cls(**found)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _is_required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def component_to_dict(components: Mapping[str, type], config: Any) -> dict[str, Any]:
    """Return `{name: options}` of a component's config. TypeError where no component has such a config."""
    for name, component in components.items():
        if component.Config is type(config):
            return {name: to_dict(config)}
    raise TypeError(f"{type(config).__qualname__} is no config of {', '.join(components)}; register it first")


def component_from_dict(components: Mapping[str, type], value: Any, path: str) -> Any:
    """Build a component's config from `{name: options}`; ValueError lists the known names."""
    if not isinstance(value, Mapping) or len(value) != 1:
        raise ValueError(
            f"{path}: {_short(value)} is not one component with its options; write name: options"
        )
    ((name, options),) = value.items()
    if name not in components:
        raise ValueError(
            f"{path}: no component {name!r}; if a plugin brings it, give --plugin MODULE."
            f"{did_you_mean(str(name), components)}"
        )
    return from_dict(components[name].Config, options, f"{path}.{name}")


def _field_to_dict(field: dataclasses.Field, value: Any) -> Any:
    if "choices" in field.metadata:
        return component_to_dict(field.metadata["choices"], value)
    if "entry_choices" in field.metadata:
        components = field.metadata["entry_choices"]
        return {key: component_to_dict(components, entry) for key, entry in value.items()}
    return to_dict(value)


def _field_from_dict(field: dataclasses.Field, hint: Any, value: Any, path: str) -> Any:
    if "choices" in field.metadata:
        return component_from_dict(field.metadata["choices"], value, path)
    if "entry_choices" in field.metadata:
        components, entries = field.metadata["entry_choices"], _mapping(value, path)
        return {
            key: component_from_dict(components, entry, f"{path}.{key}") for key, entry in entries.items()
        }
    return _value(hint, value, path)


def _value(hint: Any, value: Any, path: str) -> Any:
    """Return a value as the type `hint`, lists as tuples; ValueError where it is of another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return _first_that_fits(arguments, value, path)
    if origin is Literal:
        if not any(type(value) is type(a) and value == a for a in arguments):
            raise ValueError(f"{path}: {_short(value)} is none of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _tuple(arguments, value, path)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value, path)
    if origin is not None:  # a mapping
        return {
            key: _value(arguments[1], item, f"{path}.{key}") for key, item in _mapping(value, path).items()
        }
    wanted = (int, float) if hint is float else hint
    if not isinstance(value, wanted) or (isinstance(value, bool) and hint is not bool):
        name = "null" if hint is type(None) else hint.__name__
        raise ValueError(f"{path}: {_short(value)} is not of the type {name}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{path}: {value} is not finite")
    return value


def _tuple(arguments: tuple[Any, ...], value: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{path}: {_short(value)} is no list")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(arguments) != len(value):
        raise ValueError(f"{path}: {_short(value)} has {len(value)} values, {len(arguments)} are wanted")
    return tuple(_value(h, v, f"{path}[{i}]") for i, (h, v) in enumerate(zip(arguments, value, strict=True)))


def _first_that_fits(hints: tuple[Any, ...], value: Any, path: str) -> Any:
    """Return the value by the first type that takes it; a group's own complaint comes before the others'."""
    complaints = {}
    for hint in hints:
        try:
            return _value(hint, value, path)
        except ValueError as error:
            complaints[hint] = error
    groups = [e for h, e in complaints.items() if dataclasses.is_dataclass(h) and isinstance(value, Mapping)]
    raise ValueError(str(groups[0] if groups else list(complaints.values())[-1]))


def _mapping(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: {_short(value)} is no group of entries")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
