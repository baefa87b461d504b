"""Augmentations move boxes and masks with the pixels: by hand and on pictures that show their targets."""

import io
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from ufo_large.data.collate import collate
from ufo_large.data.shards import ShardSet
from ufo_large.data.transforms import (
    ClassificationTransform,
    DetectionTransform,
    PlainTransform,
    SegmentationTransform,
    View,
    hermetic,
)
from ufo_large.data.transforms.copy_paste import RareObjects, paste
from ufo_large.data.transforms.jitter import jittered_window
from ufo_large.data.transforms.segmentation import largest_share
from ufo_large.data.transforms.window import load, whole_window
from ufo_large.kinds.boxes import keep_visible
from ufo_large.media.decode import decode_image, decode_labels, shrink_for
from ufo_large.structures import BadSample, ClassTargets, RawSample, SampleInfo, TaskBatch, TaskInfo, Window
from ufo_large.testing.tiny_shards import GREEN, RED, tiny_shards

INFO = TaskInfo(name="cls", kind="classification", class_names=("a", "b", "c"), class_ids=(0, 1, 2))
DETECTION = TaskInfo(name="dec", kind="detection", class_names=tuple("abcd"), class_ids=(0, 1, 2, 3))
SEGMENTATION = TaskInfo(name="seg", kind="segmentation", class_names=("a", "b"), class_ids=(0, 1))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    return ShardSet.open(tiny_shards(tmp_path_factory.mktemp("tiny"), count=16))


def encoded(pixels: np.ndarray, suffix: str = ".png") -> bytes:
    return cv2.imencode(suffix, pixels[..., ::-1] if pixels.ndim == 3 else pixels)[1].tobytes()


def raw(pixels: np.ndarray, boxes=(), labels=(), mask: np.ndarray | None = None, suffix=".png") -> RawSample:
    height, width = pixels.shape[:2]
    return RawSample(
        image=encoded(pixels, suffix),
        sample=SampleInfo(key="k", file_name="k.png", height=height, width=width, image_id=1, order=0),
        labeled=True,
        labels=np.array(labels, dtype=np.int64),
        columns={
            "boxes_xyxy": np.array(boxes, dtype=np.float32).reshape(-1, 4),
            "crowds": np.zeros(len(boxes), dtype=bool),
        },
        target=None if mask is None else encoded(mask),
    )


def gradient(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 / height, x * 255 / width, (x + y) % 64], axis=-1).astype(np.uint8)


def test_window_moves_boxes_as_worked_out_by_hand():
    """Window 40x40 at (10, 20) shown at 20x80: x -> (x - 20) * 2, y -> (y - 10) / 2."""
    boxes = [[30, 20, 40, 30], [0, 0, 30, 30], [55, 45, 70, 60], [21, 11, 21.4, 40]]
    sample = raw(gradient(100, 100), boxes, [0, 1, 2, 3])
    example = load(sample, Window(10, 20, 40, 40, 20, 80), DETECTION)
    assert example.targets["labels"].tolist() == [0]
    assert example.targets["boxes"].tolist() == [[20, 5, 40, 10]]
    assert example.size == (20, 80)


def test_box_is_kept_by_its_centre_and_clipped():
    boxes = torch.tensor([[-4.0, -4, 10, 10], [-11, 0, 10, 10], [90, 90, 108, 108], [3, 3, 3.5, 9]])
    kept, labels = keep_visible(boxes, torch.arange(4), (100, 100))
    assert labels.tolist() == [0, 2]
    assert kept.tolist() == [[0, 0, 10, 10], [90, 90, 100, 100]]


def test_boxes_agree_with_torchvision():
    """Crop and resize of tv_tensors give the same boxes; they differ by float rounding, below 1e-4 px."""
    boxes = torch.tensor([[12.0, 30, 40, 60], [33, 21, 50, 44]])
    sample = raw(gradient(100, 80), boxes.numpy(), [0, 1])
    window = Window(20, 10, 60, 50, 90, 75)
    ours = load(sample, window, DETECTION).targets["boxes"]
    theirs = F.crop(tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(100, 80)), 20, 10, 60, 50)
    torch.testing.assert_close(ours, F.resize(theirs, [90, 75]), atol=1e-4, rtol=0)


def test_crowd_regions_are_no_targets():
    sample = raw(gradient(50, 50), [[0, 0, 20, 20], [5, 5, 30, 30]], [0, 1])
    sample = replace(sample, columns={**sample.columns, "crowds": np.array([True, False])})
    found = load(sample, Window(0, 0, 50, 50, 50, 50), DETECTION)
    assert found.targets["labels"].tolist() == [1]


