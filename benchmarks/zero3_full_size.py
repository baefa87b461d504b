"""What does one of eight ranks hold and send when the real ViT-g and ViT-G train routed under ZeRO-3?

    python benchmarks/zero3_full_size.py --write                     # everything, and the result file
    deepspeed --num_gpus 2 benchmarks/zero3_full_size.py --true-step # true steps of 0.3 B on two gloo ranks

Each model is built sharded, filled name by name and trained on three tasks in a process of its own, as rank 0
of a fake process group: memory, number and size of collectives are real, values are not (see one_rank.py).
The images are tiny, so activations, which do not depend on sharding, are left out. CPU only.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import one_rank
import true_step
import workload

from ufo_large.tracking.environment import commit_text, describe_environment


@dataclass(frozen=True, slots=True)
class Case:
    """One row: what is trained, on how many ranks, and settings in place of the DeepSpeed config's."""

    preset: str
    router: str
    world: int = 8
    zero: tuple[tuple[str, int], ...] = ()


LESS_GATHERED = (("stage3_max_live_parameters", 10**9), ("stage3_max_reuse_distance", 10**9))
SHOWN = {
    "ViT-g dense": Case("ViT-g/14", "shared"),
    "ViT-g, an expert a task": Case("ViT-g/14", "task"),
    "ViT-g, shared and an expert a task": Case("ViT-g/14", "learned"),
    "ViT-G, an expert a task": Case("ViT-G/14", "task"),
    "ViT-G, shared and an expert a task, 16 ranks": Case("ViT-G/14", "learned", world=16),
    "ViT-G, shared and an expert a task, 1e9 live": Case("ViT-G/14", "learned", zero=LESS_GATHERED),
}
DS, CHECKPOINTING = "zero3_bf16", "full"
# glibc keeps blocks below its threshold in a heap that it seldom returns; so each tensor is mapped alone
RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
KINDS = ("allgather", "reduce_scatter", "allreduce", "broadcast")
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cases", nargs="*", default=list(SHOWN), help=f"some of: {'; '.join(SHOWN)}")
    parser.add_argument("--side", type=int, default=28, help="pixels")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--depth", type=int, help="blocks, for a trial; the table then says so")
    parser.add_argument("--true-step", action="store_true")
    parser.add_argument("--no-true-step", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.true_step:
        found = true_step.run(args.depth or 5)
        if found is not None:
            print(json.dumps(found))
    elif args.case:
        shape = {"depth": args.depth} if args.depth else {}
        case, ds = SHOWN[args.case], workload.read_ds(DS)
        ds["zero_optimization"].update(case.zero)
        trunk = workload.trunk_config(case.preset, case.router, CHECKPOINTING, **shape)
        print(json.dumps(one_rank.measure(trunk, ds, case.world, args.side, args.steps)))
    else:
        report(args)


def report(args: argparse.Namespace) -> None:
    """Run every case in a process of its own, print the tables, write them with `--write`."""
    options = [f"--side={args.side}", f"--steps={args.steps}"]
    options += [f"--depth={args.depth}"] if args.depth else []
    start, found = time.perf_counter(), {}
    for case in args.cases:
        found[case] = child([sys.executable, __file__, "--case", case, *options])
        print(f"{case}: {found[case]['peak_gib']}", file=sys.stderr, flush=True)
    true = None
    if not args.no_true_step:
        launcher = str(Path(sys.executable).with_name("deepspeed"))
        depth = [f"--depth={args.depth}"] if args.depth else []
        true = child([launcher, "--num_gpus", "2", __file__, "--true-step", *depth])
    text = render(args, found, true, time.perf_counter() - start)
    print(text)
    if args.write:
        name = f"zero3_full_size_cpu_{time.strftime('%Y%m')}.md"
        (workload.RESULTS / name).write_text(text + "\n")
    if args.json:
        print(json.dumps({"cases": found, "true_step": true}))


def child(command: list[str]) -> dict[str, Any]:
    """Return the JSON object that a command prints as its last line."""
    with tempfile.TemporaryFile("w+") as log:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env={**os.environ, **RETURN_MEMORY}
        )
        log.seek(0)
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{log.read()[-3000:]}\n{done.stdout[-2000:]}")
    lines = [line for line in done.stdout.splitlines() if line.partition("{")[1]]
    return json.loads(next(line[line.index("{") :] for line in reversed(lines) if line.endswith("}")))


