"""Options of the heads: each has its effect, and a bad value stops with the remedy."""

import json

import pytest
import torch
import torch.nn.functional as F

from ufo_large.config import apply_overrides, from_dict, to_dict
from ufo_large.structures import BoxTargets, ClassTargets, TaskInfo
from ufo_large.tasks import HEADS
from ufo_large.testing.scenes import PADDED, scene_batch, scene_info
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH, scene_features

SMALL_DETR = {"width": 32, "layers": 2, "heads": 2, "feedforward": 64, "num_queries": 12}
SMALL_RF_DETR = {**SMALL_DETR, "cross_heads": 2, "groups": 2}


def make_head(kind, name, **options):
    torch.manual_seed(0)
    return HEADS[kind][name].Config(**options).build(scene_info(kind), TRUNK_WIDTH, PYRAMID_WIDTH)


@pytest.mark.parametrize(
    "kind,name,options,words",
    [
        ("classification", "linear", {"dropout": 1.0}, "dropout=1.0"),
        ("classification", "linear", {"label_smoothing": -0.1}, "label_smoothing"),
        ("classification", "grid", {"rows": 0}, "rows=0"),
        ("classification", "arcface", {"margin": 2.0}, "radians"),
        ("classification", "arcface", {"scale": 0.0}, "scale"),
        ("detection", "fcos", {"strides": (8, 4)}, "finest first"),
        ("detection", "fcos", {"strides": ()}, "finest first"),
        ("detection", "fcos", {"strides": (4, 16)}, "twice the one before"),
        ("detection", "fcos", {"prior": 0.0}, "prior"),
        ("detection", "fcos", {"max_detections": 0}, "max_detections"),
        ("detection", "detr", {"width": 30}, "multiple"),
        ("detection", "detr", {"num_queries": 0}, "num_queries"),
        ("detection", "rf_detr", {"width": 40}, "cross_heads=16"),
        ("detection", "rf_detr", {"groups": 0}, "groups=0"),
        ("segmentation", "dense", {"num_convs": 0}, "num_convs"),
        ("segmentation", "dense", {"dice_weight": -1.0}, "dice_weight"),
        ("segmentation", "mask2former", {"strides": (4, 8)}, "three or four"),
        ("segmentation", "mask2former", {"layers": 2}, "3 or more"),
        ("segmentation", "mask2former", {"dice_weight": -1.0}, "dice_weight"),
        ("segmentation", "eomt", {"blocks": 0}, "blocks=0"),
        ("segmentation", "eomt", {"enlargements": -1}, "enlargements"),
    ],
)
def test_bad_values_are_refused(kind, name, options, words):
    with pytest.raises(ValueError, match=words):
        HEADS[kind][name].Config(**options)


@pytest.mark.parametrize("head", [head for heads in HEADS.values() for head in heads.values()])
def test_configs_survive_saving(head):
    assert from_dict(head.Config, json.loads(json.dumps(to_dict(head.Config())))) == head.Config()


def test_options_can_be_set_from_the_command_line():
    config = apply_overrides(
        HEADS["segmentation"]["dense"].Config(), ["strides=4,8", "class_weights=1,2.5", "width=none"]
    )
    assert config.strides == (4, 8) and config.class_weights == (1.0, 2.5) and config.width is None


def test_class_weights_must_fit_the_classes():
    with pytest.raises(ValueError, match="2 class_weights for 3 classes"):
        make_head("segmentation", "dense", class_weights=(1.0, 2.0))


@pytest.mark.parametrize("name", ["dense", "mask2former"])
def test_masks_have_room_for_255_classes(name):
    many = tuple(map(str, range(256)))
    info = TaskInfo(name="s", kind="segmentation", class_names=many, class_ids=tuple(range(256)))
    with pytest.raises(ValueError, match="256 classes"):
        HEADS["segmentation"][name].Config().build(info, TRUNK_WIDTH, PYRAMID_WIDTH)


def test_smoothing_is_torchs_and_is_left_out_for_mixed_labels():
    head, batch = make_head("classification", "linear", label_smoothing=0.2), scene_batch("classification")
    outputs = head(scene_features(()))
    smoothed = F.cross_entropy(outputs["logits_BK"], batch.targets.labels_B, label_smoothing=0.2)
    torch.testing.assert_close(head.losses(outputs, batch)["cross_entropy"], smoothed)
    soft_BK = torch.tensor([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.5]])
    batch.targets = ClassTargets(batch.targets.labels_B, soft_BK)
    mixed = -(soft_BK * outputs["logits_BK"].log_softmax(-1)).sum(-1).mean()
    torch.testing.assert_close(head.losses(outputs, batch)["cross_entropy"], mixed)


