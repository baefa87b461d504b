"""What may happen to a run, and how it came out of it."""

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from ufo_large.config import read_json, write_json
from ufo_large.testing.fault_runs import STEPS, FaultRun
from ufo_large.testing.hosts import Hosts, two_hosts

START_S, END_S = 180.0, 120.0
Repair = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Fault:
    """`strike` hurts a run that is under way, and may return what mends it before the run is started again.

    `ends`: the run must end by itself. `says`: words of which the log must then have one. `place`: makes what
    a trial in a folder needs around it, and yields the ranks' hosts, if they have such; RuntimeError where
    this process has no right to.
    """

    strike: Callable[[FaultRun, random.Random], Repair | None]
    ends: bool = True
    says: tuple[str, ...] = ()
    place: Callable[[Path], contextlib.AbstractContextManager[Hosts | None]] = lambda folder: (
        contextlib.nullcontext()
    )


@dataclass(slots=True)
class Trial:
    """`ended_s`: seconds from the fault to the end of all ranks; None where it did not come. `lost_steps`:
    finished steps that had to be done again. `left`: processes that had to be killed by hand.
    """

    detected: bool
    ended_s: float | None
    is_exact: bool
    lost_steps: int
    left: int
    told: str = ""


def try_fault(
    fault: Fault, shards: Path, folder: Path, rng: random.Random, reference: str, hosts: Hosts | None = None
) -> Trial:
    """Train, strike at a random moment, see how it ends, mend, go on to the end and compare the weights."""
    own = Path(shutil.copytree(shards, folder / "shards"))
    run = FaultRun(own, folder, hosts=hosts)
    run.start()
    run.wait_for_step(rng.randrange(1, STEPS - 1), START_S)
    time.sleep(rng.random() * 0.3)
    repair = fault.strike(run, rng)
    began = time.monotonic()
    codes = run.wait(END_S)
    ended_s = None if codes is None else time.monotonic() - began
    run.wait_for(lambda: not run.processes(), 5)
    left, reached = run.kill(), run.logged_steps()
    detected = not fault.ends or (codes is not None and any(codes))
    if repair is not None:
        repair()
    saved = max(run.saved_steps(), default=0)
    is_exact = _finish(run) and run.weights() == reference
    told = run.told()
    lost = reached - min(saved, *(_resumed_from(told, saved)))
    if fault.says:
        detected = detected and any(words in told for words in fault.says)
    return Trial(detected, ended_s, is_exact, max(0, lost), left, told)


def _resumed_from(told: str, saved: int) -> list[int]:
    """Return the steps of damaged checkpoints' predecessors that the log says a resume took."""
    words = told.split("takes the one before, step-")
    return [saved, *(int(part[:8]) for part in words[1:])]


def _finish(run: FaultRun, attempts: int = 3) -> bool:
    for _ in range(attempts):
        run.start()
        codes = run.wait(START_S)
        run.wait_for(lambda: not run.processes(), 5)
        run.kill()
        if codes is not None and not any(codes):
            return True
    return False


def _signal(process: psutil.Process | None, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        if process is not None:
            process.send_signal(number)


def _to_a_rank(number: int) -> Callable[[FaultRun, random.Random], None]:
    return lambda run, rng: _signal(_process(rng.choice(run.ranks)), number)


def _process(rank) -> psutil.Process | None:
    try:
        return psutil.Process(rank.pid)
    except psutil.NoSuchProcess:
        return None


def _kill_all(run: FaultRun, rng: random.Random) -> None:
    """As when the machine loses power: no process is told anything."""
    run.kill()


def _while_saving(strike: Callable[[FaultRun, random.Random], Repair | None]):
    def struck(run: FaultRun, rng: random.Random) -> Repair | None:
        places = run.workdir / "checkpoints"
        run.wait_for(lambda: any(places.glob("partial-step-*")) or run.is_over(), START_S)
        time.sleep(rng.random() * 0.05)
        return strike(run, rng)

    return struck


def _kill_worker(run: FaultRun, rng: random.Random) -> None:
    if workers := run.workers():
        _signal(rng.choice(workers), signal.SIGKILL)


def _in_newest_checkpoint(damage: Callable[[Path, random.Random], None]):
    """Kill all, then damage a file of the newest checkpoint."""

    def struck(run: FaultRun, rng: random.Random) -> None:
        run.wait_for(lambda: len(run.saved_steps()) > 1 or run.is_over(), START_S)
        run.kill()
        newest = run.workdir / f"checkpoints/step-{run.saved_steps()[-1]:08d}"
        damage(rng.choice(sorted(file for file in newest.rglob("*") if file.is_file())), rng)

    return struck


def flip(file: Path, rng: random.Random) -> None:
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def truncate(file: Path, rng: random.Random) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: rng.randrange(len(content))])


