"""Save a config with a run and build it again: plain JSON with each node's class name."""

import dataclasses
import importlib
import typing
from collections.abc import Mapping
from typing import Any

from ufo_large.config.overrides import did_you_mean

CLASS_KEY = "_class"


def to_dict(value: Any) -> Any:
    """Turn a config into JSON values; every dataclass node carries `_class: "module:QualName"`."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        cls = type(value)
        body = {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {CLASS_KEY: f"{cls.__module__}:{cls.__qualname__}", **body}
    if isinstance(value, Mapping):
        return {str(k): to_dict(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [to_dict(v) for v in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} does not belong in a config; pass it to build()")


def from_dict(value: Any) -> Any:
    """Build again what `to_dict` wrote. Only classes of ufo_large are loaded.

    Raises ValueError for a class that is not ours or a field that the class no longer has.
    """
    if isinstance(value, Mapping):
        if CLASS_KEY not in value:
            return {k: from_dict(v) for k, v in value.items()}
        return _build(_load_class(value[CLASS_KEY]), {k: v for k, v in value.items() if k != CLASS_KEY})
    if isinstance(value, list):
        return tuple(from_dict(v) for v in value)
    return value


def _load_class(name: str) -> type:
    module, _, qualname = name.partition(":")
    if module.split(".")[0] != "ufo_large":
        raise ValueError(f"config names the class {name!r}, which is not part of ufo_large")
    cls: Any = importlib.import_module(module)
    for part in qualname.split("."):
        cls = getattr(cls, part)
    return cls


def _build(cls: type, body: dict[str, Any]) -> Any:
    known = typing.get_type_hints(cls)
    for key in body:
        if key not in known:
            raise ValueError(f"{cls.__qualname__} has no field {key!r}.{did_you_mean(key, known)}")
    return cls(**{k: from_dict(v) for k, v in body.items()})
