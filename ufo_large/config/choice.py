"""A config field whose value is one of several components' configs, chosen by name."""

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
