"""The contest's folders are read as they lie on a user's disk, and every defect is named with its remedy."""

import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.shard_index import read_dataset
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.data.synthetic import WorldSizes, write_world
from ufo_large.evaluation.ground_truth import truth_of_folder, truth_of_shards
from ufo_large.structures import Findings
from ufo_large.testing.datasets import check_dataset

MINI = Path(os.environ.get("UFO_DATA", Path(__file__).parents[2] / "../shared/data/mini"))
TRAIN, TEST = "track1_train_data", "track1_test_data"


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("painted") / "world"
    write_world(out, 0, WorldSizes(cls=(8, 8, 4), dec=(3, 2, 3), seg=(3, 2, 2)))
    return out


@pytest.fixture
def world(painted, tmp_path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(painted, tmp_path / "world"))


def read(*data, counts=None, known=None):
    findings = Findings()
    tasks = read_sources(data, findings, counts, known)
    assert not findings.items, [f.message for f in findings.items]
    return {task.info.name: task for task in tasks}


def edit_json(file: Path, change) -> None:
    body = json.loads(file.read_text())
    change(body)
    file.write_text(json.dumps(body))


def refused(world: Path, tmp_path: Path, **options) -> str:
    """Return the message that sharding stops with; nothing may have been written to a shard."""
    with pytest.raises(ValueError) as stop:
        make_shards([world], tmp_path / "out", ShardingOptions(**options))
    assert not list((tmp_path / "out").glob("**/*.tar*"))
    return str(stop.value)


# what is read


def test_world_passes_the_contract(painted, tmp_path):
    dataset = check_dataset([painted], tmp_path / "shards")
    assert {task: list(splits) for task, splits in dataset.splits.items()} == dict.fromkeys(
        ("cls", "dec", "seg"), ["train", "val", "test"]
    )
    assert dataset.tasks["seg"].class_ids == (0, 1, 2, 5, 7, 8, 10, 11, 13)
    assert sum(dataset.split("cls", "train").class_histogram) == 8


@pytest.mark.skipif(not MINI.is_dir(), reason=f"no real data at {MINI}; set UFO_DATA")
def test_real_data_in_full():
    tasks = read(MINI)
    counts = {name: [len(t.splits[s]) for s in ("train", "val", "test")] for name, t in tasks.items()}
    assert counts == {"cls": [720, 120, 360], "dec": [469, 73, 182], "seg": [367, 26, 233]}
    boxes = [sum(len(e.truth) for e in tasks["dec"].splits[s]) for s in ("train", "val", "test")]
    assert boxes == [658, 103, 255]
    assert tasks["cls"].info.num_classes == 30
    assert tasks["dec"].info.class_names == ("trafficlight", "stop", "speedlimit", "crosswalk")
    assert tasks["dec"].info.class_ids == (1, 2, 3, 4)
    assert tasks["seg"].info.num_classes == 19


def test_both_root_names_and_roots_given_apart(world):
    together = read(world)
    (world / TRAIN).rename(world / "train_data")
    (world / TEST).rename(world / "test_data")
    renamed = read(world)
    apart = read(world / "train_data", world / "test_data")
    for name, task in together.items():
        assert renamed[name].info == apart[name].info == task.info
        for split, examples in task.splits.items():
            names = [e.file_name for e in examples]
            assert [e.file_name for e in renamed[name].splits[split]] == names
            assert [e.file_name for e in apart[name].splits[split]] == names


def test_tasks_are_the_folders_that_exist(world):
    shutil.rmtree(world / TRAIN / "dec")
    shutil.rmtree(world / TEST / "dec")
    shutil.rmtree(world / TEST / "seg")
    tasks = read(world)
    assert list(tasks) == ["cls", "seg"]
    assert list(tasks["seg"].splits) == ["train", "val"]


def test_sparse_category_and_image_ids(world):
    def renumber(body):
        for category in body["categories"]:
            category["id"] = 10 * (7 - category["id"])
        for annotation in body["annotations"]:
            annotation["category_id"] = 10 * (7 - annotation["category_id"])

    for file in (*(world / TRAIN / "dec").glob("*.json"), *(world / TEST / "dec").glob("*.json")):
        edit_json(file, renumber)
    task = read(world)["dec"]
    assert task.info.class_ids == (10, 20, 30, 40, 50, 60)
    assert task.info.class_names == ("priority", "mandatory", "crossing", "warning", "limit", "stop")
    first = json.loads((world / TRAIN / "dec/train.json").read_text())["annotations"][0]
    assert task.splits["train"][0].truth[0].label == first["category_id"] // 10 - 1
    assert [e.image_id for e in task.splits["train"]] == [3, 10, 17]


