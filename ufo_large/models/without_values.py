"""Models of timm on the meta device: they have shapes, and no values to initialise."""

import torch
from timm.models import is_model_in_modules


def init_options(name: str) -> dict[str, str]:
    """Return the option of `timm.create_model` that leaves out initialisation on the meta device.

    It would compute nothing there, and take most of the time. Only timm's VisionTransformer has the option.
    """
    on_meta = torch.get_default_device().type == "meta"
    return {"weight_init": "skip"} if on_meta and is_model_in_modules(name, ["vision_transformer"]) else {}
