"""Heads made of transformers' parts start with the values that transformers' own models start with."""

import math

import pytest
import torch
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation, RfDetrForObjectDetection
from transformers.models.rt_detr.modeling_rt_detr import RTDetrDecoder

from ufo_large.tasks.detection_detr import DETRDetector
from ufo_large.tasks.detection_rf_detr import RFDETRDetector
from ufo_large.tasks.segmentation_mask2former import Mask2FormerSegmenter
from ufo_large.testing.scenes import scene_info
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH

OFFSETS = "sampling_offsets.bias"
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Parameter -> (ours, theirs)."""


def rf_detr() -> Pairs:
    head = RFDETRDetector.Config(width=64, heads=4, cross_heads=4, feedforward=64, groups=2)
    network = head.build(scene_info("detection"), TRUNK_WIDTH, PYRAMID_WIDTH).network
    theirs = dict(RfDetrForObjectDetection(network.config).named_parameters())
    outer = ("class_embed.", "bbox_embed.")
    return {
        name: (value, theirs[name if name.startswith(outer) else f"model.{name}"])
        for name, value in network.named_parameters()
        if not name.startswith(("projector.", "reference_point_embed."))
    }


def detr() -> Pairs:
    head = DETRDetector.Config(width=64, heads=4, feedforward=64)
    decoder = head.build(scene_info("detection"), TRUNK_WIDTH, PYRAMID_WIDTH).decoder
    theirs = RTDetrDecoder(decoder.config)
    return {n: (decoder.layers.get_parameter(n), p) for n, p in theirs.layers.named_parameters()}


def mask2former() -> Pairs:
    head = Mask2FormerSegmenter.Config()
    decoder = head.build(scene_info("segmentation"), TRUNK_WIDTH, PYRAMID_WIDTH).decoder
    theirs = Mask2FormerForUniversalSegmentation(decoder.config)
    module = theirs.model.transformer_module
    found = {n: (decoder.transformer.get_parameter(n), p) for n, p in module.named_parameters()}
    return {n: pair for n, pair in found.items() if pair[0].shape == pair[1].shape}


@pytest.mark.parametrize(("pairs_of", "fewest"), [(rf_detr, 60), (detr, 40), (mask2former, 100)])
def test_constants_are_equal_and_what_is_drawn_is_as_wide(pairs_of, fewest):
    torch.manual_seed(0)
    pairs = pairs_of()
    assert len(pairs) >= fewest
    for name, (ours, theirs) in pairs.items():
        if name.endswith(OFFSETS) or float(theirs.detach().std()) == 0 or theirs.numel() == 1:
            torch.testing.assert_close(ours, theirs, msg=lambda told, name=name: f"{name}: {told}")
        elif theirs.numel() >= 1000:
            wanted = pytest.approx(float(theirs.detach().std()), rel=0.15)
            assert float(ours.detach().std()) == wanted, name


def test_nothing_is_likely_and_boxes_stay_at_the_start():
    """RF-DETR's published start, by hand: a probability of 0.01 (arXiv:1708.02002, section 3.3)."""
    network = RFDETRDetector.Config().build(scene_info("detection"), TRUNK_WIDTH, PYRAMID_WIDTH).network
    for layer in (network.class_embed, *network.enc_out_class_embed):
        assert torch.allclose(layer.bias, torch.full_like(layer.bias, -math.log(99)))
    assert not network.bbox_embed.layers[-1].weight.any() and not network.reference_point_embed.weight.any()
    for (
        layer
    ) in network.decoder.layers:  # points in all directions around the reference, at growing distances
        offsets_HP2 = layer.cross_attn.sampling_offsets.bias.view(-1, 2, 2)
        assert torch.allclose(offsets_HP2[:, 1], 2 * offsets_HP2[:, 0]) and offsets_HP2.abs().amax() == 2
