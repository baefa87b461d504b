"""Config fields whose value, or whose entries' values, are components' configs, chosen by name."""

import dataclasses
from collections.abc import Mapping
from typing import Any


def choice(components: Mapping[str, type], default: str | None = None, **overrides: Any) -> Any:
    """Declare a dataclass field that `--set field=name` can switch between `components`.

    `components` maps a name to a class with a nested `Config`. The default is
    `components[default].Config(**overrides)`; without one the field is required.
    """
    metadata = {"choices": components}
    if default is None:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(
        default_factory=lambda: components[default].Config(**overrides), metadata=metadata
    )


def choice_of_entries(components: Mapping[str, type]) -> Any:
    """Declare a required mapping to configs, in which `--set field.key=name` replaces or adds an entry.

    `components` as for `choice`.
    """
    return dataclasses.field(metadata={"entry_choices": components})
