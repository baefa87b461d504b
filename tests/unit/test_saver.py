"""Checkpoints of one process: whole or absent, verified before anything is restored, kept as the run says."""

import itertools
import multiprocessing
import random
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ufo_large.distributed.checkpoint import complete_checkpoints, finished_steps, load_checkpoint
from ufo_large.distributed.engine import PlainEngine
from ufo_large.distributed.saving import Saver, remove
from ufo_large.testing.checkpoints import drop_checksums, flip_byte
from ufo_large.train.hooks import CheckpointHook

FILES = ("plain.pt", "rank-0.pt", "complete.json")
STATE = {"ema": None, "seen": [1, 2]}


def engine_of(seed: int) -> PlainEngine:
    """Return a small model after one step, so that the optimizer has moments."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    engine = PlainEngine(module, torch.optim.AdamW(module.parameters()), torch.device("cpu"))
    engine.backward(module(torch.randn(8, 64)).square().sum())
    engine._take([p.grad for p in module.parameters()])
    engine.step([1e-3])
    return engine


def values(engine: PlainEngine) -> list[torch.Tensor]:
    moments = [s[name] for s in engine.optimizer_states() for name in ("exp_avg", "exp_avg_sq")]
    return [t.clone() for t in (*engine.module.state_dict().values(), *moments)]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def keep_all(steps: list[int]) -> list[int]:
    return steps


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with the checkpoints of steps 1 and 2."""
    saver = Saver(tmp_path / "checkpoints", engine_of(0), keep_all)
    for step in (1, 2):
        saver.save(step, STATE)
    return saver.root


@pytest.mark.parametrize("in_background", [False, True])
def test_what_is_loaded_is_what_was_saved(tmp_path, in_background):
    """Also where the weights move on while a copy of them is written."""
    engine = engine_of(0)
    saver = Saver(tmp_path, engine, keep_all, in_background)
    before, state = values(engine), {"ema": None, "seen": [1, 2]}
    saver.save(1, state)
    state["seen"].append(3)
    with torch.no_grad():
        for tensor in (*engine.module.parameters(), *engine.module.buffers()):
            tensor.add_(1)
    saver.finish()
    assert [p.name for p in tmp_path.iterdir()] == ["step-00000001"]
    assert sorted(p.name for p in (tmp_path / "step-00000001").iterdir()) == sorted(FILES)
    other = engine_of(1)
    finished, found = load_checkpoint(tmp_path / "step-00000001", other)
    assert (finished, same(values(other), before)) == (1, True)
    assert found["seen"] == [1, 2]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_byte, "SHA-256|not JSON|not what a checkpoint ends with"),
        (lambda file: flip_byte(file, 0.1), "SHA-256|not JSON|not what a checkpoint ends with"),
        (lambda file: flip_byte(file, 0.95), "SHA-256|not JSON|not what a checkpoint ends with"),
        (lambda file: file.write_bytes(file.read_bytes()[:-9]), r"has \d+ bytes, \d+ were written|not JSON"),
        (Path.unlink, "is missing|No such file"),
    ],
    ids=["flipped", "flipped at the front", "flipped at the end", "cut off", "missing"],
)
def test_a_damaged_file_is_named_before_anything_is_restored(
    root, name: str, damage: Callable[[Path], None], said: str
):
    damage(root / "step-00000002" / name)
    engine, drawn = engine_of(1), torch.get_rng_state()
    before = values(engine)
    with pytest.raises((ValueError, OSError), match=said) as refused:
        load_checkpoint(root / "step-00000002", engine)
    assert name in str(refused.value) and "step-00000002" in str(refused.value)
    if (root / "step-00000002/complete.json").exists():
        assert f"go on from an earlier one, --resume {root}/step-00000001" in str(refused.value)
    assert same(values(engine), before) and torch.equal(torch.get_rng_state(), drawn)
    assert load_checkpoint(root / "step-00000001", engine)[0] == 1


def test_every_byte_of_the_list_counts(root):
    """Whatever byte of complete.json changes, it is refused, or says the same: blanks do not matter."""
    file = root / "step-00000002/complete.json"
    whole = file.read_bytes()
    for place in range(len(whole)):
        flip_byte(file, (place + 0.5) / len(whole))
        try:
            assert (finished_steps(file.parent), whole[place : place + 1].isspace()) == (2, True)
        except ValueError as refused:
            assert "complete.json" in str(refused)
        file.write_bytes(whole)


def test_a_file_that_leads_out_of_the_checkpoint_is_not_read(root):
    from ufo_large.config import read_json, write_json
    from ufo_large.distributed.checksums import sealed

    file = root / "step-00000002/complete.json"
    written = read_json(file, "")
    written["files"]["../step-00000001/plain.pt"] = written["files"].pop("plain.pt")
    write_json(file, sealed(written))
    with pytest.raises(ValueError, match="leads out of its folder"):
        load_checkpoint(file.parent, engine_of(1))


def test_a_checkpoint_of_an_earlier_version_is_loaded_and_told_of(root, capsys):
    drop_checksums(root / "step-00000002")
    assert load_checkpoint(root / "step-00000002", engine_of(1))[0] == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "step-00000002" in line and "without checksums" in line
    assert load_checkpoint(root / "step-00000001", engine_of(1))[0] == 1
    assert capsys.readouterr().err == ""