def test_test_split_without_ground_truth(world):
    (world / TEST / "cls/test.txt").unlink()
    (world / TEST / "dec/test.json").unlink()
    shutil.rmtree(world / TEST / "seg/label")
    names = ["sign00003.jpg", "sign00001.jpg", "sign00002.jpg"]
    (world / TEST / "dec/test.txt").write_text("\n".join(names) + "\n")
    tasks = read(world)
    assert not any(e.labeled for task in tasks.values() for e in task.splits["test"])
    assert [(e.file_name, e.image_id) for e in tasks["dec"].splits["test"]] == list(
        zip(names, (1, 2, 3), strict=True)
    )
    alone = read(world / TEST, known={name: task.info for name, task in tasks.items()})
    assert alone["cls"].info == tasks["cls"].info and len(alone["cls"].splits["test"]) == 4


def test_a_missing_picture_of_a_list_without_classes_is_named(world):
    names = sorted(p.name for p in (world / TEST / "cls/test").iterdir())
    (world / TEST / "cls/test.txt").write_text("\n".join(names))
    (world / TEST / "cls/test" / names[1]).unlink()
    findings = Findings()
    tasks = {task.info.name: task for task in read_sources([world], findings)}
    assert [f.message.partition(";")[0] for f in findings.items] == [
        f"{world / TEST}/cls/test.txt:2: {names[1]} is not in {world / TEST}/cls/test"
    ]
    assert len(tasks["cls"].splits["test"]) == len(names) - 1


def test_one_line_without_class_makes_no_unlabelled_list(world):
    lines = (world / TEST / "cls/test.txt").read_text().splitlines()
    lines[1] = lines[1].split()[0]
    (world / TEST / "cls/test.txt").write_text("\n".join(lines))
    findings = Findings()
    tasks = {task.info.name: task for task in read_sources([world], findings)}
    assert [f.message.partition(";")[0] for f in findings.items] == [
        f"{world / TEST}/cls/test.txt:2: cannot read {lines[1]!r}"
    ]
    assert [e.labeled for e in tasks["cls"].splits["test"]] == [True] * (len(lines) - 1)


def test_a_json_without_pictures_may_tell_the_categories_alone(world):
    categories = json.loads((world / TRAIN / "dec/train.json").read_text())["categories"]
    (world / TEST / "dec/test.json").unlink()
    (world / TEST / "dec/val.json").write_text(json.dumps({"categories": categories}))
    assert not any(example.labeled for example in read(world / TEST)["dec"].splits["test"])


def test_order_of_test_txt_wins_over_the_json(world):
    names = ["sign00002.jpg", "sign00003.jpg", "sign00001.jpg"]
    (world / TEST / "dec/test.txt").write_text("\n".join(names))
    examples = read(world)["dec"].splits["test"]
    assert [e.file_name for e in examples] == names
    assert [e.image_id for e in examples] == [2, 3, 1]  # ids of the ground truth stay with their images


def test_unlabeled_test_shards(world, tmp_path):
    (world / TEST / "cls/test.txt").unlink()
    dataset = make_shards([world], tmp_path / "out", ShardingOptions())
    assert not dataset.split("cls", "test").labeled
    assert sum(dataset.split("cls", "test").class_histogram) == 0
    assert dataset.split("cls", "train").labeled


def write_masks(world: Path, *values: int) -> None:
    """Overwrite every mask with stripes of the values, and leave nothing that names them."""
    for root in (TRAIN, TEST):
        (world / root / "seg/classes.txt").unlink(missing_ok=True)
        for file in (world / root / "seg/label").glob("*/*.png"):
            height, width = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape
            stripes = np.resize(np.array(values, np.uint8), width)
            cv2.imwrite(str(file), np.broadcast_to(stripes, (height, width)).copy())


def test_segmentation_without_names_has_the_contests_19_classes(world):
    (world / TRAIN / "seg/classes.txt").unlink()
    (world / TEST / "seg/classes.txt").unlink()
    info = read(world)["seg"].info
    assert info.class_ids == tuple(range(19)) and info.class_names[13] == "car"
    shutil.rmtree(world / TEST / "seg/label")
    assert read(world / TEST)["seg"].info == info


