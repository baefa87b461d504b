"""Processes that end with those that started them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
START = """
import subprocess, sys
subprocess.run(sys.argv[1:])
"""
RANK = """
import os, signal, sys, time
from ufo_large.processes.launcher import LAUNCHER, launchers
def tell(number, frame):
    print("told", LAUNCHER.is_over, flush=True)
    os._exit(0)
signal.signal(signal.SIGTERM, tell)
LAUNCHER.start()
print(os.getpid(), *(p.pid for p in launchers()), flush=True)
time.sleep(60)
"""
CHILD = """
import os, signal, time
from ufo_large.processes.parent import end_with_parent
end_with_parent(signal.SIGKILL, os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """Scripts that bear the names of DeepSpeed's, and start what they are given."""
    package = tmp_path / "deepspeed/launcher"
    package.mkdir(parents=True)
    for file in (package / "__init__.py", tmp_path / "deepspeed/__init__.py"):
        file.touch()
    (tmp_path / "bin").mkdir()
    for file in (package / "launch.py", tmp_path / "bin/deepspeed", tmp_path / "bin/torchrun"):
        file.write_text(START)
    (tmp_path / "other.py").write_text(START)
    for name, text in (("rank.py", RANK), ("child.py", CHILD)):
        (tmp_path / name).write_text(text)
    return tmp_path


@contextlib.contextmanager
def chain(folder: Path, *words: str, **environment: str) -> Iterator[tuple[subprocess.Popen, list[int]]]:
    """Start processes, each by the one before it; yield the first, and the numbers that the last prints."""
    path = f"{folder}{os.pathsep}{ROOT}"
    command = [sys.executable if word == "python" else word for word in words]
    started = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )
    try:
        yield started, [int(number) for number in started.stdout.readline().split()]
    finally:
        below = psutil.Process(started.pid).children(recursive=True)
        for process in (*below, started):
            process.kill()
        started.wait()


DEEPSPEED = (
    "python",
    "bin/deepspeed",
    "python",
    "-u",
    "-m",
    "deepspeed.launcher.launch",
    "python",
    "rank.py",
)


def test_the_ranks_of_deepspeed_are_told_when_its_first_process_is_killed(folder):
    with chain(folder, "python", "other.py", *DEEPSPEED, LOCAL_RANK="0") as (shell, (rank, *watched)):
        runner = psutil.Process(shell.pid).children()[0]
        assert watched == [psutil.Process(rank).ppid(), runner.pid]  # and not what started `deepspeed`
        runner.kill()
        assert shell.stdout.readline() == "told True\n"


def test_the_ranks_of_torchrun_are_told_when_it_is_killed(folder):
    words = ("python", "bin/torchrun", "python", "rank.py")
    with chain(folder, *words, LOCAL_RANK="0") as (torchrun, (_, *watched)):
        assert watched == [torchrun.pid]
        torchrun.kill()
        assert torchrun.stdout.readline() == "told True\n"


def test_a_training_is_told_when_the_command_that_started_it_for_something_else_is_killed(folder):
    text = "import os, subprocess, sys; os.environ['UFO_STARTED_BY'] = str(os.getpid());" + START
    (folder / "finetune.py").write_text(text)
    words = ("python", "other.py", "python", "finetune.py", *DEEPSPEED)
    with chain(folder, *words, LOCAL_RANK="0") as (shell, (rank, *watched)):
        finetune = psutil.Process(shell.pid).children()[0]
        assert len(watched) == 3 and watched[-1] == finetune.pid
        finetune.kill()
        assert shell.stdout.readline() == "told True\n"


@pytest.mark.parametrize("environment", [{}, {"LOCAL_RANK": "0"}], ids=["one process", "a rank of a script"])
def test_what_no_launcher_started_watches_nobody(folder, environment):
    with chain(folder, "python", "other.py", "python", "rank.py", **environment) as (_, (_, *watched)):
        assert not watched


def test_a_child_ends_with_its_parent(folder):
    with chain(folder, "python", "other.py", "python", "child.py") as (parent, (child,)):
        process = psutil.Process(child)
        parent.kill()
        deadline = time.monotonic() + 20
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_child_whose_parent_has_ended_before_ends_at_once(folder):
    gone = 1 << 22  # no process has this number
    text = f"import signal as s, ufo_large.processes.parent as p; p.end_with_parent(s.SIGKILL, {gone})"
    done = subprocess.run([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == -signal.SIGKILL
