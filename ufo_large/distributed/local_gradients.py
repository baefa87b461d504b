"""Gradients that live whole on every rank: one process, and ZeRO stages 1 and 2 before they reduce.

Micro-batches accumulate in float32 whatever the dtype of the parameters. The ranks average a task's
shared gradient, then each keeps only its equal share of it for the measurement.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ufo_large.distributed import comm
from ufo_large.structures import role_of


class LocalGradients:
    """A GradientStore on `parameter.grad`.

    `hand_over` receives the averaged float32 gradients, aligned with `parameters`, when the step is
    complete; zeros where a parameter had none, as ZeRO's flat partitions have it.
    """

    def __init__(self, parameters: list[nn.Parameter], hand_over: Callable[[list[Tensor]], None]):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.device = self.parameters[0].device
        self._hand_over = hand_over
        self._shared = [p for p in self.parameters if role_of(p).kind == "shared"]
        self._private = {}
        for p in self.parameters:
            if role_of(p).kind != "shared":
                self._private.setdefault(role_of(p).task, []).append(p)
        self._numel = sum(p.numel() for p in self._shared)
        self.shared_numel = -(-self._numel // comm.world_size())
        self._flat = torch.zeros(self.shared_numel * comm.world_size(), device=self.device)
        views = self._flat[: self._numel].split([p.numel() for p in self._shared])
        self._accumulated: dict[nn.Parameter, Tensor | None] = {}
        self._views = {p: v.view(p.shape) for p, v in zip(self._shared, views, strict=True)}

    def begin_step(self) -> None:
        self._accumulated = {}
        for p in self.parameters:
            p.grad = None

    def begin_task(self, task: str) -> None:
        self._task = task
        self._flat.zero_()

    def after_backward(self) -> None:
        for p in self.parameters:
            gradient = p.grad if p.grad is not None else getattr(p, "grad_accum", None)
            if gradient is None:
                continue
            if p in self._views:
                self._views[p].add_(gradient)
            elif p in self._accumulated:
                self._accumulated[p].add_(gradient)
            else:
                self._accumulated[p] = gradient.float().clone()
            p.grad = None
            if hasattr(p, "grad_accum"):
                p.grad_accum = None

    def read_shared(self, out_S: Tensor) -> None:
        comm.all_reduce_mean(self._flat)
        start = comm.rank() * self.shared_numel
        out_S.copy_(self._flat[start : start + self.shared_numel])
        for p in self._private.get(self._task, []):
            if p in self._accumulated:
                comm.all_reduce_mean(self._accumulated[p])

    def private_square_norm(self, task: str) -> Tensor:
        held = [self._accumulated[p] for p in self._private.get(task, []) if p in self._accumulated]
        norms = [g.double().square().sum() for g in held]
        total = (
            torch.stack(norms).sum() if norms else torch.zeros((), dtype=torch.float64, device=self.device)
        )
        return (
            total / comm.world_size()
        )  # every rank holds the same whole gradient; the caller sums over ranks

    def write_shared(self, combined_S: Tensor) -> None:
        self._flat.copy_(comm.all_gather_shards(combined_S.contiguous()))

    def scale_private(self, task: str, factor: float) -> None:
        for p in self._private.get(task, []):
            if p in self._accumulated:
                self._accumulated[p].mul_(factor)

    def finish(self) -> None:
        self._hand_over([self._result(p) for p in self.parameters])

    def _result(self, parameter: nn.Parameter) -> Tensor:
        if parameter in self._views:
            return self._views[parameter]
        if parameter in self._accumulated:
            return self._accumulated[parameter]
        return torch.zeros_like(parameter, dtype=torch.float32)
