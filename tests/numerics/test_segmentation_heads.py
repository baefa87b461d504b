"""Segmentation heads against transformers and values by hand."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor
from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss

from ufo_large.structures import IGNORE_INDEX
from ufo_large.tasks import mask_resize, stored_size
from ufo_large.tasks.class_masks import class_masks
from ufo_large.tasks.mask_resize import mask_predictions
from ufo_large.tasks.pyramid_fusion import PyramidFusion
from ufo_large.tasks.segmentation_dense import DenseSegmenter
from ufo_large.tasks.segmentation_mask2former import Mask2FormerSegmenter
from ufo_large.testing.scenes import PADDED, STORED, VALID, scene_batch, scene_info
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH, scene_features


def make_mask2former(**options) -> Mask2FormerSegmenter:
    torch.manual_seed(0)
    config = Mask2FormerSegmenter.Config(
        **{
            "width": 32,
            "layers": 3,
            "heads": 2,
            "feedforward": 64,
            "num_queries": 8,
            "num_points": 256,
            **options,
        }
    )
    return config.build(scene_info("segmentation"), TRUNK_WIDTH, PYRAMID_WIDTH)


def test_dense_loss_is_torchs_cross_entropy_at_full_size():
    torch.manual_seed(0)
    head = DenseSegmenter.Config().build(scene_info("segmentation"), TRUNK_WIDTH, PYRAMID_WIDTH)
    batch = scene_batch("segmentation")
    outputs = head(scene_features(head.strides))
    assert outputs["logits_BKHW"].shape == (3, 3, PADDED[0] // 4, PADDED[1] // 4)
    enlarged = F.interpolate(outputs["logits_BKHW"], size=PADDED, mode="bilinear", align_corners=False)
    expected = F.cross_entropy(enlarged, batch.targets.masks_BHW.long(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(head.losses(outputs, batch)["cross_entropy"], expected)


def test_fusion_keeps_every_level_in_its_place():
    """Each level carries the x of its cells' centres; 100 pixels round up to 25, 13 and 7 cells."""
    strides = (4, 8, 16)
    fusion = PyramidFusion(strides, pyramid_width=1, width=1, num_convs=0)
    for lateral in fusion.laterals:
        torch.nn.init.ones_(lateral.weight)
        torch.nn.init.zeros_(lateral.bias)
    levels = []
    for s in strides:
        cells = -(-100 // s)
        x = (torch.arange(cells) + 0.5) * s
        levels.append(x.expand(1, 1, cells, cells).clone())
    fused = fusion(levels)
    assert fused.shape[-2:] == (25, 25)
    inside = slice(2, 22)  # nearer to a border than half a coarse cell, the border value is repeated
    expected = 3 * (torch.arange(25) + 0.5) * 4
    torch.testing.assert_close(fused[0, 0, 12, inside], expected[inside])


def test_predictions_cut_the_valid_part_before_they_resize():
    """Scores change class at x = 40 of 80 valid pixels: at 120 of 240 stored ones; padding says otherwise."""
    scores = torch.zeros(3, 3, PADDED[0] // 4, PADDED[1] // 4)
    scores[:, 0, :, :10] = 9
    scores[:, 1, :, 10:] = 9
    scores[:, 2, VALID[0] // 4 :] = 99
    for prediction in mask_predictions(scores, 4, scene_batch("segmentation")):
        top = prediction.mask_HW[: STORED[0] - 8]
        assert (top[:, :120] == 0).all() and (top[:, 120:] == 1).all()


def test_no_object_must_weigh_something():
    """The weighted mean over queries without any mask would be 0 / 0."""
    with pytest.raises(ValueError, match="no_object_weight=0: an image without masks would have no loss"):
        Mask2FormerSegmenter.Config(no_object_weight=0)


def test_many_classes_of_a_large_picture_are_seen_a_few_at_a_time(monkeypatch):
    """The first of equals as argmax has it, and never more scores at the stored size than allowed."""
    batch, sizes = scene_batch("segmentation"), []
    scores = torch.randn(3, 19, PADDED[0] // 4, PADDED[1] // 4)
    scores[:, 7] = scores[:, 3]
    scores[:, 18] = scores[:, 3]
    scores[0] = 0
    whole = mask_predictions(scores, 4, batch)
    real = F.interpolate

    def spied(*given, **options):
        found = real(*given, **options)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(stored_size.F, "interpolate", spied)
    pixels = STORED[0] * STORED[1]
    for classes in (1, 2, 5):
        sizes.clear()
        monkeypatch.setattr(mask_resize, "MOST_SCORES", classes * pixels)
        found = mask_predictions(scores, 4, batch)
        assert max(sizes) <= classes * pixels and len(sizes) >= 3 * 19 / classes
        for a, b in zip(found, whole, strict=True):
            assert torch.equal(a.mask_HW, b.mask_HW) and len(a.mask_HW.unique()) > 10 or not a.mask_HW.any()


def test_mask2former_loss_is_transformers_own():
    """Their model's loss function with their weights, on the same outputs and the same random points."""
    head, batch = make_mask2former(), scene_batch("segmentation")
    outputs = head(scene_features(head.strides[:4]))
    targets = class_masks(batch.targets.masks_BHW, PADDED)
    masks, labels = (values.split(targets.per_image) for values in (targets.masks_MHW, targets.labels_M))
    weights = {"loss_cross_entropy": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    torch.manual_seed(5)
    ours = head.losses(outputs, batch)
    torch.manual_seed(5)
    theirs = Mask2FormerForUniversalSegmentation.get_loss_dict(
        SimpleNamespace(criterion=Mask2FormerLoss(head.decoder.config, weights), weight_dict=weights),
        outputs["mask_logits"][:, -1],
        outputs["class_logits"][:, -1],
        list(masks),
        list(labels),
        [
            {"masks_queries_logits": m, "class_queries_logits": c}
            for m, c in zip(
                outputs["mask_logits"].unbind(1)[:-1], outputs["class_logits"].unbind(1)[:-1], strict=True
            )
        ],
    )
    assert len(theirs) == 3 * 4
    torch.testing.assert_close(sum(ours.values()), sum(theirs.values()))


def test_mask2former_predicts_what_transformers_predicts():
    """Their post-processing, without padding; it resizes masks in other steps, so edges may differ."""
    head, batch = make_mask2former(), scene_batch("segmentation")
    batch.sizes_B2 = torch.tensor([PADDED] * 3)
    torch.manual_seed(1)
    blobs = F.interpolate(torch.randn(3, 8, 4, 6), size=(16, 24), mode="bicubic")
    outputs = {"mask_logits": 5 * blobs[:, None], "class_logits": 3 * torch.randn(3, 1, 8, 4)}
    ours = head.predict(outputs, batch)
    theirs = Mask2FormerImageProcessor().post_process_semantic_segmentation(
        SimpleNamespace(
            masks_queries_logits=outputs["mask_logits"][:, -1],
            class_queries_logits=outputs["class_logits"][:, -1],
        ),
        target_sizes=[STORED] * 3,
    )
    for mine, other in zip(ours, theirs, strict=True):
        assert (mine.mask_HW == other).float().mean() > 0.97  # measured 0.979 to 0.986


def test_a_mask_for_every_class_of_every_image():
    masks_BHW = scene_batch("segmentation").targets.masks_BHW
    found = class_masks(masks_BHW, PADDED)
    assert found.per_image == [2, 2, 0] and found.image_M.tolist() == [0, 0, 1, 1]
    assert found.labels_M.tolist() == [0, 2, 0, 1]
    masks = found.masks_MHW
    assert masks.shape == (4, *PADDED) and masks[1].sum() == 16 * 32
    assert masks[2:].sum() == VALID[0] * VALID[1]
    wider = class_masks(masks_BHW, (68, 104))
    assert wider.masks_MHW.shape == (4, 68, 104) and wider.masks_MHW.sum() == masks.sum()


def test_mask2former_position_codes_do_not_collide_in_bfloat16():
    head = make_mask2former()
    position = head.decoder.transformer.position_embedder
    shape = torch.Size((1, 1, 1, 320))
    code = position(shape, torch.device("cpu"), torch.bfloat16)
    exact = position(shape, torch.device("cpu"), torch.float32)
    assert code.dtype == torch.bfloat16
    torch.testing.assert_close(code.float(), exact, atol=4e-3, rtol=0)  # rounding of the result alone
