"""Run each case in a process of its own within one time budget; write JSON lines and a table after each.

A case that fails, or for which no time is left, is written down as such; the others go on.
"""

import argparse
import json
import os
import subprocess
import sys
import time
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
    for case in args.cases:
        rows += run(case, args.toy, end - time.monotonic())
        name = "gpu_toy" if args.toy else "gpu"
        (args.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (args.out / f"{name}.md").write_text(render(rows))
    print(render(rows))
    if any("error" in row for row in rows):
        sys.exit(1)


def run(case: str, toy: bool, seconds: float) -> list[dict]:
    """Return a case's JSON lines; what it printed before it failed or ran out of time counts."""
    if seconds < 10:
        return [{"case": case, "skipped": "no time was left"}]
    script, *options = CASES[case]
    command = [sys.executable, str(HERE / script), *options, *(["--toy"] if toy else [])]
    failure = None
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        out = done.stdout
        if done.returncode:
            failure = {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
            print(done.stderr[-3000:], file=sys.stderr)
    except subprocess.TimeoutExpired as late:
        out, failure = (late.stdout or b"").decode(), {"skipped": "the time ran out here"}
    rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    rows += [failure] if failure else []
    for row in rows:
        print(case, row, file=sys.stderr, flush=True)
    return [{"case": case, **row} for row in rows]


def render(rows: list[dict]) -> str:
    """Return the tables in Markdown."""
    head = next((row for row in rows if "device" in row), {})
    lines = [f"# GPU: {head.get('device')}, torch {head.get('torch')}", ""]
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
