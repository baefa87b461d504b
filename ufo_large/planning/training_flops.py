"""The operations that training on one image takes, counted on the meta device: nothing is allocated.

Counted are the products of the forward pass and those of the backward pass that autograd needs: twice as many
again where a layer and its input learn, as many where one of them does, none below what is frozen. A product
of n x k and k x m counts 2nkm. Not counted: what activation checkpointing computes again, losses and
matching, normalisations and other elementwise work, the optimizer.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from ufo_large.models.multitask import MultitaskModel
from ufo_large.structures import TaskBatch, TaskInfo

IMAGES = 2
"""In the counted batch; a batch norm on a map of one cell refuses one image."""


class TrainingFlops:
    """Counts for a model of these tasks; each task and size once."""

    def __init__(self, config: MultitaskModel.Config, tasks: Sequence[TaskInfo]):
        config = replace(config, trunk=replace(config.trunk, checkpointing="none", compile=False))
        with torch.device("meta"):
            self._model = config.build(tuple(tasks)).train()
        self._banks = self._model.trunk.banks()
        self.per_image = cache(self._per_image)

    def _per_image(self, task: str, size: tuple[int, int]) -> float:
        """Return the operations for one image of (height, width) of `task`."""
        for place, bank in self._banks.items():
            paths = bank.paths_of(task)
            self._model.trunk.vit.set_submodule(place, bank if paths is None else _Sum(paths))
        images = torch.empty(IMAGES, 3, *size, dtype=torch.uint8, device="meta")
        sizes = torch.empty(IMAGES, 2, dtype=torch.long, device="meta")
        batch = TaskBatch(task=task, images_BCHW=images, sizes_B2=sizes, targets=None, samples=())
        with torch.device("meta"), _Products() as counter:
            outputs = tree_leaves(self._model.outputs(batch))
            learnt = [x for x in outputs if isinstance(x, Tensor) and x.requires_grad]
            torch.autograd.backward(learnt, [torch.empty_like(x) for x in learnt])
        return counter.flops / IMAGES


class _Products(TorchDispatchMode):
    """Adds up what torch's own table has for each operation inside.

    torch's FlopCounterMode takes every other operation apart first, which takes longer.
    """

    def __init__(self):
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        found = operation(*args, **(kwargs or {}))
        if (count := flop_registry.get(operation.overloadpacket)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=found)
        return found


class _Sum(nn.Module):
    """Several modules on one input, as a bank computes them."""

    def __init__(self, modules: Sequence[nn.Module]):
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, x_BLD: Tensor, **options: Any) -> Tensor:
        return torch.stack([part(x_BLD, **options) for part in self.parts]).sum(0)
