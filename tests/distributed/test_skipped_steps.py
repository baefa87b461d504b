"""A run meets losses that are not finite: it skips so many steps, and saves their batches for a replay."""

import json

import pytest
import torch

from ufo_large.runs.folder import RunFolder
from ufo_large.structures import ClassTargets
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH
from ufo_large.train.saved_batch import read_batch, replay, save_batch

SMALL = (*SMALL_MODEL, *TWO_IMAGES_EACH, *IN_THE_PROCESS, NO_WANDB)


def train_badly(data: str, workdir: str, options: tuple[str, ...], bad: tuple[int, ...], resume: str) -> str:
    """Train; the losses of cls are infinite at the calls `bad` of this process; return what it raised."""
    from pathlib import Path

    from ufo_large.config import apply_overrides
    from ufo_large.models.multitask import MultitaskModel
    from ufo_large.recipes import load_recipe
    from ufo_large.train.run import train

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


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), ({"task": "x"}, "of task 'x'")])
def test_what_is_no_saved_batch_is_told(run, tmp_path, content, words):
    file = tmp_path / "a.pt"
    if content is not None:
        torch.save(content, file)
    with pytest.raises(ValueError, match=words):
        list(replay(run, [file], None))
