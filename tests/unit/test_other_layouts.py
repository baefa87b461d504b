"""COCO, VOC, class folders and the folders of BDD100K, Cityscapes and CamVid; several sources of one task."""

import json
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from ufo_large.data.datasets.base import joined
from ufo_large.data.datasets.merge import merge_tasks
from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.shard_index import read_shard_index
from ufo_large.data.sharding import ShardingOptions, make_shards, tell_half_labelled
from ufo_large.kinds import KINDS
from ufo_large.media.decode import BadSample, decode_image
from ufo_large.media.pictures import decode_rgb, mask_values, picture_facts
from ufo_large.structures import Example, Findings, SourceTask, TaskInfo
from ufo_large.testing.datasets import check_dataset, write_stripes

H, W = 30, 40


def picture(path: Path, value: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((H, W, 3), value, np.uint8))
    return path


def stored_mask(dataset, split: str = "train", row: int = 0) -> np.ndarray:
    entry = dataset.split("seg", split).shards[0]
    index = read_shard_index(Path(dataset.root) / entry.index)
    tar = (Path(dataset.root) / entry.file).read_bytes()
    start = int(index.target_offsets[row])
    return mask_values(tar[start : start + int(index.target_sizes[row])])


def problems(*data, **options) -> str:
    findings = Findings()
    read_sources(data, findings, **options)
    return "\n".join(item.message for item in findings.items)


def coco(root: Path, split: str = "train", names=("stop", "limit"), ids=(5, 9)) -> Path:
    picture(root / f"images/{split}2017/a.jpg")
    picture(root / f"images/{split}2017/b.jpg")
    images = [{"id": i, "file_name": n, "height": H, "width": W} for i, n in ((70, "b.jpg"), (8, "a.jpg"))]
    boxes = [{"id": 1, "image_id": 8, "category_id": ids[1], "bbox": [1, 2, 10, 12.5]}]
    categories = [{"id": i, "name": n} for i, n in zip(ids, names, strict=True)]
    (root / "annotations").mkdir(exist_ok=True)
    body = {"images": images, "annotations": boxes, "categories": categories}
    (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(body))
    return root


VOC_XML = """<annotation><size><width>40</width><height>30</height></size>
<object><name>car</name><bndbox><xmin>1</xmin><ymin>3</ymin><xmax>40</xmax><ymax>30</ymax></bndbox></object>
<object><name>bus</name><difficult>1</difficult>
<bndbox><xmin>5</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def voc(root: Path) -> Path:
    for stem in ("000001", "000002"):
        picture(root / f"JPEGImages/{stem}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        (root / f"Annotations/{stem}.xml").write_text(VOC_XML)
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text("000002\n")
    (root / "ImageSets/Main/val.txt").write_text("000001\n")
    return root


# detection


def test_coco_folder(tmp_path):
    dataset = check_dataset([coco(tmp_path / "set")], tmp_path / "out")
    assert dataset.tasks["dec"].class_ids == (5, 9)
    index = read_shard_index(tmp_path / "out/dec/train-000000.index.npz")
    assert index.file_names.tolist() == ["b.jpg", "a.jpg"] and index.image_ids.tolist() == [70, 8]
    assert index.labels.tolist() == [1] and index.columns["boxes_xyxy"].tolist() == [[1, 2, 11, 14.5]]


def edit_coco(root: Path, **fields) -> Path:
    file = root / "annotations/instances_train2017.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))
    return root


def boxes_of(*data) -> list[list[int]]:
    """Return the labels of every training image's boxes."""
    (task,) = read_sources(data, Findings())
    return [[box.label for box in example.truth] for example in task.splits["train"]]


def test_coco_categories_of_one_name(tmp_path):
    root = coco(tmp_path / "set", names=("car", "car"), ids=(0, 1))
    assert problems(root) == ""  # only 1 is used: 0 is a super-category
    (task,) = read_sources([root], Findings())
    assert task.info.class_ids == (1,) and boxes_of(root) == [[], [0]]
    both = [{"id": i, "image_id": 8, "category_id": i, "bbox": [1, 2, 3, 4]} for i in (0, 1)]
    edit_coco(root, annotations=both)
    assert "categories 0, 1 are all named 'car'; name them apart" in problems(root)
    edit_coco(root, annotations=[])
    (task,) = read_sources([root], Findings())
    assert problems(root) == "" and task.info.class_ids == (1,)  # nothing tells which: the later one


