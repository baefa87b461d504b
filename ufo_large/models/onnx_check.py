"""Whether onnxruntime finds in pictures what torch finds in them.

Legend: B images, H W pixels, N M boxes.
"""

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.onnx_export import IMAGES, SIZES, OnnxNetwork

MOST, MOST_BOXES = 1e-3, 1e-2
PIXELS, SCORE = 0.1, 1e-3  # a box has its like where one of its class is as near
GRAINS = (1, 4, 16, 64)


class Agreement(NamedTuple):
    """`difference`: the largest between floats, or the share of labels or boxes that differ; of `count`."""

    difference: float
    count: int
    unit: str


def check_onnx(model: MultitaskModel, task: str, path: Path) -> Agreement:
    """Return how well onnxruntime agrees with torch on pictures of random texture.

    A box differs where the other has none of its class within 0.1 pixels and 0.001 in score. Raises
    ValueError where more than 0.001, or 0.01 of the boxes, differs: of two that tie, another one may stay.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    size = tuple(session.get_inputs()[0].shape[2:])
    given = {IMAGES: textures(size)}
    if len(session.get_inputs()) > 1:
        given[SIZES] = torch.tensor([[-(-side // part) for side in size] for part in (1, 2, 3, 1)])
    names = [output.name for output in session.get_outputs()]
    theirs = session.run(names, {name: tensor.numpy() for name, tensor in given.items()})
    with torch.no_grad():
        ours = OnnxNetwork(model, task, size).eval()(*given.values())
    found = _compared(ours, {n: torch.from_numpy(t) for n, t in zip(names, theirs, strict=True)})
    if not found.difference <= (MOST_BOXES if found.unit == "boxes" else MOST):
        raise ValueError(
            f"{path}: onnxruntime differs from torch by {found.difference:.1e} ({found.count} {found.unit} "
            "compared); do not use this file"
        )
    return found


def textures(size: tuple[int, int]) -> Tensor:
    """Return four random pictures, uint8 [4, 3, H, W], of finer to coarser grain: as rich as photographs."""
    pictures = []
    for grain in GRAINS:
        cells = [max(1, side // grain) for side in size]
        noise = torch.randint(0, 256, (1, 3, *cells)).float()
        pictures.append(F.interpolate(noise, size=size, mode="bilinear", align_corners=False))
    return torch.cat(pictures).round().to(torch.uint8)


def _compared(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Agreement:
    if "boxes" in ours:
        pairs = [(ours, theirs), (theirs, ours)]
        alone, count = (sum(numbers) for numbers in zip(*(_without_like(*p) for p in pairs), strict=True))
        return Agreement(alone / max(1, count), count // 2, "boxes")
    (name,) = ours
    one, other = ours[name], theirs[name]
    if one.is_floating_point():  # metres of depth differ by a share of themselves
        differs = (one - other).abs() / one.abs().clamp(min=1)
        return Agreement(float(differs.max()), one.numel(), name)
    return Agreement(float((one != other).float().mean()), one.numel(), name)


def _without_like(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[int, int]:
    """Return how many of our boxes have no like among theirs, and how many we have."""
    far_BNM = (ours["boxes"][:, :, None] - theirs["boxes"][:, None]).abs().amax(-1) > PIXELS
    far_BNM |= (ours["scores"][:, :, None] - theirs["scores"][:, None]).abs() > SCORE
    far_BNM |= ours["labels"][:, :, None] != theirs["labels"][:, None]
    is_there_BN = ours["scores"] > 0
    return int((far_BNM.all(-1) & is_there_BN).sum()), int(is_there_BN.sum())
