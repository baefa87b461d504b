"""Small trainings whose ranks come from a fork server, to be hurt and started again."""

import contextlib
import hashlib
import multiprocessing
import os
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from ufo_large.distributed.checkpoint import complete_checkpoints
from ufo_large.processes.launcher import is_alive
from ufo_large.testing.distributed import free_port, rank_environment
from ufo_large.testing.hosts import ADDRESSES, CABLE, Hosts
from ufo_large.testing.settings import NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY = 10, 2
HANG_TIMEOUT_S, LOOK_EVERY_S = 20, 0.5
KINDS = ("classification", "detection", "segmentation")
CHANGES = (
    *SMALL_MODEL,
    *TWO_IMAGES_EACH,
    NO_WANDB,
    *(f"tasks.{kind}.loader.workers=1" for kind in KINDS),
    *(f"tasks.{kind}.loader.max_bad_samples=0" for kind in KINDS),
    *(f"steps={STEPS}", f"save_every={SAVE_EVERY}", "keep_checkpoints=3", "evaluate_every=0", "log_every=1"),
)


class FaultRun:
    """A run in a folder, that is started as often as it needs; `log` holds what all its ranks said.

    `hosts`: where its two ranks live, each on one of them.
    """

    def __init__(self, shards: Path, folder: Path, ranks: int = 2, hosts: Hosts | None = None):
        self.shards, self.folder, self.hosts = shards, folder, hosts
        self.workdir, self.log = folder / "run", folder / "log"
        self.num_ranks = ranks
        self.ranks: list[Any] = []
        self.seen: dict[int, psutil.Process] = {}

    def start(self) -> None:
        """Start the ranks; they go on from the last whole checkpoint."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["ufo_large.testing.preload"])
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["--recipe", "demo", "--ds", "zero3_fp32", "--data", str(self.shards)]
        words += ["--workdir", str(self.workdir), "--resume", "auto", "--hang-timeout", str(HANG_TIMEOUT_S)]
        words += [word for change in CHANGES for word in ("--set", change)]
        told = (self.num_ranks, free_port(), words, str(self.log), self.hosts)
        self.ranks = [context.Process(target=_train, args=(rank, *told)) for rank in range(self.num_ranks)]
        for rank in self.ranks:
            rank.start()

    def processes(self) -> list[psutil.Process]:
        """Return the living ranks and what they started; all that were ever seen are remembered."""
        for rank in self.ranks:
            with contextlib.suppress(psutil.NoSuchProcess):
                own = psutil.Process(rank.pid)
                self.seen |= {p.pid: p for p in (own, *own.children(recursive=True))}
        return [p for p in self.seen.values() if is_alive(p)]

    def workers(self) -> list[psutil.Process]:
        """Return the processes that load samples."""
        ranks = {rank.pid for rank in self.ranks}
        return [p for p in self.processes() if p.pid not in ranks and _name(p).startswith("pt_data_worker")]

    def is_over(self) -> bool:
        return all(not rank.is_alive() for rank in self.ranks)

    def wait(self, seconds: float) -> list[int] | None:
        """Return the ranks' exit codes, or None where one is still there after `seconds`."""
        return [rank.exitcode for rank in self.ranks] if self.wait_for(self.is_over, seconds) else None

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the condition holds; return whether it came to that."""
        deadline, looked = time.monotonic() + seconds, 0.0
        while not condition():
            if (now := time.monotonic()) > deadline:
                return False
            if now - looked > LOOK_EVERY_S:
                looked = now
                self.processes()
            time.sleep(0.02)
        return True

    def wait_for_step(self, step: int, seconds: float) -> bool:
        """Wait until so many steps are logged, or the run is over."""
        return self.wait_for(lambda: self.logged_steps() >= step or self.is_over(), seconds)

    def logged_steps(self) -> int:
        file = self.workdir / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0

    def saved_steps(self) -> list[int]:
        """Return the steps of the whole checkpoints."""
        return [int(folder.name[5:]) for folder in complete_checkpoints(self.workdir / "checkpoints")]

    def kill(self) -> int:
        """Kill whatever is left; return how many processes that was."""
        left = self.processes()
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for rank in self.ranks:
            rank.join()
        return len(left)

    def told(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def weights(self) -> str:
        """Return a checksum of the final weights; "" where there are none."""
        files = sorted((self.workdir / "weights").glob("*.safetensors"))
        return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest() if files else ""


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


def _train(rank: int, world_size: int, port: int, words: list[str], log: str, hosts: Hosts | None) -> None:
    """Become what the launcher would have started, with its output in the log."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", **rank_environment(rank, world_size, port))
    if hosts is not None:
        hosts.enter(rank)
        os.environ.update(MASTER_ADDR=ADDRESSES[0], GLOO_SOCKET_IFNAME=CABLE)
    multiprocessing.set_start_method("fork", force=True)  # for loaders, as where a launcher started the rank
    script = str(ROOT / "launchers/train.py")
    sys.argv = [script, f"--local_rank={rank}", *words]
    runpy.run_path(script, run_name="__main__")
