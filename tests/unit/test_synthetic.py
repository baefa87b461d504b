"""The synthetic world: the same for a seed, in the contest's layout, learnable but not trivially."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.scene_objects import CAR_CLASSES, CLASSES, SIGN_NAMES, VALUE
from ufo_large.data.scenes import render_close_up, render_street
from ufo_large.data.synthetic import WorldSizes, write_world

SMALL = WorldSizes(cls=(8, 2, 2), dec=(2, 1, 1), seg=(2, 1, 1))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_same_seed_same_files_other_seed_other_files(tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        write_world(tmp_path / name, seed, SMALL)
    a, b, c = (files(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert all(a[name] != c[name] for name in a if name.endswith(".jpg"))


def test_splits_and_tasks_share_no_picture(tmp_path):
    write_world(tmp_path, 0, WorldSizes(cls=(8, 8, 8), dec=(4, 4, 4), seg=(4, 4, 4)))
    pictures = [data for name, data in files(tmp_path).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 48


def test_a_larger_world_begins_with_the_smaller_one(tmp_path):
    write_world(tmp_path / "small", 0, SMALL)
    write_world(tmp_path / "large", 0, SMALL.scaled(2))
    small, large = files(tmp_path / "small"), files(tmp_path / "large")
    assert all(large[name] == data for name, data in small.items() if name.endswith((".jpg", ".png")))


def test_painting_twice(tmp_path, monkeypatch):
    write_world(tmp_path / "world", 0, SMALL)
    monkeypatch.setattr("ufo_large.data.synthetic._write_all", lambda *a: pytest.fail("painted again"))
    write_world(tmp_path / "world", 0, SMALL)
    with pytest.raises(ValueError, match="holds the world .* choose another --out"):
        write_world(tmp_path / "world", 1, SMALL)
    with pytest.raises(ValueError, match="not empty; choose a new folder"):
        write_world(tmp_path, 0, SMALL)
    with pytest.raises(ValueError, match="--scale 0"):
        SMALL.scaled(0)


def test_boxes_lie_on_their_signs():
    """A box's rim cells hold the sign: the mask inside is mostly `traffic sign`, and its colours fit."""
    seen = set()
    for seed in range(30):
        scene = render_street(144, 216, np.random.default_rng(seed))
        for (x0, y0, x1, y1), label in scene.signs:
            inside = scene.classes_HW[round(y0) : round(y1), round(x0) : round(x1)]
            assert (inside == VALUE["traffic sign"]).mean() > 0.25  # a triangle or rhombus half hidden
            assert 8 < x1 - x0 < 36 and abs((x1 - x0) - (y1 - y0)) < 1e-6
            seen.add(label)
    assert seen == set(range(len(SIGN_NAMES)))


def test_masks_hold_only_named_classes_and_use_all():
    values = set()
    for seed in range(30):
        values |= set(np.unique(render_street(144, 216, np.random.default_rng(seed)).classes_HW).tolist())
    assert values == set(CLASSES)


def test_colour_alone_or_shape_alone_does_not_tell_the_car():
    colors, shapes = zip(*CAR_CLASSES, strict=True)
    assert len(set(CAR_CLASSES)) == 8
    assert all(colors.count(c) == 2 for c in colors) and all(shapes.count(s) == 2 for s in shapes)


def test_close_up_shows_its_car():
    for label in range(len(CAR_CLASSES)):
        scene = render_close_up(100, 100, label, np.random.default_rng(label))
        assert (scene.classes_HW == VALUE["car"]).mean() > 0.08


def test_trivial_baselines_stay_far_below(tmp_path):
    """Most frequent class per position reaches an mIoU of 0.27, far from what a model should."""
    write_world(tmp_path, 0, WorldSizes(cls=(0, 0, 0), dec=(0, 0, 0), seg=(60, 0, 20)))

    def masks(folder):
        return np.stack([cv2.resize(cv2.imread(str(p), 0), (96, 64), interpolation=cv2.INTER_NEAREST)
                         for p in sorted(folder.iterdir())])  # fmt: skip

    train = masks(tmp_path / "track1_train_data/seg/label/train")
    test = masks(tmp_path / "track1_test_data/seg/label/test")
    votes = np.stack([(train == value).sum(0) for value in CLASSES])
    prior = np.array(list(CLASSES))[votes.argmax(0)][None].repeat(len(test), 0)
    ious = [((prior == v) & (test == v)).sum() / ((prior == v) | (test == v)).sum() for v in CLASSES]
    assert 0.2 < np.mean(ious) < 0.35


def test_test_root_has_order_categories_and_truth(tmp_path):
    write_world(tmp_path, 0, SMALL)
    test = tmp_path / "track1_test_data"
    body = json.loads((test / "dec/test.json").read_text())
    assert (test / "dec/test.txt").read_text().split() == [image["file_name"] for image in body["images"]]
    assert json.loads((test / "dec/val.json").read_text())["categories"] == body["categories"]
    assert (test / "cls/test.txt").is_file() and not (test / "dec/val").exists()
