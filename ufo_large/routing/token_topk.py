"""Every token chooses k of E experts through its task's gate.

Legend: B images, L tokens, D width, N tokens of the micro-batch, E experts, K experts a token, T tasks.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ufo_large.routing.base import ExpertBank, Route, Router, routed_blocks
from ufo_large.routing.clone import clone_module
from ufo_large.structures import Role, set_role

_GATE_STD = 0.02
_MEMORY = 0.9  # share of the old estimate of a task's expert use that stays


class TokenTopKRouter(Router):
    """Sparse experts with one gate a task (AdaMV-MoE, Chen et al., ICCV 2023; Mod-Squad, arXiv:2212.08066).

    Two auxiliary losses: `balance` keeps the tokens of a task from crowding one expert
    (arXiv:2101.03961, equation 4); `mutual_information` lets tasks prefer different experts (Mod-Squad,
    equation 4).
    """

    keeps_outputs_only = False

    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Router.Config):
        """See `Router.Config`. `balance` and `mutual_information` are the weights of the losses."""

        num_experts: int = 4
        k: int = 2
        balance: float = 0.01
        mutual_information: float = 0.005

        def __post_init__(self):
            Router.Config.__post_init__(self)
            if self.parts != ("mlp",):
                raise ValueError(
                    f"router.parts={self.parts}: tokens choose among MLPs only, since attention mixes them; "
                    "use parts=mlp, or the scheme task or learned"
                )
            if not 2 <= self.k <= self.num_experts:
                raise ValueError(
                    f"router.k={self.k}: must be 2 to num_experts={self.num_experts}; the weights of the "
                    "chosen experts add up to 1, so a gate that chooses one has no gradient"
                )
            if min(self.balance, self.mutual_information) < 0:
                raise ValueError("router.balance and router.mutual_information: must be 0 (off) or positive")

        def build(self, tasks: tuple[str, ...], route: Route, depth: int) -> "TokenTopKRouter":
            return TokenTopKRouter(self, routed_blocks(self.blocks, depth), tasks, route)

    def bank(self, place: str, module: nn.Module) -> "TokenTopKBank":
        return TokenTopKBank(place, self.route, self.config, self.tasks, module, 1 / len(self.blocks))


class TokenTopKBank(ExpertBank):
    """E experts that all tasks share, and a gate a task. `share`: this bank's part of the auxiliary losses.

    Weights of the chosen experts add up to 1, so equal experts act as the one MLP they are copies of.
    Every expert runs on every rank, with no token if need be: under ZeRO-3 all ranks gather its parameters.
    """

    splits_tokens = True

    def __init__(
        self,
        place: str,
        route: Route,
        config: TokenTopKRouter.Config,
        tasks: tuple[str, ...],
        mlp: nn.Module,
        share: float,
    ):
        super().__init__(place, route)
        self.config, self.share = config, share
        self.experts = nn.ModuleDict({"0": mlp})
        for index in range(1, config.num_experts):
            self.experts[str(index)] = clone_module(mlp)
        self.gates = nn.ModuleDict()
        for task in tasks:
            self.add_task(task)

    def add_task(self, task: str) -> None:
        """The new task gets a gate of its own; the experts serve it too."""
        width = next(m for m in self.experts["0"].modules() if isinstance(m, nn.Linear)).in_features
        self.gates[task] = set_role(Gate(width, self.config.num_experts), Role("expert", task))

    def forward(self, x_BLD: Tensor) -> Tensor:
        x_ND = x_BLD.flatten(0, -2)
        shares_NE = self.gates[self.route.task](x_ND).float().softmax(-1)
        weights_NK, experts_NK = shares_NE.topk(self.config.k, dim=-1)
        weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        counts_E = (experts_NK.flatten() == torch.arange(len(self.experts), device=x_ND.device)[:, None]).sum(
            1
        )
        # waits once for the device: how many tokens an expert gets is a shape
        places = experts_NK.flatten().argsort(stable=True).split(counts_E.tolist())
        y_ND = torch.zeros_like(x_ND)
        for expert, place_n in zip(self.experts.values(), places, strict=True):
            tokens_n = place_n // self.config.k
            weights_n1 = weights_NK.flatten()[place_n, None].to(x_ND.dtype)
            y_ND = y_ND.index_add(0, tokens_n, weights_n1 * expert(x_ND[tokens_n]))
        self._report(shares_NE, counts_E / experts_NK.numel())
        return y_ND.view_as(x_BLD)

    def active(self, task: str) -> int:
        """Return the size of the chosen experts and the task's gate."""
        expert, gate = (sum(p.numel() for p in m.parameters()) for m in (self.experts["0"], self.gates[task]))
        return self.config.k * expert + gate

    def paths_of(self, task: str) -> list[nn.Module]:
        return list(self.experts.values())[: self.config.k]

    def path(self, task: str) -> nn.Module:
        raise ValueError(
            f"task {task!r}: token_topk mixes experts token by token, no dense MLP equals that; "
            "save the whole model, or train with task or learned routing"
        )

    def fresh(self, name: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator) * _GATE_STD

    def _report(self, shares_NE: Tensor, load_E: Tensor) -> None:
        use_E = shares_NE.mean(0)
        self.route.observe("entropy", torch.special.entr(use_E).sum())
        for index, load in enumerate(load_E):
            self.route.observe(f"load_{index}", load)
            self.route.observe_path(self.place, f"expert {index}", load)
        if not self.training:
            return
        if self.config.balance:
            self.route.add_loss("balance", self.config.balance * self.share * balance_loss(load_E, use_E))
        if self.config.mutual_information:
            scale = -self.config.mutual_information * self.share
            self.route.add_loss("mutual_information", scale * mutual_information(self._use_by_task(use_E)))

    def _use_by_task(self, use_E: Tensor) -> Tensor:
        """Return the expert use of all tasks so far, [T, E]: this one's now, the others' as remembered."""
        memory, task = self.route.memory, self.route.task
        old_E = memory.get(f"{self.place}/{task}", use_E).to(use_E.device)
        # a pass that is not finite is forgotten: its step is skipped, and memory would keep it
        new_E = (_MEMORY * old_E + (1 - _MEMORY) * use_E).detach()
        kept_E = old_E if f"{self.place}/{task}" in memory else torch.full_like(new_E, 1 / len(new_E))
        self.route.remember(f"{self.place}/{task}", torch.where(new_E.isfinite().all(), new_E, kept_E))
        known = [memory.get(f"{self.place}/{t}") for t in self.gates if t != task]
        return torch.stack([use_E, *(k.to(use_E.device) for k in known if k is not None)])


class Gate(nn.Linear):
    """Logits of the experts for each token of one task."""

    def __init__(self, width: int, num_experts: int):
        super().__init__(width, num_experts, bias=False)
        nn.init.normal_(self.weight, std=_GATE_STD)


def balance_loss(load_E: Tensor, use_E: Tensor) -> Tensor:
    """Return E * <load, use>: 1 for even load, E when all tokens crowd one expert."""
    return len(use_E) * (load_E * use_E).sum()


def mutual_information(use_TE: Tensor) -> Tensor:
    """Return I(task; expert) in nats for equally frequent tasks, given each task's use of the experts."""
    return torch.special.entr(use_TE.mean(0)).sum() - torch.special.entr(use_TE).sum(-1).mean()
