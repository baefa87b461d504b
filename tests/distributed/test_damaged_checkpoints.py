"""A resume on two ranks where a checkpoint is damaged: told by all, taken back by `--resume auto`."""

import contextlib
import io
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from ufo_large.distributed import zero  # noqa: F401  declares harmless what DeepSpeed pickles
from ufo_large.distributed.checkpoint import read_rank
from ufo_large.distributed.resharding import read_saved
from ufo_large.testing.checkpoints import drop_checksums, flip_byte
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
SMALL = (*SMALL_MODEL, *TWO_IMAGES_EACH, *IN_THE_PROCESS, NO_WANDB, "save_every=1", "keep_checkpoints=9")


def train_small(
    shards: str, workdir: str, ds: str, resume: str, options: tuple[str, ...], full: tuple[int, ...] = ()
):
    """Train; return what was printed and warned of, the losses by step and name, and words of a refusal.

    `full`: the ranks that can write no file larger than 64 KiB.
    """
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import comm, ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.tracking import read_metrics
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe("demo"), [*SMALL, *options])
    ds_json = None if ds == "none" else ds_config.read(ROOT / "ds_configs" / f"{ds}.json")
    if int(os.environ.get("RANK", 0)) in full:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    refused = ""
    with (
        contextlib.redirect_stdout(io.StringIO()) as said,
        contextlib.redirect_stderr(io.StringIO()) as warned,
    ):
        try:
            train(config, shards, Path(workdir), ds_json, resume)
        except ValueError as error:
            refused = str(error)
    comm.barrier()
    log = [] if refused else read_metrics(Path(workdir) / "metrics.jsonl")
    losses = {(line["step"], n): v for line in log for n, v in line.items() if n.endswith("/total")}
    printed = {"said": said.getvalue(), "warned": warned.getvalue()}
    return printed | {"losses": losses, "refused": refused}


def checkpoints(run: Path) -> list[str]:
    return sorted(p.name for p in (run / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def whole(tiny_shards, tmp_path_factory):
    """(folder, what rank 0 told) of a run of three steps on two ranks, as if cut off before its end."""
    run = tmp_path_factory.mktemp("whole") / "run"
    told = run_ranks(train_small, 2, str(tiny_shards), str(run), "zero3_fp32", "none", ("steps=3",))[0]
    shutil.rmtree(run / "weights")
    return run, told


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole[0], tmp_path / "run"))


