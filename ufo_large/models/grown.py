"""What a trained model of this project gives to one that has more tasks."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ufo_large.models.lora import has_adapters, is_adapter
from ufo_large.models.multitask import MultitaskModel

_MEMBER = re.compile(r"(trunk\.vit\.blocks\.\d+\.\w+)\.(shared|experts\.\w+)\.")


def is_trained(tensors: Mapping[str, Tensor]) -> bool:
    """Whether these are a whole model's, as a run's `weights/` holds them, and not a dense ViT's."""
    return any(name.startswith("trunk.vit.") for name in tensors)


def new_tasks(tensors: Mapping[str, Tensor], tasks: tuple[str, ...], path: str | Path) -> tuple[str, ...]:
    """Return the tasks that a trained model lacks. ValueError where it has tasks besides `tasks`."""
    held = {name.split(".")[1] for name in tensors if name.startswith("heads.")}
    gone = ", ".join(sorted(held.difference(tasks)))
    if gone:
        raise ValueError(
            f"{path} was trained for {gone} too, which this data has no train split of; give shards of all "
            "its tasks and the new ones, or cut one task out with launchers/export.py --to timm"
        )
    return tuple(task for task in tasks if task not in held)


def check_kinship(
    model: MultitaskModel, tensors: Mapping[str, Tensor], path: str | Path, held: Mapping[str, Tensor]
) -> None:
    """Raise ValueError, with the remedy, where a run's model was routed or adapted otherwise than `model`.

    `tensors`: what `model` takes of all that the run has, `held`.
    """
    remedy = "give the router of that run, with its blocks, parts and tasks, by --set model.trunk.router=..."
    places = [f"trunk.vit.{place}" for place in model.trunk.banks()]
    there = _members(held)
    plain = [place for place in places if place not in there]
    if plain:
        raise ValueError(f"{path} was trained without experts at {', '.join(plain)}; {remedy}")
    new = new_tasks(tensors, tuple(model.tasks), path)
    here, there = _members(name for name, _ in model.named_parameters()), _members(tensors)
    for place in sorted({*here, *there}):
        own = here.get(place, set()).difference(f"experts.{task}" for task in new)
        found = there.get(place, set())
        if own != found:
            told = [", ".join(sorted(names)) or "no experts" for names in (found, own)]
            raise ValueError(f"{path} has {told[0]} at {place}, and this model {told[1]}; {remedy}")
    if not any(map(is_adapter, tensors)):
        return
    merging = "write that run's merged weights with launchers/export.py --to safetensors and start from them"
    if not has_adapters(model):
        raise ValueError(f"{path} holds LoRA adapters and this model has none; {merging}")
    if new:
        raise ValueError(f"{path} holds LoRA adapters, and new experts grow from whole layers; {merging}")


def _members(names: Iterable[str]) -> dict[str, set[str]]:
    """Return what each routed place of the trunk has: `shared`, `experts.<task>`."""
    found: dict[str, set[str]] = defaultdict(set)
    for match in filter(None, map(_MEMBER.match, names)):
        found[match[1]].add(match[2])
    return dict(found)


def new_expert(tensors: Mapping[str, Tensor], place: str, rest: str) -> Tensor:
    """Return what parameter `rest` of a new task's expert starts from, as the bank's `add_task` does it.

    The shared module of the bank at `place`, where it has one, else the mean of the other experts.
    """
    if f"{place}.shared.{rest}" in tensors:
        return tensors[f"{place}.shared.{rest}"]
    start = f"{place}.experts."
    tasks = {name.removeprefix(start).split(".")[0] for name in tensors if name.startswith(start)}
    return torch.stack([tensors[f"{start}{task}.{rest}"] for task in sorted(tasks)]).mean(0)
