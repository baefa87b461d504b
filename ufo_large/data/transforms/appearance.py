"""Changes that need no decoding: mirror a view, shift its colours."""

from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from ufo_large.data.transforms.base import View

HUE_SHARE = 0.1


def mirrored(view: View) -> View:
    """Return the view flipped left to right, boxes and masks with it."""
    moved = lambda t: F.horizontal_flip(t) if isinstance(t, tv_tensors.TVTensor) else t
    targets = None if view.targets is None else {name: moved(t) for name, t in view.targets.items()}
    return View(image=moved(view.image), targets=targets)


def colour_jitter(strength: float) -> list[v2.Transform]:
    """Return what changes brightness, contrast, saturation by `strength` and hue by a tenth; or nothing."""
    hue = min(0.5, HUE_SHARE * strength)
    if strength == 0:
        return []
    return [v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength, hue=hue)]


def repainted(image: tv_tensors.Image, steps: list[v2.Transform]) -> tv_tensors.Image:
    """Apply the steps in order."""
    for step in steps:
        image = step(image)
    return image


def check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} {value} is not in 0..1")


def check_range(name: str, value: tuple[float, float]) -> None:
    if not 0 < value[0] <= value[1]:
        raise ValueError(f"{name} {value}: give (smallest, largest), both above 0")
