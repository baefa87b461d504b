"""The user's own commands, from pictures to report, on a world of a few dozen images."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ufo_large.testing.distributed import rank_environment
from ufo_large.testing.settings import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "steps=3",
    *SMALL_MODEL,
    "tasks.classification.loader.micro_batch=4",
    "tasks.detection.loader.micro_batch=2",
    "tasks.segmentation.loader.micro_batch=2",
)


def deepspeed(*arguments) -> subprocess.CompletedProcess:
    command = [
        Path(sys.executable).with_name("deepspeed"),
        "--num_gpus",
        "2",
        "--master_port",
        "29617",
        *arguments,
    ]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400
    )


def test_train_evaluate_report(tiny_shards, tmp_path, script):
    run = tmp_path / "run"
    evaluated = ("evaluate_every=2", "evaluate_split=test", "tracking.pictures=2")
    overrides = [x for change in (*SMALL, *evaluated) for x in ("--set", change)]
    trained = deepspeed(
        "launchers/train.py", "--recipe", "demo", "--data", tiny_shards, "--workdir", run, *overrides
    )
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    assert "step 3/3" in trained.stdout
    (wandb_folder,) = (run / "wandb").glob("offline-run-*")
    pictures = [p.name for p in (wandb_folder / "files" / "media" / "images" / "examples").iterdir()]
    assert {(name.split("_")[0], name.split("_")[1]) for name in pictures} == {
        (task, str(step)) for task in ("cls", "dec", "seg") for step in (2, 3)
    }

    scored = script("eval/run_all.py", "--workdir", run, "--data", tiny_shards)
    assert scored.returncode == 0, scored.stderr
    last = json.loads(scored.stdout.splitlines()[-1])
    metrics = json.loads((run / "metrics.json").read_text())
    for key in ("top1", "map50", "miou", "score", "protocol"):
        assert last[key] == metrics[key]
    assert last["score"] == pytest.approx((last["top1"] + last["map50"] + last["miou"]) / 3)
    report = (run / "report.html").read_text()
    assert "<svg" in report
    assert "data:image/" in report

    test_root = tiny_shards.parent / "world"
    alone = script("eval/run_all.py", "--submission", run / "submission.json", "--data", test_root)
    assert alone.returncode == 0, alone.stderr
    again = json.loads(alone.stdout.splitlines()[-1])
    assert {k: again[k] for k in ("top1", "map50", "miou")} == {k: last[k] for k in ("top1", "map50", "miou")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--recipe", "demoo"), "Did you mean 'demo'"),
        (("--recipe", "demo", "--set", "step=3"), "Did you mean 'steps'"),
        (("--recipe", "demo", "--ds", "zero4_fp32"), "no such DeepSpeed config"),
        (("--recipe", "demo", "--ds", "none", "--data", "nowhere"), "nowhere"),
        (("--recipe", "demo", "--set", "balancer=pcgard"), "Did you mean 'pcgrad'"),
        (
            (
                "--ds",
                "none",
                "--data",
                "SHARDS",
                "--set",
                "model.trunk.lora.rank=4",
                "--set",
                "pretrained=none",
            ),
            "random here",
        ),
    ],
)
def test_bad_input_stops_before_training(arguments, message, tiny_shards, tmp_path, script):
    arguments = [tiny_shards if a == "SHARDS" else a for a in arguments]
    data = () if "--data" in arguments else ("--data", tmp_path)
    done = script("launchers/train.py", *arguments, *data, "--workdir", tmp_path / "run")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_second_run_in_a_folder_is_refused_while_the_first_trains(tiny_shards, tmp_path, script):
    run = tmp_path / "run"
    overrides = [
        x for change in (*SMALL, "steps=100000", "tracking.wandb=disabled") for x in ("--set", change)
    ]
    command = ("launchers/train.py", "--recipe", "demo", "--ds", "none", "--data", tiny_shards)
    command = (*command, "--workdir", run, *overrides)
    with subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env={**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as first:
        try:
            while not (run / "config.json").exists():
                assert first.poll() is None
                time.sleep(0.1)
            second = script(*command, "--set", "seed=7", timeout=120)
            assert first.poll() is None
        finally:
            os.killpg(first.pid, signal.SIGKILL)  # loader workers too
    assert second.returncode == 2 and "Traceback" not in second.stderr
    assert f"another run trains here (process {first.pid} on " in second.stderr
    assert json.loads((run / "config.json").read_text())["config"]["seed"] == 0


def test_a_run_that_diverges_ends_with_one_line(tiny_shards, tmp_path, two_ranks):
    changes = (
        *SMALL,
        "steps=9",
        "schedule.warmup_steps=0",
        "optimizer.learning_rate=1e30",
        "optimizer.clip_norm=0",
    )
    overrides = [x for change in changes for x in ("--set", change)]
    done = two_ranks(
        "launchers/train.py", "--recipe", "demo", "--data", tiny_shards, "--workdir", tmp_path, *overrides
    )
    assert done.returncode == 1
    assert done.stderr.count("error: step 1: the gradient or loss of") == 1
    assert "no parameter was moved" in done.stderr and "Traceback" not in done.stderr


def test_a_taken_port_is_told(tiny_shards, tmp_path, script, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        for name, value in rank_environment(0, 2, taken.getsockname()[1]).items():
            monkeypatch.setenv(name, value)
        done = script(
            "launchers/train.py", "--recipe", "demo", "--data", tiny_shards, "--workdir", tmp_path / "run"
        )
    assert done.returncode == os.EX_TEMPFAIL and "is taken, perhaps by another run" in done.stderr
    assert "Traceback" not in done.stderr
