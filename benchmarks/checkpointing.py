"""What does each mode of activation checkpointing cost and save, and does it change a gradient?

    python benchmarks/checkpointing.py --write

ViT-g's first blocks, an expert a task in each, in float32 on the CPU in plain torch, the same images and
weights in every mode, each in a process of its own. `kept` is what the process grew by in the forward pass.
On a CPU `offload` saves nothing over `full`: host memory is where it moves a block's input to. GPU figures:
benchmarks/gpu.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
import workload

from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.tracking.environment import commit_text, describe_environment


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--width", type=int, help="of the trunk, for a trial")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--mode", help=argparse.SUPPRESS)
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.mode:
        print(json.dumps(measure(args)))
        return
    found = compare(args)
    text = render(args, found)
    print(text)
    if args.write:
        (workload.RESULTS / f"checkpointing_cpu_{time.strftime('%Y%m')}.md").write_text(text + "\n")
    if args.json:
        print(json.dumps(found))


def measure(args: argparse.Namespace) -> dict:
    """Train one mode; write its gradients to a file; return bytes kept and seconds a step."""
    torch.manual_seed(0)
    shape = {"depth": args.depth} | ({"embed_dim": args.width, "num_heads": 2} if args.width else {})
    trunk = workload.trunk_config("ViT-g/14", "task", args.mode, **shape).build(("cls", "seg"))
    images = torch.randint(0, 256, (args.images, 3, args.side, args.side), dtype=torch.uint8)
    sizes = torch.full((args.images, 2), args.side)
    seconds, kept = [], []
    for _ in range(args.repeats + 1):
        trunk.zero_grad(set_to_none=False)
        before, start = resident_bytes(), time.perf_counter()
        features = trunk(images, sizes, "seg")
        loss = features.pooled_BD.square().mean() + features.map_BDHW.sin().mean()
        kept.append(resident_bytes() - before)
        loss.backward()
        seconds.append(time.perf_counter() - start)
        del features, loss
    torch.save({n: p.grad for n, p in trunk.named_parameters() if p.grad is not None}, args.gradients)
    return {
        "parameters": sum(p.numel() for p in trunk.parameters()),
        "kept_bytes": statistics.median(kept[1:]),
        "seconds": seconds[1:],
    }


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def compare(args: argparse.Namespace) -> dict[str, dict]:
    """Run every mode in a process of its own; add the largest difference of a gradient from `none`."""
    found = {}
    options = [f"--{n}={v}" for n, v in vars(args).items() if n in ("depth", "images", "side", "repeats")]
    options += [f"--width={args.width}"] if args.width else []
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}  # freed tensors leave the process at once
    with tempfile.TemporaryDirectory() as folder:
        for mode in CHECKPOINTING:
            path = Path(folder, mode)
            command = [sys.executable, __file__, *options, f"--mode={mode}", f"--gradients={path}"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            found[mode] = json.loads(done.stdout.splitlines()[-1])
            expected, seen = torch.load(Path(folder, "none"), mmap=True), torch.load(path, mmap=True)
            if list(expected) != list(seen):
                raise RuntimeError(f"{mode}: not the same parameters have gradients")
            found[mode]["difference"] = max(float((expected[n] - g).abs().max()) for n, g in seen.items())
            found[mode]["largest_gradient"] = max(float(g.abs().max()) for g in expected.values())
            if mode != "none":
                path.unlink()
    return found


def render(args: argparse.Namespace, found: dict[str, dict]) -> str:
    environment = describe_environment()
    hardware, versions, commit = (environment[k] for k in ("hardware", "versions", "commit"))
    plain = statistics.median(found["none"]["seconds"])
    first = found["none"]
    lines = [
        "# Activation checkpointing: memory, time, gradients",
        "",
        f"`python {shlex.join(sys.argv)}` on {hardware['processor']}, {hardware['cores']} cores, no GPU; "
        f"torch {versions['torch']}, timm {versions['timm']}; commit {commit_text(commit)}.",
        "",
        f"ViT-g's first {args.depth} blocks, an expert a task ({first['parameters'] / 1e9:.3f} B parameters)"
        f", {args.images} images of {args.side}x{args.side} pixels, float32, plain torch, drop path off. A "
        f"forward and backward pass, median (min, max) of {args.repeats} after one that is not counted. "
        f"Largest gradient: {first['largest_gradient']:.2e}.",
        "",
        "| mode | kept by the forward pass, MiB an image | s a pass | to none | gradient differs by |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for mode, f in found.items():
        kept = f["kept_bytes"] / args.images / 2**20
        middle = statistics.median(f["seconds"])
        times = f"{middle:.2f} ({min(f['seconds']):.2f}, {max(f['seconds']):.2f})"
        lines.append(f"| {mode} | {kept:.0f} | {times} | {middle / plain:.2f} | {f['difference']:.1e} |")
    lines += ["", "On a CPU `offload` moves a block's input to where it is: its memory is that of `full`."]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