def test_auto_goes_back_to_the_last_whole_one_and_its_steps_are_the_same(tiny_shards, whole, run):
    """Step 3 has a flipped byte in what rank 1 alone reads, step 2 is cut off; bitwise from step 1 on."""
    (optimizer,) = (run / "checkpoints/step-00000003/deepspeed").glob("*rank_1_*optim_states.pt")
    flip_byte(optimizer)
    cut = run / "checkpoints/step-00000002/rank-0.pt"
    os.truncate(cut, size := cut.stat().st_size // 2)
    told = run_ranks(train_small, 2, str(tiny_shards), str(run), "zero3_fp32", "auto", ("steps=3",))
    first, second = [line for line in told[0]["said"].splitlines() if "cannot be read" in line]
    assert f"step-00000003: this checkpoint cannot be read (deepspeed/{optimizer.name} is damaged" in first
    assert "--resume auto takes the one before, step-00000002 (on rank 1)" in first
    assert f"step-00000002: this checkpoint cannot be read (rank-0.pt has {size} bytes, " in second
    assert "--resume auto takes the one before, step-00000001 (on rank 0)" in second
    assert told[1]["said"] == ""
    assert told[0]["losses"] == whole[1]["losses"] and len(told[0]["losses"]) == 3 * 3
    left = [f"left-1-step-0000000{n}" for n in (2, 3)]
    assert checkpoints(run) == [*left, *(f"step-0000000{n}" for n in (1, 2, 3))]


@pytest.mark.parametrize(("ds", "ranks"), [("zero3_fp32", 2), ("zero2_fp32", 3), ("none", 1)])
def test_a_chosen_one_that_is_damaged_is_refused_on_all_ranks(tiny_shards, run, ds, ranks):
    """On as many ranks, on more with another ZeRO stage, and in one process."""
    chosen = run / "checkpoints/step-00000003"
    (optimizer,) = (chosen / "deepspeed").glob("*rank_1_*optim_states.pt")
    flip_byte(optimizer)
    before = checkpoints(run)
    told = run_ranks(train_small, ranks, str(tiny_shards), str(run), ds, str(chosen), ("steps=4",))
    assert len({rank["refused"] for rank in told}) == 1
    assert f"{optimizer.name} is damaged" in told[0]["refused"]
    assert f"go on from an earlier one, --resume {run}/checkpoints/step-00000002" in told[0]["refused"]
    assert checkpoints(run) == before


def test_auto_goes_back_on_another_number_of_ranks_too(tiny_shards, run):
    (run / "checkpoints/step-00000003/rank-1.pt").unlink()
    (told,) = run_ranks(train_small, 1, str(tiny_shards), str(run), "none", "auto", ("steps=3",))
    assert "step-00000003: this checkpoint cannot be read (rank-1.pt is missing)" in told["said"]
    assert (3, "cls/total") in told["losses"]


def test_where_none_is_whole_auto_says_so_and_changes_nothing(tiny_shards, run):
    flip_byte(run / "checkpoints/step-00000003/rank-1.pt")
    (run / "checkpoints/step-00000002/complete.json").write_text('{"step": 2,')
    flip_byte(run / "checkpoints/step-00000001/zero_to_fp32.py")
    before = checkpoints(run)
    told = run_ranks(train_small, 2, str(tiny_shards), str(run), "zero3_fp32", "auto", ("steps=3",))
    assert len({rank["refused"] for rank in told}) == 1
    assert "zero_to_fp32.py is damaged" in told[0]["refused"]
    assert f"no checkpoint of {run} is whole: give another --workdir" in told[0]["refused"]
    assert [line.partition(":")[0].rpartition("/")[2] for line in told[0]["said"].splitlines()] == [
        *("step-00000003", "complete.json")
    ]
    assert checkpoints(run) == before
    for step in (1, 3):
        (run / f"checkpoints/step-0000000{step}/complete.json").write_text("")
    told = run_ranks(train_small, 1, str(tiny_shards), str(run), "none", "auto", ("steps=3",))[0]
    assert "complete.json: damaged, as those before; no checkpoint of" in told["refused"]


def test_a_checkpoint_without_checksums_goes_on_with_one_line(tiny_shards, whole, run):
    drop_checksums(run / "checkpoints/step-00000003")
    options = ("steps=4",)
    told = run_ranks(train_small, 2, str(tiny_shards), str(run), "zero3_fp32", "auto", options)
    (line,) = (line for line in told[0]["warned"].splitlines() if "without checksums" in line)
    assert "step-00000003" in line and "without checksums" not in told[1]["warned"]
    assert (4, "cls/total") in told[0]["losses"]


def test_saving_in_the_background_changes_no_bit_and_resumes(tiny_shards, whole, tmp_path):
    """Every step saved while the next one runs: the same losses, the same values on both ranks."""
    run, options = tmp_path / "run", ("save_async=true",)
    arguments = (str(tiny_shards), str(run), "zero3_fp32")
    told = run_ranks(train_small, 2, *arguments, "none", ("steps=3", *options))[0]
    assert told["losses"] == whole[1]["losses"]
    assert checkpoints(run) == checkpoints(whole[0])
    for step in (1, 2, 3):
        name = f"checkpoints/step-0000000{step}"
        first, second = values_of(run / name), values_of(whole[0] / name)
        assert first.keys() == second.keys() and len(first) > 3 * 50
        assert all(torch.equal(value, second[key]) for key, value in first.items())
    shutil.rmtree(run / "weights")
    shutil.rmtree(run / "checkpoints/step-00000003")
    again = run_ranks(train_small, 2, *arguments, "auto", ("steps=3", *options))[0]
    assert again["losses"] == told["losses"]


def values_of(checkpoint: Path) -> dict[tuple, torch.Tensor]:
    """Every parameter's part of the weights and moments by rank, without what only fills a shard up."""
    found = {}
    for rank in (0, 1):
        saved = read_saved(checkpoint, "zero3", rank, read_rank(checkpoint, rank)["layout"])
        for pieces, master, state in zip(saved.layout, saved.masters, saved.states, strict=True):
            kinds = {"master": master, "exp_avg": state["exp_avg"], "exp_avg_sq": state["exp_avg_sq"]}
            for piece, (kind, shard) in ((piece, kind) for piece in pieces for kind in kinds.items()):
                part = shard.detach().view(-1)[piece.offset : piece.offset + piece.count]
                found[rank, kind, piece.name] = part
    return found


@pytest.mark.parametrize("options", [(), ("save_async=true",)], ids=["at once", "in the background"])
def test_a_full_disk_of_one_rank_ends_all_with_the_file(tiny_shards, tmp_path, options):
    """No rank waits for the one that failed; the checkpoint is none."""
    arguments = (str(tiny_shards), str(tmp_path), "zero3_fp32", "none", ("steps=3", *options))
    told = run_ranks(train_small, 2, *arguments, (1,), timeout=120)
    assert len({rank["refused"] for rank in told}) == 1
    assert "rank_1_mp_rank_00_" in told[0]["refused"] and "File too large" in told[0]["refused"]
    assert "could not be written" in told[0]["refused"] and "(on rank 1)" in told[0]["refused"]
    assert checkpoints(tmp_path) == ["partial-step-00000001"]
