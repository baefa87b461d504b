"""What a user sees when data goes bad while training: one line that says what to do."""

import json
import shutil

from ufo_large.testing.settings import NO_WANDB, SMALL_MODEL

SETTINGS = [word for setting in (*SMALL_MODEL, NO_WANDB) for word in ("--set", setting)]
TRAIN = ("launchers/train.py", "--recipe", "demo", "--ds", "none", *SETTINGS)


def test_broken_samples_are_counted_up_to_the_limit(script, tiny_shards, tmp_path):
    """The first picture of cls/train was changed; a limit of 0 stops, the default goes on and counts."""
    folder = shutil.copytree(tiny_shards, tmp_path / "shards")
    with open(folder / "cls/train-000000.tar", "r+b") as file:
        file.seek(512)
        file.write(b"nothing that a decoder knows")
    common = (*TRAIN, "--data", folder, "--set", "steps=2", "--set", "save_every=2")
    limit = ("--set", "tasks.classification.loader.max_bad_samples=0")
    stopped = script(*common, "--workdir", tmp_path / "a", *limit)
    assert stopped.returncode == 1, stopped.stderr
    last = stopped.stderr[
        stopped.stderr.index("error: task 'cls': 1 broken samples, max_bad_samples allows 0") :
    ]
    assert (
        "cls/train-000000.tar: its bytes are not those that were written" in last
        and "raised on rank 0 after" in last
    )
    assert "Traceback" not in stopped.stderr
    through = script(*common, "--workdir", tmp_path / "b")
    assert through.returncode == 0, through.stderr
    assert "skipped a broken sample of cls" in through.stderr
    lines = [json.loads(line) for line in (tmp_path / "b/metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["train/bad_samples/cls"] == 1