def test_coco_without_annotations(tmp_path):
    """Of training it is an error, of test it means no ground truth."""
    for split in ("train", "test"):
        coco(tmp_path / "set", split)
        file = tmp_path / f"set/annotations/instances_{split}2017.json"
        file.write_text(file.read_text().replace('"annotations"', '"annotation"'))
    findings = Findings()
    (task,) = read_sources([tmp_path / "set"], findings)
    (only,) = [f.message for f in findings.items]
    assert "instances_train2017.json: no list `annotations`, only images, annotation, categories" in only
    assert [e.labeled for e in task.splits["test"]] == [False, False]


def test_coco_ids_that_begin_anew_with_every_image(tmp_path):
    boxes = [{"id": 0, "image_id": i, "category_id": 5, "bbox": [1, 2, 3, 4]} for i in (8, 70)]
    root = edit_coco(coco(tmp_path / "set"), annotations=boxes)
    assert problems(root) == "" and boxes_of(root) == [[0], [0]]
    edit_coco(root, annotations=[box | {"id": None} for box in boxes * 2])
    assert problems(root) == "" and boxes_of(root) == [[0, 0], [0, 0]]
    edit_coco(root, annotations=boxes * 2)
    assert problems(root).count("annotation id 0 of image_id 70 stands twice") == 1


def test_coco_without_sizes(tmp_path):
    images = [{"id": 8, "file_name": "a.jpg", "height": 0, "width": None}]
    root = edit_coco(coco(tmp_path / "set"), images=images)
    check_dataset([root], tmp_path / "out")


def test_voc_folder(tmp_path):
    """VOC counts pixels from 1 and includes the last: 1..40 is the whole width 0..40."""
    dataset = check_dataset([voc(tmp_path / "set")], tmp_path / "out")
    assert dataset.tasks["dec"].class_names == ("bus", "car")
    index = read_shard_index(tmp_path / "out/dec/train-000000.index.npz")
    assert index.file_names.tolist() == ["000002.jpg"]
    assert index.columns["boxes_xyxy"].tolist() == [[0, 2, 40, 30], [4, 4, 9, 9]]
    assert index.labels.tolist() == [1, 0] and index.columns["crowds"].tolist() == [False, True]


def test_voc_defects(tmp_path):
    root = voc(tmp_path / "set")
    (root / "Annotations/000001.xml").write_text("<annotation><object>")
    (root / "Annotations/000002.xml").write_text(VOC_XML.replace("<xmin>1</xmin>", "<xmin>left</xmin>"))
    (root / "ImageSets/Main/val.txt").write_text("000001\n000001\n000009\n")
    message = problems(root)
    assert "000001.xml: cannot be read" in message
    assert "000002.xml: object 1 needs a name and bndbox" in message
    assert "val.txt:2: 000001 stands twice" in message
    assert "val.txt:3: no picture 000009" in message


# classification


def test_class_folders(tmp_path):
    for split in ("train", "valid"):
        for name in ("cat", "dog"):
            picture(tmp_path / "set" / split / name / "1.jpg")
    picture(tmp_path / "set/test/7.jpg")
    dataset = check_dataset([tmp_path / "set"], tmp_path / "out")
    assert dataset.tasks["cls"].class_names == ("cat", "dog")
    assert list(dataset.splits["cls"]) == ["train", "val", "test"]
    assert not dataset.split("cls", "test").labeled
    index = read_shard_index(tmp_path / "out/cls/val-000000.index.npz")
    assert index.file_names.tolist() == ["cat/1.jpg", "dog/1.jpg"] and index.labels.tolist() == [0, 1]


def test_class_folders_with_what_is_not_read(tmp_path):
    picture(tmp_path / "train/cat/1.jpg")
    picture(tmp_path / "train/cat/2.jpg").rename(tmp_path / "train/cat/2.jfif")
    picture(tmp_path / "train/dog/part1/3.jpg")
    (tmp_path / "train/cat/notes.txt").write_text("harmless")
    told = problems(tmp_path)
    assert "cat: 1 folders or pictures in it are not read: 2.jfif" in told
    assert "dog: 1 folders or pictures in it are not read: part1" in told