def render(args: argparse.Namespace, found: dict, true: dict | None, seconds: float) -> str:
    environment = describe_environment()
    hardware, versions, commit = (environment[k] for k in ("hardware", "versions", "commit"))
    lines = [
        "# ZeRO-3 at full size: what one rank holds and sends",
        "",
        f"`python {shlex.join(sys.argv)}` on {hardware['processor']}, {hardware['cores']} cores, "
        f"{hardware['memory_gib']} GiB, no GPU; torch {versions['torch']}, "
        f"deepspeed {versions['deepspeed']}, timm {versions['timm']}; "
        f"commit {commit_text(commit)}; "
        f"{seconds / 60:.0f} minutes.",
        "",
        "Rank 0 of 8 (one row: of 16) under torch's fake process group: real parameters, real DeepSpeed, "
        f"three tasks (classification, detection, segmentation), one {args.side}x{args.side} image each, "
        "AdamW, gradients balanced by `tbgn`. Every block is routed"
        + (f", {args.depth} blocks only" if args.depth else "")
        + f". `ds_configs/{DS}.json`, in the row `1e9 live` with less gathered at a time, so that it "
        f"fits into this kind of machine; checkpointing `{CHECKPOINTING}`.",
        "",
        *memory_table(found),
        "",
        *collective_table(found, args.steps),
    ]
    if true is not None:
        lines += ["", *true_step.render(true)]
    return "\n".join(lines)


def memory_table(found: dict[str, dict]) -> list[str]:
    """Held between steps: the formula (bytes a parameter over the ranks) beside the tensors' own bytes."""
    names = list(next(iter(found.values()))["held_bytes"])
    head = ["model", "parameters, B", *names, "sum", "between steps", "peak", "built by", "filled at"]
    lines = [
        "## Memory of one rank, GiB",
        "",
        "Measured / computed. Computed: 2 bytes a parameter for the bf16 shard, 4 for its float32 copy, 4 "
        "for gradients, 8 for Adam's moments, and 4 bytes a task for each shared parameter, all over the "
        "ranks. `between steps`: resident memory of the process after a step, with 0.6 GiB of libraries. "
        "`peak`: in the steps, with the gathered parameters of one task and the gradients of one block. "
        "`filled at`: peak while the model is built sharded and its values stream in.",
        "",
        "| " + " | ".join(head) + " |",
        "| --- |" + " ---: |" * (len(head) - 1),
    ]
    for case, f in found.items():
        formula = computed_bytes(f)
        cells = [f"{f['held_bytes'][n] / GIB:.2f} / {formula[n] / GIB:.2f}" for n in names]
        total = sum(f["held_bytes"].values()) / GIB, sum(formula.values()) / GIB
        peaks = [f["peak_gib"]["steps"], f["seconds"]["model"], f["peak_gib"]["model"]]
        rests = f["between_steps_gib"]
        row = [case, f"{f['numel']['all'] / 1e9:.3f}", *cells, f"{total[0]:.2f} / {total[1]:.2f}"]
        row += [f"{rests:.2f}", f"{peaks[0]:.2f}", f"{peaks[1]:.0f} s", f"{peaks[2]:.2f}"]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def computed_bytes(found: dict[str, Any]) -> dict[str, float]:
    """Return the bytes a rank must hold between steps, from parameter counts alone (bf16, AdamW)."""
    share, shared = found["numel"]["all"] / found["world"], found["numel"]["shared"] / found["world"]
    return {
        "parameters": 2 * share,
        "float32 copy": 4 * share,
        "gradients": 4 * share,
        "Adam's moments": 8 * share,
        "task gradients": 4 * len(workload.TASKS) * shared,
    }


def collective_table(found: dict[str, dict], steps: int) -> list[str]:
    lines = [
        "## Collectives of one optimizer step",
        "",
        f"Step {steps}, three micro-batches (one a task). Bytes are those of the whole tensors, GB. `over "
        "need`: bytes gathered over the bytes of the parameters that each task uses, counted once a task.",
        "",
        "| model | " + " | ".join(f"{k}s | GB" for k in KINDS) + " | over need | s a step here |",
        "| --- |" + " ---: |" * (2 * len(KINDS) + 2),
    ]
    for case, f in found.items():
        cells = []
        for kind in KINDS:
            count, size = f["collectives"].get(kind, (0, 0))
            cells += [str(count), f"{size / 1e9:.2f}"]
        over = f["collectives"]["allgather"][1] / f["used_bytes"]
        per_step = f["seconds"]["steps"] / f["steps"]
        lines.append(f"| {case} | " + " | ".join([*cells, f"{over:.2f}", f"{per_step:.0f}"]) + " |")
    others = {k for f in found.values() for k in f["collectives"]} - set(KINDS)
    return [*lines, *([f"\nOther kinds: {sorted(others)}"] if others else [])]


if __name__ == "__main__":
    main()
