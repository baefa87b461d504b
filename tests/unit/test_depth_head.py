"""Depth heads: the contract, the right answer, the stored image's pixels; DPT against transformers' own."""

import json

import pytest
import torch

from ufo_large.config import from_dict, to_dict
from ufo_large.kinds.depth import DepthTargets
from ufo_large.structures import SampleInfo, TaskBatch, TaskInfo
from ufo_large.tasks.depth_dense import DenseDepth
from ufo_large.tasks.depth_dpt import DPTDepth
from ufo_large.testing.scenes import PADDED, STORED, VALID
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH, scene_features

INFO = TaskInfo(name="road", kind="depth", class_names=(), class_ids=())
HEADS = {"dense": DenseDepth, "dpt": DPTDepth}
each_head = pytest.mark.parametrize("name", HEADS)


SMALL = {"dense": {}, "dpt": {"strides": (4, 8, 16), "width": 16}}


def make_head(name, **options):
    torch.manual_seed(0)
    return HEADS[name].Config(**SMALL[name] | options).build(INFO, TRUNK_WIDTH, PYRAMID_WIDTH)


def slope(height, width, rows, columns):
    """Log depth of a tilted plane, read at the centres of height x width cells over rows x columns pixels."""
    y = (torch.arange(height) + 0.5) * rows / height
    x = (torch.arange(width) + 0.5) * columns / width
    return 1.5 + 0.02 * y[:, None] - 0.01 * x


def depth_batch(missing=False):
    """Three images of 48 x 80 pixels in an input of 64 x 96; a third of the depth is missing, or all."""
    depth_BHW = slope(*PADDED, *PADDED).exp().repeat(3, 1, 1)
    depth_BHW[:, VALID[0] :] = 0
    depth_BHW[:, :, VALID[1] :] = 0
    depth_BHW[:, :, ::3] = 0
    height, width = STORED
    return TaskBatch(
        task="road",
        images_BCHW=torch.zeros(3, 3, *PADDED, dtype=torch.uint8),
        sizes_B2=torch.tensor([VALID] * 3),
        targets=DepthTargets(torch.zeros_like(depth_BHW) if missing else depth_BHW),
        samples=tuple(
            SampleInfo(key=f"{i}", file_name=f"{i}.jpg", height=height, width=width, image_id=i, order=i)
            for i in range(3)
        ),
    )


