"""Detection heads against torchvision, transformers and values by hand."""

import copy
import dataclasses

import pytest
import torch
from torch import nn
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss
from transformers.loss.loss_rt_detr import RTDetrForObjectDetectionLoss
from transformers.models.lw_detr.modeling_lw_detr import encode_sinusoidal_position_embedding
from transformers.models.rt_detr.modeling_rt_detr import RTDetrDecoder

from ufo_large.structures import BoxTargets, Features, SampleInfo, TaskBatch
from ufo_large.tasks.box_targets import box_shares, finite_boxes
from ufo_large.tasks.detection_detr import DETRDetector
from ufo_large.tasks.detection_fcos import FCOSDetector
from ufo_large.testing.scenes import scene_batch, scene_info
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH, scene_features

SMALL = {"width": 32, "layers": 3, "heads": 2, "feedforward": 64, "num_queries": 10}


def make_fcos(**options) -> FCOSDetector:
    torch.manual_seed(0)
    return FCOSDetector.Config(**options).build(scene_info("detection"), TRUNK_WIDTH, PYRAMID_WIDTH)


def make_detr(**options) -> DETRDetector:
    """A DETR whose boxes already move: the last box layers start at zero otherwise."""
    torch.manual_seed(0)
    config = DETRDetector.Config(**{**SMALL, **options})
    head = config.build(scene_info("detection"), TRUNK_WIDTH, PYRAMID_WIDTH)
    for mlp in (*head.decoder.bbox_embed, head.propose.box):
        nn.init.normal_(mlp.layers[-1].weight, std=0.1)
    return head


def batch_of(boxes: list, labels: list, size=(64, 96)) -> TaskBatch:
    return TaskBatch(
        task="road",
        images_BCHW=torch.zeros(1, 3, *size, dtype=torch.uint8),
        sizes_B2=torch.tensor([size]),
        targets=BoxTargets(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(labels, dtype=torch.int64),
            torch.zeros(len(labels), dtype=torch.int64),
        ),
        samples=(SampleInfo(key="0", file_name="0", height=size[0], width=size[1], image_id=0, order=0),),
    )


