"""The doctor finds what is wrong, shows it, and writes an index that shards without it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.doctor import diagnose, write_fix, write_json
from ufo_large.data.doctor_pictures import as_colours
from ufo_large.data.doctor_report import print_tables, write_html
from ufo_large.data.duplicates import near_pairs
from ufo_large.data.scenes import render_street
from ufo_large.data.shard_index import read_shard_index
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.synthetic import WorldSizes, write_world
from ufo_large.media.pictures import FileFacts, decode_rgb, encode_jpeg, inspect_file, picture_facts
from ufo_large.structures import Findings

TRAIN, TEST = "track1_train_data", "track1_test_data"


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "world"
    write_world(out, 0, WorldSizes(cls=(40, 8, 8), dec=(20, 4, 4), seg=(6, 2, 2)))
    return out


@pytest.fixture
def sick(painted, tmp_path) -> Path:
    """A world with one defect of every kind."""
    world = Path(shutil.copytree(painted, tmp_path / "world"))
    train = world / TRAIN
    os.truncate(train / "cls/train/00001.jpg", 800)
    (train / "cls/train/00002.jpg").write_text("no picture")
    shutil.copy(train / "cls/train/00003.jpg", world / TEST / "cls/test/00001.jpg")  # exact leak
    shutil.copy(train / "cls/train/00004.jpg", train / "cls/train/00005.jpg")  # of another class
    close = cv2.imread(str(train / "cls/train/00006.jpg"))
    cv2.imwrite(str(train / "cls/val/00002.jpg"), cv2.resize(close, None, fx=0.8, fy=0.8))  # near leak
    shutil.copy(painted / TRAIN / "seg/label/train/street00001.png", train / "cls/train/00007.jpg")
    body = json.loads((train / "dec/train.json").read_text())
    boxes = [a for a in body["annotations"] if a["image_id"] == body["images"][0]["id"]]
    boxes[0]["bbox"] = [-20, 10, 50, 20]
    body["annotations"] += [
        {**boxes[0], "id": 9001, "bbox": [5, 5, 0, 5]},
        {**boxes[0], "bbox": [1, 1, 5, 5]},
    ]
    body["images"].append({**body["images"][1], "file_name": "twice.jpg"})
    (train / "dec/train.json").write_text(json.dumps(body))
    mask = cv2.imread(str(train / "seg/label/train/street00002.png"), cv2.IMREAD_UNCHANGED)
    mask[0, 0] = 99
    cv2.imwrite(str(train / "seg/label/train/street00002.png"), mask)
    turned = Image.open(train / "cls/train/00008.jpg")
    turned.getexif()[ExifTags.Base.Orientation] = 6
    turned.save(train / "cls/train/00008.jpg", exif=turned.getexif())
    return world


def snapshot(folder: Path) -> dict[Path, str]:
    return {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_healthy_world_has_no_errors_and_no_leaks(painted):
    diagnosis = diagnose([painted])
    assert diagnosis.errors == []
    assert {f.kind for f in diagnosis.warnings} <= {"rare class", "imbalance"}


def test_every_defect_is_found(sick):
    diagnosis = diagnose([sick])
    errors = sorted((f.kind, Path(f.path).name) for f in diagnosis.errors)
    assert errors == [
        ("box", "sign00001.jpg"),
        ("box", "sign00001.jpg"),
        ("duplicate", "train.json"),
        ("duplicate", "twice.jpg"),
        ("mask", "street00002.png"),
        ("picture", "00001.jpg"),
        ("picture", "00002.jpg"),
    ]
    warnings = {f.kind: f for f in diagnosis.warnings}
    assert "train/00003.jpg is the same bytes as test/00001.jpg" in warnings["leak"].message
    assert "train/00006.jpg is nearly the same picture" in warnings["near leak"].message
    assert "val/00002.jpg" in warnings["near leak"].message
    assert "00004.jpg is blue van, 00005.jpg is green pickup" in warnings["mislabelled"].message
    assert "00008.jpg: an EXIF tag turns it" in warnings["turned"].message
    assert "00007.jpg: is a png by its content" in warnings["format"].message


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0", b"Exif\0\0garbage that is no TIFF"])
def test_damaged_exif_harms_no_picture(exif, tmp_path):
    """PIL raises struct.error or SyntaxError for these; nobody but the warning reads the block."""
    plain = cv2.imencode(".jpg", np.full((64, 64, 3), 90, np.uint8))[1].tobytes()
    block = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    jfif_end = 4 + int.from_bytes(plain[4:6], "big")
    jfif = bytearray(plain[:jfif_end])
    jfif[13:18] = b"\1\0\x48\0\x48"  # a density, which PIL takes from EXIF where JFIF has none
    (tmp_path / "a.jpg").write_bytes(bytes(jfif) + block + plain[jfif_end:])
    facts = inspect_file(tmp_path / "a.jpg", picture_facts)
    assert facts.error == "" and (facts.height, facts.width, facts.turned) == (64, 64, False)


def test_a_png_that_asks_to_be_turned_is_seen(tmp_path):
    image = Image.new("RGB", (64, 64))
    image.getexif()[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "a.png", exif=image.getexif())
    assert inspect_file(tmp_path / "a.png", picture_facts).turned


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_webp_asks_to_be_turned_behind_the_pixels_and_tiff_is_read_turned(orientation, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 160, 3)).astype(np.uint8))
    image.getexif()[ExifTags.Base.Orientation] = orientation
    for ending in ("tif", "webp"):
        image.save(tmp_path / f"a.{ending}", exif=image.getexif())
    assert inspect_file(tmp_path / "a.webp", picture_facts).turned == (orientation != 1)
    facts = inspect_file(tmp_path / "a.tif", picture_facts)
    shown = np.asarray(ImageOps.exif_transpose(image))
    assert not facts.turned and (facts.height, facts.width) == shown.shape[:2]
    assert np.array_equal(decode_rgb((tmp_path / "a.tif").read_bytes()), shown)


def test_imbalance_is_told(tmp_path):
    for name, count in (("cat", 60), ("dog", 1)):
        (tmp_path / "set/train" / name).mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng([count, i]).integers(0, 255, (12, 12, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f"set/train/{name}/{i}.png"), noise)
    warnings = {f.kind: f.message for f in diagnose([tmp_path / "set"]).warnings}
    assert warnings["imbalance"] == "cls: cat has 60, dog has 1; consider class-balanced sampling"
    assert warnings["rare class"].endswith("dog (1)")


def test_of_the_contests_classes_the_absent_ones_are_not_listed(tmp_path):
    """Masks with the values 0, 3 and 11 have a gap and reach sky, so they are taken for the contest's."""
    for split, count in (("train", 8), ("val", 2)):
        for kind in ("images", "label"):
            (tmp_path / f"train_data/seg/{kind}/{split}").mkdir(parents=True)
        for i in range(count):
            noise = np.random.default_rng([count, i]).integers(0, 255, (12, 12, 3), np.uint8)
            cv2.imwrite(str(tmp_path / f"train_data/seg/images/{split}/{i}.png"), noise)
            mask = np.repeat(np.array([0, 3, 11], np.uint8), 48).reshape(12, 12)
            cv2.imwrite(str(tmp_path / f"train_data/seg/label/{split}/{i}.png"), mask)
    warnings = {f.kind: f.message for f in diagnose([tmp_path]).warnings}
    assert "train shows 3 of the contest's 19 classes" in warnings["assumed classes"]
    assert "--classes seg=12 for the values up to 11" in warnings["assumed classes"]
    assert "rare class" not in warnings


