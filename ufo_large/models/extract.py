"""Cut a dense single-task network out of the routed model, in timm's own names."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

from ufo_large.models.lora import has_adapters
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.trunk import Trunk
from ufo_large.tasks.classification_linear import LinearClassifier


def dense_trunk_state(trunk: Trunk, task: str) -> dict[str, Tensor]:
    """Return the state dict of timm's dense model that equals the routed trunk for `task`.

    Raises ValueError where no such model exists: experts mixed token by token, windowed attention, a stem
    that timm does not know, adapters that are not merged.
    """
    if has_adapters(trunk):
        raise ValueError("timm has no adapters: call merge_lora on the model first")
    if trunk.config.window:
        raise ValueError("timm has no windowed attention: its model would differ from this one; export ONNX")
    if trunk.config.stem != "patch":
        raise ValueError("timm has no stem of gradients: its model would differ from this one; export ONNX")
    banks = {f"{place}.": bank for place, bank in trunk.banks().items()}
    state = {n: v for n, v in trunk.vit.state_dict().items() if not n.startswith(tuple(banks))}
    for prefix, bank in banks.items():
        state.update({prefix + n: v for n, v in bank.path(task).state_dict().items()})
    return {n: state[n] for n in _timm_order(trunk)}


def _timm_order(trunk: Trunk) -> list[str]:
    with torch.device("meta"):
        return list(trunk.config.build_vit().state_dict())


def write_timm_folder(model: MultitaskModel, task: str, folder: Path) -> str:
    """Write the single-task network as timm keeps models on disk; return the line that loads it."""
    state, num_classes = single_task_state(model, task)
    config = model.trunk.config
    vit = model.trunk.vit
    card = {
        "architecture": config.name.split(".")[0],
        "num_classes": num_classes,
        "model_args": {k: v for k, v in config.shape().items() if v is not None},
        "pretrained_cfg": {**vit.pretrained_cfg, "num_classes": num_classes, "pool_size": None},
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: v.detach().contiguous() for n, v in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(card, indent=1, default=str), encoding="utf-8")
    return f"timm.create_model('local-dir:{folder}', pretrained=True, dynamic_img_size=True)"


def single_task_state(model: MultitaskModel, task: str) -> tuple[dict[str, Tensor], int]:
    """Return (state dict, num_classes) of a timm model that equals the routed one for `task`.

    A linear classifier of the pooled vector becomes timm's `head`; any other head stays behind, and
    num_classes is 0.
    """
    state = dense_trunk_state(model.trunk, task)
    head = model.heads[task]
    if type(head) is not LinearClassifier:
        return state, 0
    classifier = {f"head.{n}": p for n, p in head.linear.named_parameters()}
    if isinstance(model.trunk.vit, VisionTransformerDistilled):
        # timm averages two classifiers' outputs, we classify the averaged tokens: the same, both being equal
        classifier |= {f"head_dist.{n}": p.clone() for n, p in head.linear.named_parameters()}
    return {**state, **classifier}, head.linear.out_features
