"""Convert a file of weights to timm's names; say which ViT it holds and which of timm's models it fits."""

import importlib
import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from timm.models import model_entrypoint
from torch import Tensor, nn

from ufo_large.models.transformers_names import Joined, from_transformers, is_from_transformers
from ufo_large.models.without_values import init_options

CANNOT_CONVERT = (RuntimeError, KeyError, TypeError, AttributeError)
PLAIN_VITS = ("vision_transformer", "eva", "deit")
_STEM = re.compile(r"(.*?)(?:patch_embed|conv1|embeddings)\b")
_BLOCK = re.compile(r"(?:.*\.)?(?:blocks|resblocks|layers?)\.(\d+)\.")
_WRAPPERS = ("state_dict_ema", "model_ema", "model", "module", "state_dict", "teacher", "encoder")
_OUTER = re.compile(
    r"((?:(?:_orig_mod|module|model|backbone|encoder|teacher|vit)\.)+)patch_embed\.proj\.weight"
)
_HEADS = ("head", "lm_head.", "mask_token")


@dataclass(frozen=True, slots=True)
class VitShape:
    """The size of a ViT; a patch is a square of so many pixels."""

    width: int
    depth: int
    patch: int

    def __str__(self) -> str:
        return f"width {self.width}, depth {self.depth}, patches of {self.patch} pixels"


def bare(tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the tensors of a training checkpoint, which lie one or two levels down: averaged ones if it has.

    Names of a ViT that is part of something, wrapped, compiled or a backbone, are its own alone.
    """
    inside = next((tensors[name] for name in _WRAPPERS if isinstance(tensors.get(name), Mapping)), None)
    if inside is not None:
        return bare(inside)
    outer = next((found[1] for found in map(_OUTER.fullmatch, tensors) if found), "")
    return {n.removeprefix(outer): v for n, v in tensors.items() if n.startswith(outer)} if outer else tensors


def check_shape(
    tensors: Mapping[str, Any], wanted: Mapping[str, Tensor], subject: str, may_resample: bool
) -> None:
    """Raise ValueError where a file holds a ViT of another width, depth or patch than `wanted`.

    `may_resample`: another patch is welcome.
    """
    held, own = shape_of(tensors), shape_of(wanted)
    if held is None or own is None or held == own:
        return
    is_resampled = replace(held, patch=own.patch) == own
    if is_resampled and may_resample:
        return
    resample = f", or model.trunk.patch_size={own.patch} to resample its patch embedding"
    raise ValueError(
        f"{subject}: it holds a ViT of {held}, but the trunk's is of {own}; {what_fits(tensors)}"
        f"{resample if is_resampled else ''}"
    )


def what_fits(tensors: Mapping[str, Any]) -> str:
    """Return the remedy for a file that does not fit the trunk."""
    held = shape_of(tensors)
    names = [] if held is None else fitting_models(tensors, held)
    if names:
        return f"set model.trunk.name={' or '.join(names[:4])}"
    return "set model.trunk.name, embed_dim, depth and patch_size to those of the model that was saved"


def shape_of(tensors: Mapping[str, Any]) -> VitShape | None:
    """Return the shape of the ViT that a file holds, under whatever names; None without a patch embedding."""
    for name, value in tensors.items():
        start = _STEM.match(name)
        if start and getattr(value, "ndim", 0) == 4 and value.shape[1] == 3:
            blocks = (_BLOCK.match(other) for other in tensors if other.startswith(start[1]))
            indices = {int(found[1]) for found in blocks if found}
            depth = next(i for i in itertools.count() if i not in indices)
            return VitShape(width=value.shape[0], depth=depth, patch=value.shape[-1])
    return None


def convert(tensors: Mapping[str, Tensor], name: str, vit: nn.Module) -> dict[str, Tensor | Joined]:
    """Return a file's tensors for `vit`, timm's model `name`, converted by timm's own loader.

    Raises one of CANNOT_CONVERT for what that loader stumbles over.
    """
    # a copy, for timm takes out what it has read
    tensors = from_transformers(tensors, vit) if is_from_transformers(tensors) else dict(tensors)
    module = importlib.import_module(model_entrypoint(name).__module__)
    return module.checkpoint_filter_fn(tensors, vit, **_filter_options(module.__name__, name))


def _filter_options(module: str, name: str) -> dict[str, Any]:
    """Return what timm itself gives that function for a model; it is bound where the model is made."""
    if module == "timm.models.deit":
        return {"adapt_layer_scale": True}
    return {"interpolation": "bilinear", "antialias": False} if name.startswith("flexi") else {}


def fitting_models(tensors: Mapping[str, Tensor], shape: VitShape) -> list[str]:
    """Return the plain ViTs of timm that take every tensor of the file, positions and classifier aside."""
    lists = (timm.list_models(f"*patch{shape.patch}*", module=module) for module in PLAIN_VITS)
    return [name for name in itertools.chain(*lists) if _fits(name, tensors, shape)]


def _fits(name: str, tensors: Mapping[str, Tensor], shape: VitShape) -> bool:
    try:
        first = _build(name, depth=1)  # of most models one block is enough to tell
        if first.embed_dim != shape.width:
            return False
        given = {n: v.shape for n, v in convert(tensors, name, first).items() if not n.startswith(_HEADS)}
        wanted = {n: p.shape for n, p in first.named_parameters()}
        given, wanted = _first_block(given), _first_block(wanted)
        return given == wanted and len(_build(name).blocks) == shape.depth
    except (*CANNOT_CONVERT, ValueError, AssertionError):  # a model of another kind, or a file for one
        return False


def _build(name: str, **options: int) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, num_classes=0, dynamic_img_size=True, **options, **init_options(name))


def _first_block(shapes: dict[str, torch.Size]) -> dict[str, torch.Size]:
    return {
        name: shape
        for name, shape in shapes.items()
        if name != "pos_embed" and (name.startswith("blocks.0.") or not name.startswith("blocks."))
    }