def test_fix_shards_without_touching_the_source(sick, tmp_path):
    before = snapshot(sick)
    diagnosis = diagnose([sick])
    done = write_fix(diagnosis, tmp_path / "fixed")
    assert snapshot(sick) == before
    listed = "\n".join(done)
    assert (tmp_path / "fixed/changes.txt").read_text().splitlines() == done
    for part in (
        "dropped image " + str(sick / TRAIN / "cls/train/00001.jpg") + ": picture",
        "dropped image " + str(sick / TRAIN / "cls/train/00003.jpg") + ": leak",  # not test
        "dropped image " + str(sick / TRAIN / "seg/images/train/street00002.jpg") + ": mask",
        "sign00001.jpg: 1 box(es) clipped, 1 dropped",
        "left out while reading",
    ):
        assert part in listed, listed
    assert "--fix" not in listed
    dataset = make_shards([tmp_path / "fixed"], tmp_path / "out", ShardingOptions())
    counts = {task: {s: i.count for s, i in splits.items()} for task, splits in dataset.splits.items()}
    assert counts["cls"] == {"train": 37, "val": 8, "test": 8}
    assert counts["dec"] == {"train": 20, "val": 4, "test": 4} and counts["seg"]["train"] == 5
    boxes = read_shard_index(tmp_path / "out/dec/train-000000.index.npz").columns["boxes_xyxy"]
    assert boxes[0].tolist() == [0, 10, 30, 30]
    assert diagnose([tmp_path / "fixed"]).errors == []