def test_class_folders_without_splits(tmp_path):
    picture(tmp_path / "set/cat/1.jpg")
    picture(tmp_path / "set/dog/1.jpg")
    dataset = check_dataset([tmp_path / "set"], tmp_path / "out")
    assert list(dataset.splits["cls"]) == ["train"]


def test_class_that_train_lacks(tmp_path):
    picture(tmp_path / "set/train/cat/1.jpg")
    picture(tmp_path / "set/val/bird/1.jpg")
    assert "class folder 'bird' does not exist in train" in problems(tmp_path / "set")


# segmentation


def test_bdd100k(tmp_path):
    root = tmp_path / "bdd100k"
    picture(root / "images/10k/train/x.jpg")
    picture(root / "images/10k/test/y.jpg")
    write_stripes(root / "labels/sem_seg/masks/train/x.png", 0, 18, 255)
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].num_classes == 19
    assert set(np.unique(stored_mask(dataset))) == {0, 18, 255}
    assert not dataset.split("seg", "test").labeled


def test_bdd100k_older_names(tmp_path):
    root = tmp_path / "bdd100k"
    picture(root / "seg/images/val/x.jpg")
    write_stripes(root / "seg/labels/val/x_train_id.png", 3)
    dataset = check_dataset([root], tmp_path / "out")
    assert set(np.unique(stored_mask(dataset, "val"))) == {3}


@pytest.mark.parametrize(("ending", "values"), [("labelTrainIds", (0, 13, 255)), ("labelIds", (7, 26, 4))])
def test_cityscapes(ending, values, tmp_path):
    """Label ids 7 and 26 are the train ids 0 (road) and 13 (car); 4 (static) is ignored."""
    root = tmp_path / "cityscapes"
    picture(root / "leftImg8bit/train/ulm/ulm_000001_000019_leftImg8bit.png")
    write_stripes(root / f"gtFine/train/ulm/ulm_000001_000019_gtFine_{ending}.png", *values)
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names[13] == "car"
    assert list(dict.fromkeys(stored_mask(dataset)[0].tolist())) == [0, 13, 255]


def test_camvid_indexed(tmp_path):
    root = tmp_path / "CamVid"
    for split in ("train", "val", "test"):
        picture(root / split / "0001.png")
        write_stripes(root / f"{split}annot" / "0001.png", 0, 10, 11)
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].num_classes == 11
    assert list(dict.fromkeys(stored_mask(dataset, "test")[0].tolist())) == [0, 10, 255]


def test_a_class_list_wins_over_camvids_names(tmp_path):
    root = tmp_path / "set"
    picture(root / "train/0001.png")
    write_stripes(root / "trainannot/0001.png", 0, 1, 2, 255)
    (root / "classes.txt").write_text("field\nweed\ncrop\n")
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("field", "weed", "crop")
    assert list(dict.fromkeys(stored_mask(dataset)[0].tolist())) == [0, 1, 2, 255]


def test_camvid_coloured(tmp_path):
    root = tmp_path / "CamVid"
    (root / "labels").mkdir(parents=True)
    colors = {"Sky": (128, 128, 128), "Void": (0, 0, 0), "Road": (128, 64, 128)}
    (root / "label_colors.txt").write_text("".join(f"{r} {g} {b}\t{n}\n" for n, (r, g, b) in colors.items()))
    for stem in ("a", "b"):
        picture(root / "images" / f"{stem}.png")
        rgb = np.repeat(np.array(list(colors.values()), np.uint8), (10, 10, 20), axis=0)
        cv2.imwrite(
            str(root / "labels" / f"{stem}_L.png"), np.broadcast_to(rgb[None, :, ::-1], (H, W, 3)).copy()
        )
    (root / "train.txt").write_text("a.png\n")
    (root / "val.txt").write_text("b.png\n")
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("Sky", "Road")
    assert list(dict.fromkeys(stored_mask(dataset)[0].tolist())) == [0, 255, 1]
    cv2.imwrite(str(root / "labels/a_L.png"), np.full((H, W, 3), (0, 0, 255), np.uint8))
    with pytest.raises(ValueError, match=r"a_L\.png: value #ff0000 \(1200 pixels\) is none of the 2 classes"):
        make_shards([root], tmp_path / "other", ShardingOptions())


