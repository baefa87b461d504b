"""Fixtures that several tests share: a small synthetic world, packed once a session."""

import multiprocessing
import os
import subprocess
import sys
from multiprocessing import forkserver
from pathlib import Path

import pytest

from ufo_large.processes.ports import free_port

ROOT = Path(__file__).resolve().parent.parent

# A process has one fork server. Start it before anything else does, with everything that test ranks import.
multiprocessing.get_context("forkserver").set_forkserver_preload(["ufo_large.testing.preload"])
forkserver.ensure_running()


def run_script(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run one of the project's scripts as a user would."""
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, **options)


def run_deepspeed(*arguments: str, **options) -> subprocess.CompletedProcess:
    """Run one of the project's scripts on two ranks, as a user would."""
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    command = [bin_folder / "deepspeed", "--num_gpus", "2", "--master_port", free_port(), *arguments]
    options = {"timeout": 400, **options}
    return subprocess.run(
        list(map(str, command)), cwd=ROOT, env=environment, capture_output=True, text=True, **options
    )


@pytest.fixture(scope="session")
def script():
    return run_script


@pytest.fixture(scope="session")
def deepspeed():
    return run_deepspeed


@pytest.fixture(scope="session")
def tiny_shards(tmp_path_factory) -> Path:
    """Shards of a synthetic world with all three tasks and splits; a few seconds to make."""
    folder = tmp_path_factory.mktemp("tiny")
    sizes = ["--scale", "0.08"]
    made = run_script("data_sharding/make_synthetic.py", "--out", folder / "world", "--seed", "0", *sizes)
    assert made.returncode == 0, made.stderr
    packed = run_script(
        "data_sharding/make_shards.py", "--data", folder / "world", "--out", folder / "shards"
    )
    assert packed.returncode == 0, packed.stderr
    return folder / "shards"
