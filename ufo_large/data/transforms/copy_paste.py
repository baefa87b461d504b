"""Copy rare objects from other images into this one (after Ghiasi et al. 2020, arXiv:2012.07177).

Boxes have no outline to cut along, so an object comes with a margin of its surroundings that fades out.
"""

import numpy as np
import torch
from torchvision import tv_tensors

from ufo_large.data.shards import SplitReader
from ufo_large.data.transforms.base import View, log_uniform, pick
from ufo_large.data.transforms.window import fit, load, scaled
from ufo_large.structures import BadSample, TaskInfo, Window

MARGIN = 0.2
ZOOM = (0.7, 1.4)
LARGEST_SHARE = 0.5
PLACES_TRIED = 10


class RareObjects:
    """Draws objects of a data set so that every class comes equally often."""

    def __init__(self, reader: SplitReader, info: TaskInfo):
        self.reader, self.info = reader, info
        owner = np.repeat(np.arange(len(reader)), np.diff(reader.label_starts))
        usable = ~reader.columns["crowds"]
        self.boxes_by_class = [
            np.stack([owner, np.arange(len(owner))], axis=1)[usable & (reader.labels == label)]
            for label in np.unique(reader.labels[usable])
        ]

    def draw(self, canvas: tuple[int, int], keep_aspect: bool) -> View | None:
        """Return a patch around a random object at about the scale it has on the canvas.

        None when the data set has no objects, the object fills half the canvas, or its image is broken; a
        broken image is reported when its own turn comes.
        """
        if not self.boxes_by_class:
            return None
        of_class = self.boxes_by_class[pick(len(self.boxes_by_class))]
        index, row = of_class[pick(len(of_class))]
        sample = self.reader.sample(index)
        size = (sample.height, sample.width)
        zoom = log_uniform(*ZOOM)
        factors = [factor * zoom for factor in fit(*size, canvas, keep_aspect)]
        window = _around(self.reader.columns["boxes_xyxy"][row], size, factors, canvas)
        if window is None:
            return None
        try:
            return load(self.reader.read(index), window, self.info)
        except BadSample:
            return None


def _around(box_xyxy: np.ndarray, size, factors, canvas) -> Window | None:
    x0, y0, x1, y1 = box_xyxy
    spans = []
    for low, high, length in ((y0, y1, size[0]), (x0, x1, size[1])):
        margin = MARGIN * (high - low)
        start, stop = max(0, int(low - margin)), min(length, int(np.ceil(high + margin)))
        spans.append((start, stop - start))
    out = [round(spans[i][1] * factors[i]) for i in range(2)]
    if min(out) < 2 or any(out[i] > LARGEST_SHARE * canvas[i] for i in range(2)):
        return None
    (top, height), (left, width) = spans
    return Window(top, left, height, width, *(scaled(out[i], 1.0, canvas[i]) for i in range(2)))


def paste(view: View, patch: View) -> View:
    """Return the view with the patch where it covers no box; unchanged when no such place is found."""
    (height, width), (patch_height, patch_width) = view.size, patch.size
    if patch_height > height or patch_width > width:
        return view
    for _ in range(PLACES_TRIED):
        top, left = pick(height - patch_height + 1), pick(width - patch_width + 1)
        if not _touches(view.targets["boxes"], top, left, patch_height, patch_width):
            return _pasted(view, patch, top, left)
    return view


def _touches(boxes: torch.Tensor, top: int, left: int, height: int, width: int) -> bool:
    x0, y0, x1, y1 = boxes.unbind(1)
    return bool(((x0 < left + width) & (x1 > left) & (y0 < top + height) & (y1 > top)).any())


def _pasted(view: View, patch: View, top: int, left: int) -> View:
    height, width = patch.size
    image = view.image.clone()
    place = image[:, top : top + height, left : left + width]
    alpha = _fade(height)[:, None] * _fade(width)
    place.copy_((alpha * patch.image + (1 - alpha) * place).round().to(torch.uint8))
    moved = patch.targets["boxes"] + torch.tensor([left, top, left, top])
    boxes = torch.cat([view.targets["boxes"], moved])
    targets = {
        "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=view.size),
        "labels": torch.cat([view.targets["labels"], patch.targets["labels"]]),
    }
    return View(image=tv_tensors.Image(image), targets=targets)


def _fade(length: int) -> torch.Tensor:
    """Return weights that rise to 1 within half the margin from either end."""
    ramp = max(1.0, length * MARGIN / (1 + 2 * MARGIN) / 2)
    distance = torch.arange(length) + 0.5
    return torch.minimum(distance, length - distance).div(ramp).clamp(max=1.0)