@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_shrunk_jpeg_equals_area_average(shrink):
    """Decoding at 1/shrink is the mean of the pixels to within 3 of 255 on a smooth picture."""
    pixels = cv2.GaussianBlur(gradient(160, 240), (0, 0), 6)
    data = encoded(pixels, ".jpg")
    small = decode_image(data, shrink)
    area = cv2.resize(decode_image(data), small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert small.shape == (160 // shrink, 240 // shrink, 3)
    assert np.abs(small.astype(int) - area).max() <= 3


def test_large_jpeg_keeps_boxes_on_their_objects():
    """A 2,000 px JPEG shown at 250 px (decoded at 1/8): the object fills its box, nothing else is green."""
    pixels = np.full((2001, 1203, 3), 100, np.uint8)
    pixels[800:1600, 160:480] = GREEN
    sample = raw(pixels, [[160, 800, 480, 1600]], [0], suffix=".jpg")
    for window in (whole_window(2001, 1203, (250, 150), False), Window(397, 83, 1204, 801, 151, 100)):
        example = load(sample, window, DETECTION)
        assert_boxes_on_green(example, slack=1)


def assert_boxes_on_green(example: View, slack: int) -> None:
    """The inside of each box is green; outside all boxes, widened by `slack`, nothing is."""
    green = (example.image[1].int() - example.image[0].int() > 60).numpy()
    outside = np.ones_like(green)
    for x0, y0, x1, y1 in example.targets["boxes"].tolist():
        inner = green[int(np.ceil(y0)) + slack : int(y1) - slack, int(np.ceil(x0)) + slack : int(x1) - slack]
        assert inner.all()
        outside[
            max(0, int(y0) - slack) : int(y1) + 1 + slack, max(0, int(x0) - slack) : int(x1) + 1 + slack
        ] = False
    assert not (green & outside).any()


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("options", [{}, {"flip": 1.0}, {"mosaic": 1.0}, {"copy_paste": 3}, {"focus": 1.0}])
def test_detection_boxes_stay_on_their_objects(shards, options, keep_aspect):
    reader = shards.split("dec", "train")
    config = DetectionTransform.Config(scale=(0.7, 2.5), colour=0, **options)
    transform = config.build(reader, shards.task("dec"), keep_aspect)
    for index in range(len(reader)):
        with hermetic(index):
            example = transform(reader.read(index), (96, 112))
        height, width = example.size
        assert height <= 96 and width <= 112
        boxes, labels = example.targets["boxes"], example.targets["labels"]
        assert (boxes[:, 0::2] <= width).all() and (boxes[:, 1::2] <= height).all()
        assert (boxes >= 0).all() and len(boxes) == len(labels)
        assert_inside_is_green(example)


def assert_inside_is_green(example: View) -> None:
    """Cut objects whose centre is outside have no box, so only the inside of boxes is checked."""
    green = (example.image[1].int() - example.image[0].int() > 40).numpy()
    for x0, y0, x1, y1 in example.targets["boxes"].tolist():
        inner = green[int(np.ceil(y0)) + 2 : int(y1) - 2, int(np.ceil(x0)) + 2 : int(x1) - 2]
        assert not inner.size or inner.mean() > 0.95


def test_focused_crop_keeps_a_small_sign():
    """At zoom 4 a random crop rarely shows one sign of 10 px; a focused one always shows it whole."""
    box = np.array([300, 40, 310, 50], np.float32)
    shown = {None: 0, "focus": 0}
    for seed in range(200):
        for mode in shown:
            with hermetic(seed):
                w = jittered_window((400, 600), (400, 600), 4.0, True, box if mode else None)
            inside = w.left <= 300 and w.left + w.width >= 310 and w.top <= 40 and w.top + w.height >= 50
            shown[mode] += inside
    assert shown["focus"] == 200
    assert shown[None] < 100


def test_zoom_below_one_leaves_room_at_the_bottom_right():
    window = jittered_window((100, 200), (100, 200), 0.5, True)
    assert (window.height, window.width, window.out_height, window.out_width) == (100, 200, 50, 100)


def test_mosaic_fills_the_canvas(shards):
    reader = shards.split("dec", "train")
    config = DetectionTransform.Config(mosaic=1.0, colour=0, scale=(0.5, 0.6))
    transform = config.build(reader, shards.task("dec"), True)
    with hermetic(3):
        example = transform(reader.read(0), (96, 112))
    assert example.size == (96, 112)
    assert (example.image.amax(0) > 0).all()


def test_copy_paste_draws_rare_classes_as_often_as_common_ones(shards):
    reader = shards.split("dec", "train")
    rare = RareObjects(reader, shards.task("dec"))
    assert min(reader.class_histogram) == 1
    drawn = [rare.draw((400, 400), True) for _ in range(120)]
    seen = np.bincount(
        np.concatenate([d.targets["labels"].numpy() for d in drawn if d is not None]), minlength=4
    )
    assert seen.min() >= 15


def test_paste_avoids_boxes_and_adds_its_own():
    image = tv_tensors.Image(torch.full((3, 40, 40), 50, dtype=torch.uint8))
    boxes = tv_tensors.BoundingBoxes(torch.tensor([[0.0, 0, 40, 25]]), format="XYXY", canvas_size=(40, 40))
    example = View(image=image, targets={"boxes": boxes, "labels": torch.tensor([1])})
    own = tv_tensors.BoundingBoxes(torch.tensor([[2.0, 2, 6, 6]]), format="XYXY", canvas_size=(8, 8))
    patch = View(
        image=tv_tensors.Image(torch.full((3, 8, 8), 250, dtype=torch.uint8)),
        targets={"boxes": own, "labels": torch.tensor([3])},
    )
    results = [paste(example, patch) for _ in range(30)]
    pasted = [r for r in results if len(r.targets["boxes"]) == 2]
    assert len(pasted) >= 20
    for result in pasted:
        x0, y0, x1, y1 = (int(v) for v in result.targets["boxes"][1])
        assert y0 - 2 >= 25 and result.targets["labels"].tolist() == [1, 3]
        assert (result.image[:, y0:y1, x0:x1] == 250).all()
        assert (result.image[:, :25] == 50).all()
    assert (example.image == 50).all()


@pytest.mark.parametrize("scale", [(0.5, 0.5), (1.0, 3.0)])
def test_segmentation_masks_stay_on_their_pixels(shards, scale):
    reader = shards.split("seg", "train")
    transform = SegmentationTransform.Config(colour=0, scale=scale).build(reader, shards.task("seg"), True)
    for index in range(len(reader)):
        with hermetic(index):
            example = transform(reader.read(index), (64, 80))
        red = example.image[0].int() - example.image[1].int() > 45
        mask = example.targets["mask"]
        assert mask.shape == example.image.shape[1:]
        assert (red != (mask == 1)).float().mean() < 0.06


def test_crops_show_several_classes():
    mask = np.zeros((100, 100), np.uint8)
    mask[40:60, 40:60] = 1
    mask[:10] = 255
    assert largest_share(mask, Window(0, 0, 100, 100, 1, 1)) == pytest.approx(8600 / 9000)
    sample = raw(gradient(100, 100), mask=mask)
    shares = {}
    for limit in (0.75, 1.0):
        transform = SegmentationTransform(
            SegmentationTransform.Config(scale=(2.5, 2.5), max_share=limit), SEGMENTATION, True
        )
        found = []
        for seed in range(60):
            with hermetic(seed):
                mask = transform(sample, (50, 50)).targets["mask"]
                found.append(bool((mask == 1).float().mean() > 0.2))
        shares[limit] = np.mean(found)
    assert shares[0.75] > shares[1.0] + 0.2


def test_random_resized_crop_follows_scale_and_ratio():
    transform = ClassificationTransform(ClassificationTransform.Config(scale=(0.25, 0.5)), INFO, False)
    crops = [transform._crop(300, 400) for _ in range(300)]
    areas = np.array([h * w / 120_000 for _, _, h, w in crops])
    ratios = np.array([w / h for _, _, h, w in crops])
    assert areas.min() >= 0.245 and areas.max() <= 0.505
    assert ratios.min() >= 0.74 and ratios.max() <= 1.35
    assert all(t + h <= 300 and left + w <= 400 for t, left, h, w in crops)


def batch(count: int = 4) -> TaskBatch:
    images = torch.stack([torch.full((3, 8, 8), 50 * i, dtype=torch.uint8) for i in range(count)])
    labels = torch.arange(count) % 3
    return TaskBatch(
        task="cls",
        images_BCHW=images,
        sizes_B2=torch.tensor([[8, 8]] * count),
        targets=ClassTargets(labels),
        samples=(),
    )


def test_mixup_mixes_pixels_and_labels_alike():
    transform = ClassificationTransform(ClassificationTransform.Config(mixup=1.0), INFO, False)
    mixed = transform.mix(batch())
    share = mixed.targets.soft_BK[1, 1].item()
    assert mixed.images_BCHW.dtype == torch.uint8
    assert mixed.targets.soft_BK.sum(1) == pytest.approx(torch.ones(4))
    assert mixed.images_BCHW[1].float().mean() == pytest.approx(50 * share, abs=0.5)
    assert mixed.targets.labels_B.tolist() == [0, 1, 2, 0]


def test_cutmix_labels_follow_the_area():
    transform = ClassificationTransform(ClassificationTransform.Config(cutmix=1.0), INFO, False)
    mixed = transform.mix(batch())
    own = (mixed.images_BCHW[2] == 100).float().mean().item()
    assert mixed.targets.soft_BK[2, 2].item() == pytest.approx(own, abs=1e-6)


@pytest.mark.parametrize(
    "options", [{"flip": 1.0}, {"colour": 0.8}, {"rand_augment": 15}, {"erasing": 1.0}, {"scale": (0.1, 0.2)}]
)
def test_every_classification_option_changes_pixels(options):
    """And the image stays uint8 of the canvas's size."""
    off = {"flip": 0.0, "colour": 0.0, "scale": (1.0, 1.0), "ratio": (1.5, 1.5)}
    results = []
    for chosen in (off, {**off, **options}):
        transform = ClassificationTransform(ClassificationTransform.Config(**chosen), INFO, False)
        with hermetic(0):
            results.append(transform(raw(gradient(80, 120), labels=[1]), (64, 96)))
    assert results[1].image.dtype == torch.uint8 and results[1].size == (64, 96)
    assert not torch.equal(results[0].image, results[1].image)
    assert results[1].targets["labels"].tolist() == [1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DetectionTransform.Config(focus=1.5), "focus 1.5"),
        (lambda: DetectionTransform.Config(scale=(2.0, 1.0)), "scale"),
        (lambda: ClassificationTransform.Config(rand_augment=31), "rand_augment 31"),
        (lambda: SegmentationTransform.Config(max_share=-0.1), "max_share"),
    ],
)
def test_senseless_options_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_collate_pads_with_ignore_and_zero(shards):
    reader, info = shards.split("seg", "train"), shards.task("seg")
    transform = PlainTransform(info, keep_aspect=True)
    raws = [reader.read(i) for i in range(4)]
    examples = [transform(r, (64, 64)) for r in raws]
    made = collate(info, examples, [r.sample for r in raws], (64, 64))
    for i, (height, width) in enumerate(made.sizes_B2.tolist()):
        assert max(height, width) == 64
        assert (made.targets.masks_BHW[i, :height, :width] <= 1).all()
        assert (made.targets.masks_BHW[i, height:] == 255).all()
        assert (made.targets.masks_BHW[i, :, width:] == 255).all()
        assert made.images_BCHW[i, :, height:].sum() == 0 and made.images_BCHW[i, :, :, width:].sum() == 0


