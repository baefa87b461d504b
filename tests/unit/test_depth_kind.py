"""Depth from a user's folder to targets and predictions, held against numbers worked out by hand."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ufo_large.data.batching import BATCH_SHAPES, Tokens
from ufo_large.data.checking import check_tasks, files_of, inspect_files
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.loader import LoaderConfig
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.data.stored_sample import Transcode
from ufo_large.data.tiles import Tiling
from ufo_large.data.transforms import TRANSFORMS, hermetic
from ufo_large.data.transforms.window import load
from ufo_large.kinds import KINDS, kind_of
from ufo_large.kinds.base import StoredPicture
from ufo_large.kinds.depth import DepthFile, DepthPrediction
from ufo_large.structures import Findings, SampleInfo, TaskInfo, Window
from ufo_large.testing.datasets import check_dataset

INFO = TaskInfo(name="depth", kind="depth")
HEIGHT, WIDTH = 40, 60


def write_pair(root: Path, split: str, name: str, values: np.ndarray) -> None:
    for folder in ("images", "depth"):
        (root / folder / split).mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(len(name)).integers(0, 255, (*values.shape, 3), dtype=np.uint8)
    cv2.imwrite(str(root / "images" / split / f"{name}.png"), picture)
    cv2.imwrite(str(root / "depth" / split / f"{name}.png"), values)


def values(base: int = 2000) -> np.ndarray:
    """Rows of rising values, the first four rows missing."""
    rows = np.repeat((base + 10 * np.arange(HEIGHT))[:, None], WIDTH, axis=1).astype(np.uint16)
    rows[:4] = 0
    return rows


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "rooms"
    for split, count in (("train", 5), ("val", 1), ("test", 2)):
        for i in range(count):
            write_pair(root, split, f"{split}{i}", values(2000 + 100 * i))
    (root / "depth.json").write_text('{"units_per_metre": 1000}')
    return root


def test_the_layout_survives_the_round_trip(folder, tmp_path):
    dataset = check_dataset([folder], tmp_path / "shards")
    assert dataset.tasks["depth"] == INFO
    assert [dataset.splits["depth"][s].count for s in ("train", "val", "test")] == [5, 1, 2]


@pytest.mark.parametrize(
    ("options", "metres"),
    [
        ({"units_per_metre": 1000}, [0.0, 2.0, 5.5]),
        ({"units_per_metre": 256}, [0.0, 7.8125, 21.484375]),
        ({"units_per_metre": 1000, "max_metres": 5}, [0.0, 2.0, 0.0]),
        # the disparity is (v - 1) / 256 pixels
        ({"units_per_metre": 256, "focal_baseline": 470.0}, [0.0, 470 * 256 / 1999, 470 * 256 / 5499]),
    ],
)
def test_metres_by_hand(tmp_path, options, metres):
    cv2.imwrite(str(tmp_path / "d.png"), np.array([[0, 2000, 5500]], np.uint16))
    file = DepthFile(path=tmp_path / "d.png", **options)
    np.testing.assert_allclose(file.metres(np.array([[0, 2000, 5500]])), [metres], rtol=1e-6)


def test_shards_give_back_metres_and_what_is_missing(folder, tmp_path):
    make_shards([folder], tmp_path / "shards", ShardingOptions())
    reader = ShardSet.open(tmp_path / "shards").split("depth", "train")
    truth = reader.truth(2)
    assert truth.dtype == np.float32 and (truth[:4] == 0).all()
    np.testing.assert_allclose(truth[4:, 0], (2200 + 10 * np.arange(4, HEIGHT)) / 1000, rtol=1e-6)
    view = load(reader.read(2), Window(10, 20, 20, 30, 10, 15), INFO)
    np.testing.assert_allclose(
        view.targets["depth"][:, 0], (2200 + 10 * np.arange(11, 30, 2)) / 1000, atol=0.011
    )
    assert reader.read(2).columns["units_per_metre"].tolist() == [1000.0]


def test_smaller_pictures_keep_their_depth(folder, tmp_path):
    make_shards([folder], tmp_path / "shards", ShardingOptions(transcode=Transcode(short_side=20)))
    reader = ShardSet.open(tmp_path / "shards").split("depth", "train")
    truth = reader.truth(0)
    assert truth.shape == (20, 30) and (truth[:2] == 0).all()
    assert set(np.unique(truth[2:])) <= set(np.unique(values()[4:] / np.float32(1000)).astype(np.float32))


def test_mirrored_depth_stays_with_its_picture(tmp_path):
    sideways = np.repeat((1000 + np.arange(WIDTH))[None], HEIGHT, axis=0).astype(np.uint16)
    write_pair(tmp_path / "data", "train", "a", sideways)
    (tmp_path / "data/depth.json").write_text('{"units_per_metre": 1000}')
    make_shards([tmp_path / "data"], tmp_path / "shards", ShardingOptions())
    reader = ShardSet.open(tmp_path / "shards").split("depth", "train")
    plain, flipped = (
        TRANSFORMS["depth"].Config(flip=flip, colour=0).build(reader, INFO, False) for flip in (0.0, 1.0)
    )
    with hermetic(0):
        there, back = (t(reader.read(0), (HEIGHT, WIDTH)) for t in (plain, flipped))
    assert torch.equal(back.targets["depth"], there.targets["depth"].flip(-1))
    assert torch.equal(back.image, there.image.flip(-1)) and not torch.equal(back.image, there.image)


def cityscapes(root: Path, camera: dict | None) -> Path:
    frame = "aachen_000000_000019"
    for folder, ending in (("leftImg8bit", "leftImg8bit"), ("disparity", "disparity"), ("camera", "camera")):
        (root / folder / "train/aachen").mkdir(parents=True)
        file = root / folder / "train/aachen" / f"{frame}_{ending}"
        if folder == "camera":
            file.with_suffix(".json").write_text(json.dumps(camera))
        else:
            picture = (
                np.full((8, 8, 3), 90, np.uint8)
                if folder == "leftImg8bit"
                else np.full((8, 8), 2000, np.uint16)
            )
            cv2.imwrite(str(file.with_suffix(".png")), picture)
    return root


def test_cityscapes_disparities_become_depth(tmp_path):
    camera = {"intrinsic": {"fx": 2262.52}, "extrinsic": {"baseline": 0.209313}}
    root = cityscapes(tmp_path / "city", camera)
    make_shards([root], tmp_path / "shards", ShardingOptions())
    truth = ShardSet.open(tmp_path / "shards").split("depth", "train").truth(0)
    assert truth == pytest.approx(2262.52 * 0.209313 / (1999 / 256), abs=1 / 256)


def test_what_16_bits_cannot_hold_is_unknown(tmp_path):
    """A disparity of a pixel stands for 470 metres; 65535 steps of 1/256 end at 256."""
    (tmp_path / "d.png").write_bytes(cv2.imencode(".png", np.array([[257, 2000]], np.uint16))[1].tobytes())
    truth = DepthFile(path=tmp_path / "d.png", units_per_metre=256, focal_baseline=470.0)
    stored = KINDS["depth"].stored(truth, StoredPicture(size=(1, 2)))
    values = cv2.imdecode(np.frombuffer(stored.target, np.uint8), cv2.IMREAD_UNCHANGED)
    assert values.tolist() == [[0, round(470 * 256 / 1999 * 256)]]


def test_depth_is_shown_at_one_size(folder, tmp_path):
    make_shards([folder], tmp_path / "shards", ShardingOptions())
    reader = ShardSet.open(tmp_path / "shards").split("depth", "train")
    scales = BATCH_SHAPES["multi_scale"].Config(scales=(1.0, 2.0))
    config = LoaderConfig(micro_batch=4, image_size=(32, 32), shapes=scales)
    with pytest.raises(ValueError, match=r"in depth the size shown matters.*leave out loader\.shapes"):
        config.build(reader, INFO, 0, 1, 0, Tokens(patch=8, width=32))


def problems(root: Path) -> str:
    findings = Findings()
    tasks = read_sources([root], findings)
    check_tasks(tasks, inspect_files(files_of(tasks)), findings)
    return "\n".join(item.message for item in findings.items)


def test_a_camera_without_numbers_is_named(tmp_path):
    told = problems(cityscapes(tmp_path / "city", {"intrinsic": {}}))
    assert "aachen_000000_000019_camera.json" in told and "intrinsic.fx" in told


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "depth/train/train0.png").unlink(), "train0.png: no depth map named train0"),
        (lambda r: (r / "images/train/train0.png").unlink(), "train0.png: no picture named train0"),
        (lambda r: (r / "depth/train/train0.png").write_bytes(b"x"), "train0.png: not a picture"),
        (lambda r: write_pair(r, "other", "train0", values()[:9]), ""),
    ],
)
def test_what_is_wrong_is_named(folder, spoil, message):
    spoil(folder)
    assert message in problems(folder)


def test_sizes_and_empty_maps_are_named(folder):
    cv2.imwrite(str(folder / "depth/train/train0.png"), values()[:9])
    cv2.imwrite(str(folder / "depth/train/train1.png"), np.zeros((HEIGHT, WIDTH), np.uint16))
    told = problems(folder)
    assert "60x9, but its picture train0.png is 60x40" in told and "every pixel is 0" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "write positive numbers"),
        ('{"units_per_metre": 0}', "write positive numbers"),
        ('{"units_per_metre": "1000"}', "write positive numbers"),
        ('{"units": 1000}', "write positive numbers"),
        ("{}", "says no units_per_metre"),
    ],
)
def test_a_bad_marker_file_says_what_to_write(folder, text, message):
    (folder / "depth.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_sources([folder], Findings())


def test_there_are_no_tiles_for_they_would_look_nearer():
    with pytest.raises(ValueError, match=r"'depth': tiles 2 x 3, but in depth an image is shown whole"):
        Tiling(rows=2, columns=3).for_task(INFO)


def test_the_baseline_says_the_median_of_training(folder, tmp_path):
    make_shards([folder], tmp_path / "shards", ShardingOptions())
    reader = ShardSet.open(tmp_path / "shards").split("depth", "train")
    say = KINDS["depth"].baselines(reader)["median_depth"](reader.sample(0))
    assert say.shape == (HEIGHT, WIDTH) and say[0, 0] == pytest.approx(2.2 + 0.215, abs=1e-6)


def test_drawn_side_by_side():
    from ufo_large.kinds import PredictionExample

    image = np.full((40, 60, 3), 128, np.uint8)
    sample = SampleInfo(key="k", file_name="a.png", height=40, width=60, image_id=1, order=0)
    truth = np.full((40, 60), 10.0, np.float32)
    truth[:20] = 0
    said = torch.full((40, 60), 12.0)
    said[30:] = 13.0
    example = PredictionExample(
        info=INFO, image_HW3=image, prediction=DepthPrediction(sample, said), truth=truth
    )
    ((card, picture),) = kind_of(INFO).draw([example])
    assert card.headline == "50.0 % of pixels within a factor of 1.25"
    assert picture.shape == (80, 3 * 120 + 2 * 6, 3) and (picture[:30, -100:] == 128).all(), "missing is grey"
