"""A run with a time limit saves before it has passed, and goes on where it was."""

import os
import re

from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

SMALL = (*SMALL_MODEL, *TWO_IMAGES_EACH, *IN_THE_PROCESS, NO_WANDB, "save_every=100000")


def test_the_time_limit_is_a_reason_to_be_started_again(script, tiny_shards, tmp_path):
    def command(steps: int, *options: str):
        sets = [word for value in (*SMALL, f"steps={steps}") for word in ("--set", value)]
        where = ("--data", tiny_shards, "--workdir", tmp_path / "run", "--ds", "none", "--resume", "auto")
        return script("launchers/train.py", "--recipe", "demo", *where, *options, *sets)

    cut = command(100000, "--time-limit", "1s")  # a step or a few
    assert cut.returncode == os.EX_TEMPFAIL, cut.stderr
    told = re.search(r"time limit: saved after (\d+) of 100000 steps; --resume auto goes on", cut.stdout)
    assert told, cut.stdout
    assert [p.name for p in (tmp_path / "run/checkpoints").iterdir()] == [f"step-{int(told[1]):08d}"]
    assert not (tmp_path / "run/weights").exists()


def test_a_time_limit_that_is_none_is_refused(script, tmp_path):
    refused = script("launchers/train.py", "--data", tmp_path, "--time-limit", "soon")
    assert refused.returncode == 2 and "'soon' is no duration; write 2h, 90m, 1:30:00" in refused.stderr
