"""How long do the steps wait for a checkpoint that is saved at once, and for one saved in the background?

    deepspeed --num_gpus 2 benchmarks/checkpoint_stall.py --write

Both ways in turn, in one run, on ranks under ZeRO-3 (gloo on a CPU). Waiting is all the time in `save` and,
in the background, also that in which a later step finds every rank's files written and makes the checkpoint
whole. Steps beside the writing may be slower, most on a CPU that both want: their time stands beside it.
"""

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import workload

from ufo_large.distributed import comm, zero
from ufo_large.distributed.checkpoint import complete_checkpoints, verify_checkpoint
from ufo_large.distributed.saving import Saver
from ufo_large.tracking.environment import commit_text, describe_environment

SIZES = {"cls": 56, "dec": 56, "seg": 56}
STATE = {"ema": None}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", help="on the disk to write to (the system's for temporary files)")
    parser.add_argument("--width", type=int, default=640, help="of the trunk")
    parser.add_argument("--depth", type=int, default=12, help="blocks")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--local_rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    device = zero.init_distributed()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root = Path(comm.all_gather_objects(folder)[0]) / "checkpoints"
        found = measure(args, device, root)
        comm.barrier()
    if not comm.is_main():
        return
    text = render(args, found)
    print(text)
    if args.write:
        name = f"checkpoint_stall_{os.uname().machine}_{time.strftime('%Y%m')}.md"
        (workload.RESULTS / name).write_text(text + "\n")
    if args.json:
        print(json.dumps(found))


def measure(args: argparse.Namespace, device: torch.device, root: Path) -> dict:
    """Return seconds by what they were spent on, one value per repeat, and sizes."""
    ds = workload.read_ds("zero3_fp32")
    shape = {"depth": args.depth, "embed_dim": args.width, "num_heads": args.width // 64}
    trunk = workload.trunk_config("ViT-g/14", "shared", "none", **shape)
    model = workload.build_model(workload.model_config(trunk, pyramid_width=64), ds)
    engine = workload.build_engine(model, ds, device)
    runner, rates = workload.build_runner(engine, SIZES), workload.rates(engine, model)
    savers = [Saver(root, engine, newest, in_background) for in_background in (False, True)]
    rows = [once(n, savers, lambda: runner.run(0, rates)) for n in range(args.repeats + 1)]
    files = complete_checkpoints(root)[-1].rglob("*")
    return {
        "seconds": {name: [row[name] for row in rows[1:]] for name in rows[0]},  # the first warms up
        "bytes": sum(f.stat().st_size for f in files if f.is_file()),
        "parameters": sum(p.ds_numel for p in model.parameters()),
    }


def once(repeat: int, savers: list[Saver], step: Callable[[], object]) -> dict[str, float]:
    """Save both ways, with steps before and beside; check what was written."""
    blocking, background = savers
    alone = timed(step)
    at_once = timed(lambda: blocking.save(2 * repeat + 1, STATE))
    begun = time.perf_counter()
    waited = [timed(lambda: background.save(2 * repeat + 2, STATE))]
    beside = []
    while complete_checkpoints(background.root)[-1].name != f"step-{2 * repeat + 2:08d}":
        beside.append(timed(step))
        waited.append(timed(background.poll))
    whole = time.perf_counter() - begun
    verify_checkpoint(complete_checkpoints(background.root)[-1])
    return {
        "at once": at_once,
        "background": sum(waited),
        "copy": waited[0],
        "share": sum(waited) / at_once,
        "until whole": whole,
        "step": alone,
        "step beside": statistics.mean(beside),
    }


def timed(action: Callable[[], object]) -> float:
    """Return the seconds that an action takes, from when all ranks begin it."""
    comm.barrier()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def newest(steps: Sequence[int]) -> Sequence[int]:
    return steps[-1:]


def render(args: argparse.Namespace, found: dict) -> str:
    environment = describe_environment()
    hardware, versions, commit = (environment[k] for k in ("hardware", "versions", "commit"))
    size, seconds = found["bytes"] / 2**20, found["seconds"]

    def cell(name: str, unit: str = ".3f") -> str:
        values = seconds[name]
        return f"{statistics.median(values):{unit}} ({min(values):{unit}}, {max(values):{unit}})"

    return "\n".join(
        [
            "# How long the steps wait for a checkpoint",
            "",
            f"`deepspeed --num_gpus {comm.world_size()} {shlex.join(command())}` on {hardware['processor']}, "
            f"{os.cpu_count()} cores, no GPU; torch {versions['torch']}, deepspeed {versions['deepspeed']}; "
            f"commit {commit_text(commit)}.",
            "",
            f"{found['parameters'] / 1e6:.1f} M parameters of three tasks, ZeRO-3 in float32 on "
            f"{comm.world_size()} gloo ranks, {size:.0f} MiB a checkpoint: hashed, written, fsynced and made "
            f"whole, the one before removed. Each way in turn, median (min, max) of {args.repeats} after one "
            "that is not counted; seconds of rank 0, from when both ranks begin.",
            "",
            "| save | the steps wait, s | until the checkpoint is whole, s |",
            "| --- | ---: | ---: |",
            f"| at once (`save_async=false`) | {cell('at once')} | the same |",
            f"| in the background (`save_async=true`) | {cell('background')} | {cell('until whole')} |",
            "",
            f"In the background the steps wait for {cell('share', '.1%')} of what they wait for the save at "
            f"once that came before. {cell('copy')} s of it is the copy into host memory. A step takes "
            f"{cell('step')} s alone and {cell('step beside')} s beside the writing, which wants the same "
            f"{os.cpu_count()} cores.",
        ]
    )


def command() -> list[str]:
    """Return this command's words without what the launcher added."""
    own = [word for word in sys.argv[1:] if not word.startswith("--local_rank")]
    return ["benchmarks/checkpoint_stall.py", *own]


if __name__ == "__main__":
    main()