def test_arcface_without_margin_is_a_scaled_cosine_softmax():
    head, batch = (
        make_head("classification", "arcface", margin=0.0, scale=10.0),
        scene_batch("classification"),
    )
    features = scene_features(())
    cosine_BK = F.cosine_similarity(features.pooled_BD[:, None], head.directions.weight[None], dim=-1)
    outputs = head(features)
    torch.testing.assert_close(outputs["cosine_BK"], cosine_BK)
    expected = F.cross_entropy(10 * cosine_BK, batch.targets.labels_B)
    # The margin's clamp keeps cosines 1e-6 from 1: measured difference 0.
    torch.testing.assert_close(head.losses(outputs, batch)["cross_entropy"], expected)


def test_a_margin_makes_the_same_answer_cost_more():
    batch, features = scene_batch("classification"), scene_features(())
    costs = []
    for margin in (0.0, 0.3, 0.6):
        head = make_head("classification", "arcface", margin=margin)
        costs.append(head.losses(head(features), batch)["cross_entropy"].item())
    assert costs == sorted(costs) and costs[0] < costs[-1]


def test_dice_and_class_weights_enter_the_loss():
    batch = scene_batch("segmentation")
    plain, weighted, dice = (
        make_head("segmentation", "dense", **options)
        for options in ({}, {"class_weights": (1.0, 5.0, 1.0)}, {"dice_weight": 2.0})
    )
    outputs = {"logits_BKHW": torch.randn(3, 3, PADDED[0] // 4, PADDED[1] // 4)}
    base = plain.losses(outputs, batch)
    assert set(base) == {"cross_entropy"}
    assert weighted.losses(outputs, batch)["cross_entropy"] != base["cross_entropy"]
    with_dice = dice.losses(outputs, batch)
    assert with_dice["cross_entropy"] == base["cross_entropy"] and 0 < with_dice["dice"] < 2


@pytest.mark.parametrize("kind,name", [("detection", "fcos"), ("segmentation", "dense")])
def test_width_and_depth_change_the_head(kind, name):
    sizes = [
        sum(p.numel() for p in make_head(kind, name, **options).parameters())
        for options in ({"width": 16, "num_convs": 1}, {"num_convs": 1}, {"num_convs": 3})
    ]
    assert sizes == sorted(sizes) and len(set(sizes)) == 3
    head = make_head(kind, name, width=16, num_convs=1)
    head.predict(head(scene_features(head.strides)), scene_batch(kind))


@pytest.mark.parametrize("name,options", [("fcos", {}), ("detr", SMALL_DETR), ("rf_detr", SMALL_RF_DETR)])
def test_at_most_max_detections_best_first_inside_the_image(name, options):
    head, batch = make_head("detection", name, max_detections=7, **options), scene_batch("detection")
    head.eval()
    if name == "fcos":  # an untrained head is sure of nothing
        torch.nn.init.normal_(head.fcos.head.classification_head.cls_logits.bias)
    for prediction in head.predict(head(scene_features(head.strides)), batch):
        assert 0 < len(prediction.boxes_xyxy_N4) <= 7
        assert (prediction.scores_N.diff() <= 0).all()
        x1, y1, x2, y2 = prediction.boxes_xyxy_N4.unbind(1)
        assert (x1 >= 0).all() and (x1 < x2).all() and (x2 <= prediction.sample.width).all()
        assert (y1 >= 0).all() and (y1 < y2).all() and (y2 <= prediction.sample.height).all()


def test_detr_groups_only_train():
    head = make_head("detection", "detr", groups=3, **SMALL_DETR)
    features = scene_features(head.strides)
    assert len(head(features)["logits"]) == 9
    assert len(head.eval()(features)["logits"]) == 3


def test_detr_takes_inputs_with_fewer_cells_than_queries():
    head = make_head("detection", "detr", strides=(16, 32), **{**SMALL_DETR, "num_queries": 50})
    outputs = head(scene_features(head.strides))
    assert outputs["logits"].shape[2] == 4 * 6 + 2 * 3
    assert all(loss.isfinite() for loss in head.losses(outputs, scene_batch("detection")).values())


@pytest.mark.parametrize(
    "name,options", [("fcos", {}), ("detr", {**SMALL_DETR, "groups": 2}), ("rf_detr", SMALL_RF_DETR)]
)
def test_an_image_without_objects_pushes_scores_down_only(name, options):
    """In a batch that is half empty the empty image gives no box loss but a class loss."""
    head, batch = make_head("detection", name, **options), scene_batch("detection")
    features = scene_features(head.strides)
    none = torch.zeros(0, dtype=torch.int64)
    batch.targets = BoxTargets(torch.zeros(0, 4), none, none)
    losses = head.losses(head(features), batch)
    assert losses["box"] == 0 and losses["class"] > 0