def test_what_a_killed_run_left_is_no_checkpoint_and_goes_with_the_next(root):
    """It died while it wrote step 3, and before that while it removed step 1 and while it renamed step 4."""
    shutil.copytree(root / "step-00000002", root / "partial-step-00000003")
    shutil.copytree(root / "step-00000002", root / "step-00000004")
    (root / "step-00000004/complete.json").unlink()
    (root / "step-00000001").rename(root / "partial-removed-step-00000001")
    assert [p.name for p in complete_checkpoints(root)] == ["step-00000002"]
    Saver(root, engine_of(1), keep_all).save(4, STATE)
    assert sorted(p.name for p in root.iterdir()) == ["step-00000002", "step-00000004"]
    assert load_checkpoint(root / "step-00000004", engine_of(2))[0] == 4


def save_for_ever(root: Path, in_background: bool) -> None:
    done = [finished_steps(p) for p in complete_checkpoints(root)]
    saver = Saver(root, engine_of(0), lambda steps: steps[-2:], in_background)
    for step in itertools.count(max(done, default=0) + 1):
        saver.save(step, STATE)
        saver.poll()


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


@pytest.mark.parametrize("in_background", [False, True])
def test_a_killed_process_leaves_whole_checkpoints_alone(tmp_path, in_background):
    """SIGKILL at random moments of saving and removing, again and again in one folder."""
    moments, newest, engine = random.Random(0), 0, engine_of(1)
    for _ in range(8):
        # A plain fork would wait for ever for this process's OpenMP threads.
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=save_for_ever, args=(tmp_path, in_background))
        process.start()
        try:
            deadline = time.monotonic() + 60
            while max(map(step_of, complete_checkpoints(tmp_path)), default=0) < newest + 2:
                assert time.monotonic() < deadline
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.05))
        finally:
            process.kill()
            process.join()
        found = [load_checkpoint(p, engine)[0] for p in complete_checkpoints(tmp_path)]
        assert found and found[-1] >= newest + 2 and len(found) <= 3
        newest = found[-1]


def test_no_moment_of_a_removal_leaves_what_seems_whole(root, monkeypatch):
    def killed(folder: Path) -> None:
        assert not (folder / "complete.json").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove(root / "step-00000001")
    assert [p.name for p in complete_checkpoints(root)] == ["step-00000002"]
    assert not (root / "step-00000001").exists()


def test_only_the_steps_that_are_kept_stay(tmp_path):
    told = []

    def kept(steps: list[int]) -> list[int]:
        told.append(steps)
        return [s for s in steps if s % 3 == 0 or s == steps[-1]]

    saver = Saver(tmp_path, engine_of(0), kept)
    for step in range(1, 6):
        saver.save(step, STATE)
    assert told == [[1], [1, 2], [2, 3], [3, 4], [3, 4, 5]]
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000003", "step-00000005"]


@pytest.fixture
def full_disk():
    """Let no file of this process grow beyond 16 KiB: what a full disk, or a quota, does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("in_background", [False, True])
def test_a_file_that_cannot_be_written_is_told_and_leaves_the_others_whole(root, full_disk, in_background):
    engine = engine_of(1)
    saver = Saver(root, engine, keep_all, in_background)
    with pytest.raises(ValueError, match=r"step-00000003/plain\.pt: .*could not be written .*File too large"):
        saver.save(3, STATE)
        saver.finish()
    assert [p.name for p in complete_checkpoints(root)] == ["step-00000001", "step-00000002"]
    assert load_checkpoint(root / "step-00000002", engine)[0] == 2


def test_a_background_save_is_finished_by_the_next_poll_that_finds_it_written(tmp_path):
    saver = Saver(tmp_path, engine_of(0), keep_all, in_background=True)
    saver.save(1, STATE)
    assert complete_checkpoints(tmp_path) == []
    saver._writer._executor.submit(int).result()  # comes after the files
    saver.poll()
    saver._begun.published.result()
    saver.poll()
    assert saver._begun is None
    assert [p.name for p in complete_checkpoints(tmp_path)] == ["step-00000001"]


@pytest.mark.parametrize("ending", ["is_stopped", "is_interrupted", "steps"])
def test_a_run_waits_for_its_last_save_alone(tmp_path, ending):
    config = SimpleNamespace(steps=9, save_every=2, keep_checkpoints=1, keep_every=4, save_async=True)
    trainer = SimpleNamespace(config=config, runner=SimpleNamespace(engine=engine_of(0)))
    trainer.is_stopped = trainer.is_interrupted = False
    trainer.state_dict = lambda: STATE
    hook = CheckpointHook(trainer, tmp_path, SimpleNamespace(step=2, score=0.5))
    for finished in (1, 2, 3, 4, 5, 6):
        hook.after_step(finished, {})
    assert hook.saver._begun is not None
    if ending == "steps":
        config.steps = 7
    else:
        setattr(trainer, ending, True)
    hook.after_step(7, {})
    assert hook.saver._begun is None
    assert [finished_steps(p) for p in complete_checkpoints(tmp_path)] == [2, 4, 7]


def test_a_later_background_save_overwrites_no_earlier_one(tmp_path):
    """Though it takes the same host memory."""
    engine = engine_of(0)
    saver = Saver(tmp_path, engine, keep_all, in_background=True)
    expected = {}
    for step in (1, 2, 3):
        with torch.no_grad():
            engine.module[0].weight.add_(1)
        expected[step] = values(engine)
        saver.save(step, STATE)
    saver.finish()
    for step, saved in expected.items():
        other = engine_of(1)
        load_checkpoint(tmp_path / f"step-{step:08d}", other)
        assert same(values(other), saved)


def test_state_that_no_resume_would_read_is_refused_when_it_is_saved(tmp_path):
    saver = Saver(tmp_path, engine_of(0), keep_all)
    with pytest.raises(TypeError, match=r"rank-0\.pt: the state holds pathlib"):
        saver.save(1, {"ema": None, "where": tmp_path})
    assert complete_checkpoints(tmp_path) == []
