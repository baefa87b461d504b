"""The RF-DETR head against transformers' own model with the same weights on the same map."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import RfDetrForObjectDetection

from ufo_large.structures import BoxTargets
from ufo_large.tasks.box_targets import box_shares, finite_boxes
from ufo_large.tasks.detection_rf_detr import RFDETRDetector
from ufo_large.testing.scenes import scene_batch, scene_info
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH, scene_features

SMALL = {"width": 32, "layers": 3, "heads": 2, "cross_heads": 4, "feedforward": 64, "num_queries": 10}


def make_head(**options) -> RFDETRDetector:
    """A head whose boxes already move and whose groups differ."""
    torch.manual_seed(0)
    config = RFDETRDetector.Config(**{**SMALL, "groups": 3, **options})
    head = config.build(scene_info("detection"), TRUNK_WIDTH, PYRAMID_WIDTH)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return head


class MapAsBackbone(nn.Module):
    """Take the trunk's map for pixels."""

    def __init__(self, projector: nn.Module):
        super().__init__()
        self.projector = projector

    def forward(self, map_BCHW, mask):
        return self.projector((map_BCHW,)), mask.bool()


def transformers_own(head: RFDETRDetector) -> RfDetrForObjectDetection:
    model = RfDetrForObjectDetection(head.network.config)
    model.model.backbone = MapAsBackbone(model.model.backbone.projector)
    outer, renamed = ("class_embed.", "bbox_embed."), {}
    for name, value in head.network.state_dict().items():
        inner = f"backbone.{name}" if name.startswith("projector.") else name
        renamed[name if name.startswith(outer) else f"model.{inner}"] = value
    model.load_state_dict(renamed)  # strict: every parameter of theirs, and no other
    return model.train(head.training)


def labels_of(head: RFDETRDetector, outputs, batch) -> list[dict]:
    targets = box_shares(finite_boxes(batch, head.watch), outputs["extent"])
    images = (targets.of_image(i) for i in range(len(batch)))
    return [{"boxes": boxes, "class_labels": labels} for boxes, labels in images]


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_transformers_own(training):
    head = make_head().train(training)
    features = scene_features(head.strides)
    ours = head(features)
    theirs = transformers_own(head)(features.map_BDHW)
    assert ours["logits"].shape[1:4] == (4, 3 if training else 1, 10)
    logits, boxes = (ours[name].flatten(2, 3) for name in ("logits", "boxes"))
    for found, expected in (
        (logits[:, 0], theirs.enc_outputs_class),
        (boxes[:, 0], theirs.enc_outputs_coord_logits),
        (logits[:, -1], theirs.logits),
        (boxes[:, -1], theirs.pred_boxes),
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)  # measured 2e-6


@pytest.mark.parametrize("empty", [False, True])
def test_the_loss_and_its_gradients_are_transformers_own(empty):
    head, batch = make_head(), scene_batch("detection")
    if empty:
        none = torch.zeros(0, dtype=torch.int64)
        batch = replace(batch, targets=BoxTargets(torch.zeros(0, 4), none, none))
    features = scene_features(head.strides)
    outputs = head(features)
    losses = head.losses(outputs, batch)
    ours = sum(losses.values())
    ours.backward()
    of_ours = features.map_BDHW.grad.clone()
    features.map_BDHW.grad = None
    theirs = transformers_own(head)(features.map_BDHW, labels=labels_of(head, outputs, batch)).loss
    theirs.backward()
    # Where there are no boxes transformers divides by one, not by one per group.
    share = head.config.groups if empty else 1
    torch.testing.assert_close(ours, theirs / share, atol=0, rtol=1e-5)
    torch.testing.assert_close(of_ours, features.map_BDHW.grad / share, atol=1e-5, rtol=1e-4)


def test_groups_do_not_see_each_other():
    """The first of three groups gives in training what it gives alone."""
    head = make_head()
    features = scene_features(head.strides)
    together, alone = head.train()(features), head.eval()(features)
    for name in ("logits", "boxes"):
        torch.testing.assert_close(together[name][:, :, :1], alone[name], atol=1e-5, rtol=1e-5)
        assert not torch.allclose(together[name][:, :, 1], alone[name][:, :, 0], atol=1e-3)


def test_a_map_with_fewer_cells_than_queries():
    """24 cells give 24 queries, each group its own: the same as a head that was made with 24."""
    head, few = make_head(num_queries=50), make_head(num_queries=24)
    state = head.network.state_dict()
    for name in ("query_feat.weight", "reference_point_embed.weight"):
        state[name] = state[name].unflatten(0, (3, 50))[:, :24].flatten(0, 1)
    few.network.load_state_dict(state)
    features = scene_features(head.strides)
    for name, value in few(features).items():
        torch.testing.assert_close(head(features)[name], value, atol=0, rtol=0)


def test_a_pyramid_level_is_read_where_a_stride_is_named():
    head = make_head(stride=8)
    assert head.strides == (8,)
    outputs = head(scene_features(head.strides))
    assert outputs["extent"].tolist() == [96, 64, 96, 64]


def test_very_sure_and_wrong_costs_much_but_stays_finite():
    """A probability of 1 in float32 has no logarithm on the other side."""
    head, batch = make_head(), scene_batch("detection")
    outputs = {name: value.detach() for name, value in head(scene_features(head.strides)).items()}
    outputs["logits"].fill_(25.0)
    found = head.losses(outputs, batch)["class"]
    assert found.isfinite() and found > 1000


def test_boxes_keep_subpixel_places_in_bfloat16():
    head = make_head().eval()
    features = scene_features(head.strides)
    outputs = copy.deepcopy(head).bfloat16()(features._replace(map_BDHW=features.map_BDHW.bfloat16()))
    assert outputs["boxes"].dtype == torch.float32 and outputs["logits"].dtype == torch.bfloat16
    on_grid = outputs["boxes"] == outputs["boxes"].bfloat16().float()
    assert on_grid.float().mean() < 0.2
