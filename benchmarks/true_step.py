"""True optimizer steps of a model of ViT-g's blocks on the ranks of a real (gloo) process group, checked."""

import math
import time
import zlib
from collections.abc import Iterator
from typing import Any

import torch
import workload
from torch import Tensor

from ufo_large.distributed import comm, zero
from ufo_large.distributed.engine import Engine

SIZES = {"cls": 224, "dec": 224, "seg": 224}


def run(depth: int, sizes: dict[str, int] = SIZES, **shape: Any) -> dict[str, Any] | None:
    """Take two steps of ViT-g's first `depth` blocks, an expert a task in each; return what rank 0 saw.

    Raises RuntimeError where a loss is not finite, the second step's loss is not lower, or a parameter that
    a task used did not move. The other ranks get None.
    """
    device = zero.init_distributed()
    ds, empty = workload.read_ds("zero3_fp32"), workload.peak_gib()
    config = workload.model_config(workload.trunk_config("ViT-g/14", "task", "full", depth=depth, **shape))
    model = workload.build_model(config, ds)
    engine = workload.build_engine(model, ds, device)
    runner, rates = workload.build_runner(engine, sizes), workload.rates(engine, model)
    before = dict(fingerprints(engine))
    workload.reset_peak()
    losses, seconds = [], []
    for step in range(2):
        start = time.perf_counter()
        logged = runner.run(step, rates)
        seconds.append(time.perf_counter() - start)
        losses.append({k: v for k, v in logged.items() if k.endswith("/total")})
    peaks = comm.all_gather_objects(workload.peak_gib())
    unmoved = sorted(n for n, after in fingerprints(engine) if after == before[n])
    check(losses, unmoved if comm.is_main() else [])
    found = {
        "parameters": sum(p.ds_numel for p in model.parameters()),
        "depth": depth,
        "side": sizes,
        "ranks": comm.world_size(),
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "losses": losses,
        "peak_gib": peaks,
        "empty_gib": empty,
        "tensors": len(before),
        "unmoved": unmoved,
    }
    return found if comm.is_main() else None


def fingerprints(engine: Engine) -> Iterator[tuple[str, int]]:
    """Yield a checksum of every parameter; gathered one by one, so called on all ranks."""
    trained = {name for name, p in engine.module.named_parameters() if p.requires_grad}
    for name, tensor in engine.full_parameters():
        if name in trained:
            yield name, checksum(tensor)


def checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().numpy().tobytes()) if tensor.numel() else 0


def check(losses: list[dict[str, float]], unmoved: list[str]) -> None:
    for step, values in enumerate(losses):
        if not all(math.isfinite(v) for v in values.values()):
            raise RuntimeError(f"step {step}: a loss is not finite: {values}")
    if not sum(losses[1].values()) < sum(losses[0].values()):
        raise RuntimeError(f"the same images again, and no lower loss: {losses}")
    if unmoved:
        raise RuntimeError(f"these parameters did not move in two steps: {unmoved}")


def render(found: dict[str, Any]) -> list[str]:
    """Return the section of the result file."""
    first, second = found["losses"]
    rows = [f"| {name} | {first[name]:.4f} | {second[name]:.4f} |" for name in first]
    peaks = ", ".join(f"{p:.2f}" for p in found["peak_gib"])
    times = ", ".join(f"{s:.1f}" for s in found["seconds"])
    return [
        f"## True steps on {found['ranks']} gloo ranks",
        "",
        f"`deepspeed --num_gpus {found['ranks']} benchmarks/zero3_full_size.py --true-step`: ViT-g's first "
        f"{found['depth']} blocks, each with an expert a task, and the three heads: "
        f"{found['parameters'] / 1e9:.3f} B parameters in float32 (`ds_configs/zero3_fp32.json`), AdamW, one "
        f"image a task and rank of {found['side']['cls']} pixels, checkpointing `full`, {found['threads']} "
        "thread(s) a rank.",
        "",
        "| loss | step 1 | step 2, the same images |",
        "| --- | ---: | ---: |",
        *rows,
        "",
        f"All losses finite. {found['tensors'] - len(found['unmoved'])} of {found['tensors']} parameters "
        f"moved. Peak RSS in the steps {peaks} GiB a rank ({found['empty_gib']:.2f} before the model). "
        f"Seconds a step: {times}.",
    ]
