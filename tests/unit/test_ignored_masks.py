"""Masks of 0 and 255 where 255 was meant as a class: it is ignored, so nothing could be learned from them."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.doctor import diagnose
from ufo_large.data.sharding import ShardingOptions, make_shards


def write_set(root: Path, *values: int, split: str = "train") -> Path:
    for folder in ("images", "masks"):
        (root / folder / split).mkdir(parents=True)
    for i in range(2):
        assert cv2.imwrite(str(root / f"images/{split}/{i}.jpg"), np.full((16, 16, 3), 90 + i, np.uint8))
        stripes = np.repeat(np.array(values, np.uint8), 16 // len(values))
        pixels = np.broadcast_to(stripes, (16, stripes.size)).copy()
        assert cv2.imwrite(
            str(root / f"masks/{split}/{i}.png"), cv2.resize(pixels, (16, 16), interpolation=0)
        )
    (root / "classes.txt").write_text("background\nroad\n")
    return root


def test_masks_of_0_and_255_are_refused_with_the_remedy(tmp_path):
    root = write_set(tmp_path / "set", 0, 255)
    wanted = (
        r"seg/train: 2 masks hold 0 and 255 alone; 255 means ignore, so no pixel is of road; .*write 1 for"
    )
    with pytest.raises(ValueError, match=wanted):
        make_shards([root], tmp_path / "out", ShardingOptions())
    (error,) = diagnose([root]).errors
    assert (error.kind, Path(error.path).name) == ("classes", "0.png")


def test_every_split_is_looked_at(tmp_path):
    root = write_set(tmp_path / "set", 0, 1)
    write_set(root, 0, 255, split="val")
    (error,) = diagnose([root]).errors
    assert error.message.startswith("seg/val: 2 masks hold 0 and 255 alone")


@pytest.mark.parametrize("values", [(0, 1, 255), (0, 1), (0,)])
def test_masks_that_use_255_as_ignore_pass(values, tmp_path):
    assert diagnose([write_set(tmp_path / "set", *values)]).errors == []


def test_255_is_no_class_of_masks(tmp_path):
    """Scoring in the contest's layout takes 255 for what nobody labelled or painted."""
    root = write_set(tmp_path / "set", 0, 255)
    (tmp_path / "track1_train_data").mkdir()
    root = root.rename(tmp_path / "track1_train_data/seg")
    (root / "masks").rename(root / "label")
    (root / "classes.txt").write_text("0 background\n255 road\n")
    with pytest.raises(
        ValueError, match="task 'seg': class 'road' has the id 255, which means ignore in masks"
    ):
        make_shards([tmp_path], tmp_path / "out", ShardingOptions())
