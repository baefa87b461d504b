"""Signals: the step is finished and saved, the exit code asks for a restart, and the resume is exact."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.launched import launched, launcher_of, ranks_of, wait_for
from ufo_large.testing.settings import SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
TERM = signal.SIGTERM
SMALL = (
    *SMALL_MODEL,
    *TWO_IMAGES_EACH,
)


def train_and_send(
    shards: str,
    workdir: str,
    resume: str,
    during: dict[int, int],
    signum: signal.Signals,
    *options: str,
):
    """Train; rank r gets `signum` in the step after `during[r]` finished ones. Returns what came of it."""
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import comm, ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.tracking import read_metrics
    from ufo_large.train.run import train
    from ufo_large.train.steps import StepRunner

    plain_run = StepRunner.run

    def run(self, step, rates):
        if during.get(comm.rank()) == step:
            os.kill(os.getpid(), signum)
        return plain_run(self, step, rates)

    StepRunner.run = run
    workers = [f"tasks.{kind}.loader.workers=0" for kind in ("classification", "detection", "segmentation")]
    config = apply_overrides(load_recipe("demo"), [*SMALL, *workers, "tracking.wandb=disabled", *options])
    ds = ds_config.read(ROOT / "ds_configs/zero3_fp32.json")
    trainer = train(config, shards, Path(workdir), ds, resume)
    return {
        "finished": trainer.finished,
        "interrupted": trainer.is_interrupted,
        "reason": trainer.interruption.reason,
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
    whole = run_ranks(
        train_and_send, 2, str(tiny_shards), str(tmp_path / "whole"), "none", {}, TERM, *options
    )[0]
    cut = tmp_path / "cut"
    stopped = run_ranks(train_and_send, 2, str(tiny_shards), str(cut), "none", {1: 2}, TERM, *options)
    assert [(rank["finished"], rank["interrupted"]) for rank in stopped] == [(3, True)] * 2
    assert [p.name for p in (cut / "checkpoints").iterdir()] == ["step-00000003"]
    assert not (cut / "weights").exists()
    resumed = run_ranks(train_and_send, 2, str(tiny_shards), str(cut), "auto", {}, TERM, *options)[0]
    assert (resumed["finished"], resumed["interrupted"]) == (6, False)
    assert resumed["losses"] == whole["losses"] and len(whole["losses"]) >= 6 * 6
    assert all((value == resumed["weights"][name]).all() for name, value in whole["weights"].items())


def test_an_interrupted_run_validates_only_what_it_finishes(tiny_shards, tmp_path):
    """In the last step there is nothing to come back for: figures and weights are made, time permitting."""
    options = ("steps=4", "evaluate_every=2", "save_every=100")
    first = run_ranks(train_and_send, 2, str(tiny_shards), str(tmp_path), "none", {0: 1}, TERM, *options)[0]
    assert (first["finished"], first["validated"]) == (2, [])
    last = run_ranks(train_and_send, 2, str(tiny_shards), str(tmp_path), "auto", {0: 3}, TERM, *options)[0]
    assert (last["finished"], last["interrupted"], last["validated"]) == (4, False, [4])
    assert (tmp_path / "weights").is_dir()


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGINT], ids=lambda signum: signum.name)
def test_other_notices_are_heeded_alike(tiny_shards, tmp_path, signum):
    options = ("steps=4", "save_every=100")
    ranks = run_ranks(train_and_send, 2, str(tiny_shards), str(tmp_path), "none", {1: 1}, signum, *options)
    assert [(r["finished"], r["interrupted"], r["reason"]) for r in ranks] == [(2, True, signum.name)] * 2
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


@pytest.mark.parametrize(
    ("wrapped", "target", "code"),
    [
        (False, lambda top: ranks_of(top)[1], os.EX_TEMPFAIL),
        pytest.param(False, launcher_of, 1, marks=pytest.mark.slow),  # DeepSpeed's own code
        (True, lambda top: top, os.EX_TEMPFAIL),
    ],
    ids=["a rank", "the process that started the ranks", "restartable.py"],
)
def test_sigterm_with_the_launcher(
    tiny_shards, tmp_path, wrapped: bool, target: Callable[[psutil.Process], psutil.Process], code: int
):
    """With loader workers and wandb, which the launcher signals as well."""
    with launched(tiny_shards, tmp_path, "tracking.wandb=offline", wrapped=wrapped) as run:
        target(run.top).send_signal(signal.SIGTERM)
        assert run.started.wait(timeout=90) == code
        wait_for(lambda: not run.living())
        told = run.told()
    assert "raised on rank" not in told, told[-3000:]
    assert "no whole checkpoint" in told and "the run starts from step 0" in told
    assert f"SIGTERM: saved after {run.saved_steps()} of 100000 steps" in told
    assert not (run.folder / "weights").exists()


def test_sigterm_before_there_are_ranks_ends_the_launcher():
    launcher = (sys.executable, "-c", "import time; print('on', flush=True); time.sleep(60)")
    command = [sys.executable, "launchers/restartable.py", *launcher]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as started:
        assert started.stdout.readline() == b"on\n"
        started.terminate()
        assert started.wait(timeout=30) == os.EX_TEMPFAIL
