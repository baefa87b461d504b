"""The sharded average of the weights against timm's and torch's own on whole models, in each ZeRO stage."""

import copy
import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from timm.utils import ModelEmaV3
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ufo_large.distributed import comm
from ufo_large.distributed.ema import ShardedEma
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.tiny import WIDTH, TinyMultitask

TASKS, STEPS, DECAY = ("a", "b"), 6, 0.7
POWERS = {"timm": 2 / 3, "torch": None}


@dataclass(frozen=True)
class Case:
    stage: int  # 0: one process without DeepSpeed
    ranks: int
    offload: bool = False
    persistent: bool = False  # ZeRO-3 keeps small parameters whole on every rank
    bf16: bool = False
    reference: str = "timm"


def reference(kind: str, weights: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """What a library makes of the whole models after each step."""
    model = TinyMultitask(TASKS)
    if kind == "timm":
        average = ModelEmaV3(model, decay=DECAY, use_warmup=True)
        update = average.update
    else:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
        update = lambda model, step: average.update_parameters(model)
    for step, state in enumerate(weights, 1):
        model.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()})
        update(model, step=step)
    return {n: p.detach().numpy() for n, p in average.module.named_parameters()}


def train_all(cases: list[dict]) -> list[dict]:
    return [train(Case(**case)) for case in cases]


def train(case: Case) -> dict:
    """Some steps of Adam; the whole weights after each, the average, and what the swap does to them."""
    engine, inputs = build(case)
    ema = ShardedEma.Config(decay=DECAY, warmup_power=POWERS[case.reference]).build(engine)
    weights, masters = [], []
    for step in range(STEPS):
        for task in TASKS:
            take_step(engine, inputs[step], task)
        update_one_rank_after_the_other(ema, step + 1)
        weights.append(whole(engine))
        masters.append([m.clone() for m in engine.master_shards()])
    before = [m.clone() for m in engine.master_shards()]
    with ema.swapped():
        averaged, loss = whole(engine), forward(engine, inputs[0])
        shards = [m.clone() for m in engine.master_shards()]
    after = [m.clone() for m in engine.master_shards()]
    restored = whole(engine)
    take_step(engine, inputs[0], "a")
    return {
        "weights": weights,
        "averaged": averaged,
        "loss": loss,
        "is_same_after": all(
            torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(before, after, strict=True)
        )
        and all((restored[n] == v).all() for n, v in weights[-1].items()),
        "moves_on": any((v != restored[n]).any() for n, v in whole(engine).items()),
        "shards": [s.numpy() for s in shards],
        "masters": [[m.numpy() for m in step] for step in masters],
        "dtypes": {str(m.dtype) for m in before},
    }


