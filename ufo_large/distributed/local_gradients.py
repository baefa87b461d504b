"""Gradients that live whole on every rank: one process, and ZeRO stages 1 and 2 before they reduce.

Micro-batches accumulate in float32 whatever the dtype of the parameters. A single process lets a task's
shared gradient accumulate where it is measured. Several ranks average it, then each keeps only the part that
its optimizer moves: so no gradient is ever gathered.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from ufo_large.distributed import comm
from ufo_large.structures import role_of


class LocalGradients:
    """A GradientStore on `parameter.grad`.

    `hand_over` receives the averaged float32 gradients, aligned with `parameters`, when the step is
    complete; zeros where a parameter had none, as ZeRO's flat partitions have it. `own`: (start, count) of
    the elements of each parameter that this rank's optimizer moves, none where a parameter is not in it;
    what `hand_over` receives is right there alone. Without `own` it is everything.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        hand_over: Callable[[list[Tensor]], None],
        own: Mapping[nn.Parameter, tuple[int, int]] | None = None,
    ):
        self.parameters = [p for p in parameters if p.requires_grad]
        self.device = self.parameters[0].device
        self._hand_over = hand_over
        by_task: dict[str | None, list[nn.Parameter]] = {None: []}
        for p in self.parameters:
            by_task.setdefault(None if role_of(p).kind == "shared" else role_of(p).task, []).append(p)
        self._by_task = by_task
        self._flats: dict[str | None, Tensor] = {}
        self._views: dict[nn.Parameter, Tensor] = {}
        for task, members in by_task.items():
            self._place(task, torch.zeros(sum(p.numel() for p in members), device=self.device))
        self._written: set[nn.Parameter] = set()  # since the step, or of shared ones the task, began
        self._has_all = own is None
        parts = [(self._views[p].flatten(), *(own or {}).get(p, (0, 0))) for p in by_task[None]]
        self._own = [view[start : start + count] for view, start, count in parts if count]
        self._sizes = [part.numel() for part in self._own]
        self.shared_numel = self._flats[None].numel() if self._has_all else sum(self._sizes)

    def _place(self, task: str | None, flat: Tensor) -> None:
        """Let the gradients of a task's own parameters, or of the shared ones, lie in `flat`."""
        members = self._by_task[task]
        parts = flat.split([p.numel() for p in members])
        self._flats[task] = flat
        self._views |= {p: part.view(p.shape) for p, part in zip(members, parts, strict=True)}

    def begin_step(self) -> None:
        self._written.clear()
        for p in self.parameters:
            p.grad = None

    def begin_task(self, task: str, out_S: Tensor) -> None:
        self._task = task
        if self._has_all:
            self._place(None, out_S)
        self._written.difference_update(self._by_task[None])

    def after_backward(self) -> None:
        first, later = [], []
        for p in self.parameters:
            gradient = p.grad if p.grad is not None else getattr(p, "grad_accum", None)
            if gradient is None:
                continue
            (later if p in self._written else first).append((self._views[p], gradient))
            self._written.add(p)
            p.grad = None
            if hasattr(p, "grad_accum"):
                p.grad_accum = None
        for write, pairs in ((torch._foreach_copy_, first), (torch._foreach_add_, later)):
            if pairs:
                write(*map(list, zip(*pairs, strict=True)))

    def read_shared(self, out_S: Tensor) -> None:
        for task in (None, self._task):  # in one order on all ranks
            if task in self._by_task:
                self._complete(self._by_task[task])
                comm.all_reduce_mean(self._flats[task])
        if self._own:
            torch._foreach_copy_(list(out_S.split(self._sizes)), self._own)

    def _complete(self, parameters: list[nn.Parameter]) -> None:
        """Let zero be the gradient of what got none."""
        empty = [self._views[p] for p in parameters if p not in self._written]
        if empty:
            torch._foreach_zero_(empty)
        self._written.update(parameters)

    def private_square_norm(self, task: str) -> Tensor:
        views = [self._views[p] for p in self._by_task.get(task, [])]
        if not views:
            return torch.zeros((), dtype=torch.float64, device=self.device)
        # every rank holds the same whole gradient; the caller sums over ranks
        return torch.stack(torch._foreach_norm(views)).double().square().sum() / comm.world_size()

    def write_shared(self, combined_S: Tensor) -> None:
        if self._has_all:
            self._place(None, combined_S)
        elif self._own:
            torch._foreach_copy_(self._own, list(combined_S.split(self._sizes)))

    def scale_private(self, task: str, factor: float) -> None:
        if task in self._by_task:
            self._flats[task].mul_(factor)

    def finish(self) -> None:
        self._complete(self.parameters)
        self._hand_over([self._views[p] for p in self.parameters])
