"""Save a config with a run and build it again: plain JSON with each node's class name."""

import dataclasses
import importlib
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from ufo_large.config.overrides import did_you_mean

CLASS_KEY = "_class"
PACKAGE = "ufo_large"


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
    """Build again what `to_dict` wrote.

    The file may come from a stranger, so that it decides neither what is called nor what is imported: only
    config types are built, frozen dataclasses with keyword-only fields, and only modules of ufo_large are
    imported. The Config of a component that is defined outside derives from one of ours and is built where
    its module is imported already. Raises ValueError for any other class, and for a field that a class does
    not have or cannot take.
    """
    if isinstance(value, Mapping):
        if CLASS_KEY not in value:
            return {k: from_dict(v) for k, v in value.items()}
        return _build(_config_type(value[CLASS_KEY]), {k: v for k, v in value.items() if k != CLASS_KEY})
    if isinstance(value, list):
        return tuple(from_dict(v) for v in value)
    return value


def _config_type(name: Any) -> type:
    """Return the config type `"module:QualName"`; ValueError for anything else that bears the name."""
    module, _, qualname = name.partition(":") if isinstance(name, str) else ("", "", "")
    found = _defined_in(_module(module), qualname)
    if found is not None and _is_config_type(found) and any(_is_ours(c.__module__) for c in found.__mro__):
        return found
    if _is_ours(module):
        raise ValueError(
            f"config names {name!r}, which is no config type (a frozen dataclass) here; only those are built "
            "from a file. Was it saved by another version?"
        )
    raise ValueError(
        f"config names {name!r}, which is not part of {PACKAGE}; the Config of a component from outside is "
        f"built where it derives from one of {PACKAGE} and its module is imported before the run is read"
    )


def _module(name: str) -> ModuleType | None:
    if not _is_ours(name):
        return sys.modules.get(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        return None


def _is_ours(module: str) -> bool:
    package, *rest = module.split(".")
    return package == PACKAGE and all(part.isidentifier() for part in rest)


def _defined_in(module: ModuleType | None, qualname: str) -> type | None:
    """Return the class that the module itself defines, neither imports nor makes on demand."""
    found: Any = module
    for part in qualname.split("."):
        found = vars(found).get(part) if isinstance(found, type | ModuleType) else None
    if module is None or not isinstance(found, type):
        return None
    return found if (found.__module__, found.__qualname__) == (module.__name__, qualname) else None


def _is_config_type(cls: type) -> bool:
    if not dataclasses.is_dataclass(cls) or not cls.__dataclass_params__.frozen:
        return False
    return all(field.kw_only for field in dataclasses.fields(cls))


def _build(cls: type, body: dict[str, Any]) -> Any:
    known = [field.name for field in dataclasses.fields(cls)]
    for key in body:
        if key not in known:
            raise ValueError(f"{cls.__qualname__} has no field {key!r}.{did_you_mean(key, known)}")
    values = {k: from_dict(v) for k, v in body.items()}
    try:
        return cls(**values)
    except TypeError as error:  # a field is missing, or its value is of another type
        raise ValueError(f"{cls.__qualname__} cannot be built from what is saved ({error})") from error
