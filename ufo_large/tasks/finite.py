"""Stop at the first number that is not one, with the task and the loss in the message."""

from collections.abc import Mapping

import torch
from torch import Tensor


def require_finite(task: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError that names `task` and every entry of `tensors` holding NaN or infinity.

    A matcher compares NaN as "no match" in silence, so heads check their targets and outputs too, not
    only the losses. All checks cost one synchronisation with the device.
    """
    if not tensors:
        return
    finite = torch.stack([t.detach().isfinite().all() for t in tensors.values()])
    if finite.all():
        return
    bad = [name for name, good in zip(tensors, finite.tolist(), strict=True) if not good]
    raise ValueError(
        f"task {task!r}: not finite: {', '.join(bad)}. Look at the inputs and labels of this batch, "
        "lower the learning rate, or clip the gradient"
    )
