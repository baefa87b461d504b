"""Equal relative progress of all losses, without gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Signals, positive_losses, summing_to_count
from ufo_large.balancing.learned import LearnedBalancer


class FAMO(LearnedBalancer):
    """Let all losses fall at the same relative rate (Liu et al. 2023, arXiv:2306.03792, algorithm 1).

    z = softmax(xi) over the tasks present; w_k is proportional to z_k / L_k, here scaled to sum to M. The
    logits xi descend on how much each log-loss fell since the last step: a task that fell less
    gains weight.

    The paper evaluates each batch again after the update. That is another forward pass, so the loss of the
    task's next step stands for it: another batch, hence noisier.
    """

    scales_private = True
    state_names = ("last_losses",)

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(LearnedBalancer.Config):
        """`learning_rate`, `decay`: of Adam on the logits (paper: 0.025, 0.001)."""

        learning_rate: float = 0.025
        decay: float = 0.001

        def __post_init__(self):
            LearnedBalancer.Config.__post_init__(self)
            if not self.decay >= 0:
                raise ValueError(f"decay={self.decay}: must be 0 or more")

        def build(self, tasks: tuple[str, ...], seed: int) -> "FAMO":
            return FAMO(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.last_losses: dict[str, float] = {}

    @property
    def weight_decay(self) -> float:
        return self.config.decay

    def weights(self, signals: Signals) -> Tensor:
        losses_M = positive_losses(signals)
        known = tuple(t for t in signals.tasks if t in self.last_losses)
        if known:
            before_K = torch.tensor([self.last_losses[t] for t in known], dtype=torch.float64)
            after_K = losses_M[[t in self.last_losses for t in signals.tasks]]
            fell_K = before_K.log() - after_K.log()
            z_K = self.values(known).softmax(dim=0)
            self.learn(known, z_K * (fell_K - z_K @ fell_K))
        self.last_losses.update(zip(signals.tasks, losses_M.tolist(), strict=True))
        return summing_to_count(self.values(signals.tasks).softmax(dim=0) / losses_M)
