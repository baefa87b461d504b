"""Every parameter knows what it is for: shared by all tasks, expert of a task, or head of a task.

A few also know their learning rate, where a factor on the trunk's would not fit them. Both are set when a
module is made, never guessed from names. They survive ZeRO-3 because DeepSpeed changes a parameter's storage,
not the Parameter object.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

_ATTRIBUTE, _RATE = "ufo_role", "ufo_learning_rate"


@dataclass(frozen=True, slots=True)
class Role:
    """`task` is the owning task of an expert or head, None for shared parameters."""

    kind: Literal["shared", "expert", "head"]
    task: str | None = None

    def __post_init__(self):
        if (self.kind == "shared") != (self.task is None):
            raise ValueError(
                f"role {self.kind!r} with task {self.task!r}: only experts and heads belong to a task"
            )


SHARED = Role("shared")


def set_role(module: nn.Module, role: Role) -> nn.Module:
    """Give `role` to every parameter of `module`; returns the module."""
    for parameter in module.parameters():
        setattr(parameter, _ATTRIBUTE, role)
    return module


def role_of(parameter: nn.Parameter) -> Role:
    """Return the role; parameters of the trunk that nobody claimed are shared."""
    return getattr(parameter, _ATTRIBUTE, SHARED)


def set_learning_rate(module: nn.Module, rate: float) -> nn.Module:
    """Give every parameter of `module` this rate at the schedule's top; returns the module."""
    for parameter in module.parameters():
        setattr(parameter, _RATE, rate)
    return module


def learning_rate_of(parameter: nn.Parameter) -> float | None:
    """Return the rate of `set_learning_rate`, None for the others, whose rates follow from the trunk's."""
    return getattr(parameter, _RATE, None)