def test_fix_leaves_out_no_test_image(painted, tmp_path):
    """A submission numbers the images of test by their line: after a gap every box would be another's."""
    world = Path(shutil.copytree(painted, tmp_path / "world"))
    images = sorted((world / TEST / "dec/test").iterdir())
    os.truncate(images[1], 500)
    images[2].unlink()
    with pytest.raises(ValueError, match=f"{images[1].name}, {images[2].name} cannot be left out"):
        write_fix(diagnose([world]), tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def listed_twice(test: Path) -> None:
    file = test / "cls/test.txt"
    file.write_text(file.read_text() + file.read_text().splitlines()[0])


def without_class(test: Path) -> None:
    file = test / "cls/test.txt"
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([first.split()[0] + " x", *rest]))


def edit_test_json(test: Path, edit: Callable[[dict], object]) -> None:
    body = json.loads((test / "dec/test.json").read_text())
    edit(body)
    (test / "dec/test.json").write_text(json.dumps(body))


GAPS = {
    "a line twice": (listed_twice, "00001.jpg"),
    "a label that is no number": (without_class, "cls/test.txt:1"),
    "an image less in the JSON than in the list": (
        lambda t: edit_test_json(t, lambda b: b["images"].pop()),
        "dec/test.txt",
    ),
    "an image without id": (
        lambda t: edit_test_json(t, lambda b: b["images"][0].update(id=None)),
        "dec/test.json",
    ),
    "a picture without mask": (
        lambda t: (t / "seg/label/test/street00001.png").unlink(),
        "street00001.jpg",
    ),
}


@pytest.mark.parametrize("case", GAPS)
def test_fix_refuses_any_gap_in_test(case, painted, tmp_path):
    world = Path(shutil.copytree(painted, tmp_path / "world"))
    spoil, named = GAPS[case]
    spoil(world / TEST)
    with pytest.raises(ValueError, match=f"{named}.* cannot be left out"):
        write_fix(diagnose([world]), tmp_path / "fixed")


def test_fix_mends_test_where_no_image_goes(painted, tmp_path):
    world = Path(shutil.copytree(painted, tmp_path / "world"))
    masks = world / TEST / "seg/label/test"
    shutil.copy(masks / "street00001.png", masks / "stray.png")
    first = json.loads((world / TEST / "dec/test.json").read_text())["annotations"][0]
    worse = [first, first | {"id": 99, "bbox": 3}]
    edit_test_json(world / TEST, lambda body: body["annotations"].extend(worse))
    done = "\n".join(write_fix(diagnose([world]), tmp_path / "fixed"))
    assert all(part in done for part in ("stray.png", "stands twice", "bbox 3")), done
    dataset = make_shards([tmp_path / "fixed"], tmp_path / "out", ShardingOptions())
    assert dataset.split("dec", "test").count == 4


def test_fix_writes_down_what_a_reader_passed_over(tmp_path):
    for i, place in enumerate(("train/a/0.png", "train/b/0.png", "train/b/deeper/1.png")):
        (tmp_path / "set" / place).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "set" / place), np.full((12, 12, 3), 40 * i, np.uint8))
    (line,) = write_fix(diagnose([tmp_path / "set"]), tmp_path / "fixed")
    assert "train/b: 1 folders or pictures in it are not read: deeper" in line


