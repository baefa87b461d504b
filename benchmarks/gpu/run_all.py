"""Run all cases within one time budget; write JSON lines and a table after each row.

A row that fails, or for which no time is left, is written down as such; the others go on. DeepSpeed does not
give an engine's memory back, so each checkpointing mode has a process, and so have the sizes after one that
did not fit.
While one measures, the next imports what it needs and waits.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALL, TWO = ("none", "selective", "full", "offload"), ("none", "full")
CASES = {  # most wanted first: script, options, checkpointing modes
    "matrix and attention": ("rates.py", (), (None,)),
    "dense trunk, ZeRO-3, compiled": ("trunk.py", ("--zero3", "--compile"), ("none", "selective", "full")),
    "dense trunk, ZeRO-3": ("trunk.py", ("--zero3",), ALL),
    "outside the trunk": ("outside_trunk.py", (), (None,)),
    "balancing, ViT-g": ("balance.py", ("--router=shared",), (None,)),
    "parts of a step": ("step_parts.py", (), (None,)),
    "parts of a step, expandable segments": ("step_parts.py", ("--expandable",), (None,)),
    "timm's model, plain loop": ("trunk.py", ("--model=timm",), ("none",)),
    "dense trunk, plain torch": ("trunk.py", (), ALL),
    "a shard of task gradients": ("shard.py", (), (None,)),
    "dense trunk, plain torch, compiled": ("trunk.py", ("--compile",), TWO),
    "an expert a task, plain torch": ("trunk.py", ("--router=task",), TWO),
    "an expert a task, ZeRO-3": ("trunk.py", ("--router=task", "--zero3"), TWO),
    "balancing, ViT-g with experts": ("balance.py", (), (None,)),
    "timm's model, plain loop, compiled": ("trunk.py", ("--model=timm", "--compile"), ("none",)),
}
LONGEST = 180  # seconds of one process: one that hangs must not take the others' time
STEPS = ("case", "method", "seconds", "ratio", "peak GiB")
PARTS = ("case", "part", "seconds", "calls", "retries")
OPERATIONS = ("task", "op", "form", "layout", "cudnn.benchmark", "forward", "seconds", "in a step")
RATES, TRUNKS = ("what", "TFLOP/s"), ("case", "mode", "side", "images", "images/s", "MFU", "peak GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="toy size on the CPU")
    parser.add_argument("--budget", type=float, default=500, help="seconds in all")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=f"some of: {'; '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", HERE.parent / "results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    name, rows = "gpu_toy" if args.toy else "gpu", []
    for row in measure(args.cases, args.toy, time.monotonic() + args.budget):
        rows.append(row)
        print(row, file=sys.stderr, flush=True)
        with (args.out / f"{name}.jsonl").open("a" if len(rows) > 1 else "w") as file:
            file.write(json.dumps(row) + "\n")
        (args.out / f"{name}.md").write_text(render(rows))
    print(render(rows))
    if any("error" in row for row in rows):
        sys.exit(1)


def measure(cases: list[str], toy: bool, end: float) -> Iterator[dict]:
    """Yield every row of `cases` as soon as it is there."""
    shared = ("--toy",) if toy else ()
    wanted = [(case, mode) for case in cases for mode in CASES[case][2]]
    jobs = [Job(case, mode, shared) for case, mode in wanted[:1]]
    try:
        for following in [*wanted[1:], None]:
            job = jobs.pop()
            if following is not None:
                jobs.append(Job(*following, shared))
            while job is not None:
                yield from job.rows(end - time.monotonic())
                job = job.rest()
    finally:
        for job in jobs:
            job.kill()


class Job:
    """A process that measures one case in one checkpointing mode, once it is told to begin."""

    def __init__(self, case: str, mode: str | None, shared: tuple[str, ...], skip: int = 0):
        script, options, _ = CASES[case]
        mode_options = () if mode is None else (f"--mode={mode}", f"--skip={skip}")
        command = [sys.executable, str(HERE / script), "--wait", *options, *mode_options, *shared]
        self.case, self.mode, self.shared, self.done = case, mode, shared, skip
        self._did_not_fit = False
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )

    def kill(self) -> None:
        """End the process and what it started: the compiler's workers would hold its output open."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def rows(self, seconds: float) -> Iterator[dict]:
        """Yield the rows; a last one says why there are no more, where the process failed or was ended."""
        head = {"case": self.case, **({} if self.mode is None else {"mode": self.mode})}
        if seconds < 10:
            self.kill()
            yield {**head, "skipped": "no time was left"}
            return
        late = threading.Event()
        timer = threading.Timer(min(seconds, LONGEST), lambda: (late.set(), self.kill()))
        timer.start()
        try:
            with contextlib.suppress(BrokenPipeError), self.process.stdin as begin:
                begin.write("begin\n")
            for line in self.process.stdout:
                if line.startswith("{"):
                    row = json.loads(line)
                    self.done += 1
                    self._did_not_fit = row.get("failed", "").startswith("OutOfMemoryError")
                    yield {**head, **row}
            code = self.process.wait()
        finally:
            timer.cancel()
            self.kill()
        if late.is_set():
            yield {**head, "skipped": "the time ran out here"}
        elif code:
            self._errors.seek(0)
            said = self._errors.read()
            print(said[-3000:], file=sys.stderr)
            yield {**head, "error": (said.strip().splitlines() or [f"exit code {code}"])[-1]}

    def rest(self) -> "Job | None":
        """Return a job for the sizes after one that did not fit; None where that was not so."""
        if not self._did_not_fit or self.mode is None:
            return None
        return Job(self.case, self.mode, self.shared, self.done)


def render(rows: list[dict]) -> str:
    """Return the tables in Markdown."""
    head = next((row for row in rows if "device" in row), {})
    versions = ", ".join(f"{name} {head.get(name)}" for name in ("torch", "deepspeed", "timm"))
    lines = [f"# GPU: {head.get('device')}, {versions}", ""]
    lines += ["`benchmarks/gpu/run_all.sh`", ""]
    lines += [
        "ViT-g unless said. A training step with AdamW on random images, bf16; medians. Plain torch: "
        "float32 weights under autocast. MFU counts model operations only, over the card's dense bf16 peak; "
        "`-` where that is not known.",
    ]
    tables = (RATES, "what"), (TRUNKS, "images/s"), (STEPS, "ratio"), (OPERATIONS, "op"), (PARTS, "part")
    for columns, wanted in tables:
        lines += ["", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in (r for r in rows if wanted in r):
            lines.append("| " + " | ".join(cell(row.get(c)) for c in columns) + " |")
    lines += [""] + [f"- {r['case']}: {r}" for r in rows if {"error", "skipped", "failed"} & r.keys()]
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
