"""What plain masks mean: 0 and 255 as two classes, and colours that a file names."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ufo_large.data.datasets.sources import read_sources
from ufo_large.data.doctor import diagnose
from ufo_large.data.shard_index import read_shard_index
from ufo_large.media.pictures import mask_values
from ufo_large.structures import Findings
from ufo_large.testing.datasets import check_dataset

COLORS = {"road": (128, 64, 128), "void": (0, 0, 0), "sky": (70, 130, 180)}


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


def masks_of(
    root: Path, *values: int | tuple[int, int, int], split: str = "train", folder: str = "masks"
) -> Path:
    """One picture and a mask of stripes, from left to right, grey or RGB."""
    picture(root / "images" / split / "a.jpg", np.full((16, 16, 3), len(split), np.uint8))
    stripes = np.repeat(np.array(values, np.uint8), 16 // len(values), axis=0)
    rows = np.broadcast_to(stripes, (16, *stripes.shape))
    picture(
        root / folder / split / "a.png", np.ascontiguousarray(rows[..., ::-1] if rows.ndim == 3 else rows)
    )
    return root


def stored_row(dataset, split: str = "train") -> list[int]:
    """The labels of the mask's first row, each once."""
    entry = dataset.split("seg", split).shards[0]
    index = read_shard_index(Path(dataset.root) / entry.index)
    start = int(index.target_offsets[0])
    data = (Path(dataset.root) / entry.file).read_bytes()[start : start + int(index.target_sizes[0])]
    return list(dict.fromkeys(mask_values(data)[0].tolist()))


def test_a_class_list_that_names_255_makes_it_a_class(tmp_path):
    root = masks_of(tmp_path / "set", 0, 255)
    (root / "classes.txt").write_text("0 background\n255 road\n")
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("background", "road")
    assert dataset.tasks["seg"].class_ids == (0, 1)
    assert stored_row(dataset) == [0, 1]


def test_0_and_255_alone_are_background_and_foreground(tmp_path):
    """As ignore, 255 would leave a single class: no other reading makes sense. A third value is refused."""
    root = masks_of(tmp_path / "set", 0, 255)
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("background", "foreground")
    assert stored_row(dataset) == [0, 1]
    masks_of(root, 0, 7, split="val")
    assert any("7" in error.message for error in diagnose([root]).errors)


def test_two_classes_asked_for_are_background_and_foreground(tmp_path):
    root = masks_of(tmp_path / "set", 0, 255)
    dataset = check_dataset([root], tmp_path / "out", counts={"seg": 2})
    assert dataset.tasks["seg"].class_names == ("background", "foreground")
    assert stored_row(dataset) == [0, 1]
    (root / "classes.txt").write_text("nothing\nroad\n")
    dataset = check_dataset([root], tmp_path / "named", counts={"seg": 2})
    assert dataset.tasks["seg"].class_names == ("nothing", "road")


def test_255_stays_ignore_where_any_mask_has_another_value(tmp_path):
    root = masks_of(masks_of(tmp_path / "set", 0, 255), 0, 1, split="val")
    (error,) = diagnose([root], {"seg": 2}).errors
    assert "seg/train: 1 masks hold 0 and 255 alone; 255 means ignore" in error.message


def test_two_names_alone_leave_0_and_255_refused(tmp_path):
    """255 is ignore unless the user says otherwise; the message says how."""
    root = masks_of(tmp_path / "set", 0, 255)
    (root / "classes.txt").write_text("background\nroad\n")
    (error,) = diagnose([root]).errors
    assert "255 means ignore, so no pixel is of road" in error.message
    assert 'with the lines "0 background" and "255 road"' in error.message


SUGGESTED = {
    (0, 1, 3, 255): "give --classes seg=N (they hold 0 to 3: N=4)",
    ((9, 0, 0), (0, 9, 0)): "if they have colours, write {}/label_colors.txt",
}


@pytest.mark.parametrize("values", SUGGESTED, ids=str)
def test_masks_that_nothing_explains_are_looked_at_for_the_remedy(values, tmp_path):
    root, findings = masks_of(tmp_path, *values), Findings()
    read_sources([root], findings)
    (item,) = findings.items
    assert SUGGESTED[values].format(root) in item.message


@pytest.mark.parametrize("file", ["classes.txt", "label_colors.txt"])
@pytest.mark.parametrize("folder", ["masks", "labels"])
def test_masks_of_colours_with_a_palette(file, folder, tmp_path):
    root = masks_of(tmp_path / "set", *COLORS.values(), COLORS["sky"], folder=folder)
    (root / file).write_text("".join(f"{r} {g} {b} {name}\n" for name, (r, g, b) in COLORS.items()))
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("road", "sky")
    assert stored_row(dataset) == [0, 255, 1]  # void is ignored


def test_a_palette_in_a_table(tmp_path):
    """class_dict.csv, as many data sets of colour masks have it."""
    root = masks_of(tmp_path / "set", *COLORS.values(), COLORS["sky"])
    lines = [f"{name}, {r}, {g}, {b}\n" for name, (r, g, b) in COLORS.items()]
    (root / "class_dict.csv").write_text("name,r,g,b\n" + "".join(lines))
    dataset = check_dataset([root], tmp_path / "out")
    assert dataset.tasks["seg"].class_names == ("road", "sky") and stored_row(dataset) == [0, 255, 1]
    (root / "class_dict.csv").write_text("name,r,g,b\n" + lines[0] + "sky,70,130\n")
    told = "\n".join(f.message for f in diagnose([root]).errors)
    assert "class_dict.csv:3: cannot read 'sky,70,130'" in told
    (root / "class_dict.csv").write_text("name,red,green,blue\nroad,1,2,3\n")
    told = "\n".join(f.message for f in diagnose([root]).errors)
    assert "class_dict.csv: no column r, g, b; its first line must name r, g, b, name" in told


def test_a_colour_that_the_palette_lacks_is_named(tmp_path):
    root = masks_of(tmp_path, *COLORS.values(), (1, 2, 3))
    (root / "classes.txt").write_text("128 64 128 road\n0 0 0 void\n70 130 sky\n")
    told = "\n".join(f.message for f in diagnose([root]).errors)
    assert "classes.txt:3: cannot read '70 130 sky'; write \"red green blue name\"" in told
    assert "a.png: value #010203 (64 pixels), #4682b4 (64 pixels) is none of the 1 classes" in told
