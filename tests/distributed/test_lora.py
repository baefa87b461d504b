"""Adapters on frozen shared weights: three tasks, an average of the weights and a resume, on two ranks."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ufo_large.distributed.ema import ShardedEma
from ufo_large.models.checkpointing import CHECKPOINTING
from ufo_large.models.lora import LoraConfig, is_adapter
from ufo_large.models.weights import fill, initial_state
from ufo_large.structures import role_of
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.models import TINY_TASKS, step_of_all, tiny_model

RATE, WEIGHTS = 0.01, (0.5, 1.0, 2.0)
FP32 = [(mode, 3, False) for mode in CHECKPOINTING] + [("none", 1, False), ("full", 2, False)]
BF16 = [("none", stage, True) for stage in (1, 2, 3)]  # checkpointing, ZeRO stage, bf16
PLAIN = ("none", 0, False)


def config(mode: str = "none", **trunk):
    return tiny_model("learned", depth=2, checkpointing=mode, lora=LoraConfig(rank=2), **trunk)


def write_pretrained(path: Path) -> Path:
    torch.manual_seed(3)
    save_file(dict(config().trunk.build_vit().state_dict()), path)
    return path


def train(mode: str, stage: int, bf16: bool, pretrained: str) -> dict:
    """Three steps, a checkpoint after the second; then the third again from it in a new engine."""
    from ufo_large.distributed import zero
    from ufo_large.distributed.ds_config import complete
    from ufo_large.distributed.engine import PlainEngine
    from ufo_large.distributed.plain_files import write_plain

    device = zero.init_distributed()
    ds = {"zero_optimization": {"stage": stage}, "bf16": {"enabled": bf16}}
    if stage == 3:
        ds["zero_optimization"]["stage3_param_persistence_threshold"] = 0
    ds = complete(ds, 2, clip_norm=None)

    def engine(fresh: bool):
        with zero.sharded_construction(ds if stage else None):
            model = config(mode).build(TINY_TASKS)
        if fresh:
            fill(model, initial_state(model, 0, pretrained), lambda p: zero.gathered(p, modify=True))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=RATE, momentum=0.9)
        if not stage:
            return PlainEngine(model, optimizer, device)
        return zero.ZeroEngine(model, optimizer, ds, model.units())

    first = engine(fresh=True)
    start = whole(first)
    ema = ShardedEma.Config(decay=0.5).build(first)
    held = sum(p.numel() for n, p in first.module.named_parameters() if "base_layer" in n)
    grams = []
    for finished in (1, 2):
        grams.append(step(first))
        ema.update(finished)
    folder = Path(pretrained).parent / f"{mode}-{stage}-{bf16}"
    folder.mkdir(exist_ok=True)
    first.save(folder, write_plain)
    draws = first.module.trunk.route.state_dict()
    step(first)
    again = engine(fresh=False)
    again.load(folder)
    again.module.trunk.route.load_state_dict(draws)
    step(again)
    with ema.swapped():
        averaged = whole(first)
    ends = {"end": whole(first), "resumed": whole(again)}
    return {"start": start, "averaged": averaged, "grams": grams, "held": held, **ends}


def step(engine) -> np.ndarray:
    """Take one step of all tasks; return their Gram matrix."""
    return step_of_all(engine, [RATE], WEIGHTS).gram_MM.numpy()


def whole(engine) -> dict:
    return {n: v.numpy().copy() for n, v in engine.full_parameters()}


def train_all(cases: list[tuple], pretrained: str) -> list[dict]:
    return [train(*case, pretrained) for case in cases]


@pytest.fixture(scope="module")
def runs() -> dict:
    with tempfile.TemporaryDirectory() as folder:
        pretrained = str(write_pretrained(Path(folder) / "vit.safetensors"))
        rank0, _ = run_ranks(train_all, 2, [*FP32, *BF16], pretrained, timeout=600)
        return {PLAIN: train(*PLAIN, pretrained), **dict(zip([*FP32, *BF16], rank0, strict=True))}


@pytest.mark.parametrize("case", FP32, ids=str)
def test_two_ranks_equal_one_process(runs, case):
    sharded, plain = runs[case], runs[PLAIN]
    for which in ("end", "averaged"):
        for name, value in sharded[which].items():
            np.testing.assert_allclose(value, plain[which][name], atol=1e-6, rtol=0, err_msg=name)
    for gram, expected in zip(sharded["grams"], plain["grams"], strict=True):
        np.testing.assert_allclose(gram, expected, rtol=1e-5, atol=1e-6 * expected.max())
    assert (sharded["held"] == 0) == (case[1] == 3)


@pytest.mark.parametrize("case", BF16, ids=str)
def test_bf16_is_close_to_one_process(runs, case):
    for gram, expected in zip(runs[case]["grams"], runs[PLAIN]["grams"], strict=True):
        difference = abs(gram - expected).max() / expected.max()
        print(f"{case}: {difference:.1e}")
        assert difference < 0.05


@pytest.mark.parametrize("case", [PLAIN, *FP32, *BF16], ids=str)
def test_adapters_move_and_frozen_weights_do_not(runs, case):
    start, end, averaged = (runs[case][key] for key in ("start", "end", "averaged"))
    model = config().build(TINY_TASKS)
    frozen = [n for n, p in model.named_parameters() if not p.requires_grad]
    adapters = [n for n, _ in model.named_parameters() if is_adapter(n)]
    assert all((start[n] == end[n]).all() and (start[n] == averaged[n]).all() for n in frozen)
    # the learned choice may not take the last block's shared MLP in every step
    still = [n for n in adapters if (start[n] == end[n]).all() or (averaged[n] == end[n]).all()]
    assert all(".mlp." in n for n in still) and len(still) < len(adapters) / 2
    assert {role_of(p).kind for n, p in model.named_parameters() if n in adapters} == {"shared"}


@pytest.mark.parametrize("case", [PLAIN, *FP32, *BF16], ids=str)
def test_a_checkpoint_resumes_bitwise(runs, case):
    end, resumed = runs[case]["end"], runs[case]["resumed"]
    assert [n for n in end if not (end[n] == resumed[n]).all()] == []
