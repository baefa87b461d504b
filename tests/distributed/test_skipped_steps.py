"""A run meets losses that are not finite: it skips so many steps, and saves their batches for a replay."""

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ufo_large.runs.folder import RunFolder
from ufo_large.structures import ClassTargets
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH
from ufo_large.train.saved_batch import read_batch, replay, save_batch

SMALL = (*SMALL_MODEL, *TWO_IMAGES_EACH, *IN_THE_PROCESS, NO_WANDB)


def train_badly(data: str, workdir: str, options: tuple[str, ...], bad: tuple[int, ...], resume: str) -> str:
    """Train; the losses of cls are infinite at the calls `bad` of this process; return what it raised."""
    from ufo_large.config import apply_overrides
    from ufo_large.models.multitask import MultitaskModel
    from ufo_large.recipes import load_recipe
    from ufo_large.train.run import train

    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # for several threads may add up in any order
    right, calls = MultitaskModel.forward, [0]

    def forward(self, batch, mode="losses"):
        found = right(self, batch, mode)
        if batch.task != "cls":
            return found
        calls[0] += 1
        return {n: v * float("inf") for n, v in found.items()} if calls[0] in bad else found

    MultitaskModel.forward = forward
    config = apply_overrides(load_recipe("demo"), [*SMALL, *options])
    try:
        train(config, data, Path(workdir), None, resume)
    except FloatingPointError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def run(tiny_shards, tmp_path_factory) -> RunFolder:
    """A run of four steps that skipped the second."""
    root = tmp_path_factory.mktemp("run")
    options = ("steps=4", "save_every=4", "on_not_finite=skip", "max_skipped_steps=1")
    told = run_ranks(train_badly, 1, str(tiny_shards), str(root), options, (2,), "none")
    assert told == [""]
    return RunFolder(root)


def test_the_log_counts_skipped_steps(run):
    lines = [json.loads(line) for line in (run.root / "metrics.jsonl").read_text().splitlines()]
    assert [line["train/skipped_steps"] for line in lines if "train/lr" in line] == [0, 1, 1, 1]


def test_a_saved_batch_is_replayed(run, tmp_path, script):
    (file,) = run.not_finite.iterdir()
    assert file.name == "step-00000001-rank-0-cls-0.pt"
    batch = read_batch(file, run.read().tasks)
    assert isinstance(batch.targets, ClassTargets) and len(batch) == len(batch.samples) == 2
    bad = tmp_path / "bad.pt"
    batch.targets.soft_BK = torch.full((2, 8), torch.nan)
    save_batch(batch, bad)
    done = script("launchers/replay_batch.py", "--workdir", run.root, file, bad)
    assert done.returncode == 0, done.stderr
    weights, *lines = done.stdout.splitlines()
    assert weights == f"weights: {run.weights}"
    second = lines.index(next(line for line in lines if line.startswith(str(bad))))
    assert lines[0] == f"{file}: task cls, 2 images: {', '.join(s.file_name for s in batch.samples)}"
    assert "nan" not in " ".join(lines[1:second]) and lines[second - 1].startswith(
        "  gradients finite, norm "
    )
    assert "  total nan" in lines[second:] and lines[-1].startswith("  gradients not finite: ")


def test_the_limit_holds_for_the_whole_run(run, tiny_shards):
    """One step was skipped before the resume; the error names the images and the file."""
    options = ("steps=6", "save_every=4", "on_not_finite=skip", "max_skipped_steps=1")
    (told,) = run_ranks(train_badly, 1, str(tiny_shards), str(run.root), options, (1,), "auto")
    assert told.startswith("step 4: the gradient or loss of cls is not finite")
    assert "max_skipped_steps=1 were skipped before" in told
    (file,) = run.not_finite.glob("step-00000004-*")
    names = ", ".join(s.file_name for s in read_batch(file, run.read().tasks).samples)
    assert f"\n  {file}: {names}" in told and "replay_batch.py --workdir RUN FILE" in told


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return {n: v for file in (run / "weights").glob("*.safetensors") for n, v in load_file(file).items()}


def same_weights(a: Path, b: Path) -> bool:
    first, second = weights_of(a), weights_of(b)
    return first.keys() == second.keys() and all(torch.equal(value, second[n]) for n, value in first.items())


def test_a_step_is_tried_again_from_the_checkpoint_and_skipped_where_that_does_not_help(
    tiny_shards, tmp_path
):
    """Bit for bit: what happens once leaves no trace, what happens again is as under `skip`."""

    def train(name: str, policy: str, bad: tuple[int, ...], resume: str = "none") -> str:
        options = ("steps=4", "save_every=2", f"on_not_finite={policy}", "max_skipped_steps=1")
        return run_ranks(train_badly, 1, str(tiny_shards), str(tmp_path / name), options, bad, resume)[0]

    assert train("undisturbed", "stop", ()) == train("skips", "skip", (4,)) == ""
    assert not same_weights(tmp_path / "undisturbed", tmp_path / "skips")
    told = train("once", "reload", (4,))
    assert told.startswith("step 3: the gradient or loss of cls is not finite")
    assert "Started again, the run tries it once more from its checkpoint\nThe batches of that step" in told
    assert json.loads((tmp_path / "once/not_finite/reloads.json").read_text()) == {"steps": [3]}
    shutil.copytree(tmp_path / "once", tmp_path / "again")
    shutil.copytree(tmp_path / "once", tmp_path / "elsewhere")
    assert train("once", "reload", (), "auto") == ""
    assert same_weights(tmp_path / "once", tmp_path / "undisturbed")
    assert train("again", "reload", (2,), "auto") == ""
    assert same_weights(tmp_path / "again", tmp_path / "skips")
    told = train("elsewhere", "reload", (1,), "auto")
    assert told.startswith("step 2: ") and "max_skipped_steps=1 were tried again or skipped before" in told


@pytest.mark.slow
def test_a_run_that_diverges_is_tried_again_as_often_as_the_limit_says(
    tiny_shards, tmp_path, script, monkeypatch
):
    """Supervised, on two ranks; the first step moves the weights to where no later loss is finite."""
    bin_folder = Path(sys.executable).parent
    monkeypatch.setenv("PATH", f"{bin_folder}:{os.environ['PATH']}")
    changes = ("on_not_finite=reload", "max_skipped_steps=2", "steps=9", "save_every=1", *SMALL)
    changes += ("schedule.warmup_steps=0", "optimizer.learning_rate=1e30", "optimizer.clip_norm=0")
    overrides = [word for change in changes for word in ("--set", change)]
    command = ["launchers/supervise.py", "--backoff", "0", "--restarts", "1", bin_folder / "deepspeed"]
    command += ["--num_gpus", "2", "launchers/train.py", "--recipe", "demo", "--ds", "zero3_fp32"]
    command += ["--data", tiny_shards, "--workdir", tmp_path / "run", "--resume", "auto"]
    done = script(*command, *overrides)
    assert done.returncode == 1, done.stderr[-3000:]
    assert re.findall(r"supervise: code (\d+)", done.stdout) == ["75", "75", "1", "1"], done.stderr[-3000:]
    assert json.loads((tmp_path / "run/not_finite/reloads.json").read_text()) == {"steps": [1, 2]}


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), ({"task": "x"}, "of task 'x'")])
def test_what_is_no_saved_batch_is_told(run, tmp_path, content, words):
    file = tmp_path / "a.pt"
    if content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=words):
        list(replay(run, [file], None))
