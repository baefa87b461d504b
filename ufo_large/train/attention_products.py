"""Attention in bfloat16 on a processor: as matrix products, where torch's fused kernel is slower.

That kernel calls a matrix product for each block of queries and keys. On AVX-512 processors without AMX two
products over whole images are faster up to some 1,400 tokens, a layer of a ViT-S by a third
(benchmarks/attention_cpu.py). They hold the L x L attention of each head until the backward pass.

A rule, not a measurement, decides: a resumed run has to add in the same order, bit for bit.
"""

from collections.abc import Collection

import torch
from torch import nn

from ufo_large.processes.processor import processor_flags
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo
from ufo_large.train.attention_kernels import calls_of

FASTER_ON, NOT_ON = "avx512_bf16", "amx_bf16"
LONGEST = 2048
"""Tokens of an image from which on both take the same time, and the products much more memory."""


def products_are_faster(dtype: torch.dtype, tokens: int, flags: Collection[str]) -> bool:
    """Whether products beat torch's kernel on a processor of these /proc/cpuinfo `flags`."""
    return dtype == torch.bfloat16 and tokens <= LONGEST and FASTER_ON in flags and NOT_ON not in flags


def use_products(trunk: nn.Module) -> None:
    """Let timm's attention modules multiply in the open instead of calling torch's kernel."""
    for module in trunk.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False


def choose_products(
    trunk: nn.Module,
    config: RunConfig,
    tasks: tuple[TaskInfo, ...],
    device: torch.device,
    dtype: torch.dtype,
) -> bool:
    """Use products in the run's trunk where they are faster at its shapes; returns whether they are."""
    flags = processor_flags() if device.type == "cpu" else set()
    if not products_are_faster(dtype, 0, flags):
        return False  # whatever the shapes
    longest = max((call.query[-2] for call in calls_of(config, tasks)), default=0)
    if not products_are_faster(dtype, longest, flags):
        return False
    use_products(trunk)
    return True
