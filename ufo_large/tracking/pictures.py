"""Pictures of a validation, in the form that the sinks of a run take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ufo_large.structures import IGNORE_INDEX


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A picture for a gallery: RGB uint8 [H, W, 3], and what `wandb.Image` lays over it: `Kind.overlay`.

    `why`: for what it was chosen, where it is not one of the same images at each validation.
    """

    caption: str
    image_HW3: np.ndarray
    overlay: Mapping[str, Any] = field(default_factory=dict)
    why: str = ""


def of_one_size(pictures: Sequence[Picture]) -> list[Picture]:
    """Pad pictures, and masks over them, at the right and bottom to the largest height and width."""
    sizes = [p.image_HW3.shape[:2] for p in pictures]
    size = tuple(max((side[i] for side in sizes), default=0) for i in range(2))
    return [_padded(picture, size) for picture in pictures]


def _padded(picture: Picture, size: tuple[int, int]) -> Picture:
    height, width = picture.image_HW3.shape[:2]
    room = ((0, size[0] - height), (0, size[1] - width))
    masks = {
        layer: {**mask, "mask_data": np.pad(mask["mask_data"], room, constant_values=IGNORE_INDEX)}
        for layer, mask in picture.overlay.get("masks", {}).items()
    }
    overlay = {**picture.overlay, **({"masks": masks} if masks else {})}
    return replace(picture, image_HW3=np.pad(picture.image_HW3, (*room, (0, 0))), overlay=overlay)
