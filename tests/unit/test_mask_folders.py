"""Pictures and masks in folders: splits outside or inside, and what masks have behind the picture's stem."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ufo_large.data.datasets.sources import read_sources
from ufo_large.structures import Findings

LAYOUTS = {
    "images inside": ("images/{split}/{stem}.jpg", "masks/{split}/{stem}.png"),
    "splits outside": ("{split}/images/{stem}.jpg", "{split}/masks/{stem}.png"),
    "labels beside": ("{split}/{stem}.jpg", "{split}_labels/{stem}.png"),
    "Carvana": ("{split}/{stem}.jpg", "{split}_masks/{stem}_mask.png"),
    "CamVid at Kaggle": ("{split}/{stem}.png", "{split}_labels/{stem}_L.png"),
}


def write(file: Path, values: list[int]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array([values], np.uint8)).save(file)


def write_set(root: Path, layout: str, splits: tuple[str, ...] = ("train", "valid")) -> None:
    for split in splits:
        for number, stem in enumerate(("a", "b")):
            picture, mask = (root / part.format(split=split, stem=stem) for part in LAYOUTS[layout])
            write(picture, [10 * number, 99, 200])
            write(mask, [0, 1, number])
    (root / "classes.txt").write_text("ground\nroad\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_picture_has_the_mask_of_its_name(layout, tmp_path):
    write_set(tmp_path, layout)
    findings = Findings()
    (task,) = read_sources([tmp_path], findings)
    assert not findings.items
    assert task.info.class_names == ("ground", "road")
    for examples in (task.splits["train"], task.splits["val"]):
        stems = [(example.image.stem, example.truth.path.stem) for example in examples]
        assert [image for image, _ in stems] == ["a", "b"]
        assert all(mask.startswith(image) for image, mask in stems)


def test_pictures_to_test_need_no_masks(tmp_path):
    write_set(tmp_path, "splits outside")
    write(tmp_path / "test/images/c.jpg", [1, 2, 3])
    (task,) = read_sources([tmp_path], Findings())
    assert [example.truth for example in task.splits["test"]] == [None]


def test_a_split_without_masks_is_told(tmp_path):
    write_set(tmp_path, "splits outside", ("train",))
    write(tmp_path / "val/images/c.jpg", [1, 2, 3])
    findings = Findings()
    (task,) = read_sources([tmp_path], findings)
    (item,) = findings.items
    assert "val" not in task.splits
    assert f"{tmp_path / 'val'}: not read, it has no pictures with masks as" in item.message
