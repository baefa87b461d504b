"""Two detection sets with other classes beside classification and segmentation, from shards to comparison."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ufo_large.testing.settings import SMALL_MODEL
from ufo_large.testing.tiny_shards import write_tiny_data
from ufo_large.tracking.dashboard import build_workspace, keys_of_run, specification

SMALL = (
    *SMALL_MODEL,
    *("steps=3", "evaluate_every=3", "evaluate_split=test", "tasks.classification.loader.micro_batch=4"),
    *("tasks.detection.loader.micro_batch=2", "tasks.segmentation.loader.micro_batch=2"),
    *("tasks.lamps=detection", "tasks.lamps.loader.image_size=64,96", "model.heads.lamps=fcos"),
    "model.heads.lamps.strides=8,16",
)
LAMPS = ("red", "amber", "green", "off")
TASKS = {"cls", "dec", "seg", "lamps"}


def with_test_root(train: Path) -> Path:
    """Make the pictures of train those of test too, with their truth."""
    test = train.parent / train.name.replace("train", "test")
    for place in ("cls", "dec", "seg/images", "seg/label"):
        shutil.copytree(train / place / "train", test / place / "test")
    for task, ending in (("cls", "txt"), ("dec", "json")):
        shutil.copyfile(train / f"{task}/train.{ending}", test / f"{task}/test.{ending}")
    return train.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory, script, two_ranks) -> Path:
    folder = tmp_path_factory.mktemp("two")
    signs = with_test_root(write_tiny_data(folder / "signs/train_data"))
    lamps = with_test_root(write_tiny_data(folder / "lamps/train_data", count=8, seed=5))
    for split, root in (("train", "train_data"), ("test", "test_data")):
        for unused in ("cls", "seg"):
            shutil.rmtree(lamps / root / unused)
        file = lamps / root / f"dec/{split}.json"
        body = json.loads(file.read_text())
        body["categories"] = [
            {"id": 1 + i, "name": name} for i, name in enumerate(("red", "amber", "green", "off"))
        ]
        file.write_text(json.dumps(body))
    made = script(
        "data_sharding/make_shards.py", "--data", signs, f"lamps={lamps}", "--out", folder / "shards"
    )
    assert made.returncode == 0, made.stderr
    overrides = [x for change in SMALL for x in ("--set", change)]
    trained = two_ranks("launchers/train.py", "--recipe", "demo", "--data", folder / "shards",
                        "--workdir", folder / "run", *overrides)  # fmt: skip
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    scored = script("eval/run_all.py", "--workdir", folder / "run", "--data", folder / "shards",
                    "--protocol", "standard")  # fmt: skip
    assert scored.returncode == 0, scored.stderr
    return folder / "run"


def test_each_task_has_its_own_classes_feed_and_head(run):
    saved = json.loads((run / "config.json").read_text())
    classes = {task["name"]: task["class_names"] for task in saved["tasks"]}
    assert classes["dec"] == ["sign0", "sign1", "sign2", "sign3"]
    assert classes["lamps"] == list(LAMPS)
    assert saved["config"]["model"]["heads"]["lamps"]["fcos"]["strides"] == [8, 16]
    assert saved["config"]["tasks"]["lamps"]["loader"]["image_size"] == [64, 96]


def test_all_four_are_trained_balanced_and_validated(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = {key: value for line in lines for key, value in line.items()}
    assert {f"{task}/total" for task in TASKS} <= last.keys()
    pairs = {frozenset(key.split("/")[2].split("-")) for key in last if key.startswith("balance/cosine/")}
    assert pairs == {frozenset(pair) for pair in itertools.combinations(TASKS, 2)}
    assert {"val/dec/map50", "val/lamps/map50"} <= last.keys()


def test_the_headline_is_the_mean_and_each_task_stands_by_itself(run):
    metrics = json.loads((run / "metrics.json").read_text())
    details = metrics["details"]
    assert metrics["images"].keys() == TASKS
    assert metrics["map50"] == pytest.approx(np.mean([details["dec/map50"], details["lamps/map50"]]))
    assert metrics["score"] == pytest.approx(np.mean([metrics[m] for m in ("top1", "map50", "miou")]))
    assert {key.split("/")[-1] for key in details if key.startswith("lamps/ap50/")} == {
        "red",
        "amber",
        "green",
        "off",
    }


def test_submission_report_dashboard_and_comparison_have_both(run, script):
    answers = json.loads((run / "submission.json").read_text())
    assert answers.keys() == TASKS
    page = (run / "report.html").read_text()
    assert "Loss of lamps" in page and "AP50 of lamps" in page and "AP50 of dec" in page
    assert "mAP50 of lamps" in page and "mAP50 of dec" in page
    board = json.dumps(specification(build_workspace(keys_of_run(run), "team", "project")))
    assert "Loss of lamps" in board and "examples/lamps" in board
    compared = script("eval/compare_runs.py", run, "--single", run)
    assert compared.returncode == 0, compared.stderr
    assert "dec" in compared.stdout and "lamps" in compared.stdout
