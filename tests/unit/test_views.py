"""Views of an image at test time: what each shows, how predictions are mirrored back and joined."""

import math
from dataclasses import fields, replace

import pytest
import torch

from ufo_large.data.views import Views, mirrored
from ufo_large.kinds import KINDS
from ufo_large.kinds.depth import Depth, DepthPrediction
from ufo_large.structures import (
    BoxPrediction,
    ClassPrediction,
    MaskPrediction,
    SampleInfo,
    TaskBatch,
    TaskInfo,
)
from ufo_large.testing.models import TINY_INFOS, tiny_batch, tiny_model_with

SAMPLE = SampleInfo(key="a", file_name="a.jpg", height=2, width=3, image_id=1, order=0)


def info(kind: str) -> TaskInfo:
    return TaskInfo(name="road", kind=kind)


def boxes(*rows):
    """Each row: x0, y0, x1, y1, score; all of class 1."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return BoxPrediction(SAMPLE, table[:, :4], table[:, 4], torch.ones(len(table), dtype=torch.int64))


def mask(*rows_of_class_1):
    """The scores of class 0 and 1, where class 1 has these probabilities."""
    probability_HW = torch.tensor(rows_of_class_1)
    scores_KHW = torch.stack([1 - probability_HW, probability_HW])
    return MaskPrediction(SAMPLE, scores_KHW.argmax(0).to(torch.uint8), lambda: scores_KHW)


def test_scales_give_whole_patches_and_one_is_the_size_itself():
    views = Views(scales=(0.5, 1.0, 1.25))
    assert views.canvases((100, 30), 14) == [(56, 14), (100, 30), (126, 42)]
    assert Views(scales=(0.01,)).canvases((100, 30), 14) == [(14, 14)]
    assert Views().canvases((100, 30), 14) == [(100, 30)]


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (1.0, 1.0)])
def test_scales_must_differ_and_be_above_zero(scales):
    with pytest.raises(ValueError, match="must be different numbers above 0"):
        Views(scales=scales)


def test_an_image_is_mirrored_within_its_valid_part():
    images = torch.arange(2 * 3 * 2 * 4, dtype=torch.uint8).reshape(2, 3, 2, 4)
    images[0, :, :, 3:] = 0
    batch = TaskBatch(
        "road", images, torch.tensor([(2, 3), (2, 4)]), targets="targets", samples=(SAMPLE,) * 2
    )
    seen = mirrored(batch)
    assert seen.targets is None and seen.samples == batch.samples
    assert torch.equal(seen.images_BCHW[0], images[0][..., [2, 1, 0, 3]])
    assert torch.equal(seen.images_BCHW[1], images[1].flip(-1))
    assert torch.equal(mirrored(seen).images_BCHW, images)


def test_predictions_are_mirrored_back():
    back = {name: kind.mirrored for name, kind in KINDS.items()}
    found = back["detection"](boxes((0, 0, 1, 2, 0.5)))
    assert found.boxes_xyxy_N4.tolist() == [[2, 0, 3, 2]] and found.scores_N.tolist() == [0.5]
    found = back["segmentation"](mask([0.9, 0.1, 0.2], [0.1, 0.1, 0.1]))
    assert found.mask_HW.tolist() == [[0, 0, 1], [0, 0, 0]]
    torch.testing.assert_close(found.scores()[1, 0], torch.tensor([0.2, 0.1, 0.9]))
    found = back["depth"](DepthPrediction(SAMPLE, torch.tensor([[1.0, 2, 3]])))
    assert found.depth_HW.tolist() == [[3, 2, 1]]
    said = ClassPrediction(SAMPLE, torch.tensor([0.25, 0.75]))
    assert back["classification"](said) == said


def test_classes_are_joined_by_the_mean_of_their_probabilities():
    kind = KINDS["classification"]
    views = [ClassPrediction(SAMPLE, torch.tensor(p)) for p in ([0.6, 0.4, 0.0], [0.1, 0.5, 0.4])]
    torch.testing.assert_close(kind.fused(views, "mean").scores_K, torch.tensor([0.35, 0.45, 0.2]))
    assert [v.label for v in views] == [0, 1] and kind.fused(views, "mean").label == 1


def test_masks_are_joined_by_their_scores_not_by_their_labels():
    """Two of three views say class 0, but barely; the third is sure of class 1."""
    views = [mask([0.4, 0.9, 0.1]), mask([0.45, 0.9, 0.2]), mask([0.9, 0.2, 0.3])]
    assert KINDS["segmentation"].fused(views, "mean").mask_HW.tolist() == [[1, 1, 0]]
    with pytest.raises(ValueError, match=r"task head gives masks without scores.*mask_predictions"):
        KINDS["segmentation"].fused([MaskPrediction(SAMPLE, views[0].mask_HW)] * 2, "mean")


def test_depth_is_joined_by_the_mean_of_its_logarithm():
    views = [DepthPrediction(SAMPLE, torch.tensor([[d, 5.0]])) for d in (1.0, 4.0)]
    torch.testing.assert_close(KINDS["depth"].fused(views, "mean").depth_HW, torch.tensor([[2.0, 5.0]]))


def test_boxes_are_joined_by_fusion_or_by_suppression():
    views = [boxes((0, 0, 100, 100, 0.75), (0, 0, 10, 10, 0.5)), boxes((0, 0, 100, 80, 0.25))]
    fused = KINDS["detection"].fused(views, "wbf")
    assert fused.boxes_xyxy_N4.tolist() == [[0, 0, 100, 95], [0, 0, 10, 10]]
    assert fused.scores_N.tolist() == [0.5, 0.25] and fused.labels_N.tolist() == [1, 1]
    best = KINDS["detection"].fused(views, "nms")
    assert best.boxes_xyxy_N4.tolist() == views[0].boxes_xyxy_N4.tolist()
    assert best.scores_N.tolist() == [0.75, 0.5]
    assert len(KINDS["detection"].fused([boxes(), boxes()], "wbf").scores_N) == 0


def test_each_kind_has_its_usual_way():
    usual = {kind: Views(flip=True).for_task(info(kind)).fusion for kind in KINDS if KINDS[kind].fusions}
    assert usual == {"classification": "mean", "detection": "nms", "segmentation": "mean", "depth": "mean"}
    assert Views(flip=True, fusion="wbf").for_task(info("detection")).fusion == "wbf"


@pytest.mark.parametrize(
    ("kind", "views", "told"),
    [
        ("segmentation", Views(flip=True, fusion="wbf"), r"fusion='wbf'.*mean"),
        ("detection", Views(fusion="wbf"), r"has nothing to join; set flip or scales"),
        ("depth", Views(scales=(1.25,)), r"in depth the size shown matters"),
        ("depth", Views(flip=True, scales=(1.0, 1.25)), r"in depth the size shown matters"),
    ],
)
def test_views_that_make_no_sense_are_refused(kind, views, told):
    with pytest.raises(ValueError, match=rf"task 'road': loader\.views.*{told}"):
        views.for_task(info(kind))


class Foreign(Depth):
    """A kind from outside, which says nothing of views."""

    name = "foreign"
    fusions, any_scale = (), True


def test_a_kind_that_cannot_join_is_refused_but_may_be_shown_at_another_size(monkeypatch):
    monkeypatch.setitem(KINDS, "foreign", Foreign())
    with pytest.raises(ValueError, match=r"task 'road': .*2 views.*foreign says no way to join.*`fused`"):
        Views(flip=True).for_task(info("foreign"))
    assert Views(scales=(1.5,)).for_task(info("foreign")) == Views(scales=(1.5,))


def batch_of(side: int) -> TaskBatch:
    """One picture, bright at the left; its input is as large as `side` says."""
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    images[..., : side // 2] = 200
    return TaskBatch("road", images, torch.tensor([(side, side)]), None, (SAMPLE,))


def test_every_view_is_predicted_once_and_joined():
    """A model that says more of class 0 where the left is bright, and at larger inputs."""
    seen = []

    def predict(batch):
        side, left = batch.images_BCHW.shape[-1], bool(batch.images_BCHW[0, 0, 0, 0])
        seen.append((side, left, batch.keep_scores))
        share = side / 100 + 0.1 * left
        return [ClassPrediction(s, torch.tensor([share, 1 - share])) for s in batch.samples]

    views = Views(flip=True, scales=(0.5, 1.0)).for_task(info("classification"))
    (found,) = views.predicted(info("classification"), [batch_of(20), batch_of(40)], predict)
    assert seen == [(20, True, True), (20, False, True), (40, True, True), (40, False, True)]
    assert math.isclose(found.scores_K[0], (0.3 + 0.2 + 0.5 + 0.4) / 4, rel_tol=1e-6)
    seen.clear()
    (found,) = Views().predicted(info("classification"), [batch_of(20)], predict)
    assert seen == [(20, True, False)] and math.isclose(found.scores_K[0], 0.3, rel_tol=1e-6)


HEAD = {"classification": "linear", "segmentation": "dense", "depth": "dense_depth"}


def value_of(prediction) -> torch.Tensor:
    """The one tensor that a prediction of these kinds has."""
    values = (getattr(prediction, field.name) for field in fields(prediction))
    (found,) = (value for value in values if isinstance(value, torch.Tensor))
    return found


@pytest.mark.parametrize("kind", ["classification", "segmentation", "depth"])
def test_a_symmetric_picture_gets_a_symmetric_prediction(kind):
    """From any model; a class is the plain one's to the bit."""
    torch.manual_seed(0)
    task = TINY_INFOS[kind]
    model = tiny_model_with(kind, HEAD[kind]).build((task,)).eval()
    batch = replace(tiny_batch(task, 2, 48), targets=None)
    batch.images_BCHW = torch.cat([batch.images_BCHW[..., :24], batch.images_BCHW[..., :24].flip(-1)], -1)
    with torch.no_grad():
        plain = Views().predicted(task, [batch], model.predict)
        found = Views(flip=True).for_task(task).predicted(task, [batch], model.predict)
    for one, other in zip(found, plain, strict=True):
        assert torch.equal(value_of(one), value_of(KINDS[kind].mirrored(one)))
        assert kind != "classification" or torch.equal(one.scores_K, other.scores_K)
        assert kind == "classification" or not torch.equal(value_of(other), value_of(other).flip(-1))
