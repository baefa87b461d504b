"""Task gradients stay exact for odd models and under 22 options of ZeRO that move or cut gradients."""

import dataclasses
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ufo_large.distributed import comm
from ufo_large.distributed.task_gradients import TaskGradients
from ufo_large.structures import Role, set_role
from ufo_large.testing.distributed import run_ranks

TASKS = ("a", "b", "c")
WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5}
MICRO_BATCHES = {"a": 3, "b": 1, "c": 2}
SCHEDULE = (TASKS, ("b",), ("a", "b"), TASKS)  # the tasks of each step
WIDTH, BATCH, RATE = 24, 3, 0.1


class OddMultitask(nn.Module):
    """Uneven widths and a parameter of the model itself.

    `tied`: two layers share a weight. `frozen`: prefixes of names that do not train. `skip`: tasks that leave
    a shared layer out. `detach`: tasks whose loss never reaches the trunk.
    """

    def __init__(self, tied=False, frozen=(), skip=(), detach=(), recompute="none"):
        super().__init__()
        torch.manual_seed(0)
        self.skip, self.detach, self.recompute = skip, detach, recompute
        self.stem, self.middle = nn.Linear(WIDTH, WIDTH + 3), nn.Linear(WIDTH + 3, WIDTH + 3)
        self.extra = nn.Linear(WIDTH + 3, WIDTH + 3)
        if tied:
            self.extra.weight = self.middle.weight
        self.body = nn.Sequential(nn.Linear(WIDTH + 3, 17), nn.GELU(), nn.Linear(17, WIDTH))
        self.scale = nn.Parameter(torch.ones(1))
        private = {t: nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)) for t in TASKS}
        self.private = nn.ModuleDict({t: set_role(m, Role("head", t)) for t, m in private.items()})
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(tuple(frozen)))

    def forward(self, x_BW, task):
        h_BW = self.stem(x_BW)
        h_BW = h_BW + self.middle(h_BW).tanh()
        if task not in self.skip:
            h_BW = h_BW + self.extra(h_BW).tanh()
        if self.recompute == "none":
            h_BW = self.body(h_BW)
        else:
            h_BW = checkpoint(self.body, h_BW, use_reentrant=self.recompute == "reentrant")
        h_BW = h_BW * self.scale
        outputs = self.private[task](h_BW.detach() if task in self.detach else h_BW)
        return (outputs - TASKS.index(task)).square().mean()


@dataclass(frozen=True)
class Case:
    stage: int
    ranks: int = 2
    model: dict = field(default_factory=dict)
    zero: dict = field(default_factory=dict)
    groups: int = 2
    adam: bool = False
    clip: float | None = None
    whole_body: bool = False  # gather `body` as one unit

    def __hash__(self):
        return hash(repr(self))


def inputs(ranks: int) -> torch.Tensor:
    """[task, micro-batch, rank, batch, width]"""
    return torch.randn(3, 3, ranks, BATCH, WIDTH, generator=torch.Generator().manual_seed(1))


def build(case: Case) -> tuple[OddMultitask, torch.optim.Optimizer]:
    model = OddMultitask(**case.model)
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": trained[i :: case.groups], "weight_decay": 0.01 * i} for i in range(case.groups)]
    if case.adam:
        return model, torch.optim.AdamW(groups, lr=RATE / 10, eps=1e-3)
    return model, torch.optim.SGD(groups, lr=RATE)


def reference(case: Case) -> dict:
    """One process, plain autograd, torch's own clipping and optimizer."""
    model, optimizer = build(dataclasses.replace(case, model=case.model | {"recompute": "none"}))
    x = inputs(case.ranks)
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for present in SCHEDULE:
        rows = []
        optimizer.zero_grad(set_to_none=False)
        for parameter in trained.values():
            parameter.grad = torch.zeros_like(parameter)
        for task in present:
            k, n = TASKS.index(task), MICRO_BATCHES[task]
            loss = sum(model(x[k, m, r], task) for m in range(n) for r in range(case.ranks)) / n / case.ranks
            gradients = torch.autograd.grad(loss, list(trained.values()), allow_unused=True)
            row = []
            for (name, parameter), gradient in zip(trained.items(), gradients, strict=True):
                gradient = torch.zeros_like(parameter) if gradient is None else gradient
                shared = not name.startswith("private")
                parameter.grad += gradient * (WEIGHTS[task] if shared else 1.0)
                row.append(gradient.flatten() if shared else gradient.new_zeros(1))
            rows.append(torch.cat(row).double())
        norm = nn.utils.clip_grad_norm_(trained.values(), case.clip or float("inf")).item()
        optimizer.step()
    jacobian = torch.stack(rows)
    return {"gram": jacobian @ jacobian.T, "norm": norm, "state": dict(model.named_parameters())}


def train_all(cases: list[dict]) -> list[dict]:
    return [train(Case(**case)) for case in cases]


