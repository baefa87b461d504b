"""The synthetic world: the same for a seed, in the contest's layout, learnable but not trivially."""

import hashlib
import io
import json
import runpy
import sys
from itertools import count
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ufo_large.data.scene_objects import CAR_CLASSES, CLASSES, SIGN_NAMES, VALUE
from ufo_large.data.scenes import render_close_up, render_street
from ufo_large.data.synthetic import WorldSizes, encode_depth, write_world
from ufo_large.media.pictures import decode_rgb, encode_jpeg

SCRIPT = Path(__file__).parents[2] / "data_sharding/make_synthetic.py"
SMALL = WorldSizes(cls=(8, 2, 2), dec=(2, 1, 1), seg=(2, 1, 1), depth=(2, 1, 1))
NO_CARS_SIGNS_MASKS = {"cls": (0, 0, 0), "dec": (0, 0, 0), "seg": (0, 0, 0)}
# SHA-256 over names and bytes of every file of a task, taken before the painter knew depth
WORLD_OF_SEED_0 = {
    "cls": "f8a6754ada3af750365997f59afeba5381da1eead8b56bf5affc348147fba240",
    "dec": "8f5af6552f4746348673a4aa87f973f5471a9b46fe4e564f990d3aebca30aa44",
    "seg": "2c1d0df95e34fa6f6ec73eedc6e67076d74bf63b9540221f7a98ead7b85740c5",
}


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
    write_world(tmp_path, 0, WorldSizes(cls=(8, 8, 8), dec=(4, 4, 4), seg=(4, 4, 4), depth=(4, 4, 4)))
    pictures = [data for name, data in files(tmp_path).items() if name.endswith(".jpg")]
    assert len(set(pictures)) == len(pictures) == 60


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


def test_depth_changes_no_bit_of_the_other_tasks(tmp_path):
    write_world(tmp_path, 0, WorldSizes(cls=(4, 2, 2), dec=(3, 2, 2), seg=(3, 2, 2), depth=(1, 1, 1)))
    for task, wanted in WORLD_OF_SEED_0.items():
        digest = hashlib.sha256()
        for path in sorted(p for p in tmp_path.glob(f"*/{task}/**/*") if p.is_file()):
            digest.update(path.relative_to(tmp_path).as_posix().encode() + path.read_bytes())
        assert digest.hexdigest() == wanted, task


def test_a_world_from_before_depth_is_the_same_world(tmp_path, monkeypatch):
    older = '"sizes": {"cls": [1, 0, 0], "dec": [1, 0, 0], "seg": [1, 0, 0]}'
    (tmp_path / "synthetic.json").write_text(f'{{"version": 2, "seed": 0, {older}, "done": true}}')
    monkeypatch.setattr("ufo_large.data.synthetic._write_all", lambda *a: pytest.fail("painted again"))
    sizes = {"cls": (1, 0, 0), "dec": (1, 0, 0), "seg": (1, 0, 0)}
    write_world(tmp_path, 0, WorldSizes(**sizes))
    with pytest.raises(ValueError, match="holds the world .* choose another --out"):
        write_world(tmp_path, 0, WorldSizes(**sizes, depth=(1, 0, 0)))


def horizon_of(seed: int, height: int) -> float:
    """The row of the horizon: the first number that a picture draws."""
    return height * np.random.default_rng(seed).uniform(0.4, 0.55)


def test_depth_of_the_ground_is_the_pinhole_formula():
    """Camera 1.5 m up, focal length twice the height of 144 rows: 1.5 * 288 / rows below the horizon."""
    for seed in range(10):
        scene, horizon = render_street(144, 216, np.random.default_rng(seed)), horizon_of(seed, 144)
        rows, columns = np.nonzero(np.isin(scene.classes_HW, (VALUE["road"], VALUE["sidewalk"])))
        below = rows + 0.5 > horizon
        assert len(np.unique(rows)) > 60
        wanted = 1.5 * 288 / (rows[below] + 0.5 - horizon)
        depth = scene.depth_HW[rows, columns]
        np.testing.assert_allclose(depth[below], wanted, rtol=1e-6)
        assert (depth[~below] == 0).all()
        by_row = [depth[rows == row].max() for row in np.unique(rows[below])]
        assert (np.diff(by_row) < 0).all(), "a nearer row is nearer"


