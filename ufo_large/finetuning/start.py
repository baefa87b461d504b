"""Where a finetuning run starts: a trained run, a file of public weights, the hub, or nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ufo_large.config import with_tasks_renamed
from ufo_large.kinds import KINDS
from ufo_large.models.dense_values import read_tensors
from ufo_large.models.fitting import bare, fitting_models, shape_of
from ufo_large.models.hub_names import hub_name, near
from ufo_large.models.trunk import Trunk
from ufo_large.models.warm_start import origins
from ufo_large.models.weight_cards import timm_name
from ufo_large.recipes import load_recipe
from ufo_large.runs.config import RunConfig
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo

PRETRAINED, FROM_SCRATCH = "small", "mini"


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The config to begin with, before it is fitted to data and machine; `told`: what to say about it.

    `resize`: input sizes may follow the data; a run's own stay, which its trunk knows.
    """

    config: RunConfig
    told: tuple[str, ...]
    resize: bool = True


def start_from(init: str, tasks: Sequence[TaskInfo], recipe: str | None = None) -> Start:
    """Return where `init` starts for these tasks: a run's folder, a file, a name on the hub or `none`.

    Raises ValueError that names what cannot be read or fits nothing known.
    """
    if init == "none":
        config = load_recipe(recipe or FROM_SCRATCH)
        return Start(config=_with_every_kind(config), told=(f"from scratch, recipe {config.name}",))
    path = Path(init)
    if (run := _run_at(path)) is not None:
        if recipe:
            raise ValueError(
                f"--recipe {recipe}: --init {init} is a run, whose own model goes on; leave one out"
            )
        return _from_run(run, tasks)
    config = load_recipe(recipe or PRETRAINED)
    if hub_name(init, config.model.trunk) is not None:
        config = replace(config, pretrained=init)
        return Start(
            config=_with_every_kind(config), told=(f"{config.model.trunk.name}, weights from the hub",)
        )
    if not path.exists():
        told = f"no such run or file.{near(init)} Give a run's folder, a file, hub or none"
        raise ValueError(f"--init {init}: {told}")
    return _from_file(path, config)


def _run_at(path: Path) -> RunFolder | None:
    for folder in (RunFolder(path), RunFolder(path.parent)):
        if folder.config_file.is_file() and path in (folder.root, folder.weights):
            return folder
    return None


def _from_file(path: Path, recipe: RunConfig) -> Start:
    trunk = _trunk_for(path, recipe.model.trunk)
    config = replace(recipe, model=replace(recipe.model, trunk=trunk), pretrained=str(path.absolute()))
    return Start(config=_with_every_kind(config), told=(f"{trunk.name} from {path}; heads start anew",))


def _trunk_for(path: Path, trunk: Trunk.Config) -> Trunk.Config:
    """Return the trunk that a file's weights are of.

    That which a card beside them names, else the recipe's where they fit it, else one of timm's.
    """
    trunk = replace(trunk, name=timm_name(path) or trunk.name)
    tensors = bare(read_tensors(path))
    with torch.device("meta"):
        own = shape_of(dict(trunk.build_vit().named_parameters()))
    held = shape_of(tensors)
    if held == own:
        return trunk
    names = [] if held is None else fitting_models(tensors, held)
    if not names:
        what = (
            "no ViT that is known here"
            if held is None
            else f"a ViT of {held}, which no plain ViT of timm has"
        )
        raise ValueError(
            f"--init {path}: holds {what}; the recipe's trunk {trunk.name} is of {own}. Give the weights of "
            "such a ViT, or with --recipe PATH.py a recipe whose trunk the file was saved from"
        )
    return replace(trunk, name=names[0])


def _from_run(run: RunFolder, tasks: Sequence[TaskInfo]) -> Start:
    """Start from all of a finished run that fits: its model and feeds, and a third of its rate in the trunk.

    A run that itself began so keeps its rates.
    """
    saved = run.read()
    if not run.weights.is_dir():
        raise ValueError(f"--init {run.root}: the run has no weights/ yet; let it finish with --resume auto")
    found = origins(tasks, saved.tasks)
    names = {o.task.name: o.source.name for o in found if o.source is not None}
    config = _with_every_kind(saved.config)
    optimizer = config.optimizer
    if not config.take_what_fits:
        rate, head_rate = optimizer.learning_rate / 3, optimizer.head_rate * 3
        own = _renamed({name: 3 * factor for name, factor in optimizer.head_rates.items()}, names)
        optimizer = replace(optimizer, learning_rate=rate, head_rate=head_rate, head_rates=own)
    trunk = config.model.trunk
    trunk = replace(trunk, frozen=False, router=with_tasks_renamed(trunk.router, names))
    model = replace(config.model, trunk=trunk, heads=_renamed(config.model.heads, names))
    config = replace(
        config,
        model=model,
        tasks=_renamed(config.tasks, names),
        optimizer=optimizer,
        balancer=with_tasks_renamed(config.balancer, names),
        pretrained=str(run.weights.absolute()),
        take_what_fits=True,
    )
    left = sorted({t.name for t in saved.tasks} - set(names.values()))
    told = [f"trunk and experts from {run.root}", *map(str, found)]
    told += [f"left behind: {', '.join(left)}, which this data has nothing like"] if left else []
    return Start(config=config, told=tuple(told), resize=False)


def _renamed(entries: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a run's entries by kind, and those of its single tasks under the names of the new ones."""
    by_kind = {key: entry for key, entry in entries.items() if key in KINDS}
    return by_kind | {new: entries[old] for new, old in names.items() if old in entries}


def _with_every_kind(config: RunConfig) -> RunConfig:
    """Give kinds that a recipe says nothing of the head and feed that the pretrained recipe has for them."""
    other = load_recipe(PRETRAINED)
    model = replace(config.model, heads={**other.model.heads, **config.model.heads})
    return replace(config, model=model, tasks={**other.tasks, **config.tasks})
