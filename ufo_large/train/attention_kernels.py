"""Choose the attention kernel that torch tries first on a GPU: the fastest at the run's own shapes.

Which one that is depends on the card, the head size and the number of tokens; torch's own order does not look
at any of them. Kernels add up in different orders, so results differ in their last bits.

Legend: B images, H heads, L queries, S keys, E head size.
"""

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from ufo_large.distributed import comm
from ufo_large.models.multitask import MultitaskModel
from ufo_large.routing.shared import SharedRouter
from ufo_large.runs.config import RunConfig
from ufo_large.structures import TaskInfo

KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
WARM_UP, REPEATS = 3, 10


class Call(NamedTuple):
    """One call's shapes, [B, H, L, E] and [B, H, S, E], and that of its mask."""

    query: tuple[int, ...]
    key: tuple[int, ...]
    mask: tuple[int, ...] | None


class _Recorder(TorchFunctionMode):
    def __init__(self):
        super().__init__()
        self.calls: Counter[Call] = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            given = dict(zip(("query", "key", "value", "attn_mask"), args, strict=False)) | (kwargs or {})
            mask = given.get("attn_mask")
            shape = None if mask is None else tuple(mask.shape)
            self.calls[Call(tuple(given["query"].shape), tuple(given["key"].shape), shape)] += 1
        return function(*args, **(kwargs or {}))


@torch.no_grad()
def calls_of(config: RunConfig, tasks: tuple[TaskInfo, ...]) -> Counter[Call]:
    """Return the trunk's calls of attention in a step of one micro-batch a task; nothing is computed.

    Of the dense model: routing changes no shape, and some schemes need values to choose a path.
    """
    dense = replace(config.model, trunk=replace(config.model.trunk, router=SharedRouter.Config()))
    with torch.device("meta"):
        model: MultitaskModel = dense.build(tasks).eval()
    with _Recorder() as recorder:
        for info in tasks:
            loader, head = config.task(info).loader, model.heads[info.name]
            height, width = loader.image_size
            images_BCHW = torch.empty(loader.micro_batch, 3, height, width, dtype=torch.uint8, device="meta")
            sizes_B2 = torch.empty(loader.micro_batch, 2, dtype=torch.long, device="meta")
            model.trunk(images_BCHW, sizes_B2, info.name, head.trunk_queries())
    return recorder.calls


def step_seconds(
    calls: Mapping[Call, int], measure: Callable[[Call, SDPBackend], float | None]
) -> dict[str, float]:
    """Return, fastest first, the seconds that all calls take with each kernel tried first.

    `measure` gives None where a kernel cannot take a call; torch then goes on to the next, here the fastest.
    """
    found = {call: {name: measure(call, kernel) for name, kernel in KERNELS.items()} for call in calls}
    total = dict.fromkeys(KERNELS, 0.0)
    for call, count in calls.items():
        taken = {name: seconds for name, seconds in found[call].items() if seconds is not None}
        for name in KERNELS if taken else ():
            total[name] += count * taken.get(name, min(taken.values()))
    able = [name for name in KERNELS if any(times[name] is not None for times in found.values())]
    return {name: total[name] for name in sorted(able, key=total.__getitem__)}


def seconds_on_gpu(call: Call, kernel: SDPBackend, dtype: torch.dtype) -> float | None:
    """Return the mean time of one forward and backward pass, None where the kernel refuses."""
    options = {"dtype": dtype, "device": "cuda"}
    own = torch.Generator("cuda").manual_seed(0)  # the run's own draws stay as they are
    query, key, value = (
        torch.randn(shape, **options, generator=own, requires_grad=True)
        for shape in (call.query, call.key, call.key)
    )
    mask = None if call.mask is None else torch.zeros(call.mask, **options)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    try:
        with sdpa_kernel(kernel), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch tells at length why a kernel refuses
            for turn in range(WARM_UP + REPEATS):
                if turn == WARM_UP:
                    start.record()
                F.scaled_dot_product_attention(query, key, value, mask).sum().backward()
            end.record()
    except RuntimeError:  # torch's own words for: no such kernel for these shapes
        return None
    end.synchronize()
    return start.elapsed_time(end) / 1000 / REPEATS


@contextlib.contextmanager
def preferring(order: Mapping[str, float]) -> Iterator[None]:
    """Let torch try kernels in this order, the plain one last; nothing changes where the order is empty."""
    if not order:
        yield
        return
    names = [*order, *(name for name in KERNELS if name not in order)]
    with sdpa_kernel([*(KERNELS[name] for name in names), SDPBackend.MATH], set_priority=True):
        yield


def fastest_attention(
    config: RunConfig, tasks: tuple[TaskInfo, ...], device: torch.device, dtype: torch.dtype
) -> dict[str, float]:
    """Measure, and return rank 0's `step_seconds` on all ranks; empty where there is no GPU."""
    if device.type != "cuda":
        return {}
    measured = step_seconds(calls_of(config, tasks), lambda call, kernel: seconds_on_gpu(call, kernel, dtype))
    return comm.all_gather_objects(measured)[0]


def told(order: Mapping[str, float]) -> str:
    """Return a line for the log."""
    times = ", ".join(f"{name} {1000 * seconds:.1f}" for name, seconds in order.items())
    return f"attention kernel: {next(iter(order))} first (ms of a micro-batch per task: {times})"
