"""Killed launchers, killed ranks and stopped ranks: what is left of a run, and what it says."""

import os
import signal
import time

import pytest

from ufo_large.testing.launched import launched, launcher_of, ranks_of, wait_for

NO_WANDB = "tracking.wandb=disabled"


@pytest.mark.parametrize(
    ("target", "code"),
    [  # DeepSpeed's own codes
        (lambda top: top, -signal.SIGKILL),
        pytest.param(launcher_of, 0, marks=pytest.mark.slow),
    ],
    ids=["deepspeed", "the ranks' parent"],
)
def test_without_a_launcher_the_ranks_save_and_end(tiny_shards, tmp_path, target, code):
    with launched(tiny_shards, tmp_path, "tracking.wandb=offline") as run:
        assert len(ranks_of(run.top)) == 2 and len(run.everything) >= 1 + 2 + 2 * 3  # and loader workers
        target(run.top).kill()
        assert run.started.wait(timeout=60) == code
        wait_for(lambda: not run.living(), seconds=60)
        assert f"the launcher has ended: saved after {run.saved_steps()} of 100000 steps" in run.told()


def test_a_killed_rank_leaves_no_process_behind(tiny_shards, tmp_path):
    with launched(tiny_shards, tmp_path, NO_WANDB) as run:
        killed = ranks_of(run.top)[1]
        workers = killed.children()
        assert len(workers) >= 3
        killed.kill()
        wait_for(lambda: not any(worker in run.living() for worker in workers), seconds=10)
        assert run.started.wait(timeout=60) == 256 - signal.SIGKILL
        wait_for(lambda: not run.living(), seconds=10)


def test_a_stopped_rank_ends_the_run_and_each_rank_tells_where_it_was(tiny_shards, tmp_path):
    with launched(tiny_shards, tmp_path, NO_WANDB, options=("--hang-timeout", "10s")) as run:
        ranks_of(run.top)[1].send_signal(signal.SIGSTOP)
        stopped = time.monotonic()
        assert run.started.wait(timeout=90) == os.EX_TEMPFAIL, run.told()[-3000:]
        assert time.monotonic() - stopped > 8
        wait_for(lambda: not run.living(), seconds=10)
        told = run.told()
    for rank in (0, 1):
        report = (run.folder / f"hangs/rank-{rank}.txt").read_text()
        assert f"rank {rank}, process" in report and "this rank has been at: " in report
        assert "in _run_task" in report or "steps.py" in report or "trainer.py" in report
    assert "itself stood still for" in (run.folder / "hangs/rank-1.txt").read_text()
    assert "in the collective" in (run.folder / "hangs/rank-0.txt").read_text()
    assert told.count("the run hangs. For ") == 2
    assert "--resume auto goes on from the last checkpoint" in told
