"""Fixtures that several tests share: a small synthetic world, packed once a session."""

import functools
import gc
import multiprocessing
import os
from multiprocessing import forkserver
from pathlib import Path

import pytest

from ufo_large.testing.scripts import run_script

# Before torch is there, and in the workers alone, which inherit what the process that starts them has set:
# workers that share the cores and each start a thread per core wait for one another.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, os.cpu_count() // int(workers))))

# A process has one fork server. Start it before anything else does, with everything that test ranks import.
multiprocessing.get_context("forkserver").set_forkserver_preload(["ufo_large.testing.preload"])
forkserver.ensure_running()


def pytest_collection_finish():
    gc.freeze()  # no later collection looks at what the tests import


@pytest.fixture(scope="session")
def script():
    return run_script


@pytest.fixture(scope="session")
def two_ranks():
    """Run a script on two ranks; what DeepSpeed's own launcher adds is tested in test_end_to_end.py."""
    return functools.partial(run_script, ranks=2)


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