@pytest.mark.parametrize("count", [2, 3, 14, 25])
def test_values_without_a_gap_are_classes_of_the_users_own(count, world, tmp_path):
    write_masks(world, *range(count), 255)
    info = read(world)["seg"].info
    assert info.class_names == tuple(map(str, range(count))) and info.class_ids == tuple(range(count))
    assert truth_of_folder(world / TEST)["seg"].info.num_classes == 19, "as the contest's scorer counts"


@pytest.mark.parametrize("values", [(0, 2), (0, 7, 255), (0,), (0, 40, 128), (7, 8, 11, 26, 33)])
def test_values_that_nothing_explains_are_refused(values, world, tmp_path):
    write_masks(world, *values)
    told = refused(world, tmp_path)
    listed = ", ".join(str(v) for v in values if v != 255)
    assert f"seg: its masks hold {listed}, and nothing says what it means; write " in told
    assert "seg/classes.txt" in told and "or give --classes seg=N" in told


def test_classes_come_from_the_masks_of_train(world, tmp_path):
    write_masks(world, 0, 1)
    mask = next((world / TRAIN / "seg/label/val").iterdir())
    cv2.imwrite(str(mask), np.full(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED).shape, 2, np.uint8))
    assert re.search(rf"{mask.name}: value 2 .* is none of the 2 classes", refused(world, tmp_path))


# names of tasks


def test_a_name_goes_before_the_tasks_of_a_root(world, tmp_path):
    tasks = read(f"city={world}")
    assert list(tasks) == ["city_cls", "city_dec", "city_seg"]
    plain = read(world)
    for name, task in plain.items():
        assert tasks[f"city_{name}"].splits == task.splits
    both = read(world, f"city={world / TRAIN}", f"city={world / TEST}")
    assert list(both) == [*plain, *tasks]
    dataset = check_dataset([f"city={world}"], tmp_path / "out", known={"city_cls": tasks["city_cls"].info})
    assert list(dataset.tasks) == list(tasks)


def test_the_only_task_of_a_root_has_the_given_name(world):
    for root in (TRAIN, TEST):
        for folder in ("cls", "dec"):
            shutil.rmtree(world / root / folder)
    write_masks(world, 0, 2)
    assert [task.info.name for task in read_sources([f"streets={world}"], Findings(), {"streets": 3})] == [
        "streets"
    ]
    findings = Findings()
    read_sources([f"streets={world}"], findings)
    (finding,) = findings.items
    assert finding.task == "streets" and "give --classes streets=N" in finding.message


def test_a_name_that_tasks_cannot_have_is_refused(world):
    with pytest.raises(
        ValueError, match=r"--data 'a b=.*world': 'a b' is no name for a task; letters, digits"
    ):
        read(f"a b={world}")
    for folder in ("dec", "seg"):
        for root in (TRAIN, TEST):
            shutil.rmtree(world / root / folder)
    with pytest.raises(ValueError, match=r"task 'routing': .*choose another, .*--data NAME=DIR"):
        read(f"routing={world}")


def test_classes_of_other_shards_are_kept(world, tmp_path):
    first = make_shards([world], tmp_path / "first", ShardingOptions())
    for split in ("train", "val"):
        file = world / TRAIN / f"cls/{split}.txt"
        file.write_text(
            "".join(line for line in file.read_text().splitlines(True) if not line.endswith("7\n"))
        )
    (world / TRAIN / "cls/classes.txt").unlink()
    (world / TEST / "cls/classes.txt").unlink()
    assert read(world)["cls"].info.num_classes == 7
    known = read_dataset(tmp_path / "first").tasks
    assert make_shards([world], tmp_path / "second", ShardingOptions(known=known)).tasks == first.tasks


# what is refused


def train_json(change):
    """Return a damage: `change` the parsed dec/train.json."""
    return lambda world: edit_json(world / TRAIN / "dec/train.json", change)


def first_box(**fields):
    return train_json(lambda body: body["annotations"][0].update(**fields))


