"""Initial weights of the whole model, streamed name by name so that no rank ever holds all of it.

Build the model first (sharded or not), then `fill(model, initial_state(model, seed, pretrained), whole)`. The
values depend on seed and file alone: not on ZeRO stage, world size or the order of construction.
"""

import contextlib
import functools
import zlib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ufo_large.config import Problems
from ufo_large.models.dense_values import PretrainedValues, RandomValues, read_tensors
from ufo_large.models.grown import check_kinship, is_trained, new_expert, new_tasks
from ufo_large.models.lora import dense_name, fresh_adapter, is_adapter
from ufo_large.models.multitask import MultitaskModel, build_head
from ufo_large.models.trunk import Trunk
from ufo_large.models.warm_start import fitting_tensors
from ufo_large.structures import TaskInfo

Whole = Callable[[list[nn.Parameter]], contextlib.AbstractContextManager]


def initial_state(
    model: MultitaskModel,
    seed: int,
    pretrained: str | Path | None = None,
    trained: Sequence[TaskInfo] = (),
) -> Iterator[tuple[str, Tensor]]:
    """Yield (name, value) for every parameter of `model`.

    The trunk comes from `pretrained` (see `PretrainedValues`) or is drawn as timm draws it; experts are
    copies of the module they replace; heads are drawn as they draw themselves. Where `pretrained` is a run's
    `weights/`, all of it comes from there, and only what new tasks or new adapters add is new; with that
    run's tasks as `trained`, tasks and classes may be others: what fits is taken (`warm_start`). Raises
    ValueError, before the first value, with all names that a ViT's file lacks or has too many, or where a
    run's model was routed or adapted otherwise.
    """
    if pretrained is not None and is_trained(tensors := read_tensors(Path(pretrained))):
        held = tensors
        if trained:
            drawn = functools.partial(head_values, model, seed=seed)
            tensors = fitting_tensors(tensors, trained, model, drawn, pretrained)
        yield from grown_state(model, seed, tensors, pretrained, held)
        return
    config = model.config.trunk
    values = PretrainedValues(config, pretrained) if pretrained is not None else RandomValues(config, seed)
    yield from ((f"trunk.{name}", value) for name, value in trunk_values(model.trunk, values, seed))
    for task in model.tasks:
        yield from head_values(model, task, seed)


def grown_state(
    model: MultitaskModel,
    seed: int,
    tensors: Mapping[str, Tensor],
    path: str | Path,
    held: Mapping[str, Tensor] | None = None,
) -> Iterator[tuple[str, Tensor]]:
    """Yield a trained model's values, bitwise, and what `model` has besides: tasks, adapters.

    `held`: all that the file at `path` has, where `tensors` are a part of it.
    """
    held = tensors if held is None else held
    new = new_tasks(tensors, tuple(model.tasks), path)
    check_kinship(model, tensors, path, held)
    adapted = {dense_name(name): name for name, _ in model.named_parameters() if ".base_layer." in name}
    yield from ((adapted.get(name, name), value) for name, value in tensors.items())
    for task in new:
        yield from head_values(model, task, seed)
    banks = model.trunk.banks()
    for name, parameter in model.trunk.named_parameters():
        place, inner = _split(name, banks)
        task = inner.split(".")[1] if place else ""
        if is_adapter(name) and f"trunk.{name}" not in tensors:
            yield f"trunk.{name}", _fresh(fresh_adapter, f"trunk.{name}", inner, parameter, seed)
        if f"trunk.{name}" in tensors or task not in new:
            continue
        source = banks[place].source_of(inner)
        if source is not None:
            yield f"trunk.{name}", new_expert(held, f"trunk.vit.{place}", source)
        else:
            yield f"trunk.{name}", _fresh(banks[place].fresh, name, inner, parameter, seed)


def trunk_values(trunk: Trunk, dense: Callable[[str], Tensor], seed: int) -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter of the routed trunk, given `dense(name)`: the values of timm's dense model."""
    parameters = dict(trunk.named_parameters())
    banks = trunk.banks()
    for name, source in dense_names(trunk).items():
        if source is not None:
            yield name, dense(source)
        else:
            place, inner = _split(name, banks)
            fresh = fresh_adapter if is_adapter(name) else banks[place].fresh
            yield name, _fresh(fresh, name, inner, parameters[name], seed)


def _fresh(draw: Callable, name: str, inner: str, parameter: nn.Parameter, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    return draw(inner, getattr(parameter, "ds_shape", parameter.shape), generator)


def dense_names(trunk: Trunk) -> dict[str, str | None]:
    """Map each of the trunk's parameters to the parameter of timm's dense model it starts from.

    None where it starts from none: gates, choices and narrow experts of the routing, adapters.
    """
    banks = trunk.banks()
    names: dict[str, str | None] = {}
    for name, _ in trunk.named_parameters():
        place, inner = _split(name, banks)
        source = banks[place].source_of(inner) if place in banks else inner
        source = source if source is None else dense_name(source)
        names[name] = f"{place}.{source}" if place in banks and source is not None else source
    return names


def _split(name: str, places: Container[str]) -> tuple[str, str]:
    """Return the place of the bank that a trunk's parameter is in and its name there ("" where in none)."""
    parts = name.removeprefix("vit.").split(".")
    place = ".".join(parts[:3])
    return (place, ".".join(parts[3:])) if place in places else ("", ".".join(parts))


def head_values(model: MultitaskModel, task: str, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Yield the initial parameters of one task's head and pyramid; equal for equal seed and task name."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(f"{seed} {task}".encode()))
        head, pyramid = build_head(model.config, model.tasks[task], model.trunk.width, model.trunk.stride)
    for kind, module in (("heads", head), ("pyramids", pyramid)):
        if module is not None:
            yield from ((f"{kind}.{task}.{name}", p.detach()) for name, p in module.named_parameters())


def fill(
    model: nn.Module,
    values: Iterable[tuple[str, Tensor]],
    whole: Whole = lambda parameters: contextlib.nullcontext(),
) -> None:
    """Copy `values` into the parameters and buffers of `model`, one at a time.

    `whole(parameters)` is a context in which sharded parameters are whole and changes are kept. Raises
    ValueError that lists every name missing, unknown, or of another shape. Buffers may be missing.
    """
    targets = model.state_dict(keep_vars=True)
    missing = dict(model.named_parameters())
    problems = Problems("these weights do not fit the model")
    for name, value in values:
        missing.pop(name, None)
        shape = getattr(targets.get(name), "ds_shape", getattr(targets.get(name), "shape", None))
        if shape is None:
            problems.add(f"{name}: the model has no such parameter")
        elif tuple(shape) != tuple(value.shape):
            problems.add(f"{name}: shape {list(value.shape)}, but the model's is {list(shape)}")
        else:
            with whole([targets[name]]), torch.no_grad():
                targets[name].copy_(value)
    for name in missing:
        problems.add(f"{name}: missing")
    problems.raise_if_any(show=1000)
