"""Losses of the heads whose published forms wait for the host, both forms on the same outputs.

Detection at 1,022 px with 20 boxes an image, segmentation at 518 px, two images each.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import clock
import torch
import workload
from torch import Tensor

from ufo_large.structures import BoxTargets, Features, TaskBatch
from ufo_large.tasks import HEADS, TaskHead
from ufo_large.tasks.box_targets import box_shares, finite_boxes
from ufo_large.tasks.class_masks import class_masks
from ufo_large.testing.models import tiny_batch

IMAGES, BOXES = 2, 20
SIDES, TOY_SIDE = {"detection": 1022, "segmentation": 518}, 64
WIDTH = 256
INFOS = {info.kind: info for info in workload.TASKS}
TOY_HEADS = {
    "detr": {"width": 32, "num_queries": 12, "layers": 2},
    "mask2former": {"width": 32, "heads": 2, "layers": 3, "num_queries": 6, "num_points": 64},
}

Step = Callable[[], Any]


def cases(toy: bool) -> dict[str, dict[str, Callable[[], Step]]]:
    """Return, by name and form, what makes a forward and backward pass of the loss alone."""
    return {
        f"{name} loss": {"libraries": lambda c=theirs: c(toy), "ours": lambda c=ours: c(toy)}
        for name, (theirs, ours) in {
            "FCOS": (_torchvision_fcos, lambda toy: _ours("detection", "fcos", toy)),
            "DETR": (_transformers_detr, lambda toy: _ours("detection", "detr", toy)),
            "Mask2Former": (_transformers_mask2former, lambda toy: _ours("segmentation", "mask2former", toy)),
        }.items()
    }


def _made(kind: str, name: str, toy: bool) -> tuple[TaskHead, dict[str, Any], TaskBatch]:
    """Return a head, its outputs on random features as leaves, and a batch."""
    torch.manual_seed(0)
    options = TOY_HEADS.get(name, {}) if toy else {}
    head = HEADS[kind][name].Config(**options).build(INFOS[kind], WIDTH, WIDTH).to(clock.device())
    side = TOY_SIDE if toy else SIDES[kind]
    batch = _crowded(tiny_batch(INFOS[kind], IMAGES, side)).to(clock.device())
    pyramid = {s: torch.randn(IMAGES, WIDTH, -(-side // s), -(-side // s)) for s in head.strides}
    pyramid = {s: x.to(clock.device()) for s, x in pyramid.items()}
    nothing = torch.zeros(0, device=clock.device())
    with torch.no_grad():
        outputs = head.train()(Features(nothing, nothing, 16, (side, side), pyramid))
    for x in outputs.values():
        if torch.is_tensor(x) and x.is_floating_point() and x.ndim > 1:
            x.requires_grad_()
    return head, outputs, batch


def _crowded(batch: TaskBatch) -> TaskBatch:
    """Repeat boxes, moved a little each time."""
    if isinstance(batch.targets, BoxTargets):
        boxes, labels, image = (
            x.repeat_interleave(BOXES, 0)
            for x in (batch.targets.boxes_xyxy_N4, batch.targets.labels_N, batch.targets.image_index_N)
        )
        batch.targets = BoxTargets(boxes + torch.arange(len(boxes))[:, None] % 7, labels, image)
    return batch


def _both_ways(losses: Callable[[], Any], outputs: dict[str, Any]) -> Step:
    leaves = [x for x in outputs.values() if torch.is_tensor(x) and x.requires_grad]
    return lambda: torch.autograd.grad(sum(losses().values()), leaves)


def _ours(kind: str, name: str, toy: bool) -> Step:
    head, outputs, batch = _made(kind, name, toy)
    return _both_ways(lambda: head.losses(outputs, batch), outputs)


def _images(targets: BoxTargets, labels: str) -> list[dict[str, Tensor]]:
    return [dict(zip(("boxes", labels), targets.of_image(i), strict=True)) for i in range(IMAGES)]


def _torchvision_fcos(toy: bool) -> Step:
    head, outputs, batch = _made("detection", "fcos", toy)
    cells, per_level = head._cells(outputs)
    found = {name: x for name, x in outputs.items() if torch.is_tensor(x)}
    return _both_ways(
        lambda: head.fcos.compute_loss(_images(batch.targets, "labels"), found, [cells] * IMAGES, per_level),
        outputs,
    )


def _transformers_detr(toy: bool) -> Step:
    from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss

    head, outputs, batch = _made("detection", "detr", toy)
    groups = len(outputs["logits"]) // IMAGES

    def losses() -> dict[str, Tensor]:
        targets = box_shares(finite_boxes(batch, head.watch), outputs["extent"])
        labels = [image for image in _images(targets, "class_labels") for _ in range(groups)]
        return RTDetrForObjectDetectionLoss(
            outputs["logits"][:, -1],
            labels,
            clock.device(),
            outputs["boxes"][:, -1],
            head.decoder.config,
            outputs_class=outputs["logits"],
            outputs_coord=outputs["boxes"],
            enc_topk_logits=outputs["proposal_logits"],
            enc_topk_bboxes=outputs["proposal_boxes"],
        )[1]

    return _both_ways(losses, outputs)


def _transformers_mask2former(toy: bool) -> Step:
    from transformers import Mask2FormerForUniversalSegmentation
    from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

    head, outputs, batch = _made("segmentation", "mask2former", toy)
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    criterion = Mask2FormerLoss(head.decoder.config, weights).to(clock.device())
    whole = SimpleNamespace(criterion=criterion, weight_dict=weights)
    size = tuple(int(cells * head.mask_stride) for cells in outputs["mask_logits"].shape[-2:])

    def losses() -> dict[str, Tensor]:
        targets = class_masks(batch.targets.masks_BHW, size)
        predictions = [
            {"masks_queries_logits": m, "class_queries_logits": c}
            for m, c in zip(outputs["mask_logits"].unbind(1), outputs["class_logits"].unbind(1), strict=True)
        ]
        return Mask2FormerForUniversalSegmentation.get_loss_dict(
            whole,
            **predictions[-1],
            mask_labels=list(targets.masks_MHW.split(targets.per_image)),
            class_labels=list(targets.labels_M.split(targets.per_image)),
            auxiliary_predictions=predictions[:-1],
        )

    return _both_ways(losses, outputs)