def flip_in_picture(file: Path, rng: random.Random) -> None:
    """Change one bit of the first picture of a shard: beside pictures there are bytes that nobody reads."""
    content = bytearray(file.read_bytes())
    begin, end = content.index(b"\x89PNG"), content.index(b"IEND")
    content[rng.randrange(begin, end)] ^= 1 << rng.randrange(8)
    file.write_bytes(content)


def delete(file: Path, rng: random.Random) -> None:
    file.unlink()


def _in_shards(damage: Callable[[Path, random.Random], None], pattern: str):
    """Damage a file of the shards while the run reads them; it is put back before the run goes on."""

    def struck(run: FaultRun, rng: random.Random) -> Repair:
        file = rng.choice(sorted(run.shards.glob(pattern)))
        good = file.read_bytes()
        run.kill()  # so that what is read next is read anew
        damage(file, rng)
        run.start()
        return lambda: file.write_bytes(good)

    return struck


def exchange_names(file: Path, rng: random.Random) -> None:
    """Exchange two class names in dataset.json."""
    body = read_json(file, "make the shards again")
    names = rng.choice([task for task in body["tasks"] if len(task["class_names"]) > 1])["class_names"]
    names[0], names[1] = names[1], names[0]
    write_json(file, body)


def _second_run(run: FaultRun, rng: random.Random) -> None:
    """Start another run in the same folder; it must be refused, and the first must not notice."""
    second = FaultRun(run.shards, run.folder)
    second.log = run.log
    second.start()
    codes = second.wait(START_S)
    second.kill()
    if codes is None or not any(codes):
        raise AssertionError(f"the second run in one folder ended with {codes}")


def _full_disk(run: FaultRun, rng: random.Random) -> Repair:
    """Leave no room on the disk of the run; needs the right to mount."""
    filler = run.folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    return lambda: filler.unlink()


def _cut_network(run: FaultRun, rng: random.Random) -> Repair:
    """Pull the cable out between the ranks' hosts; no connection is closed."""
    run.hosts.cut()
    return run.hosts.mend


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 96) -> Iterator[None]:
    """Mount a disk of its own at the folder; RuntimeError where this process has no right to."""
    folder.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True).returncode:
        raise RuntimeError("no right to mount a small disk")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


SAVED = ("saved after",)
OLDER = ("takes the one before", "no whole checkpoint")
FAULTS: dict[str, Fault] = {
    "kill a rank": Fault(_to_a_rank(signal.SIGKILL)),
    "kill a rank during a save": Fault(_while_saving(_to_a_rank(signal.SIGKILL))),
    "kill all ranks": Fault(_kill_all),
    "kill all ranks during a save": Fault(_while_saving(_kill_all)),
    "stop a rank": Fault(_to_a_rank(signal.SIGSTOP)),
    "SIGTERM to a rank": Fault(_to_a_rank(signal.SIGTERM), says=SAVED),
    "SIGUSR1 to a rank": Fault(_to_a_rank(signal.SIGUSR1), says=SAVED),
    "SIGINT to a rank": Fault(_to_a_rank(signal.SIGINT), says=SAVED),
    "kill a loader's worker": Fault(_kill_worker, ends=False),
    "flip a bit of a checkpoint": Fault(_in_newest_checkpoint(flip), says=OLDER),
    "cut a checkpoint's file off": Fault(_in_newest_checkpoint(truncate), says=OLDER),
    "delete a checkpoint's file": Fault(_in_newest_checkpoint(delete), says=OLDER),
    "flip a bit of a shard's index": Fault(_in_shards(flip, "*/*.npz"), says=("npz",)),
    "cut a shard off": Fault(_in_shards(truncate, "*/train*.tar"), says=(".tar",)),
    # which is met only where that picture is still to come; no weight may come from it in any case
    "flip a bit of a picture in a shard": Fault(_in_shards(flip_in_picture, "*/train*.tar"), ends=False),
    "delete a shard": Fault(_in_shards(delete, "*/train*.tar"), says=(".tar",)),
    "exchange class names": Fault(_in_shards(exchange_names, "dataset.json"), says=("dataset.json",)),
    "a second run in the folder": Fault(_second_run, ends=False, says=("another run trains here",)),
    "full disk": Fault(_full_disk, says=("full", "No space left"), place=small_disk),
    "cut the network": Fault(_cut_network, says=("the run hangs",), place=lambda folder: two_hosts()),
    "cut the network during a save": Fault(
        _while_saving(_cut_network), says=("the run hangs",), place=lambda folder: two_hosts()
    ),
}
