"""One small scene per kind of task: targets, no targets, broken targets, and what is right of a prediction.

Three images in a padded input of 64 x 96 pixels, of which 48 x 80 are valid; the stored images are twice as
high and three times as wide as the valid part. The third image holds nothing.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from ufo_large.kinds.depth import DepthTargets
from ufo_large.structures import (
    IGNORE_INDEX,
    BoxTargets,
    ClassTargets,
    MaskTargets,
    SampleInfo,
    TaskBatch,
    TaskInfo,
)

PADDED, VALID, STORED = (64, 96), (48, 80), (96, 240)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """What the contract of a head needs of its kind.

    `targets`: of the three images. `empty`: the same without anything to learn, None where every image has a
    truth. `broken`: with a NaN, None where targets are whole numbers. `check(prediction, targets, i)` asserts
    that a prediction is the targets of image i. `info`: the task.
    """

    info: TaskInfo
    targets: Any
    check: Callable[[Any, Any, int], None]
    empty: Any = None
    broken: Any = None

    def batch(self, targets: Any = None) -> TaskBatch:
        """Return the batch, with other targets if any are given."""
        height, width = STORED
        return TaskBatch(
            task=self.info.name,
            images_BCHW=torch.zeros(3, 3, *PADDED, dtype=torch.uint8),
            sizes_B2=torch.tensor([VALID] * 3),
            targets=copy.deepcopy(self.targets if targets is None else targets),
            samples=tuple(
                SampleInfo(key=f"{i}", file_name=f"{i}.jpg", height=height, width=width, image_id=i, order=i)
                for i in range(3)
            ),
        )


def scene_of(kind: str) -> Scene:
    """Return the scene of a kind."""
    return SCENES[kind]


def scene_info(kind: str) -> TaskInfo:
    return SCENES[kind].info


def scene_batch(kind: str) -> TaskBatch:
    """Return the batch; small boxes lie around the centre of one 4-pixel cell each."""
    return SCENES[kind].batch()


def _info(kind: str, *names: str) -> TaskInfo:
    return TaskInfo(name="road", kind=kind, class_names=names, class_ids=(4, 7, 9)[: len(names)])


def _classification() -> Scene:
    targets = ClassTargets(labels_B=torch.tensor([2, 0, 1]))
    return Scene(
        info=_info("classification", "car", "sign", "tree"),
        targets=targets,
        broken=replace(targets, soft_BK=torch.full((3, 3), torch.nan)),
        check=_check_class,
    )


def _check_class(prediction: Any, targets: ClassTargets, index: int) -> None:
    assert prediction.label == targets.labels_B[index]
    assert abs(prediction.scores_K.sum() - 1) < 1e-5 and prediction.scores_K.dtype == torch.float32


def _detection() -> Scene:
    centres = torch.tensor([[22.0, 14.0], [62.0, 34.0], [42.0, 22.0]])
    boxes = torch.cat([centres - 2.5, centres + 2.5], dim=1)
    targets = BoxTargets(boxes, torch.tensor([2, 0, 1]), torch.tensor([0, 0, 1]))
    broken = boxes.clone()
    broken[0] = torch.tensor([5.0, 5.0, torch.nan, 10.0])
    none = torch.zeros(0, dtype=torch.int64)
    return Scene(
        info=_info("detection", "car", "sign", "tree"),
        targets=targets,
        empty=BoxTargets(torch.zeros(0, 4), none, none),
        broken=replace(targets, boxes_xyxy_N4=broken),
        check=_check_boxes,
    )


def _check_boxes(prediction: Any, targets: BoxTargets, index: int) -> None:
    boxes, labels = targets.of_image(index)
    sure = prediction.scores_N > 0.5
    found, order = prediction.boxes_xyxy_N4[sure], prediction.boxes_xyxy_N4[sure][:, 0].argsort()
    expected = boxes * torch.tensor([3.0, 2.0, 3.0, 2.0])
    assert found.shape == expected.shape, f"image {index}: {len(found)} boxes, expected {len(expected)}"
    assert torch.allclose(found[order], expected, atol=0.05), f"{found[order]} != {expected}"
    assert torch.equal(prediction.labels_N[sure][order], labels)


def _segmentation() -> Scene:
    masks_BHW = torch.full((3, *PADDED), IGNORE_INDEX, dtype=torch.uint8)
    masks_BHW[0, : VALID[0], : VALID[1]] = 0
    masks_BHW[0, 16:32, 32:64] = 2
    masks_BHW[1, : VALID[0], : VALID[1]] = 1
    masks_BHW[1, 24 : VALID[0], : VALID[1]] = 0
    return Scene(
        info=_info("segmentation", "car", "sign", "tree"),
        targets=MaskTargets(masks_BHW),
        empty=MaskTargets(torch.full_like(masks_BHW, IGNORE_INDEX)),
        check=_check_mask,
    )


def _check_mask(prediction: Any, targets: MaskTargets, index: int) -> None:
    expected = _at_stored_size(targets.masks_BHW[index])
    assert prediction.mask_HW.shape == STORED and prediction.mask_HW.dtype == torch.uint8
    right = (prediction.mask_HW == expected) | (expected == IGNORE_INDEX)
    assert right.float().mean() > 0.995, f"image {index}: {right.float().mean():.4f} of the pixels right"


def log_plane(height: int, width: int) -> torch.Tensor:
    """Return the scene's log depth at the centres of height x width cells over the padded input, a plane."""
    y = (torch.arange(height) + 0.5) * PADDED[0] / height
    x = (torch.arange(width) + 0.5) * PADDED[1] / width
    return 1.5 + 0.02 * y[:, None] - 0.01 * x


def _depth() -> Scene:
    """A tilted plane of which every third column is missing; the third image has no depth."""
    depth_BHW = log_plane(*PADDED).exp().repeat(3, 1, 1)
    depth_BHW[:, VALID[0] :] = 0
    depth_BHW[:, :, VALID[1] :] = 0
    depth_BHW[:, :, ::3] = 0
    depth_BHW[2] = 0
    broken = depth_BHW.clone()
    broken[1, 5, 5] = torch.nan
    return Scene(
        info=_info("depth"),
        targets=DepthTargets(depth_BHW),
        empty=DepthTargets(torch.zeros_like(depth_BHW)),
        broken=DepthTargets(broken),
        check=_check_depth,
    )


def _check_depth(prediction: Any, targets: DepthTargets, index: int) -> None:
    expected = _at_stored_size(targets.depth_BHW[index])
    assert prediction.depth_HW.shape == STORED and prediction.depth_HW.dtype == torch.float32
    known = expected > 0
    error = (prediction.depth_HW[known] / expected[known]).log().abs()
    assert not len(error) or error.max() < 0.06, f"image {index}: off by a factor of {error.max().exp():.3f}"


def _at_stored_size(map_HW: torch.Tensor) -> torch.Tensor:
    valid = map_HW[: VALID[0], : VALID[1]]
    return valid.repeat_interleave(2, dim=0).repeat_interleave(3, dim=1)


SCENES = {s.info.kind: s for s in (_classification(), _detection(), _segmentation(), _depth())}