def test_sky_is_missing_and_the_far_side_stands_at_60_metres():
    for seed in range(10):
        scene, horizon = render_street(144, 216, np.random.default_rng(seed)), horizon_of(seed, 144)
        assert scene.depth_HW.shape == (144, 216) and scene.depth_HW.dtype == np.float32
        assert (scene.depth_HW[scene.classes_HW == VALUE["sky"]] == 0).all()
        np.testing.assert_allclose(scene.depth_HW[scene.classes_HW == VALUE["building"]], 60, rtol=1e-5)
        trees = scene.classes_HW[: int(horizon - 1)] == VALUE["vegetation"]
        np.testing.assert_allclose(scene.depth_HW[: int(horizon - 1)][trees], 60, rtol=1e-5)


def test_a_pole_hides_the_depth_of_the_car_behind_it():
    """The pole of a close-up stands on the lower edge, the car on one row further up."""
    scenes = ((seed, render_close_up(100, 100, 0, np.random.default_rng(seed))) for seed in count())
    seed, scene = next((s, c) for s, c in scenes if (c.classes_HW == VALUE["pole"]).any())
    pole, car = (scene.depth_HW[scene.classes_HW == VALUE[name]] for name in ("pole", "car"))
    np.testing.assert_allclose(pole, 1.5 * 200 / (100 - horizon_of(seed, 100)), rtol=1e-6)
    assert len(np.unique(car)) == 1 and pole.max() < car[0] < 60


def test_things_in_a_street_are_nearer_than_the_ground_behind_them():
    things = [VALUE[name] for name in ("car", "person", "pole", "traffic sign")]
    for seed in range(10):
        scene = render_street(144, 216, np.random.default_rng(seed))
        rows, columns = np.nonzero(np.isin(scene.classes_HW, things))
        behind = 1.5 * 288 / np.maximum(rows + 0.5 - horizon_of(seed, 144), 1e-6)
        assert (scene.depth_HW[rows, columns] < behind).mean() > 0.99  # feet end on a pixel's row
        assert (scene.depth_HW[rows, columns] > 0).all()


def test_depth_in_a_png_is_millimetres():
    metres = np.array([[0, 1.2344, 59.9996], [60.0004, 60.001, 1e5]], np.float32)
    stored = np.asarray(Image.open(io.BytesIO(encode_depth(metres))))
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 1234, 60000], [60000, 0, 0]]


def test_depth_files_belong_to_their_pictures(tmp_path, monkeypatch):
    scenes = []

    def keep(*args):
        scenes.append(render_street(*args))
        return scenes[-1]

    monkeypatch.setattr("ufo_large.data.synthetic.render_street", keep)
    roots = write_world(tmp_path, 0, WorldSizes(**NO_CARS_SIGNS_MASKS, depth=(2, 1, 1)))
    folder = tmp_path / "depth"
    assert roots[2:] == [folder]
    assert json.loads((folder / "depth.json").read_text()) == {"units_per_metre": 1000}
    pictures = [
        p for split in ("train", "val", "test") for p in sorted((folder / "images" / split).iterdir())
    ]
    assert len(pictures) == 4 == len(list((folder / "depth").glob("*/*.png")))
    for picture, scene in zip(pictures, scenes, strict=True):
        assert picture.read_bytes() == encode_jpeg(scene.rgb_HW3, 92)
        stored = cv2.imread(
            str(folder / "depth" / picture.parent.name / f"{picture.stem}.png"), cv2.IMREAD_UNCHANGED
        )
        assert stored.shape == decode_rgb(picture.read_bytes()).shape[:2]
        kept = (scene.depth_HW > 0) & (scene.depth_HW < 60.0005)
        assert kept.mean() > 0.5
        assert np.abs(stored[kept] / 1000 - scene.depth_HW[kept]).max() < 0.00051
        assert (stored[~kept] == 0).all()


def test_the_script_paints_depth_when_asked(tmp_path, monkeypatch, capsys):
    nothing = [word for task in ("cls", "dec", "seg") for word in (f"--{task}", "0", "0", "0")]
    arguments = ["--out", str(tmp_path), *nothing, "--depth", "2", "1", "0"]
    monkeypatch.setattr(sys, "argv", ["make_synthetic.py", *arguments])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert capsys.readouterr().out.split()[-1] == str(tmp_path / "depth")
    written = {name for name in files(tmp_path) if not name.endswith(".json")}
    stems = ("train/view00001", "train/view00002", "val/view00001")
    assert written == {f"depth/{kind}" for s in stems for kind in (f"images/{s}.jpg", f"depth/{s}.png")}
