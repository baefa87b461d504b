"""Names of public weights: what timm publishes for which plain ViT, and near misses."""

import difflib
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

import timm
from timm.models import get_pretrained_cfg

from ufo_large.models.fitting import PLAIN_VITS
from ufo_large.models.trunk import Trunk

HUB = "hub"
_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?")
_OF_TIMM = re.compile(r"^hf[-_]hub:")
_FILE_ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".json")


@dataclass(frozen=True, slots=True)
class HubName:
    """A repository of weights, and a branch, tag or commit of it (None: the newest)."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def hub_name(pretrained: str, trunk: Trunk.Config) -> HubName | None:
    """Return what `pretrained` names on the hub, None where it names a file or folder.

    `hub` stands for what timm publishes for the trunk's name; `timm/vit_giant_patch14_clip_224.laion2b` or
    `facebook/dinov2-small`, with `@revision` or without, for a repository of timm or transformers. timm's own
    names may go without `timm/`, or begin with `hf-hub:` as timm writes it. Raises ValueError where timm
    publishes no weights for the trunk, or the name is of another of timm's models.
    """
    if pretrained == HUB:
        return HubName(_published_for(trunk.name))
    if Path(pretrained).exists() or pretrained.endswith(_FILE_ENDINGS):
        return None
    plain = _OF_TIMM.sub("", pretrained)
    found = _NAME.fullmatch(f"timm/{plain}" if f"timm/{plain.partition('@')[0]}" in registered() else plain)
    if found is None:
        return None
    name = HubName(found["repo"], found["revision"])
    models = registered().get(name.repo, ())
    if models and architecture(trunk.name) not in map(architecture, models):
        raise ValueError(
            f"pretrained={pretrained} is a {architecture(models[0])}, but the trunk is a {trunk.name}; set "
            f"model.trunk.name={models[0]}, or pretrained=hub for the trunk's own weights"
        )
    return name


def trunk_of(name: HubName, trunk: Trunk.Config) -> Trunk.Config:
    """Return `trunk` under the name of these weights: others of this ViT may want other means of pixels."""
    models = registered().get(name.repo, ())
    alike = (model for model in models if architecture(model) == architecture(trunk.name))
    return replace(trunk, name=next(alike, trunk.name))


def _published_for(name: str) -> str:
    own = get_pretrained_cfg(name)
    if own is not None and own.hf_hub_id:
        return own.hf_hub_id
    published = {architecture(model) for models in registered().values() for model in models}
    alike = difflib.get_close_matches(architecture(name), sorted(published), n=5)
    raise ValueError(
        f"pretrained=hub: timm publishes no weights for {name}; near it, it has some for {', '.join(alike)}: "
        "set model.trunk.name to one of them, or give a file"
    )


def require_there(pretrained: str) -> None:
    """Raise ValueError, with near names, for what looks like one and is none on the hub, nor a folder."""
    if not Path(pretrained).exists() and not pretrained.endswith(_FILE_ENDINGS):
        raise ValueError(
            f"pretrained={pretrained}: no such file or folder.{near(pretrained)} `hub` is what timm "
            "publishes for the trunk's name, OWNER/NAME a repository"
        )


def near(repo: str) -> str:
    """Return the end of an error message for a repository that timm does not know: which ones it does."""
    known = registered()
    repo = repo if "/" in repo else f"timm/{repo}"
    alike = [] if repo in known else difflib.get_close_matches(repo, known, n=5)
    return f" Near it: {', '.join(alike)}." if alike else ""


def registered() -> dict[str, list[str]]:
    """Return timm's names, tag included, for each repository of a plain ViT: mostly one."""
    models: dict[str, list[str]] = defaultdict(list)
    for model in timm.list_models(module=PLAIN_VITS, pretrained=True):
        if repo := get_pretrained_cfg(model).hf_hub_id:
            models[repo].append(model)
    return models


def architecture(model: str) -> str:
    return model.partition(".")[0]