def train(case: Case) -> dict:
    from ufo_large.distributed import ds_config, zero

    zero.init_distributed()
    config = {"zero_optimization": {"stage": case.stage, **case.zero}}
    ds_config.check(config, "case")
    model, optimizer = build(case)
    units = [model.body] if case.whole_body else []
    engine = zero.ZeroEngine(model, optimizer, ds_config.complete(config, BATCH, case.clip), units)
    rates, x = [group["lr"] for group in optimizer.param_groups], inputs(comm.world_size())
    gradients = TaskGradients(engine.gradients, len(TASKS))
    for present in SCHEDULE:
        gradients.begin_step()
        for task in present:
            gradients.begin_task(task)
            for m in range(MICRO_BATCHES[task]):
                loss = engine(x[TASKS.index(task), m, comm.rank()], task)
                engine.backward(loss / MICRO_BATCHES[task])
                gradients.after_backward()
            gradients.end_task()
        measured = gradients.measure(torch.zeros(1, dtype=torch.float64))
        gradients.combine(torch.tensor([WEIGHTS[t] for t in present]), False)
        engine.step(rates)
    state = {n: v.numpy() for n, v in engine.full_parameters()}
    return {"gram": measured.gram_MM.numpy(), "norm": engine.grad_norm, "state": state}


ODD = (
    {"tied": True},
    {"frozen": ("stem", "private.b")},
    {"frozen": ("stem", "middle", "extra", "body", "scale")},
    {"skip": ("b",)},
    {"detach": ("c",)},
    {"tied": True, "skip": ("a",), "detach": ("b",), "frozen": ("scale",)},
)
MODELS = [Case(stage, ranks, model) for stage in (1, 2, 3) for ranks in (2, 3) for model in ODD]
MODELS += [Case(stage, ranks, {"skip": ("a",)}, {}, 3, True, 0.3) for stage in (1, 2, 3) for ranks in (2, 3)]
MODELS += [Case(3, 2, {"recompute": how}, whole_body=True) for how in ("none", "reentrant", "nonreentrant")]

CPU = {"device": "cpu"}
ANY_STAGE = (
    {"overlap_comm": True},
    {"overlap_comm": False},
    {"contiguous_gradients": False},
    {"reduce_bucket_size": 50, "overlap_comm": True, "contiguous_gradients": True},
    {"reduce_scatter": False},
    {"round_robin_gradients": True},
    {"round_robin_gradients": True, "offload_optimizer": CPU},
    {"offload_optimizer": CPU, "overlap_comm": True, "reduce_bucket_size": 50},
    {"allgather_partitions": False},
    {"allgather_bucket_size": 50},
    {"use_multi_rank_bucket_allreduce": False},
)
STAGE_3 = (
    {"stage3_param_persistence_threshold": 0},
    {"stage3_param_persistence_threshold": 30},
    {"stage3_param_persistence_threshold": 10**6},
    {"sub_group_size": 50},
    {"sub_group_size": 77, "offload_optimizer": CPU, "offload_param": CPU},
    {"offload_param": CPU},
    {"zero_hpz_partition_size": 2},
    {"stage3_use_all_reduce_for_fetch_params": True},
    {"stage3_max_live_parameters": 0, "stage3_prefetch_bucket_size": 0},
    {"memory_efficient_linear": True},
    {"load_from_fp32_weights": True},
)
OPTIONS = [Case(stage, 2, {"skip": ("a",)}, zero) for stage in (1, 2, 3) for zero in ANY_STAGE]
OPTIONS += [Case(3, 2, {"skip": ("a",)}, zero) for zero in STAGE_3]


@pytest.fixture(scope="module")
def results() -> dict[Case, list[dict]]:
    """Every case's result on every rank; one start of the ranks for each world size."""
    found = {}
    for ranks in (2, 3):
        cases = [c for c in (*MODELS, *OPTIONS) if c.ranks == ranks]
        by_rank = run_ranks(train_all, ranks, [dataclasses.asdict(c) for c in cases])
        found |= dict(zip(cases, zip(*by_rank, strict=True), strict=True))
    return found


@pytest.mark.parametrize("case", [*MODELS, *OPTIONS], ids=str)
def test_equals_single_process_autograd(case, results):
    expected, (result, *others) = reference(case), results[case]
    gram = torch.from_numpy(result["gram"])
    scale = expected["gram"].abs().max().clamp_min(1e-30)
    errors = {
        "gram": ((gram - expected["gram"]).abs().max() / scale).item(),
        "weight": max(
            (torch.from_numpy(result["state"][n]) - p).abs().max().item()
            for n, p in expected["state"].items()
        ),
        "norm": abs(result["norm"] / expected["norm"] - 1),
    }
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert max(errors.values()) < 1e-6  # measured: 1.9e-7, 4.5e-8, 8.7e-8
    for other in others:
        assert (other["gram"] == result["gram"]).all()
