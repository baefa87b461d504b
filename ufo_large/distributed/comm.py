"""The few collectives we use, which also work in a process that stands alone."""

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")
MEETING_S = 5.0


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    return rank() == 0


def local_rank() -> int:
    """Return the rank among those of this machine, as the launcher numbers them: one after the other."""
    return int(os.environ.get("LOCAL_RANK", 0))


def barrier() -> None:
    if world_size() > 1:
        dist.barrier(device_ids=[torch.cuda.current_device()] if dist.get_backend() == "nccl" else None)


def device_of(tensor: Tensor) -> torch.device:
    """Return where collectives take `tensor`: NCCL knows no memory but the GPU's."""
    if dist.get_backend() == "nccl" and not tensor.is_cuda:
        return torch.device("cuda", torch.cuda.current_device())
    return tensor.device


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum `tensor` over the ranks in place and return it; on the CPU too, as an offloaded optimizer's."""
    if world_size() > 1:
        there = tensor.to(device_of(tensor))
        dist.all_reduce(there)
        if there is not tensor:
            tensor.copy_(there)
    return tensor


def all_reduce_mean(tensor: Tensor) -> Tensor:
    """Average `tensor` over the ranks in place and return it."""
    return all_reduce_sum(tensor).div_(world_size())


def all_gather_objects(value: Any) -> list[Any]:
    """Return every rank's picklable `value`, in rank order, on every rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Return, on every rank, whether `flag` is set on any."""
    return bool(all_reduce_sum(torch.tensor(float(flag))))


class PortTaken(ValueError):
    """Another program has the port at which the ranks would meet; another port, or a later try, may do."""


class AgreedError(ValueError):
    """A mistake that one rank found and every rank raises, in the same words: the first rank may tell it."""


def agreed(action: Callable[[], T]) -> T:
    """Return `action()`; where it fails on any rank, all raise AgreedError with the first rank's words.

    So rank 0 can tell it, no rank waits for one that gave up, and what follows starts together. What is no
    ValueError is raised as it is where it happened. `action` communicates nothing.
    """
    value, error = None, None
    try:
        value = action()
    except Exception as problem:
        error = problem
    errors = all_gather_objects(None if error is None else str(error) or type(error).__name__)
    failed = [r for r, text in enumerate(errors) if text is not None]
    if error is not None and not isinstance(error, ValueError):
        raise error
    if failed:
        where = "" if len(failed) == len(errors) else f" (on rank {', '.join(map(str, failed))})"
        raise AgreedError(f"{errors[failed[0]]}{where}") from error
    return value


def agreed_slowly(action: Callable[[], T]) -> T:
    """Return `agreed(action)` of what may take longer than a collective waits: the ranks meet meanwhile.

    `action` runs in a thread of its own.
    """
    value, error = None, None

    def act() -> None:
        nonlocal value, error
        try:
            value = action()
        except Exception as problem:
            error = problem

    def result() -> T:
        if error is not None:
            raise error
        return value

    thread = threading.Thread(target=act, name="slow action", daemon=True)
    thread.start()
    while any_rank(thread.is_alive()):
        thread.join(MEETING_S)
    return agreed(result)
