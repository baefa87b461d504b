"""The contract of a task head: what every head must do, whatever it does inside.

The scene: three images in a padded input of 64 x 96 pixels, of which 48 x 80 are valid; the stored images
are twice as high and three times as wide as the valid part. The third image holds nothing.

Legend: B images, D trunk width, P pyramid width, N boxes, H W height and width of the padded input.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ufo_large.structures import (
    IGNORE_INDEX,
    BoxTargets,
    ClassTargets,
    Features,
    Kind,
    MaskTargets,
    Role,
    SampleInfo,
    TaskBatch,
    TaskInfo,
    role_of,
)
from ufo_large.tasks import TaskHead

TRUNK_WIDTH, PYRAMID_WIDTH, TRUNK_STRIDE = 24, 32, 16
PADDED, VALID, STORED = (64, 96), (48, 80), (96, 240)
RightOutputs = Callable[[TaskHead, Features, TaskBatch], dict[str, Any]]


def scene_info(kind: Kind) -> TaskInfo:
    return TaskInfo(name="road", kind=kind, class_names=("car", "sign", "tree"), class_ids=(4, 7, 9))


def scene_features(strides: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Features:
    """Return random features that record gradients."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    height, width = PADDED
    return Features(
        pooled_BD=leaf(3, TRUNK_WIDTH),
        map_BDHW=leaf(3, TRUNK_WIDTH, height // TRUNK_STRIDE, width // TRUNK_STRIDE),
        stride=TRUNK_STRIDE,
        image_size=PADDED,
        pyramid={s: leaf(3, PYRAMID_WIDTH, -(-height // s), -(-width // s)) for s in strides},
    )


def scene_batch(kind: Kind) -> TaskBatch:
    """Return the batch; small boxes lie around the centre of one 4-pixel cell each."""
    return TaskBatch(
        task="road",
        images_BCHW=torch.zeros(3, 3, *PADDED, dtype=torch.uint8),
        sizes_B2=torch.tensor([VALID] * 3),
        targets=_targets(kind),
        samples=tuple(
            SampleInfo(
                key=f"{i}", file_name=f"{i}.jpg", height=STORED[0], width=STORED[1], image_id=i, order=i
            )
            for i in range(3)
        ),
    )


def check_task(head: TaskHead, right_outputs: RightOutputs, tolerance: float = 0.02) -> None:
    """Assert that `head`, built for `scene_info` at the widths above, keeps the contract of TaskHead.

    `right_outputs(head, features, batch)` writes the raw outputs of a perfect network; their loss must
    stay below `tolerance` and their predictions must be the targets, in pixels of the stored images.
    """
    batch = scene_batch(head.kind)
    assert all(role_of(p) == Role("head", "road") for p in head.parameters()), "a parameter lacks its role"
    check_gradients(head, batch)
    if head.kind != "classification":
        check_gradients(head, _emptied(batch))
    check_right_answer(head, batch, right_outputs, tolerance)
    check_parameters_are_used_in_forward_only(head, batch)
    check_reports_nan(head, batch)
    check_gradients(copy.deepcopy(head).bfloat16(), batch, torch.bfloat16)


def check_gradients(head: TaskHead, batch: TaskBatch, dtype: torch.dtype = torch.float32) -> None:
    """Losses are finite float32 scalars by name; their sum reaches every parameter and all features read."""
    head.zero_grad(set_to_none=True)
    features = scene_features(head.strides, dtype)
    losses = head.losses(head(features), batch)
    assert losses and all(name.isidentifier() for name in losses), f"loss names {list(losses)}"
    for name, loss in losses.items():
        assert loss.shape == () and loss.dtype == torch.float32 and loss.isfinite(), f"{name}: {loss}"
    sum(losses.values()).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), f"gradient of {name}"
    whole = [f for f in (features.pooled_BD, features.map_BDHW) if f.grad is not None]
    read = list(features.pyramid.values()) if head.strides else whole
    assert read, "the head reads no features"
    empty_masks = isinstance(batch.targets, MaskTargets) and (batch.targets.masks_BHW == IGNORE_INDEX).all()
    for map_BPHW in read:
        assert map_BPHW.grad is not None and map_BPHW.grad.isfinite().all()
        assert empty_masks or map_BPHW.grad.abs().sum() > 0, "features get no gradient"


def check_right_answer(
    head: TaskHead, batch: TaskBatch, right_outputs: RightOutputs, tolerance: float
) -> None:
    """The right answer costs almost nothing, another one much more; predictions are the targets again."""
    features = scene_features(head.strides)
    outputs = right_outputs(head, features, batch)
    right = sum(head.losses(outputs, batch).values()).item()
    wrong = sum(head.losses(head(features), batch).values()).item()
    assert right < tolerance, f"the right answer costs {right}"
    assert wrong > 5 * tolerance, f"an untrained head pays only {wrong}"
    predictions = head.predict(outputs, batch)
    assert [p.sample for p in predictions] == list(batch.samples)
    for index, prediction in enumerate(predictions):
        _check_prediction(prediction, batch, index)


def check_parameters_are_used_in_forward_only(head: TaskHead, batch: TaskBatch) -> None:
    """Losses and predictions still come out where parameters are away, as under ZeRO-3 after forward."""
    outputs = head(scene_features(head.strides))
    kept = [p.data for p in head.parameters()]
    for parameter in head.parameters():
        parameter.data = parameter.data.new_empty(0)
    try:
        head.losses(outputs, batch)
        assert len(head.predict(outputs, batch)) == len(batch)
    finally:
        for parameter, data in zip(head.parameters(), kept, strict=True):
            parameter.data = data


def check_reports_nan(head: TaskHead, batch: TaskBatch) -> None:
    """NaN in features or targets raises nothing, makes every loss NaN and is named; the next pass is fine."""
    features = scene_features(head.strides)
    with torch.no_grad():
        for x in (features.pooled_BD, features.map_BDHW, *features.pyramid.values()):
            x.fill_(torch.nan)
    _check_all_nan(head, features, batch)
    targets = copy.deepcopy(batch.targets)
    if isinstance(targets, BoxTargets):
        targets.boxes_xyxy_N4.view(-1)[:4].copy_(torch.tensor([5.0, 5.0, torch.nan, 10.0]))
    elif isinstance(targets, ClassTargets):
        targets.soft_BK = torch.full((3, 3), torch.nan)
    else:
        return  # class maps are integers
    _check_all_nan(head, scene_features(head.strides), _with_targets(batch, targets))


def _check_all_nan(head: TaskHead, features: Features, batch: TaskBatch) -> None:
    head = copy.deepcopy(head)
    assert head.watch.not_finite() == []
    losses = head.losses(head(features), batch)
    assert losses and all(loss.isnan() for loss in losses.values()), f"NaN was accepted: {losses}"
    assert head.watch.not_finite(), "nothing was named"
    head.zero_grad()
    sum(losses.values()).backward()  # the step goes on to the collectives of its backward pass
    losses = head.losses(head(scene_features(head.strides)), scene_batch(head.kind))
    assert all(loss.isfinite() for loss in losses.values()), f"NaN of an earlier pass came back: {losses}"


def _check_prediction(prediction: Any, batch: TaskBatch, index: int) -> None:
    targets = batch.targets
    if isinstance(targets, ClassTargets):
        assert prediction.label == targets.labels_B[index]
        assert abs(prediction.scores_K.sum() - 1) < 1e-5 and prediction.scores_K.dtype == torch.float32
    elif isinstance(targets, BoxTargets):
        boxes, labels = targets.of_image(index)
        sure = prediction.scores_N > 0.5
        found, order = prediction.boxes_xyxy_N4[sure], prediction.boxes_xyxy_N4[sure][:, 0].argsort()
        expected = boxes * torch.tensor([3.0, 2.0, 3.0, 2.0])
        assert found.shape == expected.shape, f"image {index}: {len(found)} boxes, expected {len(expected)}"
        assert torch.allclose(found[order], expected, atol=0.05), f"{found[order]} != {expected}"
        assert torch.equal(prediction.labels_N[sure][order], labels)
    else:
        valid = targets.masks_BHW[index, : VALID[0], : VALID[1]]
        expected = valid.repeat_interleave(2, dim=0).repeat_interleave(3, dim=1)
        assert prediction.mask_HW.shape == STORED and prediction.mask_HW.dtype == torch.uint8
        right = (prediction.mask_HW == expected) | (expected == IGNORE_INDEX)
        assert right.float().mean() > 0.995, f"image {index}: {right.float().mean():.4f} of the pixels right"


def _targets(kind: Kind) -> ClassTargets | BoxTargets | MaskTargets:
    if kind == "classification":
        return ClassTargets(labels_B=torch.tensor([2, 0, 1]))
    if kind == "detection":
        centres = torch.tensor([[22.0, 14.0], [62.0, 34.0], [42.0, 22.0]])
        boxes = torch.cat([centres - 2.5, centres + 2.5], dim=1)
        return BoxTargets(boxes, torch.tensor([2, 0, 1]), torch.tensor([0, 0, 1]))
    masks_BHW = torch.full((3, *PADDED), IGNORE_INDEX, dtype=torch.uint8)
    masks_BHW[0, : VALID[0], : VALID[1]] = 0
    masks_BHW[0, 16:32, 32:64] = 2
    masks_BHW[1, : VALID[0], : VALID[1]] = 1
    masks_BHW[1, 24:, : VALID[1]] = 0
    masks_BHW[1, VALID[0] :] = IGNORE_INDEX
    return MaskTargets(masks_BHW)


def _emptied(batch: TaskBatch) -> TaskBatch:
    """Return the batch with nothing in any image: no boxes, or every pixel to be ignored."""
    if isinstance(batch.targets, MaskTargets):
        return _with_targets(batch, MaskTargets(torch.full_like(batch.targets.masks_BHW, IGNORE_INDEX)))
    none = torch.zeros(0, dtype=torch.int64)
    return _with_targets(batch, BoxTargets(torch.zeros(0, 4), none, none))


def _with_targets(batch: TaskBatch, targets: Any) -> TaskBatch:
    batch = copy.copy(batch)
    batch.targets = targets
    return batch
