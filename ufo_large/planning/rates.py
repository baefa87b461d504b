"""How long a recorded operation takes on a GPU: rates measured on one H200, scaled by data sheets.

Rates of single operations were measured there (benchmarks/results/gpu_h200_202611.md): of the GPU's peak for
products, of its memory's bandwidth for the rest. What is marked as fitted was fitted on whole steps of the
same page, so those rows do not test it: benchmarks/results/planner_202611.md says which.
"""

import math
from collections import Counter
from dataclasses import dataclass

from ufo_large.planning.gpus import GPUS, Gpu
from ufo_large.planning.recording import Work

H200_PEAK = GPUS["h200"].flops
MATRIX_SHARE = 645e12 / H200_PEAK
"""Products of ViT-g's and ViT-G's sizes: 637 to 650 TFLOP/s."""
ATTENTION_SHARES = ((257, 136e12 / H200_PEAK), (1025, 271e12 / H200_PEAK), (5330, 364e12 / H200_PEAK))
"""Tokens and rate both ways, heads of 88."""
COPY_SHARE = 4.3 / 4.8
"""A copy on the H200, of its memory's bandwidth; elementwise operations are taken to reach it."""
FLOAT32_SHARE = 67 / 989
"""Data sheets: products in float32, without tensor cores, against dense bf16."""
CONVOLUTION_SHARE = 0.4
"""Assumed: nothing has measured convolutions in bf16 here."""
IN_A_STEP = 1.17
"""Fitted on the rows of plain torch: how much longer all but attention takes in a step than by itself."""
LAUNCH = 3e-6
"""The shortest kernel and the gap before the next, assumed."""


@dataclass(frozen=True, slots=True)
class GpuSeconds:
    """Seconds of recorded operations by kind."""

    matrix: float
    attention: float
    convolution: float
    elementwise: float

    @property
    def total(self) -> float:
        """Seconds within a step."""
        return self.attention + IN_A_STEP * (self.matrix + self.convolution + self.elementwise)


def gpu_seconds(work: Counter[Work], gpu: Gpu) -> GpuSeconds:
    """Return how long a GPU computes if it never waits: each operation by what bounds it."""
    spent = dict.fromkeys(("matrix", "attention", "convolution", "elementwise"), 0.0)
    for each, count in work.items():
        spent[each.kind] += count * operation_seconds(each, gpu)
    return GpuSeconds(**spent)


def operation_seconds(work: Work, gpu: Gpu) -> float:
    moving = copy_seconds(work.bytes, gpu)
    computing = work.flops / (share_of_peak(work) * gpu.flops)
    return max(moving, computing, LAUNCH)


def copy_seconds(moved: float, gpu: Gpu) -> float:
    """Return how long reading and writing so many bytes in all takes."""
    return moved / (COPY_SHARE * gpu.bandwidth)


def share_of_peak(work: Work) -> float:
    """Return which share of a GPU's dense bf16 peak an operation of this kind reaches."""
    if work.is_float32:
        return FLOAT32_SHARE
    if work.kind == "attention":
        return _attention_share(work.tokens)
    return CONVOLUTION_SHARE if work.kind == "convolution" else MATRIX_SHARE


def _attention_share(tokens: int) -> float:
    """Interpolate in the logarithm of the tokens; beyond the ends the nearest measured rate holds."""
    (first, low), *_ = ATTENTION_SHARES
    if tokens <= first:
        return low
    for (left, low), (right, high) in zip(ATTENTION_SHARES, ATTENTION_SHARES[1:], strict=False):
        if tokens <= right:
            return low + (high - low) * math.log(tokens / left) / math.log(right / left)
    return ATTENTION_SHARES[-1][1]
