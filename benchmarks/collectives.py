"""Does every rank of a large world issue the same collectives, and how many bytes do they gather?

    python benchmarks/collectives.py --write      # all rows and the result file: half an hour
    python benchmarks/collectives.py --rows toy   # all schedules on a model of width 48: minutes
    python benchmarks/collectives.py --rows toy --write    # and put these rows into the result file

Ranks run one after another, each as the only real one of a fake process group (see one_rank.py), with images
and random numbers of its own. Ranks whose collectives differ in kind, dtype, size, group or order would wait
for each other for ever; here they show two digests. What is traced: collective_rows.py.
"""

import argparse
import json
import multiprocessing
import os
import shlex
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import one_rank
import torch
import workload
from collective_rows import GPUS_PER_NODE, Row, rows
from zero3_full_size import KINDS, RETURN_MEMORY

from ufo_large.tracking.environment import commit_text, describe_environment

STEPS = 3
HOW_TO_READ = f"""
Each rank ran alone under torch's fake process group, with its own images and random numbers; every second one
had no box and no labelled pixel. `same`: all traced ranks issued the same collectives (kind, dtype, elements,
group) in the same order, from the building of the engine to the last of {STEPS} steps, and went through
modules and parameters in the same order. Counts and bytes are those of the last step on the first rank.

`need`: in stage 3 the bytes of the parameters that each micro-batch uses, once per micro-batch; in stages 1
and 2 those of all trained parameters, once per step. `between nodes`: what groups of more than one node of
{GPUS_PER_NODE} GPUs gather, over the need as well.

`toy`: a trunk of 2 blocks, width 48. `ViT-g, narrow`: 40 blocks, a shared and an expert path per task in
each, three tasks in turn, at 1/16 of the width and with buckets and limits of 1/256, so that as many gathers
result as at full width: zero3_full_size_cpu_202611.md has, for 3.1 B parameters under `zero3_bf16`, 15
gathers, 54 reduce-scatters and 1.00.
"""
CONCLUSIONS = "\n\n## What it shows"
HEAD = (
    "| schedule | `ds_configs/` | ranks | traced | same | "
    + " | ".join(f"{kind}s" for kind in KINDS)
    + " | gathered / need | of it between nodes |",
    "| --- | --- | ---: | --- | --- |" + " ---: |" * (len(KINDS) + 2),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="*", default=[""], help="those whose name has one of these in it")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    path = workload.RESULTS / f"collectives_cpu_{time.strftime('%Y%m')}.md"
    start, found, lines = time.perf_counter(), {}, {}
    text = path.read_text() if path.exists() else ""
    for row in rows():
        if any(word in row.name for word in args.rows):
            found[row.name] = summary([in_a_child(row, rank) for rank in row.ranks])
            lines[row.name] = line(row, found[row.name])
            print(lines[row.name], file=sys.stderr, flush=True)
            if args.write:
                path.write_text(
                    render(kept_rows(text) | lines, time.perf_counter() - start) + conclusions(text)
                )
    print(render(lines, time.perf_counter() - start))
    if args.json:
        print(json.dumps(found))


def summary(seen: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures of the first of several ranks, in its last step, and whether all agree."""
    first = seen[0]
    return {
        "same": all(rank["digests"] == first["digests"] for rank in seen),
        **{key: first[key] for key in ("calls", "gathered", "across_nodes", "need")},
    }


def in_a_child(row: Row, rank: int) -> dict[str, Any]:
    """Return `one_rank.trace` of a rank, run in a process of its own, whose memory comes back at its end."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=_child, args=(results, row, rank))
    process.start()
    found, error = results.get()
    process.join()
    if error:
        raise RuntimeError(f"rank {rank} of {row.world}:\n{error}")
    return found


def _child(results: Any, row: Row, rank: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        results.put((trace(row, rank), None))
    except BaseException:
        results.put((None, traceback.format_exc()))


def trace(row: Row, rank: int) -> dict[str, Any]:
    """Return what this process saw as a rank of the row; it can be one only once."""
    schedule, ds = row.build()
    return one_rank.trace(schedule, ds, row.world, rank, STEPS, GPUS_PER_NODE)


def line(row: Row, found: Mapping[str, Any]) -> str:
    """Return a row of the table."""
    ranks = "all" if len(row.ranks) == row.world else ", ".join(map(str, row.ranks))
    calls = [found["calls"].get(kind, 0) for kind in KINDS]
    shares = [f"{found[key] / found['need']:.2f}" for key in ("gathered", "across_nodes")]
    same = "yes" if found["same"] else "NO"
    return "| " + " | ".join(map(str, [row.schedule, row.ds, row.world, ranks, same, *calls, *shares])) + " |"


def kept_rows(text: str) -> dict[str, str]:
    """Return the rows of a result file, by name, that the script still has."""
    there = [written for written in text.splitlines() if written.startswith("| ")]
    starts = {row.name: f"| {row.schedule} | {row.ds} | {row.world} |" for row in rows()}
    found = {name: [written for written in there if written.startswith(s)] for name, s in starts.items()}
    return {name: lines[0] for name, lines in found.items() if lines}


def conclusions(text: str) -> str:
    """Return what a person wrote below the table of a result file."""
    _, heading, written = text.partition(CONCLUSIONS)
    return heading + written or "\n"


def render(lines: Mapping[str, str], seconds: float) -> str:
    """Return the result file up to its table, the rows in the order of the script."""
    environment = describe_environment()
    hardware, versions, commit = (environment[k] for k in ("hardware", "versions", "commit"))
    used = ", ".join(f"{name} {versions[name]}" for name in ("torch", "deepspeed", "timm"))
    made = (
        f"Last rows by `python {shlex.join(sys.argv)}` on {hardware['processor']}, "
        f"{hardware['cores']} cores, {hardware['memory_gib']} GiB, no GPU; {used}; "
        f"commit {commit_text(commit)}; {seconds / 60:.0f} minutes."
    )
    title = "# Collectives of a step, rank by rank, without the ranks"
    ordered = [lines[row.name] for row in rows() if row.name in lines]
    return "\n".join([title, "", made, HOW_TO_READ, *HEAD, *ordered])


if __name__ == "__main__":
    if not RETURN_MEMORY.keys() <= os.environ.keys():
        again = subprocess.run([sys.executable, *sys.argv], env={**os.environ, **RETURN_MEMORY})
        sys.exit(again.returncode)
    main()