def right_outputs(head):
    """What a perfect network would say, at the stride of the head's output."""
    cells = [side // head.output_stride for side in PADDED]
    return {"log_depth_BHW": slope(*cells, *PADDED).repeat(3, 1, 1)}


@each_head
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_are_finite_and_reach_every_parameter(name, missing, dtype):
    head = make_head(name).to(dtype)
    features = scene_features(head.strides, dtype)
    losses = head.losses(head(features), depth_batch(missing))
    assert list(losses) == ["silog", "gradient"]
    assert all(loss.shape == () and loss.dtype == torch.float32 for loss in losses.values())
    assert all(loss == 0 if missing else 0 < loss < torch.inf for loss in losses.values())
    sum(losses.values()).backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
    for level in features.pyramid.values():
        assert level.grad.isfinite().all() and (missing or level.grad.abs().sum() > 0)


@each_head
def test_right_depth_costs_almost_nothing(name):
    """Only the outermost cells of the map are extrapolated, where the plane goes on and the map does not."""
    head, batch = make_head(name), depth_batch()
    right = head.losses(right_outputs(head), batch)
    untrained = head.losses(head(scene_features(head.strides)), batch)
    assert sum(right.values()) < 0.01 < 20 * 0.01 < sum(untrained.values())  # measured 0.005 and 0.56


@each_head
def test_predictions_are_metres_in_the_stored_images_pixels(name):
    head, batch = make_head(name), depth_batch()
    predictions = head.predict(right_outputs(head), batch)
    assert [p.sample for p in predictions] == list(batch.samples)
    expected_HW = slope(*STORED, *VALID)
    for prediction in predictions:
        assert prediction.depth_HW.shape == STORED and prediction.depth_HW.dtype == torch.float32
        assert prediction.depth_HW.device.type == "cpu"
        error_HW = prediction.depth_HW.log() - expected_HW
        assert error_HW.abs().max() < 0.04  # measured 0.038, in a corner of the map
        assert error_HW[8:-8, 12:-12].abs().max() < 1e-5  # measured 5e-7


@each_head
def test_predictions_keep_to_the_range(name):
    head, batch = make_head(name, min_metres=2.0, max_metres=50.0), depth_batch()
    outputs = right_outputs(head)
    outputs["log_depth_BHW"][0], outputs["log_depth_BHW"][1] = -300.0, 300.0
    near, far, right = head.predict(outputs, batch)
    assert (near.depth_HW == 2).all() and (far.depth_HW == 50).all()
    assert right.depth_HW.min() > 2 and right.depth_HW.max() < 50


@each_head
def test_an_untrained_head_says_the_typical_depth(name):
    head, batch = make_head(name, typical_metres=25.0), depth_batch()
    with torch.no_grad():
        head.log_depth.weight.zero_()
        prediction = head.predict(head(scene_features(head.strides)), batch)[0]
    torch.testing.assert_close(prediction.depth_HW, torch.full(STORED, 25.0))


@each_head
@pytest.mark.parametrize("where", ["features", "targets", "missing pixels"])
def test_nan_makes_every_loss_nan_and_is_named(name, where):
    head, features, batch = make_head(name), scene_features(make_head(name).strides), depth_batch()
    outputs = head(features)
    if where == "features":
        with torch.no_grad():
            for level in features.pyramid.values():
                level.fill_(torch.nan)
        outputs = head(features)
    elif where == "targets":
        batch.targets.depth_BHW[1, 5, 5] = torch.nan
    else:
        outputs["log_depth_BHW"] = outputs["log_depth_BHW"].clone()
        outputs["log_depth_BHW"][1, -1, -1] = torch.inf  # in the padding, which no loss reads
    losses = head.losses(outputs, batch)
    assert len(losses) == 2 and all(loss.isnan() for loss in losses.values())
    assert ("depth" if where == "targets" else "log_depth") in head.watch.not_finite()
    sum(losses.values()).backward()
    losses = head.losses(head(scene_features(head.strides)), depth_batch())
    assert all(loss.isfinite() for loss in losses.values())


@each_head
def test_parameters_are_used_in_forward_only(name):
    """As under ZeRO-3, where they are away after it."""
    head, batch = make_head(name), depth_batch()
    outputs = head(scene_features(head.strides))
    expected = head.losses(outputs, batch)
    for parameter in head.parameters():
        parameter.data = parameter.data.new_empty(0)
    assert head.losses(outputs, batch) == expected
    assert len(head.predict(outputs, batch)) == 3


@each_head
def test_learns_one_batch_by_heart(name):
    head, batch = make_head(name), depth_batch()
    features = scene_features(head.strides)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    history = []
    for _ in range(60):
        loss = sum(head.losses(head(features), batch).values())
        history.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if history[-1] < 0.25 * history[0]:
            return
    raise AssertionError(f"{name} went from {history[0]:.3f} to {history[-1]:.3f} only")


@each_head
def test_bfloat16_makes_no_steps_in_depth(name):
    """Only the last layer is in float32; in bfloat16 a map near log 10 would hold some ten values in all."""
    head = make_head(name).bfloat16()
    log_depth_BHW = head(scene_features(head.strides, torch.bfloat16))["log_depth_BHW"]
    assert log_depth_BHW.dtype == torch.float32 and log_depth_BHW.unique().numel() > 500


@each_head
def test_input_sides_that_are_no_multiple_of_the_strides(name):
    """Levels round up (54 pixels are 14, 7 and 4 cells); what sticks out of the finest is cut off."""
    head, batch = make_head(name), depth_batch()
    features = scene_features(head.strides)
    shapes = {stride: (-(-54 // stride), -(-70 // stride)) for stride in head.strides}
    pyramid = {s: level[..., : shapes[s][0], : shapes[s][1]] for s, level in features.pyramid.items()}
    outputs = head(features._replace(pyramid=pyramid))
    assert outputs["log_depth_BHW"].shape == (3, 56 // head.output_stride, 72 // head.output_stride)
    batch.targets.depth_BHW = batch.targets.depth_BHW[:, :54, :70]
    assert all(loss.isfinite() for loss in head.losses(outputs, batch).values())


@each_head
def test_options_have_their_effect(name):
    batch = depth_batch()
    outputs = {"log_depth_BHW": right_outputs(make_head(name))["log_depth_BHW"] + 1}
    plain = make_head(name).losses(outputs, batch)
    doubled = make_head(name, gradient_weight=1.0).losses(outputs, batch)
    assert doubled["gradient"] == 2 * plain["gradient"] and doubled["silog"] == plain["silog"]
    assert list(make_head(name, gradient_weight=0.0).losses(outputs, batch)) == ["silog"]
    invariant = make_head(name, silog_lambda=1.0).losses(outputs, batch)
    assert invariant["silog"] < 0.01 < 0.4 < plain["silog"]
    config = HEADS[name].Config(max_metres=80.0, strides=(4, 8))
    assert from_dict(type(config), json.loads(json.dumps(to_dict(config)))) == config


@each_head
@pytest.mark.parametrize(
    "options,words",
    [
        ({"strides": ()}, "strides"),
        ({"strides": (8, 4)}, "strides"),
        ({"width": 0}, "width=0"),
        ({"min_metres": 0.0}, "min_metres=0.0"),
        ({"min_metres": 20.0}, "typical_metres=10.0"),
        ({"max_metres": 5.0}, "max_metres=5.0"),
        ({"max_metres": float("inf")}, "max_metres=inf"),
        ({"silog_lambda": 1.5}, "silog_lambda=1.5"),
        ({"gradient_weight": -1.0}, "gradient_weight=-1.0"),
        ({"gradient_weight": float("nan")}, "gradient_weight=nan"),
    ],
)
def test_bad_values_are_refused(name, options, words):
    with pytest.raises(ValueError, match=words):
        HEADS[name].Config(**options)


def test_values_that_one_head_alone_refuses():
    with pytest.raises(ValueError, match="num_convs=0"):
        DenseDepth.Config(num_convs=0)
    with pytest.raises(ValueError, match="twice the one before"):
        DPTDepth.Config(strides=(4, 16))
    with pytest.raises(ValueError, match="from 4 or more"):
        DPTDepth.Config(strides=(2, 4))


def test_dpt_fuses_as_transformers_does():
    """With the same weights; the two differ by intent in how they enlarge, so both keep cell edges here."""
    from transformers import DPTConfig
    from transformers.models.dpt.modeling_dpt import DPTFeatureFusionStage

    head = make_head("dpt")
    stage = DPTFeatureFusionStage(DPTConfig(fusion_hidden_size=16, neck_hidden_sizes=[16] * 3))
    for ours, theirs in zip(head.fusion, stage.layers, strict=True):
        theirs.align_corners = False
        theirs.load_state_dict(ours.state_dict(), strict=False)
    levels = [torch.randn(2, PYRAMID_WIDTH, 32 // s, 64 // s) for s in head.strides]
    reduced = [conv(level) for conv, level in zip(head.reduce, levels, strict=True)]
    torch.testing.assert_close(head.fuse(levels), stage(reduced)[-1], rtol=0, atol=0)