def test_fix_is_not_written_among_the_users_pictures(painted):
    before = snapshot(painted)
    for out in (painted, painted / TRAIN / "cls"):
        with pytest.raises(ValueError, match="holds your own pictures; give a new folder"):
            write_fix(diagnose([painted]), out)
    assert snapshot(painted) == before


def test_fix_guesses_no_classes(tmp_path):
    """Plain masks without a class list: an index of them would be of any classes."""
    for folder, value in (("images", 90), ("masks", 1)):
        (tmp_path / "set" / folder).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "set" / folder / "a.png"), np.full((12, 12), value, np.uint8))
    with pytest.raises(ValueError, match=r"(?s)--fix cannot say .*nothing says how many classes"):
        write_fix(diagnose([tmp_path / "set"]), tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def test_fix_of_a_healthy_world_changes_nothing(painted, tmp_path):
    assert write_fix(diagnose([painted]), tmp_path / "fixed") == []
    fixed = make_shards([tmp_path / "fixed"], tmp_path / "a", ShardingOptions())
    plain = make_shards([painted], tmp_path / "b", ShardingOptions())
    assert fixed.fingerprint == plain.fingerprint


def test_a_name_goes_before_the_tasks_of_a_fixed_index(painted, tmp_path):
    write_fix(diagnose([painted]), tmp_path / "all")
    tasks = read_sources([f"city={tmp_path / 'all'}"], Findings())
    assert [task.info.name for task in tasks] == ["city_cls", "city_dec", "city_seg"]


def test_reports_show_the_worst(sick, tmp_path, capsys):
    diagnosis = diagnose([sick])
    print_tables(diagnosis)
    assert "leak" in capsys.readouterr().out
    write_json(diagnosis, tmp_path / "r/report.json")
    body = json.loads((tmp_path / "r/report.json").read_text())
    assert len(body["errors"]) == len(diagnosis.errors) and body["images"]["cls"]["train"] == 40
    write_html(diagnosis, tmp_path / "r/report.html")
    page = (tmp_path / "r/report.html").read_text()
    assert "error: box" in page and "data:image/jpeg;base64," in page and "no picture" in page
    assert "://" not in page.replace("http://www.w3.org", "")


def test_masks_are_shown_in_colours(tmp_path):
    """The classes of a street are numbers below 20: as grey they would all look black."""
    cv2.imwrite(str(tmp_path / "mask.png"), np.repeat(np.arange(9, dtype=np.uint8)[None], 4, axis=0))
    shown = as_colours(tmp_path / "mask.png")[0].astype(int)
    apart = np.abs(shown[:, None] - shown[None]).sum(-1) + 999 * np.eye(9, dtype=int)
    assert apart.min() > 60  # of 765


@pytest.mark.parametrize("text", ["{", '{"format": "other"}'])
def test_a_fixed_index_of_another_kind_is_refused(text, tmp_path):
    (tmp_path / "fixed.json").write_text(text)
    with pytest.raises(ValueError, match="run check_data.py --fix"):
        read_sources([tmp_path], Findings())


def test_near_pairs_are_copies_and_nothing_else():
    """Every street, scaled and recompressed, is found as a copy of itself alone."""
    streets = [render_street(144, 216, np.random.default_rng(i)).rgb_HW3 for i in range(12)]
    originals = [_facts(street) for street in streets]
    copies = [_facts(cv2.resize(street, (150, 100)), quality=60) for street in streets]
    assert [(i, j) for i, j, _ in near_pairs(originals, copies)] == [(i, i) for i in range(12)]


def test_flat_pictures_are_no_copies():
    flat = [_facts(np.full((40, 40, 3), value, np.uint8)) for value in (20, 200)]
    assert list(near_pairs(flat, flat)) == []


def _facts(rgb: np.ndarray, quality: int = 90) -> FileFacts:
    return picture_facts(encode_jpeg(rgb, quality))