BREAKS = {
    "line that does not parse": (
        lambda w: (w / TRAIN / "cls/train.txt").write_text("00001.jpg 0\n00002.jpg\n"),
        r"train\.txt:2: cannot read '00002\.jpg'; write \"<image name> <class id>\"",
    ),
    "label of no class": (
        lambda w: (w / TRAIN / "cls/val.txt").write_text("00001.jpg 99\n"),
        r"val\.txt:1: class 99 of 00001\.jpg is none of the 8 known; correct it, or list",
    ),
    "name twice": (
        lambda w: (w / TRAIN / "cls/val.txt").write_text("00001.jpg 0\n00001.jpg 0\n"),
        r"val\.txt:2: 00001\.jpg stands twice",
    ),
    "image missing": (
        lambda w: (w / TRAIN / "cls/train/00003.jpg").unlink(),
        r"train\.txt:3: 00003\.jpg is not in .*cls/train",
    ),
    "label file missing": (
        lambda w: (w / TRAIN / "cls/train.txt").unlink(),
        r"cls/train\.txt: missing; write",
    ),
    "broken JSON": (
        lambda w: (w / TRAIN / "dec/train.json").write_text('{"images": ['),
        r"dec/train\.json: not JSON",
    ),
    "JSON of something else": (
        lambda w: (w / TRAIN / "dec/train.json").write_text("[1, 2]"),
        r"dec/train\.json: not a COCO file; it needs the lists images",
    ),
    "box outside": (
        first_box(bbox=[-30, 5, 40, 9]),
        r"image sign00001\.jpg: box \[x -30, y 5, width 40, height 9\] reaches outside its \d+x\d+ image",
    ),
    "empty box": (
        first_box(bbox=[3, 5, 0, 9]),
        r"empty box \[x 3, y 5, width 0, height 9\]",
    ),
    "box that is no box": (
        first_box(bbox=[3, "x"]),
        r"annotation 1 has bbox \[3, 'x'\], not \[x, y, width, height\]",
    ),
    "unknown category": (
        first_box(category_id=77),
        r"annotation 1 has category_id 77, which is not in `categories`",
    ),
    "annotation of no image": (
        first_box(image_id=77),
        r"annotation 1 is of image_id 77, which is not in `images`",
    ),
    "image id twice": (
        train_json(lambda b: b["images"][1].update(id=3)),
        r"image id 3 \(sign00002\.jpg\) stands twice",
    ),
    "annotation id twice": (
        train_json(lambda b: b["annotations"].append(b["annotations"][0])),
        r"annotation id 1 of image_id \d+ stands twice",
    ),
    "size in the JSON is wrong": (
        train_json(lambda b: b["images"][0].update(width=1000)),
        r"image sign00001\.jpg: annotated as 1000x\d+, but is",
    ),
    "one id, two category names": (
        lambda w: edit_json(w / TRAIN / "dec/val.json", lambda b: b["categories"][0].update(name="halt")),
        r"category id 1 is '(halt|stop)' here and '(halt|stop)' in another file",
    ),
    "order list of other images": (
        lambda w: (w / TEST / "dec/test.txt").write_text("sign00001.jpg\nsign00002.jpg\nother.jpg\n"),
        r"test\.txt: other\.jpg stands only here",
    ),
    "no order for unlabelled test images": (
        lambda w: [(w / TEST / "dec" / name).unlink() for name in ("test.txt", "test.json")],
        r"dec/test\.txt: missing; write the image names in order",
    ),
    "mask of another size": (
        lambda w: cv2.imwrite(str(w / TRAIN / "seg/label/val/street00001.png"), np.zeros((7, 9), np.uint8)),
        r"street00001\.png: 9x7, but its picture street00001\.jpg is",
    ),
    "mask missing": (
        lambda w: (w / TRAIN / "seg/label/train/street00002.png").unlink(),
        r"street00002\.jpg: no mask named street00002",
    ),
    "mask without picture": (
        lambda w: (w / TRAIN / "seg/images/train/street00002.jpg").unlink(),
        r"street00002\.png: no picture named street00002",
    ),
    "truncated JPEG": (
        lambda w: os.truncate(w / TRAIN / "cls/train/00001.jpg", 900),
        r"train/00001\.jpg: truncated",
    ),
    "truncated PNG": (
        lambda w: os.truncate(w / TRAIN / "seg/label/val/street00002.png", 300),
        r"street00002\.png: truncated",
    ),
    "text that claims to be a picture": (
        lambda w: (w / TRAIN / "cls/train/00001.jpg").write_text("<html>404</html>"),
        r"train/00001\.jpg: not a picture",
    ),
    "empty file": (
        lambda w: (w / TRAIN / "cls/train/00001.jpg").write_bytes(b""),
        r"train/00001\.jpg: unreadable \(empty file\)",
    ),
    "no class list": (
        lambda w: [(w / root / "cls/classes.txt").write_text("") for root in (TRAIN, TEST)],
        r"cls/classes\.txt: empty, or an id or name stands twice",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_refused_with_file_and_remedy(name, world, tmp_path):
    damage, wanted = BREAKS[name]
    damage(world)
    message = refused(world, tmp_path)
    assert re.search(wanted, message), message


def test_wrong_mask_value_names_the_option(world, tmp_path):
    mask = cv2.imread(str(world / TRAIN / "seg/label/val/street00001.png"), cv2.IMREAD_UNCHANGED)
    mask[:2, :2] = 9
    cv2.imwrite(str(world / TRAIN / "seg/label/val/street00001.png"), mask)
    message = refused(world, tmp_path)
    assert "street00001.png: value 9 (4 pixels) is none of the 9 classes; give --classes seg=N" in message
    # the remedy helps
    assert (
        make_shards([world], tmp_path / "out", ShardingOptions(counts={"seg": 19})).tasks["seg"].num_classes
        == 19
    )


def test_all_problems_come_together(world, tmp_path):
    for name in ("line that does not parse", "box outside", "truncated PNG", "mask missing"):
        BREAKS[name][0](world)
    message = refused(world, tmp_path)
    for part in ("train.txt:2", "reaches outside", "truncated", "no mask named"):
        assert part in message
    assert "data of" in message.splitlines()[0] and "problems" in message.splitlines()[0]


def test_rounding_of_a_pixel_is_clipped_in_silence(world, tmp_path):
    file = world / TRAIN / "dec/train.json"
    edit_json(file, lambda b: b["annotations"][0].update(bbox=[-0.5, 5, 20, 9]))
    make_shards([world], tmp_path / "out", ShardingOptions())


def test_folder_of_no_layout(tmp_path):
    with pytest.raises(ValueError, match="no such folder; check --data"):
        read(tmp_path / "nowhere")
    (tmp_path / "note.txt").touch()
    with pytest.raises(ValueError, match=r"note\.txt: a file; give the folder of a dataset"):
        read(tmp_path / "note.txt")
    with pytest.raises(ValueError, match="no layout that is known. Known: the contest"):
        read(tmp_path)


def test_a_mask_that_is_sharded_is_scored_too(world, tmp_path):
    """Three equal channels are one class number a pixel, for shards and for the evaluator."""
    file = next((world / TEST / "seg/label/test").iterdir())
    grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(file), cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR))
    make_shards([world], tmp_path / "out", ShardingOptions())
    truths = [truth_of_folder(world)["seg"], truth_of_shards(ShardSet.open(tmp_path / "out"))["seg"]]
    first, second = ({name: t.read(i) for i, name in enumerate(t.file_names)} for t in truths)
    assert first.keys() == second.keys() and all((first[n] == second[n]).all() for n in first)


def test_boxes_of_test_are_scored_as_they_are_stated(world, tmp_path):
    """Half a pixel outside, as rounding leaves it: training sees it clipped, both truths of test whole."""
    for root, split in ((TRAIN, "train"), (TEST, "test")):
        edit_json(
            world / root / f"dec/{split}.json",
            lambda body: body["annotations"][0].update(bbox=[-0.5, 3, 20, 9]),
        )
    make_shards([world], tmp_path / "out", ShardingOptions())
    shards = ShardSet.open(tmp_path / "out")
    truths = [truth_of_folder(world)["dec"], truth_of_shards(shards)["dec"]]
    found = [[box for i in range(3) for box in t.read(i).boxes_xywh_G4.tolist()] for t in truths]
    assert found[0] == found[1] and [-0.5, 3, 20, 9] in found[0]
    reader = shards.split("dec", "train")
    assert [0, 3, 19.5, 12] in [
        b for i in range(len(reader)) for b in reader.read(i).columns["boxes_xyxy"].tolist()
    ]


def test_a_split_without_images(world, tmp_path):
    (world / TRAIN / "cls/val.txt").write_text("")
    assert "no images for cls/val" in refused(world, tmp_path)