def features_of(head, size=(64, 96), seed=0) -> Features:
    torch.manual_seed(seed)
    pyramid = {s: torch.randn(1, PYRAMID_WIDTH, -(-size[0] // s), -(-size[1] // s)) for s in head.strides}
    return Features(
        pooled_BD=torch.zeros(1, TRUNK_WIDTH),
        map_BDHW=torch.zeros(1, TRUNK_WIDTH, 1, 1),
        stride=16,
        image_size=size,
        pyramid=pyramid,
    )


def test_fcos_cells_are_centred_on_their_pixels():
    head = make_fcos()
    cells, per_level = head._cells(head(features_of(head)))
    assert per_level == [16 * 24, 8 * 12, 4 * 6]
    assert cells[0].tolist() == [0, 0, 4, 4] and cells[25].tolist() == [4, 4, 8, 8]
    assert cells[16 * 24].tolist() == [0, 0, 8, 8] and cells[-1].tolist() == [80, 48, 96, 64]


def test_fcos_losses_by_hand():
    """A 24 x 24 box around (36, 20): at stride 4 the cells whose centres are within 6 pixels of its own.

    Cells' centres are at 2, 6, 10 ...: x in {30 is 6 away: no, 34, 38, 42: no}, y in {18, 22}: four cells.
    """
    head = make_fcos()
    outputs = head(features_of(head))
    losses = head.losses(outputs, batch_of([[24, 8, 48, 32]], [1]))
    cells, _ = head._cells(outputs)
    centres = (cells[:, :2] + cells[:, 2:]) / 2
    wanted = torch.tensor([[34.0, 18.0], [38.0, 18.0], [34.0, 22.0], [38.0, 22.0]])
    positive = torch.cat([(centres[: 16 * 24] == w).all(1).nonzero()[0] for w in wanted])

    classes = torch.zeros_like(outputs["cls_logits"])
    classes[0, positive, 1] = 1
    focal = sigmoid_focal_loss(outputs["cls_logits"], classes, reduction="sum") / 4
    torch.testing.assert_close(losses["class"], focal)

    reach = outputs["bbox_regression"][0, positive] * 4
    found = torch.cat([wanted - reach[:, :2], wanted + reach[:, 2:]], dim=1)
    target = torch.tensor([[24.0, 8.0, 48.0, 32.0]]).expand(4, 4)
    torch.testing.assert_close(losses["box"], generalized_box_iou_loss(found, target, reduction="mean"))

    # Distances to the sides are 10 and 14 both ways: centerness sqrt(10/14 * 10/14).
    centerness = nn.functional.binary_cross_entropy_with_logits(
        outputs["bbox_ctrness"][0, positive, 0], torch.full((4,), 10 / 14)
    )
    torch.testing.assert_close(losses["centerness"], centerness)


def test_fcos_levels_take_objects_by_size():
    """The farthest side decides: up to 32 pixels stride 4, to 64 stride 8, beyond it stride 16."""
    head, size = make_fcos(), (256, 256)
    outputs = head(features_of(head, size))
    per_level = head._cells(outputs)[1]
    for half, level in ((10, 0), (40, 1), (90, 2)):
        outputs["cls_logits"] = outputs["cls_logits"].detach().requires_grad_()
        box = [128 - half, 128 - half, 128 + half, 128 + half]
        head.losses(outputs, batch_of([box], [0], size))["class"].backward()
        # Only a positive cell of this class has its logit pushed up.
        pushed_up = (outputs["cls_logits"].grad[0, :, 0] < 0).split(per_level)
        assert [bool(cells.any()) for cells in pushed_up] == [i == level for i in range(3)], half


def test_fcos_starts_at_its_prior():
    head = make_fcos(prior=0.05)
    scores = head(features_of(head))["cls_logits"].sigmoid()
    assert abs(scores.mean().item() - 0.05) < 0.02


def test_fcos_mean_over_ranks_is_the_mean_over_micro_batches():
    """A loss looks at its own micro-batch only: no collective, no state."""
    head = make_fcos()
    crowded = batch_of([[8, 8, 20, 20], [40, 8, 52, 20], [60, 30, 72, 42]], [0, 1, 2])
    sparse = batch_of([[8, 8, 20, 20]], [0])
    features = features_of(head)
    first = head.losses(head(features), crowded)
    head.losses(head(features), sparse)
    again = head.losses(head(features), crowded)
    assert {k: v.item() for k, v in first.items()} == {k: v.item() for k, v in again.items()}


def test_fcos_suppresses_doubles_within_a_class():
    """Two cells that say the same box give one detection; of another class, a second one."""
    head = make_fcos()
    outputs = head(features_of(head))
    outputs = {k: v.detach() if torch.is_tensor(v) else v for k, v in outputs.items()}
    outputs["cls_logits"].fill_(-20)
    outputs["bbox_ctrness"].fill_(20)
    for cell, (left, right) in ((100, (2.0, 3.0)), (101, (3.0, 2.0))):  # neighbours in a row
        outputs["bbox_regression"][0, cell] = torch.tensor([left, 2.0, right, 2.0])
        outputs["cls_logits"][0, cell, 0] = 5
    (prediction,) = head.predict(outputs, batch_of([], []))
    assert len(prediction.boxes_xyxy_N4) == 1
    outputs["cls_logits"][0, 101, 1] = 4
    (prediction,) = head.predict(outputs, batch_of([], []))
    assert prediction.labels_N.tolist() == [0, 1]


def test_detr_decoder_is_transformers_own_loop():
    """With the sine code put into its position layer, RT-DETR's loop gives the same boxes and classes."""
    head = make_detr(groups=1)
    decoder = head.decoder
    captured = {}
    decoder.register_forward_pre_hook(lambda module, arguments: captured.update(arguments=arguments))
    outputs = head(features_of(head))
    queries_TD, unrefined_BQ4, memory_BLD, sizes, strides, groups = captured["arguments"]

    class Position(nn.Module):
        def __init__(self, mlp):
            super().__init__()
            self.mlp = mlp

        def forward(self, reference_BQ4):
            return self.mlp(encode_sinusoidal_position_embedding(reference_BQ4, SMALL["width"] // 2))

    decoder.query_pos_head = Position(decoder.query_pos_head)
    reference = RTDetrDecoder.forward(
        decoder,
        inputs_embeds=queries_TD[None],
        encoder_hidden_states=memory_BLD,
        reference_points=unrefined_BQ4,
        spatial_shapes=torch.tensor(sizes),
        spatial_shapes_list=sizes,
    )
    # Measured difference 5e-7: theirs goes from box to logit and back at every layer.
    torch.testing.assert_close(outputs["boxes"], reference.intermediate_reference_points, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs["logits"], reference.intermediate_logits, atol=1e-4, rtol=0)


def test_detr_groups_do_not_see_each_other():
    """The first of three groups gives in training what it gives alone."""
    head = make_detr(groups=3)
    features = features_of(head)
    together, alone = head.train()(features), head.eval()(features)
    for name in ("logits", "boxes"):
        torch.testing.assert_close(together[name][:1], alone[name], atol=1e-5, rtol=0)  # measured 5e-7
        assert not torch.allclose(together[name][1], alone[name][0], atol=1e-3)


def test_detr_loss_is_the_mean_over_groups():
    head, batch = make_detr(groups=2), scene_batch("detection")
    outputs = head(scene_features(head.strides))
    both = head.losses(outputs, batch)
    each = [
        head.losses({k: v[g::2] if k != "extent" else v for k, v in outputs.items()}, batch) for g in (0, 1)
    ]
    for name, loss in both.items():
        torch.testing.assert_close(loss, (each[0][name] + each[1][name]) / 2)


def test_detr_box_losses_by_hand():
    """One box half as wide as it should be, same centre and height: L1 0.2 of the image, IoU 0.5.

    Times weight 5 (L1) and 2 (GIoU), for three layers and the proposals.
    """
    head = make_detr(groups=1, num_queries=1)
    outputs = {k: v.detach() for k, v in head(features_of(head, (64, 64))).items()}
    for name in ("boxes", "proposal_boxes"):
        outputs[name][:] = torch.tensor([0.5, 0.5, 0.2, 0.4])
    losses = head.losses(outputs, batch_of([[19.2, 19.2, 44.8, 44.8]], [2], (64, 64)))
    assert losses["box"].item() == pytest.approx(4 * 5 * 0.2, rel=1e-5)
    assert losses["giou"].item() == pytest.approx(4 * 2 * 0.5, rel=1e-5)


def test_detr_levels_that_round_up_still_point_at_the_same_pixels():
    """100 pixels are 25 cells of 4 but 7 cells of 16, which cover 112: shares of a level must differ."""
    head = make_detr(strides=(4, 16), groups=1)
    captured = []
    head.decoder.layers[0].encoder_attn.register_forward_pre_hook(
        lambda module, arguments, keywords: captured.append(keywords), with_kwargs=True
    )
    head(features_of(head, (100, 100)))
    fine, coarse = captured[0]["reference_points"].unbind(2)
    torch.testing.assert_close(fine * 100, coarse * 112)


def test_detr_proposals_start_on_cell_centres():
    head = make_detr(groups=1)
    nn.init.zeros_(head.propose.box.layers[-1].weight)
    outputs = head(features_of(head, (128, 192)))
    centres = outputs["proposal_boxes"][0, :, :2] * torch.tensor([192.0, 128.0])
    sides = outputs["proposal_boxes"][0, :, 2:] * torch.tensor([192.0, 128.0])
    strides = (sides[:, :1] / 5).round()
    torch.testing.assert_close(sides, 5 * strides.expand(-1, 2), atol=1e-3, rtol=0)
    cells = centres / strides - 0.5
    torch.testing.assert_close(cells, cells.round(), atol=1e-3, rtol=0)


def test_detr_boxes_keep_subpixel_places_in_bfloat16():
    """Across 2048 pixels bfloat16 shares would be up to 8 pixels apart; ours move freely."""
    head = make_detr(groups=1).eval()
    exact = head(features_of(head, (64, 2048)))
    features = features_of(head, (64, 2048))
    features = features._replace(pyramid={s: x.bfloat16() for s, x in features.pyramid.items()})
    rounded = copy.deepcopy(head).bfloat16()(features)
    assert rounded["boxes"].dtype == torch.float32 and rounded["logits"].dtype == torch.bfloat16
    on_grid = rounded["boxes"] == rounded["boxes"].bfloat16().float()
    assert on_grid.float().mean() < 0.2
    assert exact["boxes"].shape == rounded["boxes"].shape


def test_detr_proposals_larger_than_the_image_can_still_move():
    """A square of 80 pixels in an image 16 high: its height must not sit where a sigmoid is flat."""
    head = make_detr(strides=(16,), groups=1)
    outputs = head(features_of(head, (16, 2048)))
    heights = outputs["proposal_boxes"][0, :, 3]
    assert (heights * (1 - heights) > 0.01).all()  # the sigmoid's slope


def crowded_batch() -> TaskBatch:
    """Two images, one with more boxes than a DETR here has queries and many that overlap; one with a box."""
    torch.manual_seed(3)
    corners = torch.rand(15, 2) * torch.tensor([60.0, 40.0])
    boxes = torch.cat([corners, corners + 4 + 30 * torch.rand(15, 2)], 1)
    image = torch.tensor([0, 1] + [0] * 13)
    batch = batch_of(boxes.tolist(), torch.randint(0, 3, (15,)).tolist())
    return dataclasses.replace(
        batch,
        images_BCHW=batch.images_BCHW.expand(2, -1, -1, -1),
        sizes_B2=batch.sizes_B2.expand(2, -1),
        targets=dataclasses.replace(batch.targets, image_index_N=image),
        samples=batch.samples * 2,
    )


def outputs_for_two(head) -> dict:
    features = features_of(head)
    pyramid = {s: torch.cat([x, x.flip(3)]).requires_grad_() for s, x in features.pyramid.items()}
    return head(features._replace(pyramid=pyramid))


def same_losses_and_gradients(ours: dict, theirs: dict, outputs: dict) -> None:
    read = [x for x in outputs.values() if torch.is_tensor(x) and x.requires_grad]
    for name, expected in theirs.items():
        torch.testing.assert_close(ours[name], expected, atol=0, rtol=1e-6)  # measured 1.4e-7
    both = [torch.autograd.grad(sum(losses.values()), read, retain_graph=True) for losses in (ours, theirs)]
    for found, expected in zip(*both, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-8, rtol=1e-5)  # measured 6e-10


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("empty", [False, True])
def test_detr_losses_and_gradients_are_transformers_own(groups, empty):
    head = make_detr(groups=groups)
    outputs, batch = outputs_for_two(head), crowded_batch()
    if empty:
        batch = dataclasses.replace(batch, targets=batch_of([], []).targets)
    targets = box_shares(finite_boxes(batch, head.watch), outputs["extent"])
    labels = [
        dict(zip(("boxes", "class_labels"), targets.of_image(i), strict=True))
        for i in (0, 1)
        for _ in range(groups)
    ]
    _, by_layer, _ = RTDetrForObjectDetectionLoss(
        outputs["logits"][:, -1],
        labels,
        torch.device("cpu"),
        outputs["boxes"][:, -1],
        head.decoder.config,
        outputs_class=outputs["logits"],
        outputs_coord=outputs["boxes"],
        enc_topk_logits=outputs["proposal_logits"],
        enc_topk_bboxes=outputs["proposal_boxes"],
    )
    names = {"loss_vfl": "class", "loss_bbox": "box", "loss_giou": "giou"}
    share = groups if empty else 1  # theirs counts no groups where there is no box: ours is their mean
    theirs = {
        short: sum(loss for name, loss in by_layer.items() if name.startswith(long)) / share
        for long, short in names.items()
    }
    same_losses_and_gradients(head.losses(outputs, batch), theirs, outputs)


@pytest.mark.parametrize("empty", [False, True])
def test_fcos_losses_and_gradients_are_torchvisions_own(empty):
    head = make_fcos()
    outputs, batch = outputs_for_two(head), crowded_batch()
    if empty:
        batch = dataclasses.replace(batch, targets=batch_of([], []).targets)
    images = [batch.targets.of_image(i) for i in (0, 1)]
    cells, per_level = head._cells(outputs)
    found = {name: x for name, x in outputs.items() if torch.is_tensor(x)}
    targets = [{"boxes": boxes, "labels": labels} for boxes, labels in images]
    theirs = head.fcos.compute_loss(targets, found, [cells] * 2, per_level)
    names = {"classification": "class", "bbox_regression": "box", "bbox_ctrness": "centerness"}
    theirs = {names[name]: loss for name, loss in theirs.items()}
    same_losses_and_gradients(head.losses(outputs, batch), theirs, outputs)
