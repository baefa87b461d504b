"""What of a trained model fits another one, whose tasks and classes differ: everything that can start warm.

Shared parts go over as they are. A task takes experts, pyramid and head of the trained task of its name, else
of its kind; in layers with one row per class, the rows of the classes of the same name.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ufo_large.models.multitask import MultitaskModel, build_head
from ufo_large.structures import TaskInfo

SHOWN = 10
Drawn = Callable[[str], Iterable[tuple[str, Tensor]]]
"""The names and values that a task's head and pyramid are drawn with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where a task comes from: a trained `source` (None: nowhere) and the pairs (label, its label there)."""

    task: TaskInfo
    source: TaskInfo | None
    rows: tuple[tuple[int, int], ...] = ()

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.task.name}: new; experts start as the mean of the others, the head anew"
        told = f"{self.task.name}: from the trained task {self.source.name}"
        if not self.task.num_classes:
            return told
        known = {label for label, _ in self.rows}
        new = [name for label, name in enumerate(self.task.class_names) if label not in known]
        shown = ", ".join(new[:SHOWN]) + (", ..." if len(new) > SHOWN else "")
        counted = f"{told}; {len(known)} of {self.task.num_classes} classes known"
        if known and all(self.task.class_names[label].isdecimal() for label in known):
            counted += " by number, for they have no names (cls/classes.txt gives them)"
        return f"{counted}, new: {shown}" if new else counted


def origins(tasks: Sequence[TaskInfo], trained: Sequence[TaskInfo]) -> tuple[Origin, ...]:
    """Return where each task comes from: of those of its kind the one of its name, else the likest."""
    return tuple(_origin(task, trained) for task in tasks)


def _origin(task: TaskInfo, trained: Sequence[TaskInfo]) -> Origin:
    def likeness(other: TaskInfo) -> tuple[bool, int]:
        return other.name == task.name, len(set(other.class_names) & set(task.class_names))

    source = max((t for t in trained if t.kind == task.kind), key=likeness, default=None)
    if source is None:
        return Origin(task=task, source=None)
    there = {name: label for label, name in enumerate(source.class_names)}
    rows = tuple((i, there[name]) for i, name in enumerate(task.class_names) if name in there)
    return Origin(task=task, source=source, rows=rows)


def fitting_tensors(
    tensors: Mapping[str, Tensor],
    trained: Sequence[TaskInfo],
    model: MultitaskModel,
    drawn: Drawn,
    path: str | Path,
) -> dict[str, Tensor]:
    """Return a trained model's tensors under the names and in the shapes of `model`.

    Tasks without an origin are left out, as in the weights of a model that has yet to grow them. Raises
    ValueError that names `path` where the trunk's shape is another.
    """
    found = {o.task.name: o for o in origins(tuple(model.tasks.values()), trained)}
    _check_trunk(tensors, model, path)
    fitted = dict(_trunk_tensors(tensors, trained, model, found))
    for origin in found.values():
        if origin.source is not None:
            fitted.update(_head_tensors(tensors, model, origin, drawn))
    return fitted


def _check_trunk(tensors: Mapping[str, Tensor], model: MultitaskModel, path: str | Path) -> None:
    for name, parameter in model.trunk.vit.named_parameters():
        held = tensors.get(f"trunk.vit.{name}")
        wanted = getattr(parameter, "ds_shape", parameter.shape)
        if held is not None and held.shape != wanted:
            shapes = f"{list(held.shape)}, but {list(wanted)} in this model"
            raise ValueError(
                f"{path}: {name} is {shapes}, so this trunk has another shape; what fits is the trunk that "
                "the run's config.json names: leave out what changes model.trunk"
            )


