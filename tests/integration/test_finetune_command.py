"""One command from a folder of pictures to weights, predictions, export and report; then from that run on."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from ufo_large.testing.settings import NO_WANDB, SMALL_MODEL
from ufo_large.testing.tiny_shards import write_tiny_data

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    *SMALL_MODEL,
    *("ds=none", NO_WANDB, "steps=4", "evaluate_every=2", "save_every=2"),
    *(f"tasks.{kind}.loader.workers=0" for kind in ("classification", "detection")),
)


def finetune(*arguments, settings=TINY) -> subprocess.CompletedProcess:
    sets = [word for setting in settings for word in ("--set", setting)]
    command = ["sh", "launchers/finetune.sh", *map(str, arguments), "--gpus", "0", *sets]
    environment = {"OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Twelve pictures with classes and twelve with boxes, in the contest's layout; no val, no test."""
    root = write_tiny_data(tmp_path_factory.mktemp("finetune") / "train_data")
    shutil.rmtree(root / "seg")
    return root


@pytest.fixture(scope="module")
def finished(data) -> tuple[Path, subprocess.CompletedProcess]:
    run = data.parent / "run"
    done = finetune("--data", data, "--workdir", run)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return run, done


def test_everything_is_left_and_said(finished):
    run, done = finished
    results = run / "evaluations/val"
    left = ("weights", "export/model.safetensors", "shards/held_out.json", "config.json", "finetune.json")
    for place in (*(run / name for name in left), results / "report.html"):
        assert place.exists(), place
    assert json.loads((results / "submission.json").read_text()).keys() == {"cls", "dec"}
    metrics = json.loads((results / "metrics.json").read_text())
    assert metrics["split"] == "val" and metrics["baselines"]
    for told in (
        "machine: ",
        "cls: no val split, so",
        "start: from scratch, recipe mini",
        "the best validation (score",
        f"report      {results / 'report.html'}",
        f"--data MORE_DATA --init {run}",
    ):
        assert told in done.stdout, told
    config = json.loads((run / "config.json").read_text())["config"]
    assert config["keep_best"] and config["patience"] and config["steps"] == 4


@pytest.mark.slow
def test_a_run_is_the_start_of_the_next(finished, tmp_path):
    """Other classes under another task's name, the trunk frozen: experts and head of the run's `cls`."""
    run, _ = finished
    for name, colour in (("1", 0), ("moss", 1)):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for picture in sorted((run.parent / "train_data/cls/train").glob("*.png"))[colour::2]:
            shutil.copy(picture, tmp_path / "pets" / name)
    data = ("--data", f"pets={tmp_path / 'pets'}", "--workdir", tmp_path / "run")
    settings = ("ds=none", "tracking.wandb=disabled", "steps=2", "evaluate_every=1")
    done = finetune(*data, "--init", run, "--freeze", settings=settings)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"start: trunk and experts from {run}" in done.stdout
    assert "pets: from the trained task cls; 1 of 2 classes known by number" in done.stdout
    assert ", new: moss" in done.stdout
    assert "left behind: dec" in done.stdout
    saved = json.loads((tmp_path / "run/config.json").read_text())
    assert saved["config"]["model"]["trunk"]["frozen"] and saved["config"]["take_what_fits"]


@pytest.mark.slow
def test_a_folder_keeps_the_data_it_was_begun_with(finished, tmp_path):
    run, _ = finished
    before = (run / "shards/dataset.json").read_bytes()
    done = finetune("--data", write_tiny_data(tmp_path / "train_data"), "--workdir", run)
    assert done.returncode == 1
    begun = f"{run} was begun with --data {run.parent / 'train_data'} --val-share 0.15 --seed 0, not with"
    assert begun in done.stderr
    assert (run / "shards/dataset.json").read_bytes() == before
    boxes = run.parent / "train_data/dec/train.json"
    whole = boxes.read_bytes()
    boxes.write_text("{}")
    held = (run / "finetune.json").read_bytes()
    refused = ("--set", "model.trunk.router=learned")
    done = finetune("--data", run.parent / "train_data", "--workdir", run, *refused)
    assert done.returncode == 2 and "holds another model" in done.stderr
    assert (run / "finetune.json").read_bytes() == held
    done = finetune("--data", run.parent / "train_data", "--workdir", run, "--set", "patience=3")
    assert json.loads((run / "finetune.json").read_text())["config"]["patience"] == 3
    boxes.write_bytes(whole)
    assert done.returncode == 0, done.stderr
    assert "the run goes on with the shards that it began with" in done.stdout
    assert (run / "shards/dataset.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--init", "nowhere.safetensors"), "--init nowhere.safetensors: no such run or file"),
        (("--freeze",), "keep what was trained before: give --init RUN, FILE or hub"),
        (("--hours", "-1"), "--hours -1.0: give more than 0"),
        (("--hours", "0.0001"), "--hours is too short: 20 steps of"),
        (
            ("--set", "model.trunk.depth=40", "--set", "model.trunk.embed_dim=8192"),
            "the model does not fit this machine: its weights, gradients and moments take",
        ),
    ],
)
def test_bad_input_stops_before_training(arguments, message, data, tmp_path, script):
    sets = [w for s in TINY if s.partition("=")[0] not in str(arguments) for w in ("--set", s)]
    command = ("launchers/finetune.py", "--data", data, "--workdir", tmp_path / "run", "--gpus", "0", *sets)
    done = script(*command, *arguments)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run/config.json").exists()
