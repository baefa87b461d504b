"""How many requests does the server answer, how fast, and does it grow? Clients on the same machine.

    python benchmarks/serving.py --workdir RUN [--checkpoint last] [--clients 1 8] [--minutes 5] [--write]

launchers/serve.py runs as a process of its own; each client is a thread that sends a picture of the run's own
shards, waits for the answer and sends the next. Server and clients share the processor.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import httpx
import numpy as np
import psutil

from ufo_large.runs.folder import RunFolder
from ufo_large.serving.samples import Sample, read_samples
from ufo_large.tracking.environment import commit_text, describe_environment

ROOT = Path(__file__).resolve().parent.parent
WARM_UP = 8
PICTURES_PER_TASK = 8


@dataclass(slots=True)
class Load:
    """`seconds` of each answer; `errors`: how often each other ending came; `mib` of the server, sampled.

    `busy_s`: processor seconds of the server, which other programs on the machine hardly change.
    """

    clients: int
    lasted_s: float = 0.0
    busy_s: float = 0.0
    seconds: list[float] = field(default_factory=list)
    errors: Counter = field(default_factory=Counter)
    mib: list[float] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workdir", type=Path, required=True, help="a run whose shards are on this machine")
    parser.add_argument("--checkpoint", metavar="last|DIR", help="a checkpoint, not the final weights")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8], metavar="N")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each number of clients (5)")
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/serving_cpu_*.md")
    options = parser.parse_args()
    saved = RunFolder(options.workdir).read()
    pictures = read_samples(saved, options.workdir, PICTURES_PER_TASK)
    if not pictures:
        raise SystemExit(f"{options.workdir}: its shards are not on this machine; give another --workdir")
    server, address = started(options.workdir, options.checkpoint)
    try:
        load(address, server, pictures, clients=1, seconds=60, most=WARM_UP)
        loads = [load(address, server, pictures, n, 60 * options.minutes) for n in options.clients]
    finally:
        server.send_signal(signal.SIGINT)
        ended = server.wait(300)
    text = render(loads, options, saved.config.name, ended)
    print(text)
    if options.write:
        (ROOT / f"benchmarks/results/serving_cpu_{date.today():%Y%m}.md").write_text(text)


def started(workdir: Path, checkpoint: str | None) -> tuple[subprocess.Popen, str]:
    """Start the server as a user would; return it and its address."""
    command = [sys.executable, "launchers/serve.py", "--workdir", str(workdir.resolve()), "--port", "0"]
    command += ["--checkpoint", checkpoint] if checkpoint else []
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    found = re.match(r"(http://\S+)/ ", server.stdout.readline())
    if not found:
        raise SystemExit(f"the server did not start; exit code {server.wait()}")
    return server, found[1]


def load(
    address: str,
    server: subprocess.Popen,
    pictures: list[Sample],
    clients: int,
    seconds: float,
    most: int = 0,
) -> Load:
    """Let `clients` ask for so long, or `most` requests each."""
    found, process = Load(clients), psutil.Process(server.pid)
    began, before = time.perf_counter(), sum(process.cpu_times()[:2])
    threads = [
        threading.Thread(target=ask, args=(address, pictures, number, began + seconds, most, found))
        for number in range(clients)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        found.mib.append(process.memory_info().rss / 2**20)
        threads[0].join(1.0)
    found.lasted_s, found.busy_s = time.perf_counter() - began, sum(process.cpu_times()[:2]) - before
    return found


def ask(address: str, pictures: list[Sample], number: int, end: float, most: int, found: Load) -> None:
    """Send one picture after the other until `end`."""
    done = 0
    with httpx.Client(timeout=60) as client:
        while time.perf_counter() < end and not (most and done >= most):
            picture = pictures[(number + done) % len(pictures)]
            began, done = time.perf_counter(), done + 1
            try:
                answer = client.post(f"{address}/predict", files={"file": (picture.name, picture.data)})
                ending = answer.status_code if answer.json().get("tasks") else "no tasks"
            except httpx.HTTPError as error:
                ending = type(error).__name__
            if ending == 200:
                found.seconds.append(time.perf_counter() - began)
            else:
                found.errors[ending] += 1


def render(loads: list[Load], options: argparse.Namespace, recipe: str, ended: int) -> str:
    environment = describe_environment()
    hardware, cores = environment["hardware"], len(os.sched_getaffinity(0))
    clients = " ".join(map(str, options.clients))
    lines = [
        "# Serving",
        "",
        f"Commit: {commit_text(environment['commit'])}. Command: `python benchmarks/serving.py --workdir RUN "
        f"--clients {clients} --minutes {options.minutes:g} --write`.",
        f"{hardware['processor']}; server and clients are pinned to {cores} core{'s' * (cores > 1)}. Load "
        f"average at the end: {os.getloadavg()[0]:.1f}; above {cores}, it is other programs on the machine.",
        f"Recipe {recipe}; all tasks of a picture per request. Memory: resident, of the server's process.",
        "",
        "| clients | minutes | requests | per second | server's processor s each | p50 s | p95 s | p99 s | "
        "errors | MiB first minute | MiB last minute |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|",
    ]
    return "\n".join([*lines, *map(row, loads), "", f"Exit code after Ctrl-C: {ended}."]) + "\n"


def row(load: Load) -> str:
    percentiles = " | ".join(f"{value:.3f}" for value in np.percentile(load.seconds, (50, 95, 99)))
    errors = ", ".join(f"{count} x {ending}" for ending, count in load.errors.items()) or "none"
    first, last = max(load.mib[:60]), max(load.mib[-60:])
    rate, busy = len(load.seconds) / load.lasted_s, load.busy_s / len(load.seconds)
    return (
        f"| {load.clients} | {load.lasted_s / 60:.1f} | {len(load.seconds)} | {rate:.2f} | {busy:.3f} | "
        f"{percentiles} | {errors} | {first:.0f} | {last:.0f} |"
    )


if __name__ == "__main__":
    main()
