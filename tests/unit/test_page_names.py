"""Names and colours of strangers stay text in what is shown as a page."""

import json
import sys
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
import torch

from ufo_large.data.doctor import diagnose
from ufo_large.data.doctor_report import write_html
from ufo_large.kinds import Card
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import SavedRun
from ufo_large.serving.model_card import card_of
from ufo_large.structures import TaskInfo
from ufo_large.testing.simulated_run import simulate_run
from ufo_large.tracking import save_environment
from ufo_large.tracking.examples import read_examples

NAME = "<script>alert('x')</script>\"|`"
COLOR = 'red"><script>alert(1)</script>'


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data


def test_the_doctors_page(tmp_path):
    root = tmp_path / "set"
    for folder in ("images/train", "labels/train"):
        (root / folder).mkdir(parents=True)
    cv2.imwrite(str(root / 'images/train/a" onerror="x.png'), np.full((40, 60, 3), 90, np.uint8))
    (root / 'labels/train/a" onerror="x.txt').write_text("0 0.5 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text(f"train: images/train\nnames: {json.dumps([NAME])}\n")
    write_html(diagnose([root]), tmp_path / "page.html")
    page = Tags((tmp_path / "page.html").read_text())
    assert NAME in page.text
    assert not [tag for tag, attributes in page.found if tag == "script" or "onerror" in attributes]


@pytest.mark.parametrize("color", [COLOR, "red", "#12345", "#123456;background:url(//evil)", "#123456\n"])
def test_a_colour_that_is_none_never_reaches_the_report(tmp_path, color):
    with pytest.raises(ValueError, match="#rrggbb"):
        Card(task="seg", kind="segmentation", name="a", headline="h", legend=((NAME, color),))
    simulate_run(tmp_path, steps=2)
    file = tmp_path / "examples/examples.json"
    cards = json.loads(file.read_text())
    cards[0]["legend"] = [[NAME, color]]
    file.write_text(json.dumps(cards))
    with pytest.raises(ValueError, match="#rrggbb.*score the run again") as caught:
        read_examples(tmp_path)
    assert str(file) in str(caught.value)


def test_the_model_card(tmp_path, monkeypatch):
    told = "train.py --data https://user:s3cr3t@host/x `` <script>"
    monkeypatch.setattr(sys, "argv", told.split())
    save_environment(tmp_path)
    info = TaskInfo(name="cls", kind="classification", class_names=(NAME, "b"), class_ids=(0, 1))
    saved = SavedRun(load_recipe("mini"), (info,), "f" * 64, "")
    text = card_of(torch.nn.Linear(1, 1), saved, tmp_path, "unknown", "x <script>", "")
    assert "s3cr3t" not in text and "https://***@host/x" in text
    assert r"# x \<script>" in text
    assert r"\<script>alert('x')\</script>" in text and r"\|\`" in text
    (command,) = (line for line in text.splitlines() if line.startswith("- command"))
    assert command.startswith("- command: ``` ") and command.endswith(" ```")
