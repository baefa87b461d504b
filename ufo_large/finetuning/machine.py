"""What this machine has: GPUs, processor cores, free memory, bfloat16."""

import os
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from ufo_large.processes.processor import processor_flags

GB = 1 << 30
GROUP = Path("/sys/fs/cgroup")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86, x86, Arm
GPU_FLOPS, CORE_FLOPS = 3e13, 3e10


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """`memory`: bytes of all `gpus` together, or what is free of the processor's where there is none.

    `bf16`: the device multiplies bfloat16 faster than float32.
    """

    gpus: int
    cores: int
    memory: int
    bf16: bool

    @property
    def ranks(self) -> int:
        """One process per GPU; one in all on a processor, whose cores share its operations."""
        return max(self.gpus, 1)

    @property
    def guessed_flops(self) -> float:
        """Operations per second, a guess that only chooses what is measured first."""
        return self.gpus * GPU_FLOPS if self.gpus else self.cores * CORE_FLOPS

    @property
    def ds(self) -> str:
        """The DeepSpeed JSON: ZeRO-3 where ranks or bfloat16 gain by it, else one plain process."""
        if self.bf16:
            return "zero3_bf16"
        return "zero3_fp32" if self.gpus else "none"

    def __str__(self) -> str:
        what = (
            f"{self.gpus} GPUs"
            if self.gpus > 1
            else "1 GPU"
            if self.gpus
            else f"{self.cores} processor cores"
        )
        return f"{what}, {self.memory / GB:.1f} GB, {'bfloat16' if self.bf16 else 'float32'}"


def this_machine(gpus: int | None = None) -> Machine:
    """Look at this machine. `gpus`: how many to use, 0 for none; ValueError where there are fewer."""
    there = torch.cuda.device_count()
    if gpus is not None and not 0 <= gpus <= there:
        raise ValueError(f"--gpus {gpus}: this machine has {there}; give 0 to {there}")
    used = there if gpus is None else gpus
    if used:
        # what is free would take a context on each GPU to ask, which holds memory itself
        memory = sum(torch.cuda.get_device_properties(i).total_memory for i in range(used))
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        memory, bf16 = _free_memory(), bool(BF16_FLAGS & processor_flags())
    return Machine(gpus=used, cores=_cores(), memory=memory, bf16=bf16)


def visible_gpus() -> list[str]:
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, in its order; none where it leaves all."""
    return [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _free_memory() -> int:
    """Return what is free to this process, within the limit of its control group where it has one."""
    free = psutil.virtual_memory().available
    limit, used = (_group_bytes(name) for name in ("memory.max", "memory.current"))
    if limit is None or used is None:
        return free
    return min(free, max(limit - used + _reclaimable(), 0))


def _reclaimable() -> int:
    """Return the bytes of files that the control group's figure counts, and that go when memory is wanted."""
    file = GROUP / "memory.stat"
    lines = file.read_text().splitlines() if file.is_file() else []
    return sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _group_bytes(name: str) -> int | None:
    file = GROUP / name
    text = file.read_text().strip() if file.is_file() else "max"
    return int(text) if text.isdecimal() else None
