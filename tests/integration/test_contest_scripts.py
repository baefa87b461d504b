"""`sh launchers/train.sh` and `sh launchers/test.sh`: from the contest's folders to its submission."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ufo_large.testing.distributed import free_port
from ufo_large.testing.settings import NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
TOY = ("steps=2", NO_WANDB, *SMALL_MODEL, *TWO_IMAGES_EACH)


@pytest.fixture
def sh(tiny_shards, tmp_path):
    """Run a launcher on the synthetic world, which has the contest's layout."""
    data = tmp_path / "datasets"
    data.mkdir()
    for folder in (tiny_shards.parent / "world").iterdir():
        (data / folder.name).symlink_to(folder)
    environment = {
        **os.environ,
        "DATA": str(data),
        "RUN": str(tmp_path / "run"),
        "GPUS": "2",
        "PORT": str(free_port()),
        "DS_ACCELERATOR": "cpu",
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def run(name: str, *options: str) -> subprocess.CompletedProcess:
        command = ["sh", f"launchers/{name}", *options]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)

    return run


@pytest.mark.slow
def test_from_the_folders_to_the_submission(sh, tmp_path):
    changes = [word for change in TOY for word in ("--set", change)]
    trained = sh("train.sh", "--recipe", "demo", *changes)
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    assert "step 2/2" in trained.stdout

    tested = sh("test.sh", "--protocol", "official")
    assert tested.returncode == 0, tested.stdout[-3000:] + tested.stderr[-3000:]
    assert json.loads(tested.stdout.splitlines()[-1])["protocol"] == "official"
    submission = json.loads((tmp_path / "run/submission.json").read_text())
    listed = (tmp_path / "datasets").glob("*test_data/cls/test/*")
    assert {name for entry in submission["cls"] for name in entry} == {path.name for path in listed}
    assert {"cls", "dec", "seg"} == set(submission)


def test_without_the_folders_it_stops_before_training(sh, tmp_path):
    for link in (tmp_path / "datasets").iterdir():
        link.unlink()
    done = sh("train.sh", "--recipe", "demo")
    assert done.returncode != 0
    assert str(tmp_path / "datasets") in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
