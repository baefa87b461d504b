"""What training says of itself on real shards, and that the commands which it ends with can be typed."""

import re
import shlex
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors import safe_open

from ufo_large.balancing import METHODS
from ufo_large.comparing.replaying import signals_of
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL
from ufo_large.tracking import read_metrics

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "steps=5",
    NO_WANDB,
    *SMALL_MODEL,
    "tasks.classification.loader.image_size=16,16",
    "tasks.classification.loader.micro_batch=70",
    *IN_THE_PROCESS,
)


@pytest.fixture(scope="module")
def trained(script, tiny_shards, tmp_path_factory):
    run = tmp_path_factory.mktemp("start") / "my run"
    options = ("--ds", "none", "--resume", "auto", *(word for value in SMALL for word in ("--set", value)))
    done = script("launchers/train.py", "--recipe", "demo", "--data", tiny_shards, "--workdir", run, *options)
    assert done.returncode == 0, done.stderr
    return run, done.stdout


def test_the_start_is_true(trained):
    run, said = trained
    assert "demo: 5 steps on 1 rank, without DeepSpeed" in said
    assert "weights     random initialisation" in said and "start at random" not in said
    files = [safe_open(file, "pt") for file in (run / "weights").glob("*.safetensors")]
    count = sum(np.prod(file.get_slice(name).get_shape()) for file in files for name in file.keys())  # noqa: SIM118
    assert f"parameters  {count / 1e3:.3g} k in all\n" in said
    row = re.search(r"^dec +detection +(\S+) k +2 +(\d+) +(\S+)$", said, re.MULTILINE)
    active, images, epochs = (float(part) for part in row.groups())
    assert 0 < active < count / 1e3 and epochs == pytest.approx(5 * 2 / images, rel=0.01)
    assert "task 'cls': a micro-batch takes 70 images" in said
    assert "expected: " in said
    assert f"--resume auto: no whole checkpoint in {run / 'checkpoints'}; the run starts from step 0" in said


def test_a_replay_of_its_own_balancer_finds_the_weights_that_it_used(trained):
    log = read_metrics(trained[0] / "metrics.jsonl")
    steps = signals_of(log)
    balancer = METHODS["tbgn"].Config().build(steps[0].tasks, seed=0)
    assert len(steps) == 5
    for row, signals in zip(log, steps, strict=True):
        for task, weight in zip(signals.tasks, balancer(signals).tolist(), strict=True):
            assert weight == pytest.approx(row[f"balance/{task}/weight"], rel=1e-9)


def test_what_it_says_to_type_next_works(trained, script, tmp_path):
    run, said = trained
    end = said[said.index("finished: 5 steps in ") :].splitlines()
    places = [line.split(maxsplit=1)[1] for line in end[1 : end.index("next:")]]
    assert all(Path(place).exists() for place in places) and str(run / "weights") in places
    picture = tmp_path / "street.jpg"
    cv2.imwrite(str(picture), np.zeros((96, 144, 3), np.uint8))
    commands = [shlex.split(line) for line in end[end.index("next:") + 1 :]]
    names = [Path(command[1]).name for command in commands]
    assert names == ["run_all.py", "report.py", "predict.py", "export.py"]
    for python, *command in commands:
        assert python == "python"
        at_picture = [str(picture) if word == "PICTURE" else word for word in command]
        out = ("--out", tmp_path / "out") if command[0].endswith("predict.py") else ()
        done = script(*at_picture, *out)
        assert done.returncode == 0, done.stderr
        if command[0] == "eval/run_all.py":
            assert "protocol standard, since the data is not the contest's" in done.stdout
