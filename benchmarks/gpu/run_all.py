"""Run each case in a process of its own within one time budget; write JSON lines and a table after each.

A case that fails, or for which no time is left, is written down as such; the others go on. Results are
written after every row, so a run that is cut off keeps what it had.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALL, TWO = "none,selective,full,offload", "none,full"
CASES = {  # most wanted first
    "matrix and attention": ("rates.py",),
    "timm's model, plain loop": ("trunk.py", "--model=timm", "--modes=none"),
    "dense trunk, plain torch": ("trunk.py", f"--modes={ALL}"),
    "dense trunk, plain torch, compiled": ("trunk.py", "--modes=none,selective", "--compile"),
    "dense trunk, ZeRO-3": ("trunk.py", f"--modes={ALL}", "--zero3"),
    "an expert a task, plain torch": ("trunk.py", f"--modes={TWO}", "--router=task"),
    "an expert a task, ZeRO-3": ("trunk.py", f"--modes={TWO}", "--router=task", "--zero3"),
    "dense trunk, ZeRO-3, compiled": ("trunk.py", "--modes=none,selective", "--zero3", "--compile"),
    "timm's model, plain loop, compiled": ("trunk.py", "--model=timm", "--modes=none", "--compile"),
}
CASE_SECONDS = 130  # a case that hangs costs no more than this
RATES, TRUNKS = ("what", "TFLOP/s"), ("case", "mode", "side", "images", "images/s", "MFU", "peak GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="toy size on the CPU")
    parser.add_argument("--budget", type=float, default=500, help="seconds in all")
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=f"some of: {'; '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=os.environ.get("OUT", HERE.parent / "results"))
    args = parser.parse_args()
    rows, end = [], time.monotonic() + args.budget
    args.out.mkdir(parents=True, exist_ok=True)
    name = "gpu_toy" if args.toy else "gpu"
    for case in args.cases:
        for row in run(case, args.toy, min(end - time.monotonic(), CASE_SECONDS)):
            print(case, row, file=sys.stderr, flush=True)
            rows.append({"case": case, **row})
            (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            (args.out / f"{name}.md").write_text(render(rows))
    print(render(rows))
    if any("error" in row for row in rows):
        sys.exit(1)


def run(case: str, toy: bool, seconds: float) -> Iterator[dict]:
    """Yield a case's JSON lines as they come, and last why there are no more of them."""
    if seconds < 10:
        yield {"skipped": "no time was left"}
        return
    script, *options = CASES[case]
    command = [sys.executable, str(HERE / script), *options, *(["--toy"] if toy else [])]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        late = threading.Event()

        def stop() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)  # compilers that it started too

        timer = threading.Timer(seconds, stop)
        timer.start()
        yield from (json.loads(line) for line in process.stdout if line.startswith("{"))
        process.wait()
        timer.cancel()
        errors.seek(0)
        said = errors.read()
    if late.is_set():
        yield {"skipped": "the time ran out here"}
    elif process.returncode:
        print(said[-3000:], file=sys.stderr)
        yield {"error": (said.strip().splitlines() or ["no message"])[-1]}


def render(rows: list[dict]) -> str:
    """Return the tables in Markdown."""
    head = next((row for row in rows if "device" in row), {})
    here = {package.name: package.version for package in metadata.distributions()}
    versions = ", ".join(f"{name} {here.get(name)}" for name in ("deepspeed", "timm"))
    lines = [f"# GPU: {head.get('device')}, torch {head.get('torch')}, {versions}", ""]
    lines += ["`benchmarks/gpu/run_all.sh`", ""]
    lines += [
        "ViT-g unless said. A training step with AdamW on random images, bf16; medians. Plain torch: "
        "float32 weights under autocast. MFU counts model operations only, over the card's dense bf16 peak; "
        "`-` where that is not known.",
    ]
    for columns, wanted in ((RATES, "what"), (TRUNKS, "images/s")):
        lines += ["", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
        for row in (r for r in rows if wanted in r):
            lines.append("| " + " | ".join(cell(row.get(c)) for c in columns) + " |")
    lines += [""] + [f"- {r['case']}: {r}" for r in rows if {"error", "skipped", "failed"} & r.keys()]
    return "\n".join(lines) + "\n"


def cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
