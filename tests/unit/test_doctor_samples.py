"""The doctor's page shows the first samples of each split as they were read, with their labels drawn."""

import base64
import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ufo_large.data.doctor import diagnose
from ufo_large.data.doctor_report import write_html
from ufo_large.media.drawing import class_color

H, W = 120, 160
SHOWN = re.compile(
    r'<figure><img alt="([^"]*)" src="data:image/jpeg;base64,([^"]*)"><figcaption>(.*?)</figcaption>'
)


def photo(path: Path, grey: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((H, W, 3), grey, np.uint8))


def sections(
    data: list, folder: Path, counts: dict | None = None
) -> dict[str, list[tuple[str, np.ndarray, str]]]:
    """Return name, pixels and caption of what the page shows, by the heading above."""
    write_html(diagnose(data, counts), folder / "report.html")
    page = (folder / "report.html").read_text()
    parts = re.split(r"<h2>(.*?)</h2>", page)
    found = {}
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        rows = SHOWN.findall(body)
        found[title] = [(n, np.array(Image.open(io.BytesIO(base64.b64decode(d)))), c) for n, d, c in rows]
    return found


def near(pixel: np.ndarray, color: tuple[int, int, int], tolerance: int = 60) -> bool:
    return bool(np.abs(pixel.astype(int) - color).max() < tolerance)


def test_boxes_are_drawn_where_they_were_read_in_the_colour_of_their_class(tmp_path):
    root = tmp_path / "set"
    for split, grey in (("train", 90), ("test", 30)):
        photo(root / f"images/{split}/a.png", grey)
    (root / "labels/train").mkdir(parents=True)
    (root / "labels/train/a.txt").write_text("1 0.5 0.5 0.5 0.5\n1 0.2 0.2 0.1 0.1\n0 0.8 0.2 0.1 0.1\n")
    (root / "data.yaml").write_text("train: images/train\ntest: images/test\nnames: [car, <bus>]\n")
    found = sections([root], tmp_path)
    ((name, pixels, caption),) = found["dec: train as read, 1 of 1 images"]
    assert name == "a.png" and pixels.shape == (240, 320, 3)
    # by hand: twice as large, from (80, 60) to (240, 180)
    assert near(pixels[60, 160], class_color(1)) and near(pixels[120, 240], class_color(1))
    assert near(pixels[120, 160], (90, 90, 90), 12)
    assert "&lt;bus&gt; 2" in caption and "car" in caption and "<bus>" not in caption
    assert "no ground truth" in found["dec: test as read, 1 of 1 images"][0][2]


def test_masks_are_laid_over_the_picture(tmp_path):
    photo(tmp_path / "set/images/a.png", 200)
    (tmp_path / "set/masks").mkdir()
    mask = np.zeros((H, W), np.uint8)
    mask[:, W // 2 :] = 255
    cv2.imwrite(str(tmp_path / "set/masks/a.png"), mask)
    found = sections([tmp_path / "set"], tmp_path, {"seg": 2})
    ((_, pixels, caption),) = found["seg: train as read, 1 of 1 images"]
    left, right = pixels[120, 80].astype(int), pixels[120, 240].astype(int)
    expected = [0.4 * 200 + 0.6 * np.array(class_color(label)) for label in (0, 1)]
    assert np.abs(left - expected[0]).max() < 8 and np.abs(right - expected[1]).max() < 8
    assert "background" in caption and "foreground" in caption


def test_depth_is_laid_over_the_picture(tmp_path):
    photo(tmp_path / "set/images/a.png")
    (tmp_path / "set/depth").mkdir()
    depth = np.linspace(1000, 9000, H).astype(np.uint16)[:, None].repeat(W, 1)
    cv2.imwrite(str(tmp_path / "set/depth/a.png"), depth)
    (tmp_path / "set/depth.json").write_text(json.dumps({"units_per_metre": 1000}))
    ((_, pixels, _),) = sections([tmp_path / "set"], tmp_path)["depth: train as read, 1 of 1 images"]
    assert pixels[10, 160].astype(int).sum() > 150 + pixels[230, 160].astype(int).sum()  # near is bright


def test_classes_stand_below_and_samples_are_spread_over_the_split(tmp_path):
    for name in ("cat", "dog"):
        for i in range(10):
            photo(tmp_path / "set/train" / name / f"{i}.png", i)
    found = sections([tmp_path / "set"], tmp_path)
    shown = found["cls: train as read, 6 of 20 images"]
    assert [re.sub("<[^>]*>", " ", caption).split()[-1] for *_, caption in shown] == ["cat"] * 3 + ["dog"] * 3


def test_the_page_follows_the_readers_colour_scheme(tmp_path):
    photo(tmp_path / "set/cat/a.png")
    write_html(diagnose([tmp_path / "set"]), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "@media (prefers-color-scheme: dark)" in page and "color-scheme: light dark" in page
