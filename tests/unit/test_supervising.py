"""A run that fails is started again, a bounded number of times; the launcher here is invented."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ufo_large.processes.ports import with_free_port
from ufo_large.processes.supervising import Policy, newest_step, supervise, value_of, with_fewer_ranks

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = """
import pathlib, sys
workdir = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
workdir.mkdir(exist_ok=True)
log = workdir / "starts"
log.write_text((log.read_text() if log.exists() else "") + sys.argv[sys.argv.index("--num_gpus") + 1] + " ")
code, *steps = eval(sys.argv[1])[len(log.read_text().split()) - 1]
for step in steps:
    folder = workdir / f"checkpoints/step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "complete.json").write_text("{}")
if code == 0:
    (workdir / "weights").mkdir(exist_ok=True)
sys.exit(max(code, 0))
"""
BINDS = """
import socket, sys
at = sys.argv.index("--master_port")
_, port = sys.argv.pop(at), int(sys.argv.pop(at))
try:
    socket.socket().bind(("127.0.0.1", port))
except OSError:
    sys.exit(75)
"""
UNFINISHED = -1
"""A launcher that ends with 0 and leaves no weights."""
NO_WAIT = Policy(restarts=2, backoff=0)


def command_for(tmp_path: Path, *starts: tuple[int, ...]) -> list[str]:
    """Start i ends with the first number as code, after checkpoints of the steps that follow."""
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    command = [sys.executable, str(tmp_path / "launcher.py"), repr(starts), "--num_gpus", "4"]
    return [*command, "--workdir", str(tmp_path / "run"), "--resume", "auto"]


def ranks_started(tmp_path: Path) -> list[str]:
    return (tmp_path / "run/starts").read_text().split()


@pytest.mark.parametrize(
    ("starts", "code", "times"),
    [
        ([(0,)], 0, 1),
        ([(2,), (0,)], 2, 1),
        ([(1,), (75,), (0,)], 0, 3),
        ([(1,)] * 9, 1, 3),
        ([(UNFINISHED, 5), (0,)], 0, 2),
        ([(1, 5), (1,), (1, 9), (1,), (0,)], 0, 5),
    ],
    ids=[
        "ends",
        "is refused",
        "fails twice",
        "fails too often",
        "ends unfinished",
        "fails often and comes further",
    ],
)
def test_starts_until_it_ends_or_gives_up(starts, code, times, tmp_path):
    assert supervise(command_for(tmp_path, *starts), NO_WAIT) == code
    assert len(ranks_started(tmp_path)) == times


def test_fewer_ranks_from_the_second_failure_on(tmp_path):
    policy = Policy(restarts=4, backoff=0, min_ranks=3)
    assert supervise(command_for(tmp_path, *[(1,)] * 4, (0,)), policy) == 0
    assert ranks_started(tmp_path) == ["4", "4", "3", "3", "3"]


def test_each_start_of_deepspeed_has_a_free_port_unless_one_is_given():
    ports = set()
    for runner in (["/bin/deepspeed"], ["python", "-m", "deepspeed.launcher.runner"]):
        command = with_free_port([*runner, "--num_gpus", "2", "train.py", "--master", "x"])
        assert command[: len(runner) + 1] == [*runner, "--master_port"]
        assert command[len(runner) + 2 :] == ["--num_gpus", "2", "train.py", "--master", "x"]
        ports.add(int(command[len(runner) + 1]))
    for port in ports:
        with socket.socket() as own:
            own.bind(("127.0.0.1", port))
    for fixed in (["--master_port", "1"], ["--master_port=1"], ["--no_ssh", "--node_rank", "0"]):
        assert with_free_port(["deepspeed", *fixed, "train.py"]) == ["deepspeed", *fixed, "train.py"]
    assert with_free_port(["torchrun", "train.py"]) == ["torchrun", "train.py"]


def test_a_taken_port_is_left_for_a_free_one(tmp_path):
    """The launcher here ends with 75 where another program has its port, as a rank then does."""
    command = command_for(tmp_path, (0,))
    launcher = tmp_path / "deepspeed"
    launcher.write_text(BINDS + LAUNCHER)
    command[1] = str(launcher)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = str(other.getsockname()[1])
        assert supervise([*command, "--master_port", port], NO_WAIT) == 75
        assert supervise(command, NO_WAIT) == 0


def test_options_are_read_in_both_spellings():
    assert value_of(["x", "--num_gpus=8"], "--num_gpus") == value_of(["--num_gpus", "8"], "--num_gpus") == "8"
    assert with_fewer_ranks(["d", "--num_gpus=8", "t"], 1) == ["d", "--num_gpus=7", "t"]
    with pytest.raises(ValueError, match="no --workdir"):
        value_of(["x", "--workdir"], "--workdir")


def test_what_cannot_go_on_is_refused(tmp_path):
    command = command_for(tmp_path, (0,))
    with pytest.raises(ValueError, match="give the command --resume auto"):
        supervise([*command[:-1], "none"], NO_WAIT)
    for options in ({"restarts": -1}, {"backoff": -1.0}, {"min_ranks": 0}):
        with pytest.raises(ValueError, match="must not be negative|at least 1"):
            Policy(**options)


def test_only_whole_checkpoints_count(tmp_path):
    assert newest_step(tmp_path) == 0
    for name in ("step-00000003", "step-00000012", "left-1-step-00000050"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000003/complete.json").write_text("{}")
    assert newest_step(tmp_path) == 3


def test_a_signal_in_the_pause_ends_it(tmp_path):
    options = [sys.executable, "launchers/supervise.py", "--backoff", "60"]
    command = [*options, *command_for(tmp_path, (1,), (0,))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        assert "code 1 after step 0; start 1 of 5" in started.stdout.readline()
        time.sleep(0.2)
        started.terminate()
        assert started.wait(timeout=30) == os.EX_TEMPFAIL
    assert len(ranks_started(tmp_path)) == 1


def test_a_launcher_that_is_not_there_is_named(tmp_path):
    command = ["no-such-launcher", "train.py", "--workdir", tmp_path, "--resume", "auto"]
    for script in ("supervise.py", "restartable.py"):
        words = [sys.executable, f"launchers/{script}", *command]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr.startswith("error: no-such-launcher: cannot be started")


def test_what_a_dead_launcher_leaves_behind_is_ended(tmp_path):
    """As the ranks of a `deepspeed` that was killed."""
    child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    killed = f"import subprocess, sys, os; p = subprocess.Popen([sys.executable, '-c', {child!r}], "
    killed += "stdout=sys.stdout, env={**os.environ, 'LOCAL_RANK': '0'}); import time; time.sleep(600)"
    command = [sys.executable, "launchers/restartable.py", sys.executable, "-c", killed]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as started:
        rank = psutil.Process(int(started.stdout.readline()))
        rank.parent().send_signal(signal.SIGKILL)
        assert started.wait(timeout=30) == signal.SIGKILL
        assert not psutil.pid_exists(rank.pid) or rank.status() == psutil.STATUS_ZOMBIE
