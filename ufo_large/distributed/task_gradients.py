"""Each task's exact gradient of the shared parameters, on parameters sharded any way.

Every rank runs the same task at the same time, so after a task's micro-batches the local shard of the
reduced gradient belongs to that task alone. A rank keeps one flat copy of its shard for each task; the
inner products of whole gradients are sums over the shards, so one all-reduce of M x M numbers gives the
Gram matrix, and any weighted sum can be written back before the optimizer moves. Experts and heads
belong to one task and keep their own task's gradient.

Legend: M tasks of this step, S elements of the local shard, N chunks of C elements.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ufo_large.distributed import comm

CHUNK = 8192


class GradientStore(Protocol):
    """Where an engine keeps gradients; one implementation for each way of sharding.

    The order of calls in a step: `begin_step`; for each task `begin_task`, its backward passes with
    `after_backward` behind each, `read_shared`; then `write_shared`, `scale_private`, `finish`.
    """

    shared_numel: int
    device: torch.device

    def begin_step(self) -> None:
        """Forget all gradients, so that nothing a step does not use can move by an old one."""

    def begin_task(self, task: str, out_S: Tensor) -> None:
        """Make the next backward passes accumulate this task's shared gradient from zero.

        `out_S`: what `read_shared` will be given; a store may accumulate in it.
        """

    def after_backward(self) -> None:
        """Take in what one micro-batch's backward pass left."""

    def read_shared(self, out_S: Tensor) -> None:
        """Copy this rank's shard of the current task's mean gradient of the shared parameters, float32."""

    def private_square_norm(self, task: str) -> Tensor:
        """Return this rank's part of the squared norm of the task's experts and head, float64 scalar."""

    def write_shared(self, combined_S: Tensor) -> None:
        """Make this rank's shard of the combined gradient what the optimizer will see."""

    def scale_private(self, task: str, factor: float) -> None:
        """Multiply the gradients of the task's experts and head."""

    def finish(self) -> None:
        """Hand everything to the optimizer; called once, before the step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """What a step measured of its task gradients: float64, on the CPU, equal on all ranks.

    `squares_M`: squared norms over the shared parameters. `gram_MM`: their inner products, None where they
    were not asked for. `private_M`: squared norms of each task's experts and head. `extra`: numbers that
    travelled along, averaged over the ranks.
    """

    squares_M: Tensor
    gram_MM: Tensor | None
    private_M: Tensor
    extra: Tensor


class TaskGradients:
    """Collect the tasks of one step, measure them against each other, combine them.

    Memory: `num_tasks` float32 copies of the local shard of the shared parameters.
    """

    def __init__(self, store: GradientStore, num_tasks: int):
        self.store = store
        padded = max(1, -(-store.shared_numel // CHUNK)) * CHUNK  # a frozen trunk shares nothing that learns
        self._rows = torch.zeros(num_tasks, padded, dtype=torch.float32, device=store.device)
        self._tasks: list[str] = []

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._tasks)

    def begin_step(self) -> None:
        self._tasks = []
        self.store.begin_step()

    def begin_task(self, task: str) -> None:
        if task in self._tasks:
            raise ValueError(f"task {task!r} ran twice in one step; give it more micro-batches instead")
        self._tasks.append(task)
        self.store.begin_task(task, self._row())

    def after_backward(self) -> None:
        self.store.after_backward()

    def end_task(self) -> None:
        self.store.read_shared(self._row())

    def _row(self) -> Tensor:
        """Return where this rank's shard of the current task's gradient is kept."""
        return self._rows[len(self._tasks) - 1, : self.store.shared_numel]

    def measure(self, extra: Tensor, pairs: bool = True) -> Measurement:
        """Measure the step; without `pairs` only norms. One all-reduce carries everything.

        `extra`: any 1-D float64 tensor, such as the losses of the step.
        """
        count = len(self._tasks)
        private_M = torch.stack([self.store.private_square_norm(t) for t in self._tasks])
        inner = self._local_gram().flatten() if pairs else self._local_squares()
        parts = [inner, private_M, extra.to(self.store.device) / comm.world_size()]
        message = comm.all_reduce_sum(torch.cat(parts)).cpu()
        inner, private_M, extra = message.split([inner.numel(), count, extra.numel()])
        gram_MM = inner.view(count, count) if pairs else None
        squares_M = inner if gram_MM is None else gram_MM.diagonal()
        return Measurement(squares_M=squares_M, gram_MM=gram_MM, private_M=private_M, extra=extra)

    def rows_are_finite(self) -> bool:
        """Whether this rank's shards of the step's gradients hold no NaN and no infinity."""
        return bool(self._rows[: len(self._tasks)].isfinite().all())

    def _local_squares(self) -> Tensor:
        rows_MNC = self._rows[: len(self._tasks)].unflatten(1, (-1, CHUNK))
        return torch.linalg.vector_norm(rows_MNC, dim=-1).double().square().sum(1)

    def _local_gram(self) -> Tensor:
        # float32 products summed over a chunk, chunks summed in float64: exact to about 1e-7 at any length
        rows_MNC = self._rows[: len(self._tasks)].unflatten(1, (-1, CHUNK))
        chunks_NMM = torch.bmm(rows_MNC.permute(1, 0, 2), rows_MNC.permute(1, 2, 0))
        gram_MM = chunks_NMM.double().sum(0)
        return (gram_MM + gram_MM.T) / 2

    def combine(self, weights_M: Tensor, scale_private: bool) -> None:
        """Write sum_k weights[k] * gradient[k] back; experts and heads of task k too if `scale_private`."""
        weights = weights_M.tolist()
        combined_S = self._rows[0].mul_(weights[0])
        for row_S, weight in zip(self._rows[1 : len(weights)], weights[1:], strict=True):
            combined_S.add_(row_S, alpha=weight)
        self.store.write_shared(combined_S[: self.store.shared_numel])
        if scale_private:
            for task, weight in zip(self._tasks, weights, strict=True):
                self.store.scale_private(task, weight)
        self.store.finish()
