"""SIGTERM: the step is finished and saved, the exit code asks for a restart, and the resume is exact."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ufo_large.testing.distributed import free_port, run_ranks
from ufo_large.testing.settings import SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *SMALL_MODEL,
    *TWO_IMAGES_EACH,
)


def train_and_send(shards: str, workdir: str, resume: str, during: dict[int, int], *options: str):
    """Train; rank r gets SIGTERM in the step after `during[r]` finished ones. Returns what came of it."""
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import comm, ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.tracking import read_metrics
    from ufo_large.train.run import train
    from ufo_large.train.steps import StepRunner

    plain_run = StepRunner.run

    def run(self, step, rates):
        if during.get(comm.rank()) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return plain_run(self, step, rates)

    StepRunner.run = run
    workers = [f"tasks.{kind}.loader.workers=0" for kind in ("classification", "detection", "segmentation")]
    config = apply_overrides(load_recipe("demo"), [*SMALL, *workers, "tracking.wandb=disabled", *options])
    ds = ds_config.read(ROOT / "ds_configs/zero3_fp32.json")
    trainer = train(config, shards, Path(workdir), ds, resume)
    return {
        "finished": trainer.finished,
        "interrupted": trainer.is_interrupted,
        "weights": {name: value.numpy() for name, value in trainer.runner.engine.full_parameters()},
        "losses": {
            (line["step"], name): value
            for line in read_metrics(Path(workdir) / "metrics.jsonl")
            for name, value in line.items()
            if name.split("/")[0] in ("cls", "dec", "seg")
        },
        "validated": [s["step"] for s in read_metrics(Path(workdir) / "metrics.jsonl") if "val/score" in s],
    }


def test_all_ranks_save_the_step_in_which_one_is_told_to_stop_and_resume_is_exact(tiny_shards, tmp_path):
    options = ("steps=6", "save_every=100", "model.trunk.drop_path=0.2", "ema.decay=0.8")
    whole = run_ranks(train_and_send, 2, str(tiny_shards), str(tmp_path / "whole"), "none", {}, *options)[0]
    cut = tmp_path / "cut"
    stopped = run_ranks(train_and_send, 2, str(tiny_shards), str(cut), "none", {1: 2}, *options)
    assert [(rank["finished"], rank["interrupted"]) for rank in stopped] == [(3, True)] * 2
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (cut / "weights").exists()
    resumed = run_ranks(train_and_send, 2, str(tiny_shards), str(cut), "auto", {}, *options)[0]
    assert (resumed["finished"], resumed["interrupted"]) == (6, False)
    assert resumed["losses"] == whole["losses"] and len(whole["losses"]) >= 6 * 6
    assert all((value == resumed["weights"][name]).all() for name, value in whole["weights"].items())


def test_an_interrupted_run_validates_only_what_it_finishes(tiny_shards, tmp_path):
    """In the last step there is nothing to come back for: figures and weights are made, time permitting."""
    options = ("steps=4", "evaluate_every=2", "save_every=100")
    first = run_ranks(train_and_send, 2, str(tiny_shards), str(tmp_path), "none", {0: 1}, *options)[0]
    assert (first["finished"], first["validated"]) == (2, [])
    last = run_ranks(train_and_send, 2, str(tiny_shards), str(tmp_path), "auto", {0: 3}, *options)[0]
    assert (last["finished"], last["interrupted"], last["validated"]) == (4, False, [4])
    assert (tmp_path / "weights").is_dir()


def ranks_of(top: psutil.Process) -> list[psutil.Process]:
    """Return the ranks, without the workers that they forked."""
    below = top.children(recursive=True)
    named = [p for p in below if any(word.startswith("--local_rank=") for word in p.cmdline())]
    return [p for p in named if p.parent() not in named]


def launcher_of(top: psutil.Process) -> psutil.Process:
    """Return the process of DeepSpeed that started the ranks."""
    return ranks_of(top)[0].parent()


@pytest.mark.parametrize(
    ("wrapped", "target", "code"),
    [
        (False, lambda top: ranks_of(top)[1], os.EX_TEMPFAIL),
        (False, launcher_of, 1),  # DeepSpeed's own code, whatever the ranks' is
        (True, lambda top: top, os.EX_TEMPFAIL),
    ],
    ids=["a rank", "the process that started the ranks", "restartable.py"],
)
def test_sigterm_with_the_launcher(
    tiny_shards, tmp_path, wrapped: bool, target: Callable[[psutil.Process], psutil.Process], code: int
):
    """With loader workers and wandb, which the launcher signals as well."""
    run = tmp_path / "run"
    command = [sys.executable, "launchers/restartable.py"] if wrapped else []
    command += [str(Path(sys.executable).with_name("deepspeed")), "--num_gpus", "2"]
    command += ["--master_port", str(free_port()), "launchers/train.py", "--recipe", "demo"]
    command += ["--ds", "zero3_fp32", "--data", str(tiny_shards), "--workdir", str(run), "--resume", "auto"]
    for change in (*SMALL, "steps=100000", "save_every=100000", "tracking.wandb=offline"):
        command += ["--set", change]
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    with open(tmp_path / "out", "w+") as out:
        started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
        everything = []
        try:
            log = run / "metrics.jsonl"
            wait_for(lambda: started.poll() is not None or (log.exists() and log.stat().st_size))
            everything = psutil.Process(started.pid).children(recursive=True)
            target(psutil.Process(started.pid)).send_signal(signal.SIGTERM)
            assert started.wait(timeout=90) == code
            wait_for(lambda: not any(p.is_running() for p in everything))
        finally:
            started.kill()
            for process in everything:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        out.seek(0)
        told = out.read()
    assert "raised on rank" not in told, told[-3000:]
    assert "no whole checkpoint" in told and "the run starts from step 0" in told
    (checkpoint,) = (run / "checkpoints").iterdir()
    assert (checkpoint / "complete.json").exists()
    assert f"SIGTERM: saved after {int(checkpoint.name[5:])} of 100000 steps" in told
    assert not (run / "weights").exists()


def test_sigterm_before_there_are_ranks_ends_the_launcher():
    launcher = (sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)")
    command = [sys.executable, "launchers/restartable.py", *launcher]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as started:
        assert started.stdout.readline() == b"on\n"
        started.terminate()
        assert started.wait(timeout=30) == os.EX_TEMPFAIL


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