def build(case: Case) -> tuple:
    from ufo_large.distributed import zero
    from ufo_large.distributed.ds_config import complete
    from ufo_large.distributed.engine import PlainEngine

    device = zero.init_distributed()
    model = TinyMultitask(TASKS)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(comm.rank())
    inputs = torch.randn(STEPS, 3, WIDTH, generator=generator)
    if case.stage == 0:
        return PlainEngine(model, optimizer, device), inputs
    config = {"zero_optimization": {"stage": case.stage}}
    if case.stage == 3 and not case.persistent:
        config["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    if case.offload:
        config["zero_optimization"]["offload_optimizer"] = {"device": "cpu"}
    if case.bf16:
        config["bf16"] = {"enabled": True}
        inputs = inputs.bfloat16()
    return zero.ZeroEngine(model, optimizer, complete(config, micro_batch=3, clip_norm=None)), inputs


def take_step(engine, x_BD: torch.Tensor, task: str) -> None:
    from ufo_large.distributed.task_gradients import TaskGradients

    gradients = TaskGradients(engine.gradients, 1)
    gradients.begin_step()
    gradients.begin_task(task)
    engine.backward(engine(x_BD, task))
    gradients.after_backward()
    gradients.end_task()
    gradients.measure(torch.zeros(1, dtype=torch.float64))
    gradients.combine(torch.ones(1), False)
    engine.step([1e-2])


def update_one_rank_after_the_other(ema: ShardedEma, finished: int) -> None:
    """A collective inside the update would meet the others' barrier and fail."""
    for rank in range(comm.world_size()):
        if rank == comm.rank():
            ema.update(finished)
        comm.barrier()


def whole(engine) -> dict[str, np.ndarray]:
    return {n: v.numpy().copy() for n, v in engine.full_parameters()}


def forward(engine, x_BD: torch.Tensor) -> float:
    with torch.no_grad():
        return float(comm.all_reduce_mean(engine(x_BD, "a").float()))


EXACT = [
    *(Case(0, 1, reference=kind) for kind in POWERS),
    *(Case(stage, 2, reference=kind) for stage in (1, 2, 3) for kind in POWERS),
    Case(3, 2, persistent=True),
    Case(2, 2, offload=True),
    Case(3, 2, offload=True),
]
BF16 = [Case(stage, 2, bf16=True) for stage in (1, 2, 3)] + [Case(3, 2, bf16=True, offload=True)]
ALL = [*EXACT, *BF16]


@pytest.fixture(scope="module")
def results() -> dict[Case, list[dict]]:
    found = {}
    for ranks in (1, 2):
        cases = [c for c in ALL if c.ranks == ranks]
        by_rank = run_ranks(train_all, ranks, [dataclasses.asdict(c) for c in cases])
        found |= dict(zip(cases, zip(*by_rank, strict=True), strict=True))
    return found


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_equals_the_average_of_whole_models(case, results):
    """Measured: 0, in one process and under every stage; another machine may round a last bit otherwise."""
    result = results[case][0]
    expected = reference(case.reference, result["weights"])
    difference = max(abs(result["averaged"][n] - v).max() for n, v in expected.items())
    moved = max(abs(result["averaged"][n] - v).max() for n, v in result["weights"][-1].items())
    print(f"{case}: largest difference {difference:.1e}; the average is {moved:.1e} from the weights")
    assert difference <= (0 if case.stage == 0 else 1e-7)
    assert moved > 1e-2


@pytest.mark.parametrize("case", EXACT, ids=str)
def test_the_model_computes_with_the_average_inside(case, results):
    """Against a whole model that holds the reference's average; measured: at most 1.2e-7 relative."""
    found = results[case][0]
    model = TinyMultitask(TASKS)
    model.load_state_dict({n: torch.from_numpy(v) for n, v in found["averaged"].items()})
    inputs = [
        torch.randn(STEPS, 3, WIDTH, generator=torch.Generator().manual_seed(r))[0] for r in range(case.ranks)
    ]
    with torch.no_grad():
        expected = sum(float(model(x, "a")) for x in inputs) / case.ranks
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_the_own_weights_come_back_bitwise_and_train_on(case, results):
    for rank in results[case]:
        assert rank["is_same_after"]
    assert results[case][0]["moves_on"]


@pytest.mark.parametrize("case", BF16, ids=str)
def test_under_bf16_the_masters_are_averaged(case, results):
    """Each rank's shards against the same sum in float64; measured: at most 7.4e-8."""
    config = ShardedEma.Config(decay=DECAY, warmup_power=POWERS[case.reference])
    for rank in results[case]:
        assert rank["dtypes"] == {"torch.float32"}
        expected = [np.zeros(m.shape) for m in rank["masters"][0]]
        for step, masters in enumerate(rank["masters"], 1):
            decay = config.decay_after(step)
            expected = [decay * e + (1 - decay) * m for e, m in zip(expected, masters, strict=True)]
        worst = max(relative_difference(s, e) for s, e in zip(rank["shards"], expected, strict=True))
        print(f"{case}: largest difference {worst:.1e}")
        assert worst < 2e-7
    averaged = {n: torch.from_numpy(v) for n, v in results[case][0]["averaged"].items()}
    assert all(torch.equal(v.bfloat16().float(), v) for v in averaged.values())


def relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Relative to 1 or more: a shard's padding is whatever the memory held."""
    real = np.isfinite(expected)
    return (abs(found - expected)[real] / abs(expected)[real].clip(1)).max(initial=0)


@pytest.mark.parametrize("power", [2 / 3, 0.75, 1.0, None])
def test_the_decay_is_timms(power):
    config = ShardedEma.Config(decay=0.99, warmup_power=power)
    options = {} if power is None else {"use_warmup": True, "warmup_power": power}
    timm_average = ModelEmaV3(torch.nn.Linear(1, 1), decay=0.99, **options)
    for finished in (1, 2, 3, 10, 1000, 10**6):
        assert config.decay_after(finished) == pytest.approx(timm_average.get_decay(finished), abs=1e-15)


def test_an_average_sharded_otherwise_is_refused():
    from ufo_large.distributed.engine import PlainEngine

    model = TinyMultitask(TASKS)
    engine = PlainEngine(model, torch.optim.SGD(model.parameters(), lr=1.0), torch.device("cpu"))
    ema = ShardedEma.Config().build(engine)
    state = copy.deepcopy(ema.state_dict())
    state["average"][0] = state["average"][0][1:]
    with pytest.raises(ValueError, match="--set ema=none"):
        ema.load_state_dict(state)


@pytest.mark.parametrize(("option", "value"), [("decay", 1.0), ("decay", 0.0), ("warmup_power", 1.5)])
def test_options_out_of_range_are_refused(option, value):
    with pytest.raises(ValueError, match=f"ema.{option}"):
        ShardedEma.Config(**{option: value})
