"""Config fields that name tasks, and what becomes of them where a trained run's tasks get other names."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def per_task(**default: Any) -> Any:
    """Declare a dataclass field that is a mapping from task names, a tuple of them, or None.

    `default`: as for `dataclasses.field`.
    """
    return dataclasses.field(metadata={"per_task": True}, **default)


def with_tasks_renamed(config: Any, names: Mapping[str, str]) -> Any:
    """Return a component's config with the fields declared `per_task` for other tasks.

    `names`: new name -> the old one. What is said of a task that no new one comes from is left out.
    """
    changed = {}
    for field in dataclasses.fields(config):
        held = getattr(config, field.name)
        if "per_task" not in field.metadata or held is None:
            continue
        kept = {new: old for new, old in names.items() if old in held}
        is_mapping = isinstance(held, Mapping)
        changed[field.name] = {new: held[old] for new, old in kept.items()} if is_mapping else tuple(kept)
    return dataclasses.replace(config, **changed)
