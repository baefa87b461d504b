"""AdamW groups: no decay on norms and biases, layer-wise rates, each parameter in exactly one group."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.trunk import modules_after_blocks
from ufo_large.structures import learning_rate_of, role_of


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101).

    `layer_decay`: the rate of a block is multiplied by this for every block above it (BEiT,
    arXiv:2106.08254), rounded into at most `layer_bins` groups, since each group costs ZeRO a norm
    all-reduce a step. `head_rate`: factor on the rate of heads and pyramids; `head_rates`: that of a task or
    a kind of task (that of experts is the router's `expert_rate`). `clip_norm`: limit of the norm of all
    gradients after they are combined; 0 turns it off.
    """

    learning_rate: float
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    clip_norm: float = 1.0
    layer_decay: float = 1.0
    layer_bins: int = 12
    head_rate: float = 1.0
    head_rates: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self):
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate={self.learning_rate}: must be positive")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(f"layer_decay={self.layer_decay}: must be in (0, 1]")
        if self.layer_bins < 1:
            raise ValueError(f"layer_bins={self.layer_bins}: must be at least 1")
        for name, rate in self.head_rates.items():
            if rate <= 0:
                raise ValueError(f"head_rates.{name}={rate}: must be positive")
        if self.clip_norm < 0:
            raise ValueError(f"clip_norm={self.clip_norm}: must be 0 (off) or positive")

    def build(self, model: MultitaskModel) -> torch.optim.Optimizer:
        """Return AdamW whose groups carry `rate_scale`, the factor on the scheduled rate."""
        groups = parameter_groups(model, self)
        return torch.optim.AdamW(groups, lr=self.learning_rate, betas=self.betas, eps=self.eps, fused=True)


def parameter_groups(model: MultitaskModel, config: OptimizerConfig) -> list[dict]:
    """Claim every trainable parameter once, by weight decay and rate."""
    claimed: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    undecayed, depths = undecayed_parameters(model), parameter_depths(model)
    top, expert_rate = model.trunk.depth + 1, model.trunk.router.config.expert_rate
    head_rates = {n: info.choose(config.head_rates) or config.head_rate for n, info in model.tasks.items()}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = 0.0 if parameter in undecayed else config.weight_decay
            role, own_rate = role_of(parameter), learning_rate_of(parameter)
            if own_rate is not None:
                scale = own_rate / config.learning_rate
            elif role.kind == "head":
                scale = head_rates[role.task]
            else:
                scale = _trunk_scale(depths[parameter], top, config)
                scale *= expert_rate if role.kind == "expert" else 1.0
            claimed[decay, scale].append(parameter)
    ordered = sorted(claimed.items(), key=lambda item: item[0])
    return [
        {"params": members, "weight_decay": decay, "rate_scale": scale} for (decay, scale), members in ordered
    ]


def undecayed_parameters(model: MultitaskModel) -> set[nn.Parameter]:
    """Vectors (norms, biases, layer scales) and what timm lists: position embeddings, class tokens."""
    vit = model.trunk.vit
    listed = {p for name, p in vit.named_parameters() if name in vit.no_weight_decay()}
    return listed | {p for p in model.parameters() if len(getattr(p, "ds_shape", p.shape)) <= 1}


def parameter_depths(model: MultitaskModel) -> dict[nn.Parameter, int]:
    """Depth of each trunk parameter: 0 for embeddings, i + 1 for block i, blocks + 1 for what comes after."""
    vit = model.trunk.vit
    depths = dict.fromkeys(model.trunk.parameters(), 0)
    for index, block in enumerate(vit.blocks):
        depths.update(dict.fromkeys(block.parameters(), index + 1))
    for module in modules_after_blocks(vit):
        depths.update(dict.fromkeys(module.parameters(), len(vit.blocks) + 1))
    return depths


def _trunk_scale(depth: int, top: int, config: OptimizerConfig) -> float:
    bin_size = -(-(top + 1) // config.layer_bins)
    return config.layer_decay ** ((top - depth) // bin_size * bin_size)
