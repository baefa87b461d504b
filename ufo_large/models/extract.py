"""Cut a dense single-task network out of the routed model, in timm's own names."""

from pathlib import Path

import torch
from timm.models import save_for_hf
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor

from ufo_large.config import give_usual_rights
from ufo_large.models.lora import has_adapters
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.trunk import Trunk
from ufo_large.tasks.classification_linear import LinearClassifier

OF_THE_NETWORK = ("architecture", "input_size", "first_conv", "classifier")
PADDING_NOTE = (
    "trained with keep_aspect: images lie at the top left and are padded at the bottom and right with the "
    "mean colour; timm's transform centres them: replace its CenterCropOrPad by such a padding"
)


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


def write_timm_folder(
    model: MultitaskModel, task: str, folder: Path, image_size: tuple[int, int], keep_aspect: bool = False
) -> str:
    """Write the single-task network as timm keeps models on disk; return the line that loads it.

    config.json describes this network: its classes, and how the run prepares an image when it evaluates, on
    (height, width) `image_size`, so that timm's own transform does nearly the same. Whence the weights came
    is left out: they are others by now. With `keep_aspect` timm pads on all sides, the run at the bottom and
    right; the notes in config.json say so.
    """
    state, num_classes = single_task_state(model, task)
    with torch.device("meta"):
        dense = model.trunk.config.build_vit()
        dense.reset_classifier(num_classes)
    dense.load_state_dict({n: v.detach().contiguous() for n, v in state.items()}, assign=True)
    given = dense.pretrained_cfg
    dense.pretrained_cfg = {name: given[name] for name in OF_THE_NETWORK}
    card = {"label_names": model.tasks[task].class_names} if num_classes else {}
    if keep_aspect:
        card["pretrained_cfg"] = {"notes": [PADDING_NOTE]}
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
    if type(head) is not LinearClassifier:
        return state, 0
    classifier = {f"head.{n}": p for n, p in head.linear.named_parameters()}
    if isinstance(model.trunk.vit, VisionTransformerDistilled):
        # timm averages two classifiers' outputs, we classify the averaged tokens: the same, both being equal
        classifier |= {f"head_dist.{n}": p.clone() for n, p in head.linear.named_parameters()}
    return {**state, **classifier}, head.linear.out_features
