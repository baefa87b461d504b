"""Who trains in a folder is alone there, and whoever is killed leaves no lock behind."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from ufo_large.train import lock
from ufo_large.train.lock import training_alone

HOLDER = """
import os, sys, time
from pathlib import Path
from ufo_large.train.lock import training_alone
with training_alone(Path(sys.argv[1])):
    worker = 0
    exec(sys.argv[2])
    print(f"held\\n{worker}", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(folder, first="pass"):
    """Another process that holds the folder until the body ends, and executes `first` then."""
    command = [sys.executable, "-c", HOLDER, str(folder), first]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout.readline() != "held\n":
            raise subprocess.CalledProcessError(process.wait(), command)
        yield process


def test_the_second_is_told_who_holds_the_folder_and_writes_nothing(tmp_path):
    with holder(tmp_path) as process:
        before = {f: f.read_bytes() for f in tmp_path.iterdir()}
        told = rf"{tmp_path}: another run trains here \(process {process.pid} on .+ since \d{{4}}-.*--workdir"
        with pytest.raises(ValueError, match=told), training_alone(tmp_path):
            pytest.fail("both train")
        assert {f: f.read_bytes() for f in tmp_path.iterdir()} == before
    with training_alone(tmp_path):
        (tmp_path / "weights").touch()
    assert [f.name for f in tmp_path.iterdir()] == ["weights"]


def test_a_killed_holder_leaves_no_lock(tmp_path):
    with holder(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / lock.FILE_NAME).exists()
        with training_alone(tmp_path):
            assert f"process {os.getpid()} on" in (tmp_path / lock.FILE_NAME).read_text()


def test_a_loader_worker_that_outlives_a_killed_holder_keeps_no_lock(tmp_path):
    """They live on for seconds, in which a scheduler starts the run again."""
    forked = "r, w = os.pipe(); worker = os.fork() or (os.write(w, b'.'), time.sleep(60)); os.read(r, 1)"
    with holder(tmp_path, forked) as process:
        worker = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        try:
            with training_alone(tmp_path):
                os.kill(worker, 0)  # it lives
        finally:
            os.kill(worker, signal.SIGKILL)


def test_reading_the_folder_does_not_give_the_lock_away(tmp_path):
    with training_alone(tmp_path):
        (tmp_path / lock.FILE_NAME).read_text()
        with pytest.raises(subprocess.CalledProcessError), holder(tmp_path):
            pytest.fail("both train")


def test_nothing_is_left_where_nothing_was_written(tmp_path):
    (tmp_path / "users").mkdir()
    for name in ("run", "users"):
        with pytest.raises(ValueError, match="refused"), training_alone(tmp_path / name):
            raise ValueError("refused")
    assert list(tmp_path.rglob("*")) == [tmp_path / "users"]


def test_a_lock_file_that_its_holder_took_away_is_not_taken_for_the_folders(tmp_path, monkeypatch):
    """Between opening and locking the holder may end; a third process then finds no file and makes one."""
    locked, real = [], lock._lock

    def slow(file, folder, option):
        if not locked:
            (tmp_path / lock.FILE_NAME).unlink()
        locked.append(file)
        real(file, folder, option)

    monkeypatch.setattr(lock, "_lock", slow)
    with training_alone(tmp_path):
        assert len(locked) == 2
        with pytest.raises(subprocess.CalledProcessError), holder(tmp_path):
            pytest.fail("both train")


def test_a_folder_that_was_removed_and_made_again_keeps_its_new_holders_lock(tmp_path):
    folder = tmp_path / "run"
    with training_alone(folder):
        (folder / lock.FILE_NAME).unlink()
        folder.rmdir()
        folder.mkdir()
        (folder / lock.FILE_NAME).touch()
    assert (folder / lock.FILE_NAME).exists()


def test_a_disk_that_locks_no_files_is_told_of(tmp_path, monkeypatch):
    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "flock", unsupported)
    with pytest.warns(UserWarning, match=r"run\.lock: this disk locks no files"), training_alone(tmp_path):
        (tmp_path / "weights").touch()
    assert [f.name for f in tmp_path.iterdir()] == ["weights"]
