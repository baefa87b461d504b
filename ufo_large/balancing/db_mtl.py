"""Balance the scale of losses and of gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ufo_large.balancing.base import Balancer, Signals, positive_losses
from ufo_large.balancing.gram import norms_and_cosines


class DBMTL(Balancer):
    """Take the gradients of the log-losses and stretch all to the longest.

    DB-MTL, Lin et al. 2023, arXiv:2308.12029. With u_k = |g_k| / L_k, the norm of the gradient of log L_k,
    the paper's alpha_k is max(u) / u_k (algorithm 1), so w_k = max(u) / u_k / L_k, here times the geometric
    mean of the losses: that brings the scale of a log-loss back to that of the losses.

    The paper smooths the gradients themselves over steps, which would cost one more copy of the shared
    parameters a task; here their norms are smoothed, with the same factor beta / t^sigma,
    from the first norm on. Heads keep the
    gradient of the plain loss unless `scale_private` is set.
    """

    needs_gram = True
    state_names = ("log_norms", "counts")

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        """`beta`, `sigma`: the past counts beta / t^sigma in the smoothed norm at the task's step t."""

        beta: float = 0.9
        sigma: float = 0.5

        def __post_init__(self):
            Balancer.Config.__post_init__(self)
            if not 0 <= self.beta < 1:
                raise ValueError(f"beta={self.beta}: must be in 0 <= beta < 1")
            if not self.sigma >= 0:
                raise ValueError(f"sigma={self.sigma}: must be 0 or more")

        def build(self, tasks: tuple[str, ...], seed: int) -> "DBMTL":
            return DBMTL(tasks, seed, self)

    def __init__(self, tasks: tuple[str, ...], seed: int = 0, config: Config | None = None):
        super().__init__(tasks, seed, config)
        self.log_norms: dict[str, float] = {}
        self.counts = dict.fromkeys(tasks, 0)

    def weights(self, signals: Signals) -> Tensor:
        losses_M = positive_losses(signals)
        norms_M, _ = norms_and_cosines(signals.gram_MM)
        smooth = [
            self._smooth(t, u) for t, u in zip(signals.tasks, (norms_M / losses_M).tolist(), strict=True)
        ]
        u_M = torch.tensor(smooth, dtype=torch.float64)
        common_loss = losses_M.log().mean().exp()
        stretched_M = u_M.max() / torch.where(u_M > 0, u_M, 1.0) * (common_loss / losses_M)
        return torch.where(u_M > 0, stretched_M, 1.0)

    def _smooth(self, task: str, norm: float) -> float:
        if norm > 0:
            self.counts[task] += 1
            kept = self.config.beta / self.counts[task] ** self.config.sigma
            self.log_norms[task] = norm + kept * (self.log_norms.get(task, norm) - norm)
        return self.log_norms.get(task, 0.0)
