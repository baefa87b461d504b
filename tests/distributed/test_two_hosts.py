"""A run on two hosts, with a launcher and a supervisor on each, whose network is cut and mended again."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ufo_large.processes.ports import free_port
from ufo_large.testing.fault_runs import CHANGES, FaultRun
from ufo_large.testing.hosts import ADDRESSES, CABLE, Hosts, two_hosts
from ufo_large.testing.launched import ROOT, START_S, wait_for
from ufo_large.testing.tiny_shards import tiny_shards

HANG_TIMEOUT_S = 15


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    with contextlib.ExitStack() as held:
        try:
            yield held.enter_context(two_hosts())
        except RuntimeError as error:
            pytest.skip(str(error))


@contextlib.contextmanager
def supervised(hosts: Hosts, run: FaultRun) -> Iterator[list[subprocess.Popen]]:
    """Start the run as docs/schedulers.md says: one command on each machine. Kill what is left in the end."""
    run.folder.mkdir(parents=True, exist_ok=True)
    hostfile, port = run.folder / "hostfile", str(free_port())
    hostfile.write_text("".join(f"{address} slots=1\n" for address in ADDRESSES))
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": CABLE}
    environment["PATH"] = f"{bin_folder}:{environment['PATH']}"
    with run.log.open("a") as out, contextlib.ExitStack() as made:
        started = []
        for host in range(2):
            command = [
                sys.executable,
                "launchers/supervise.py",
                "--backoff",
                "1",
                str(bin_folder / "deepspeed"),
            ]
            command += ["--hostfile", str(hostfile), "--no_ssh", "--node_rank", str(host)]
            command += ["--master_addr", ADDRESSES[0], "--master_port", port, "launchers/train.py"]
            command += [
                "--recipe",
                "demo",
                "--ds",
                "zero3_fp32",
                "--data",
                str(run.shards),
                "--resume",
                "auto",
            ]
            command += ["--workdir", str(run.workdir), "--hang-timeout", str(HANG_TIMEOUT_S)]
            command += [word for change in CHANGES for word in ("--set", change)]
            words = hosts.command(host, *command)
            started.append(subprocess.Popen(words, cwd=ROOT, env=environment, stdout=out, stderr=out))
            made.callback(_end, started[-1])
        yield started


def _end(started: subprocess.Popen) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        for process in (*psutil.Process(started.pid).children(recursive=True), started):
            process.kill()
    started.wait()


@pytest.mark.slow
def test_a_run_goes_on_when_the_network_between_its_hosts_was_cut(hosts, tmp_path):
    shards = tiny_shards(tmp_path / "data")
    undisturbed, run = (FaultRun(shards, tmp_path / name) for name in ("undisturbed", "cut"))
    with supervised(hosts, undisturbed) as started:
        assert [process.wait(START_S) for process in started] == [0, 0], undisturbed.told()[-3000:]
    with supervised(hosts, run) as started:
        wait_for(lambda: run.logged_steps() >= 5, START_S)
        hosts.cut()
        cut = time.monotonic()
        reports = [run.workdir / f"hangs/rank-{rank}.txt" for rank in (0, 1)]
        wait_for(lambda: all(report.exists() for report in reports), 8 * HANG_TIMEOUT_S)
        assert time.monotonic() - cut > HANG_TIMEOUT_S / 2
        assert all(process.poll() is None for process in started)
        hosts.mend()
        assert [process.wait(START_S) for process in started] == [0, 0], run.told()[-3000:]
    told = run.told()
    assert told.count(f"supervise: code {os.EX_TEMPFAIL} after step ") >= 2, told[-3000:]
    for name, report in zip(hosts.names, reports, strict=True):
        assert f" on {name}: the run hangs. For " in report.read_text()
    assert run.weights() == undisturbed.weights() != ""
