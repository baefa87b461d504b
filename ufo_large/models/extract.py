"""Cut a dense single-task network out of the routed model, in timm's own names."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from timm.layers import GluMlp
from timm.models import save_for_hf
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ufo_large.config import give_usual_rights
from ufo_large.models.lora import has_adapters
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.positions import move_to_grid
from ufo_large.models.trunk import Trunk
from ufo_large.routing.mlps import hidden_size, is_mlp, widened
from ufo_large.tasks.classification_linear import LinearClassifier

OF_THE_NETWORK = ("architecture", "input_size", "first_conv", "classifier")


def require_timm(config: Trunk.Config) -> None:
    """Raise ValueError for a trunk with parts that no model of timm has."""
    if config.window:
        raise ValueError("timm has no windowed attention: its model would differ from this one; export ONNX")
    if config.stem != "patch":
        raise ValueError("timm has no stem of gradients: its model would differ from this one; export ONNX")


def dense_trunk_state(trunk: Trunk, task: str) -> dict[str, Tensor]:
    """Return the state dict of timm's dense model that equals the routed trunk for `task`.

    Where some blocks have wider MLPs than others, units of zeros are added to the others': timm's are all of
    one width. Raises ValueError where no such model exists: experts mixed token by token, windowed attention,
    a stem that timm does not know, adapters that are not merged.
    """
    if has_adapters(trunk):
        raise ValueError("timm has no adapters: call merge_lora on the model first")
    require_timm(trunk.config)
    parts = {place: bank.path(task) for place, bank in trunk.banks().items()}
    dense = dense_vit(trunk.config, _state_with(parts, trunk.vit))
    parts |= _widened(parts, trunk.vit, dense)
    state = _state_with(parts, trunk.vit)
    return {n: state[n] for n in dense.state_dict()}


def _state_with(parts: Mapping[str, nn.Module], vit: nn.Module) -> dict[str, Tensor]:
    """Return the ViT's state dict with `parts` in their places."""
    inside = tuple(f"{place}." for place in parts)
    state = {n: v for n, v in vit.state_dict().items() if not n.startswith(inside)}
    return state | {f"{place}.{n}": v for place, part in parts.items() for n, v in part.state_dict().items()}


def _widened(parts: Mapping[str, nn.Module], vit: nn.Module, dense: nn.Module) -> dict[str, nn.Module]:
    """Return the MLPs that have fewer units than in `dense`, with units of zeros added."""
    mlps = {place: wide for place, wide in dense.named_modules() if is_mlp(wide)}
    found = {place: parts.get(place) or vit.get_submodule(place) for place in mlps}
    return {
        place: widened(mlp, hidden_size(mlps[place]))
        for place, mlp in found.items()
        if hidden_size(mlp) < hidden_size(mlps[place])
    }


def dense_vit(config: Trunk.Config, state: Mapping[str, Tensor]) -> nn.Module:
    """Return timm's model on the meta device, wide enough for the MLPs of all blocks in `state`.

    timm has one ratio of MLP to width for all blocks, so the widest decides.
    """
    ends = ("blocks.", ".mlp.fc2.weight")
    sizes = [v.shape[1] for n, v in state.items() if n.startswith(ends[0]) and n.endswith(ends[1])]
    with torch.device("meta"):
        vit = config.build_vit()
        if not sizes or max(sizes) <= hidden_size(mlp := vit.blocks[0].mlp):
            return vit
        # a VisionTransformer counts the gates among the hidden units, an Eva does not
        counts_gates = isinstance(vit, VisionTransformer) and isinstance(mlp, GluMlp)
        units = max(sizes) * (2 if counts_gates else 1)
        ratio = units / vit.embed_dim
        if int(vit.embed_dim * ratio) < units:  # timm rounds down
            ratio = math.nextafter(ratio, math.inf)
        return config.build_vit(mlp_ratio=ratio)


def write_timm_folder(
    model: MultitaskModel,
    task: str,
    folder: Path,
    image_size: tuple[int, int],
    keep_aspect: bool = False,
    license: str = "unknown",
    notes: Sequence[str] = (),
) -> str:
    """Write the single-task network as timm keeps models on disk; return the line that loads it.

    config.json describes this network: its classes, and how the run prepares an image when it evaluates, on
    (height, width) `image_size`, so that timm's own transform does nearly the same. Whence the weights came
    is left out: they are others by now. With `keep_aspect` timm pads on all sides, the run at the bottom and
    right: a note of the caller's should say so. `license`: an identifier of the hub.
    """
    state, num_classes = single_task_state(model, task)
    dense = dense_vit(model.trunk.config, state)
    with torch.device("meta"):
        dense.reset_classifier(num_classes)
    dense.load_state_dict({n: v.detach().contiguous() for n, v in state.items()}, assign=True)
    if not model.trunk.config.is_antialiased:  # timm always is: it must find nothing to resample
        grid = tuple(-(-side // model.trunk.stride) for side in image_size)
        move_to_grid(dense, grid, antialias=False)
    given = dense.pretrained_cfg
    dense.pretrained_cfg = {name: given[name] for name in OF_THE_NETWORK}
    card = {"label_names": model.tasks[task].class_names} if num_classes else {}
    card["pretrained_cfg"] = {"license": license} | ({"notes": list(notes)} if notes else {})
    folder.mkdir(parents=True, exist_ok=True)
    save_for_hf(
        dense,
        folder,
        model_config=card,
        model_args={"dynamic_img_pad": True},
        safe_serialization=True,
        data_config={
            "input_size": (3, *image_size),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "border" if keep_aspect else "squash",
            "mean": given["mean"],
            "std": given["std"],
        },
    )
    give_usual_rights(folder / "model.safetensors")
    return f"timm.create_model('local-dir:{folder}', pretrained=True)"


def single_task_state(model: MultitaskModel, task: str) -> tuple[dict[str, Tensor], int]:
    """Return (state dict, num_classes) of a timm model that equals the routed one for `task`.

    A linear classifier of the pooled vector becomes timm's `head`; any other head stays behind, and
    num_classes is 0.
    """
    state = dense_trunk_state(model.trunk, task)
    head = model.heads[task]
    if not has_classifier(model, task):
        return state, 0
    classifier = {f"head.{n}": p for n, p in head.linear.named_parameters()}
    if isinstance(model.trunk.vit, VisionTransformerDistilled):
        # timm averages two classifiers' outputs, we classify the averaged tokens: the same, both being equal
        classifier |= {f"head_dist.{n}": p.clone() for n, p in head.linear.named_parameters()}
    return {**state, **classifier}, head.linear.out_features


def has_classifier(model: MultitaskModel, task: str) -> bool:
    """Whether the task's head goes along as timm's `head`."""
    return type(model.heads[task]) is LinearClassifier