@pytest.mark.parametrize("palette", [False, True])
def test_coloured_masks_that_show_only_grey(palette, tmp_path):
    """Sky (128) and void (0) are grey: their masks are colour masks nonetheless, also with a palette."""
    root = tmp_path / "CamVid"
    (root / "labels").mkdir(parents=True)
    (root / "label_colors.txt").write_text("128 128 128 Sky\n0 0 0 Void\n255 0 0 Road\n255 255 255 Road\n")
    picture(root / "images/a.png")
    grey = write_stripes(root / "labels/a_L.png", 128, 0, 255)
    cv2.imwrite(str(grey), cv2.imread(str(grey)))
    if palette:
        Image.open(grey).convert("P", palette=Image.Palette.ADAPTIVE).save(grey)
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("Sky", "Road")
    assert list(dict.fromkeys(stored_mask(dataset)[0].tolist())) == [0, 255, 1]


def test_masks_of_colours_where_class_numbers_are_wanted(tmp_path):
    root = tmp_path / "set"
    picture(root / "images/a.jpg")
    picture(root / "masks/a.png")
    (root / "classes.txt").write_text("road\ncar\n")
    cv2.imwrite(str(root / "masks/a.png"), np.full((H, W, 3), (0, 0, 255), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: .*it has colours, where every pixel should hold a class"):
        make_shards([root], tmp_path / "out", ShardingOptions())


def test_classes_txt_with_a_byte_order_mark(tmp_path):
    root = tmp_path / "set"
    picture(root / "images/a.jpg")
    write_stripes(root / "masks/a.png", 0, 1)
    (root / "classes.txt").write_text("1 road\n0 car\n", encoding="utf-8-sig")
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("car", "road")
    (root / "classes.txt").write_text("Straße\n", encoding="latin-1")
    assert "classes.txt: not UTF-8 text" in problems(root)


def test_plain_masks(tmp_path):
    root = tmp_path / "set"
    picture(root / "images/a.jpg")
    write_stripes(root / "masks/a.png", 0, 1, 2)
    assert "nothing says how many classes" in problems(root)
    dataset = check_dataset([root], tmp_path / "counted", counts={"seg": 3})
    assert dataset.tasks["seg"].num_classes == 3
    (root / "classes.txt").write_text("0 sky\n1 road\n2 car\n")
    assert check_dataset([root], tmp_path / "named").tasks["seg"].class_names == ("sky", "road", "car")


# several sources


def test_two_sources_share_classes_by_name(tmp_path):
    first = coco(tmp_path / "one")
    second = coco(tmp_path / "two", names=("limit", "yield"), ids=(1, 2))
    dataset = check_dataset([first, second], tmp_path / "out")
    assert dataset.tasks["dec"].class_names == ("stop", "limit", "yield")
    assert dataset.tasks["dec"].class_ids == (5, 9, 10)
    index = read_shard_index(tmp_path / "out/dec/train-000000.index.npz")
    assert index.labels.tolist() == [1, 2]  # "limit" of the first, "yield" of the second
    # ids and names of the second would collide and moved
    assert index.image_ids.tolist() == [70, 8, 133, 71]
    names = index.file_names.tolist()
    assert names[2:] == [f"2/{name}" for name in names[:2]]
    third = check_dataset([first, second, coco(tmp_path / "three")], tmp_path / "all")
    assert third.split("dec", "train").count == 6
    again = read_shard_index(tmp_path / "all/dec/train-000000.index.npz")
    assert len(set(again.image_ids.tolist())) == len(set(again.file_names.tolist())) == 6
    assert again.file_names.tolist()[4:] == [f"3/{name}" for name in names[:2]]


def test_ids_from_zero_move_aside_too():
    def examples(*ids: int) -> list[Example]:
        return [Example(image=Path("x"), file_name=f"{i}.jpg", image_id=i, where="") for i in ids]

    both = joined(examples(0, 1, 2), examples(0, 1))
    assert [e.image_id for e in both] == [0, 1, 2, 3, 4]
    assert [e.file_name for e in both[3:]] == ["2/0.jpg", "2/1.jpg"]


def test_ids_of_merged_classes_are_checked_before_anything_is_written():
    """The next id after 254 would mean ignore."""
    first = TaskInfo(name="seg", kind="segmentation", class_names=("a", "b"), class_ids=(0, 254))
    second = TaskInfo(name="seg", kind="segmentation", class_names=("a", "c"), class_ids=(0, 1))
    with pytest.raises(ValueError, match="class 'c' has the id 255, which means ignore"):
        merge_tasks([SourceTask(first, {}), SourceTask(second, {})], Findings())


def test_splits_with_half_of_a_truth_are_told():
    with_truth, without = (
        Example(image=Path("x"), file_name="a", image_id=i, where="", truth=truth)
        for i, truth in enumerate(("there", None))
    )
    info = TaskInfo(name="dec", kind="detection", class_names=("a",), class_ids=(0,))
    whole = SourceTask(info, {"train": [with_truth], "test": [without]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tell_half_labelled([whole])
    with pytest.warns(UserWarning, match="dec/test: 1 of 2 images have no ground truth.*not be scored"):
        tell_half_labelled([SourceTask(info, {"test": [with_truth, without]})])


def test_names_that_one_answer_would_stand_for_move_aside():
    """Masks are answered as <stem>.png, whatever the picture's ending."""
    first, second = (
        [Example(image=Path("x"), file_name=name, image_id=0, where="")] for name in ("a.jpg", "a.png")
    )
    assert [e.file_name for e in joined(first, second)] == ["a.jpg", "a.png"]
    masks = joined(first, second, KINDS["segmentation"].answer_name)
    assert [e.file_name for e in masks] == ["a.jpg", "2/a.png"]


def test_task_may_be_named(tmp_path):
    picture(tmp_path / "weather/sun/1.jpg")
    picture(tmp_path / "weather/rain/1.jpg")
    dataset = check_dataset([f"weather={tmp_path / 'weather'}", coco(tmp_path / "set")], tmp_path / "out")
    assert {name: info.kind for name, info in dataset.tasks.items()} == {
        "weather": "classification",
        "dec": "detection",
    }


def test_kinds_do_not_mix(tmp_path):
    picture(tmp_path / "weather/sun/1.jpg")
    with pytest.raises(
        ValueError, match="detection in one source and classification in another; name them apart"
    ):
        read_sources([coco(tmp_path / "set"), f"dec={tmp_path / 'weather'}"], Findings())


def test_classes_of_earlier_shards_are_kept(tmp_path):
    first = make_shards([coco(tmp_path / "one")], tmp_path / "a", ShardingOptions())
    less = coco(tmp_path / "two", names=("limit", "limit2"), ids=(1, 2))
    with pytest.raises(
        ValueError, match="has classes limit2, which the shards given with --like do not know"
    ):
        read_sources([less], Findings(), known=first.tasks)
    same = coco(tmp_path / "three", names=("limit", "stop"), ids=(1, 2))
    dataset = check_dataset([same], tmp_path / "b", known=first.tasks)
    assert dataset.tasks == first.tasks
    assert read_shard_index(tmp_path / "b/dec/train-000000.index.npz").labels.tolist() == [0]


def test_pictures_of_32_bits_are_refused_and_those_of_16_are_scaled(tmp_path):
    values = np.linspace(0, 1, H * W, dtype=np.float32).reshape(H, W)
    for mode, pixels in (("F", values), ("I", (values * 255).astype(np.int32))):
        file = tmp_path / f"{mode}/train/car/a.tiff"
        file.parent.mkdir(parents=True)
        Image.fromarray(pixels).save(file)
        told = f"PIL mode {mode}: 32 bits or signed, so white is unknown; convert it to 8 or 16 bits"
        with pytest.raises(ValueError, match=rf"a\.tiff: unreadable \({told}"):
            make_shards([tmp_path / mode], tmp_path / f"{mode}-shards", ShardingOptions(jobs=1))
        with pytest.raises(ValueError, match=told):
            decode_rgb(file.read_bytes())
        with pytest.raises(BadSample, match=told):
            decode_image(file.read_bytes())
    wide = (values * 65535).astype(np.uint16)
    for name in ("a.tiff", "a.png"):
        Image.fromarray(wide).save(tmp_path / name)
    (tmp_path / "a.pgm").write_bytes(b"P5 %d %d 65535\n" % (W, H) + wide.astype(">u2").tobytes())
    for name in ("a.tiff", "a.png", "a.pgm"):
        data = (tmp_path / name).read_bytes()
        for decode in (decode_rgb, decode_image):
            np.testing.assert_array_equal(decode(data)[..., 1], (wide / 257).round(), err_msg=name)
        look = np.frombuffer(bytes.fromhex(picture_facts(data).look), np.uint8)
        assert abs(look.mean() - 127.5) < 2, "copies are told by scaled values"


def test_lists_name_pictures_with_blanks(tmp_path):
    root = voc(tmp_path)
    for old in (root / "JPEGImages/000002.jpg", root / "Annotations/000002.xml"):
        old.rename(old.with_name(f"my car{old.suffix}"))
    (root / "ImageSets/Main/train.txt").write_text("my car\n")
    (root / "ImageSets/Main/val.txt").write_text("000001 -1\n")
    assert problems(root) == ""
    camvid = tmp_path / "CamVid"
    (camvid / "label_colors.txt").parent.mkdir()
    (camvid / "label_colors.txt").write_text("128 128 128 Sky\n0 0 0 Void\n9 9 9 Road\n")
    for stem in ("my street", "b"):
        picture(camvid / f"images/{stem}.png")
        write_stripes(camvid / f"labels/{stem}_L.png", 128)
    (camvid / "train.txt").write_text("my street.png\n")
    (camvid / "val.txt").write_text("images/b.png labels/b_L.png\n")
    assert problems(camvid) == ""
    (task,) = read_sources([camvid], Findings())
    assert [e.file_name for e in task.splits["train"]] == ["my street.png"]


# names of splits


def test_splits_of_other_names_are_read(tmp_path):
    root = coco(tmp_path / "coco")
    coco(root, "valid"), coco(root, "testing")
    (tmp_path / "voc").mkdir()
    lists = voc(tmp_path / "voc") / "ImageSets/Main"
    (lists / "val.txt").rename(lists / "validation.txt")
    (lists / "train.txt").rename(lists / "trainval.txt")
    for split in ("training", "dev"):
        picture(tmp_path / f"folders/{split}/car/a.jpg")
        picture(tmp_path / f"folders/{split}/bus/a.jpg")
        picture(tmp_path / f"masks/images/{split}/a.jpg")
        write_stripes(tmp_path / f"masks/masks/{split}/a.png", 0, 1)
    (tmp_path / "masks/classes.txt").write_text("road\nsky\n")
    wanted = {"coco": ["train", "val", "test"]}
    for name in ("coco", "voc", "folders", "masks"):
        assert problems(tmp_path / name) == ""
        (task,) = read_sources([tmp_path / name], Findings())
        assert list(task.splits) == wanted.get(name, ["train", "val"]) and all(task.splits.values()), name


def test_what_lies_beside_the_splits_is_not_passed_over(tmp_path):
    root = coco(tmp_path / "coco")
    coco(root, "minival")
    file = root / "annotations/instances_train2017.json"
    (root / "annotations/instances_train2014.json").write_text(file.read_text())
    found = problems(root)
    unread = "instances_minival2017.json, instances_train2014.json"
    assert f"{unread}: not read beside instances_train2017" in found
    for split in ("train", "holdout"):
        picture(tmp_path / f"folders/{split}/car/a.jpg")
        picture(tmp_path / f"folders/{split}/bus/a.jpg")
        picture(tmp_path / f"masks/images/{split}/a.jpg")
        write_stripes(tmp_path / f"masks/masks/{split}/a.png", 0, 1)
    (tmp_path / "masks/classes.txt").write_text("road\nsky\n")
    for name in ("folders", "masks"):
        told = problems(tmp_path / name)
        assert "holdout: not read beside train; a split is named train, training, val, valid" in told
        assert "rename it, or move it out" in told
