"""Files of a checkpoint that somebody else wrote, cut off or removed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ufo_large.testing.checkpoints import reseal
from ufo_large.testing.distributed import free_port, run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *SMALL_MODEL,
    *TWO_IMAGES_EACH,
    *IN_THE_PROCESS,
    NO_WANDB,
    "save_every=1",
    "keep_checkpoints=9",
)


class RunsWhenUnpickled:
    """Makes a folder where somebody unpickles it."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.folder),)


def train_small(shards: str, workdir: str, ds: str, *options: str, resume: str = "none"):
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe("demo"), [*SMALL, *options])
    ds_json = None if ds == "none" else ds_config.read(ROOT / "ds_configs" / f"{ds}.json")
    return train(config, shards, Path(workdir), ds_json, resume)


def run_small(*arguments: str) -> None:
    train_small(*arguments)


@pytest.fixture(scope="module")
def runs(tiny_shards, tmp_path_factory) -> Iterator[dict[str, Path]]:
    """Runs of two steps, by DeepSpeed config."""
    root = tmp_path_factory.mktemp("runs")
    for ds, ranks in (("none", 1), ("zero3_fp32", 2), ("zero2_fp32", 2)):
        run_ranks(run_small, ranks, str(tiny_shards), str(root / ds), ds, "steps=2")
    return {ds: root / ds for ds in ("none", "zero3_fp32", "zero2_fp32")}


def refusals(shards: str, run: str, ds: str, patterns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Plant an object in one kind of file after the other; return who refused it how, and what it made.

    A planted file is read as a resume reads it, and where DeepSpeed wrote it also by DeepSpeed alone.
    """
    from ufo_large.distributed import comm
    from ufo_large.distributed.checkpoint import load_checkpoint

    trainer = train_small(shards, run, ds, "steps=3", resume="auto")
    engine, checkpoint = trainer.runner.engine, Path(run) / "checkpoints" / "step-00000003"
    told = {}
    for pattern in patterns:
        made, files = Path(run) / "made", sorted(checkpoint.glob(pattern))
        kept = {file: file.read_bytes() for file in files}
        comm.barrier()
        if comm.is_main():
            assert files, pattern
            for file in files:
                held = torch.load(file, weights_only=False)
                torch.save({**held, "planted": RunsWhenUnpickled(made)}, file)
            reseal(checkpoint)
        comm.barrier()
        reads = [lambda: load_checkpoint(checkpoint, engine)]
        reads += [lambda: engine.load(checkpoint)] if ds != "none" and "deepspeed" in pattern else []
        for read in reads:
            with pytest.raises(Exception, match="mkdir") as refused:
                read()
            told[pattern] = (*told.get(pattern, ()), str(refused.value))
        assert not made.exists(), pattern
        comm.barrier()
        if comm.is_main():
            for file, content in kept.items():
                file.write_bytes(content)
            reseal(checkpoint)
        comm.barrier()
    return told


@pytest.mark.parametrize(
    ("ds", "ranks", "patterns"),
    [
        ("none", 1, ("rank-0.pt", "plain.pt")),
        ("zero3_fp32", 2, ("rank-*.pt", "deepspeed/*model_states.pt", "deepspeed/*optim_states.pt")),
        ("zero2_fp32", 2, ("deepspeed/*model_states.pt", "deepspeed/*optim_states.pt")),
    ],
)
def test_a_planted_object_is_named_and_not_run(tiny_shards, tmp_path, runs, ds, ranks, patterns):
    run = shutil.copytree(runs[ds], tmp_path / "run")
    shutil.rmtree(run / "weights")
    for told in run_ranks(refusals, ranks, str(tiny_shards), str(run), ds, patterns):
        assert told.keys() == set(patterns)
        assert all("holds posix.mkdir" in text for texts in told.values() for text in texts)
        assert all("--resume" in texts[0] and "step-00000002" in texts[0] for texts in told.values())


@pytest.mark.parametrize("pattern", ["rank-1.pt", "deepspeed/*rank_1*optim_states.pt"])
def test_a_planted_object_is_not_run_on_another_number_of_ranks(tiny_shards, tmp_path, runs, pattern):
    run = shutil.copytree(runs["zero3_fp32"], tmp_path / "run")
    (file,) = (run / "checkpoints/step-00000002").glob(pattern)
    held = torch.load(file, weights_only=False)
    torch.save({**held, "planted": RunsWhenUnpickled(tmp_path / "made")}, file)
    reseal(run / "checkpoints/step-00000002")
    with pytest.raises(RuntimeError, match=r"step-00000002: .*holds posix\.mkdir"):
        run_ranks(resume_small, 1, str(tiny_shards), str(run), "none")
    assert not (tmp_path / "made").exists()


def resume_small(shards: str, run: str, ds: str) -> None:
    train_small(shards, run, ds, "steps=3", resume="auto")


@pytest.mark.parametrize("content", ["", '{"step": 2, "wor', "{}", "[]", '{"step": "2"}'])
def test_a_complete_json_that_is_cut_off_names_itself_and_the_remedy(tmp_path, runs, content):
    from ufo_large.distributed.checkpoint import finished_steps

    run = shutil.copytree(runs["none"], tmp_path / "run")
    file = run / "checkpoints/step-00000002/complete.json"
    file.write_text(content)
    said = r"complete\.json.*go on from an earlier one, --resume .*step-00000001"
    with pytest.raises(ValueError, match=said) as refused:
        finished_steps(file.parent)
    assert str(file) in str(refused.value)


def launch_resume(shards: Path, run: Path, ranks: int) -> list[tuple[int, str]]:
    """Start launchers/train.py as the launcher would; return each rank's exit code and stderr."""
    port, started = str(free_port()), []
    changes = [x for change in (*SMALL, "steps=3") for x in ("--set", change)]
    command = [sys.executable, "launchers/train.py", "--recipe", "demo", "--ds", "zero3_fp32", *changes]
    command += ["--data", str(shards), "--workdir", str(run)]
    command += ["--resume", str(run / "checkpoints/step-00000002")]
    for rank in map(str, range(ranks)):
        own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks)}
        environment = {**os.environ, **own, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
        )
    told = [process.communicate(timeout=120)[1] for process in started]
    return [(process.returncode, text) for process, text in zip(started, told, strict=True)]


@pytest.mark.parametrize("missing", ["rank-1.pt", "deepspeed/*rank_1*optim_states.pt"])
def test_what_rank_1_misses_is_told_on_the_console(tiny_shards, tmp_path, runs, missing):
    run = shutil.copytree(runs["zero3_fp32"], tmp_path / "run")
    (file,) = (run / "checkpoints/step-00000002").glob(missing)
    file.unlink()
    (first, told), (second, silent) = launch_resume(tiny_shards, run, 2)
    assert first == second == 2
    (line,) = (line for line in told.splitlines() if line.startswith("error: "))
    assert "step-00000002" in line and "--resume" in line and "step-00000001" in line and "rank 1" in line
    assert file.name in line
    assert "Traceback" not in told + silent and "error: " not in silent