def test_pictures_of_every_kind_decode_to_rgb():
    pixels = gradient(33, 47)
    for suffix in (".png", ".webp", ".bmp"):
        assert decode_image(encoded(pixels, suffix)).shape == (33, 47, 3)
    gray = decode_image(encoded(pixels[..., 0], ".jpg"), 2)
    assert gray.shape == (17, 24, 3) and (gray[..., 0] == gray[..., 2]).all()
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(buffer, "JPEG", quality=95)
    assert np.abs(decode_image(buffer.getvalue()).astype(int) - pixels).mean() < 12


def test_broken_bytes_are_named():
    whole = encoded(gradient(200, 200), ".jpg")
    for data in (whole[: len(whole) // 2], b"", b"\xff\xd8junk", b"nonsense"):
        with pytest.raises(BadSample, match="unreadable image"):
            decode_image(data)
    with pytest.raises(BadSample, match="unreadable mask"):
        decode_labels(b"nonsense")
    with pytest.raises(BadSample, match="one uint8 channel"):
        decode_labels(encoded(gradient(9, 9)))
    wrong = raw(gradient(30, 40), labels=[0])
    wrong = replace(wrong, image=encoded(gradient(31, 40)))
    with pytest.raises(BadSample, match="31x40, the index says 30x40"):
        load(wrong, Window(0, 0, 30, 40, 30, 40), INFO)


def test_shrink_never_loses_wanted_pixels():
    assert [shrink_for(f) for f in (2.0, 1.0, 0.51, 0.5, 0.3, 0.25, 0.125, 0.01)] == [1, 1, 1, 2, 2, 4, 8, 8]


def test_red_is_where_the_mask_says(shards):
    reader = shards.split("seg", "train")
    sample = reader.read(0)
    example = PlainTransform(SEGMENTATION, False)(sample, (sample.sample.height, sample.sample.width))
    assert torch.equal(
        example.targets["mask"] == 1, (example.image == torch.tensor(RED)[:, None, None]).all(0)
    )
