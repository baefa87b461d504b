"""Scripts that tests run are as under `python`: what a fork server could change of them, it does not."""

import subprocess
import sys

import pytest

from ufo_large.testing.distributed import run_ranks

SAY = "import multiprocessing, sys; print(multiprocessing.get_start_method(), sys.argv[1:])"


def start_method() -> str:
    import multiprocessing

    return multiprocessing.get_start_method()


@pytest.fixture(scope="module")
def under_python() -> str:
    return subprocess.run([sys.executable, "-c", SAY, "a"], capture_output=True, text=True, check=True).stdout


def test_workers_of_a_script_start_as_under_python(script, under_python, tmp_path):
    """By fork on Linux before Python 3.14; each by a fork server of its own takes seconds."""
    file = tmp_path / "say.py"
    file.write_text(SAY)
    assert script(file, "a").stdout == under_python


def test_workers_of_a_rank_start_as_under_python(under_python):
    assert run_ranks(start_method, 1) == [under_python.split()[0]]
