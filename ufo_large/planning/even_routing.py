"""Sparse experts on tensors without values: as many tokens for each as if all were chosen equally often."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten


class EvenRouting(TorchDispatchMode):
    """Answers how many of the choices, which are sorted before, fell on each expert: equal shares."""

    def __init__(self, num_experts: int):
        super().__init__()
        self.num_experts = num_experts
        self._choices = self._asked = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation == _aten.sort.stable:
            self._choices, self._asked = args[0].numel(), 0
        if operation == _aten._local_scalar_dense.default:
            self._asked += 1
            return (self._choices + self.num_experts - self._asked) // self.num_experts
        return operation(*args, **(kwargs or {}))