def _trunk_tensors(
    tensors: Mapping[str, Tensor],
    trained: Sequence[TaskInfo],
    model: MultitaskModel,
    found: Mapping[str, Origin],
) -> Iterator[tuple[str, Tensor]]:
    """Yield the trunk: shared tensors, and those of a trained task once for each task that comes from it.

    What several tasks shared where here each has its own goes to each of them.
    """
    names = {task.name for task in trained}
    places = [f"trunk.vit.{place}." for place in model.trunk.banks()]
    wanted = {f"trunk.{name}" for name, _ in model.trunk.named_parameters()}
    sources = {new: origin.source.name for new, origin in found.items() if origin.source is not None}
    for name, value in tensors.items():
        if not name.startswith("trunk."):
            continue
        place = next((p for p in places if name.startswith(p)), "")
        part, _, rest = name.removeprefix(place).partition(".")
        task, _, inner = rest.partition(".")
        if place and part == "shared":
            alone = [new for new, old in sources.items() if f"{place}experts.{old}.{rest}" not in tensors]
            own = [f"{place}experts.{new}.{rest}" for new in alone]
            yield from ((target, value) for target in (name, *own) if target in wanted)
        elif not place or task not in names:
            yield name, value
        else:
            yield from ((f"{place}{part}.{n}.{inner}", value) for n, old in sources.items() if old == task)


def _head_tensors(
    tensors: Mapping[str, Tensor], model: MultitaskModel, origin: Origin, drawn: Drawn
) -> Iterator[tuple[str, Tensor]]:
    """Yield head and pyramid of a task: trained where that fits, else as they are drawn."""
    task, source = origin.task, origin.source
    axes = class_axes(model, task)
    for name, fresh in drawn(task.name):
        part, _, inner = name.split(".", 2)
        held = tensors.get(f"{part}.{source.name}.{inner}")
        if held is not None and part == "heads" and inner in axes:
            yield name, _with_rows(fresh, held, axes[inner], origin)
        else:
            yield name, held if held is not None and held.shape == fresh.shape else fresh


def class_axes(model: MultitaskModel, info: TaskInfo) -> dict[str, int]:
    """Return, for each parameter of a head with one slice per class, the axis that counts the classes.

    Found by building the head for one class less, or more: which axis changes. No head says it itself, so
    that a new one need not. Empty where the kind has no classes.
    """
    if not info.num_classes:
        return {}
    names, ids = (*info.class_names, "\0"), (*info.class_ids, max(info.class_ids) + 1)
    other = -2 if info.num_classes > 1 else len(names)
    changed_info = replace(info, class_names=names[:other], class_ids=ids[:other])
    config = _without_class_weights(model.config, info)
    with torch.device("meta"):
        own, grown = (
            {name: parameter.shape for name, parameter in head.named_parameters()}
            for head, _ in (
                build_head(config, i, model.trunk.width, model.trunk.stride) for i in (info, changed_info)
            )
        )
    changed = {name: grown[name] for name, shape in own.items() if shape != grown[name]}
    return {name: _differing_axis(own[name], shape) for name, shape in changed.items()}


def _without_class_weights(config: MultitaskModel.Config, info: TaskInfo) -> MultitaskModel.Config:
    """Return the model's config with no number per class in the head of a task: it has no parameter."""
    head = config.head_of(info)
    if getattr(head, "class_weights", None) is None:
        return config
    return replace(config, heads={**config.heads, info.name: replace(head, class_weights=None)})


def _differing_axis(first: Sequence[int], second: Sequence[int]) -> int:
    return next(axis for axis, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)


def _with_rows(fresh: Tensor, held: Tensor, axis: int, origin: Origin) -> Tensor:
    """Return `fresh` with the slices of known classes, and what follows all classes, such as "no object"."""
    count, before = origin.task.num_classes, origin.source.num_classes
    others = [fresh.shape[a] == held.shape[a] for a in range(fresh.ndim) if a != axis]
    extra = fresh.shape[axis] - count
    if fresh.ndim != held.ndim or not all(others) or held.shape[axis] - before != extra:
        return fresh
    pairs = [*origin.rows, *((count + i, before + i) for i in range(extra))]
    mixed = fresh.clone()
    for new, old in pairs:
        mixed.select(axis, new).copy_(held.select(axis, old))
    return mixed
