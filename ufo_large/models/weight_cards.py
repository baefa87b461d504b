"""What a config.json beside weights says that names and shapes do not: which model, and of which pixels.

timm writes one (`architecture`, `pretrained_cfg`), and so does transformers (`model_type`), which keeps what
it does to pixels in preprocessor_config.json.
"""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from timm.models import get_pretrained_cfg, is_model_in_modules, is_model_pretrained

from ufo_large.config import read_json
from ufo_large.models.fitting import PLAIN_VITS
from ufo_large.models.hub_names import HubName, architecture, registered, trunk_of
from ufo_large.models.trunk import Trunk

CARD, PIXELS = "config.json", "preprocessor_config.json"
TOLERANCE = 1e-3
Statistics = tuple[list[float], list[float]]
"""Mean and standard deviation of each channel, of pixels from 0 to 1."""


WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""What repositories call their weights, the best form first: the files that cards beside them describe."""


def folder_of(weights: Path) -> Path:
    """Return the folder in which the descriptions of a file, or folder, of weights lie."""
    return weights if weights.is_dir() else weights.parent


def timm_name(weights: Path) -> str | None:
    """Return timm's name, tag included where it is a known one, that the card beside `weights` gives.

    None without a card of timm's, or for a model that is none of its plain ViTs.
    """
    card = _read(weights, CARD)
    name, tag = card.get("architecture"), _pretrained_cfg(card).get("tag")
    if not isinstance(name, str) or not is_model_in_modules(name, PLAIN_VITS):
        return None
    return f"{name}.{tag}" if is_model_pretrained(f"{name}.{tag}") else name


def as_described(trunk: Trunk.Config, weights: Path) -> Trunk.Config:
    """Return `trunk` under the name, tag included, that a card beside `weights` gives it.

    Raises ValueError where the card is of another model, or where the pixels were prepared otherwise than for
    the trunk's name and timm has a tag for that. Where it has none, that is only told, as a warning.
    """
    folder, name = folder_of(weights), timm_name(weights)
    if name is None:
        _require_same_pixels(trunk.name, _statistics(_read(weights, PIXELS), "image_"), folder / PIXELS)
        return trunk
    card, published = folder / CARD, HubName(f"timm/{name}")
    alike = registered().get(published.repo, [name])
    is_other_tag = "." in trunk.name and "." in name and trunk.name.split(".")[1] != name.split(".")[1]
    if is_other_tag or architecture(trunk.name) not in map(architecture, alike):
        raise ValueError(
            f"{card} is of a {name}, but the trunk is a {trunk.name}; set model.trunk.name={name}"
        )
    if published.repo in registered():
        return trunk_of(published, trunk)
    _require_same_pixels(trunk.name, _statistics(_pretrained_cfg(_read(weights, CARD))), card)
    return trunk


def _require_same_pixels(name: str, wanted: Statistics | None, file: Path) -> None:
    own = _statistics_of(name)
    if wanted is None or own is None or _are_alike(wanted, own):
        return
    model = architecture(name)
    tags = [t for t in timm.list_pretrained(f"{model}.*") if _are_alike(wanted, _statistics_of(t))]
    told = f"{file}: mean and deviation of pixels are {wanted[0]} and {wanted[1]}"
    told = f"{told}, for {name} {own[0]} and {own[1]}"
    if tags:
        raise ValueError(f"{told}; set model.trunk.name={' or '.join(tags[:4])}")
    warnings.warn(f"{told}, which the run takes; timm has no tag of {model} for the file's", stacklevel=2)


def _statistics_of(name: str) -> Statistics | None:
    found = get_pretrained_cfg(name)
    return None if found is None else (list(found.mean), list(found.std))


def _statistics(card: Mapping[str, Any], prefix: str = "") -> Statistics | None:
    """Return the mean and deviation that a card gives; None where it gives none for three channels."""
    found = tuple(card.get(f"{prefix}{key}") for key in ("mean", "std"))
    is_three = [isinstance(v, list) and [type(x) in (int, float) for x in v] == [True] * 3 for v in found]
    return found if all(is_three) and card.get("do_normalize", True) else None


def _are_alike(one: Statistics, other: Statistics) -> bool:
    pairs = zip([*one[0], *one[1]], [*other[0], *other[1]], strict=True)
    return all(math.isclose(a, b, abs_tol=TOLERANCE) for a, b in pairs)


def _pretrained_cfg(card: Mapping[str, Any]) -> Mapping[str, Any]:
    found = card.get("pretrained_cfg")
    return found if isinstance(found, Mapping) else {}


def _read(weights: Path, name: str) -> Mapping[str, Any]:
    """Return what describes a folder of weights, or a file with the name of one that is described."""
    file = folder_of(weights) / name
    is_described = (weights.is_dir() or weights.name in WEIGHTS) and file.is_file()
    found = read_json(file, "copy it again") if is_described else {}
    return found if isinstance(found, Mapping) else {}
