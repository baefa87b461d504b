"""The smallest model with every role: a shared trunk, one expert and one head a task."""

import torch
from torch import Tensor, nn

from ufo_large.structures import Role, set_role

WIDTH = 24


class TinyMultitask(nn.Module):
    """Regression to the task's index; uneven parameter sizes so that partitions are uneven too."""

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, checkpoint: str = "none"):
        super().__init__()
        generator_state = torch.get_rng_state()
        torch.manual_seed(seed)
        self.tasks = tasks
        self.checkpoint = checkpoint
        self.stem = nn.Linear(WIDTH, WIDTH + 3)
        self.body = nn.Sequential(nn.Linear(WIDTH + 3, 17), nn.GELU(), nn.Linear(17, WIDTH))
        self.norm = nn.LayerNorm(WIDTH)
        self.experts = nn.ModuleDict({t: set_role(nn.Linear(WIDTH, WIDTH), Role("expert", t)) for t in tasks})
        self.heads = nn.ModuleDict({t: set_role(nn.Linear(WIDTH, 5), Role("head", t)) for t in tasks})
        torch.set_rng_state(generator_state)

    def forward(self, x_BD: Tensor, task: str) -> Tensor:
        h = self.stem(x_BD)
        if self.checkpoint == "none":
            h = self.body(h)
        else:
            reentrant = self.checkpoint == "reentrant"
            h = torch.utils.checkpoint.checkpoint(self.body, h, use_reentrant=reentrant)
        h = self.experts[task](self.norm(h)) + h
        return (self.heads[task](h).float() - self.tasks.index(task)).square().mean()
