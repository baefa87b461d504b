"""Predict before a run has finished: the weights of a checkpoint of any ranks and stage, in one process."""

import shutil
from pathlib import Path

import pytest
import torch

from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "steps=2",
    "save_every=1",
    "keep_checkpoints=9",
    *SMALL_MODEL,
    *TWO_IMAGES_EACH,
    *IN_THE_PROCESS,
    NO_WANDB,
)


def train_small(shards: str, workdir: str, ds: str, *options: str) -> None:
    from ufo_large.config import apply_overrides
    from ufo_large.distributed import ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe("demo"), [*SMALL, *options])
    ds_json = None if ds == "none" else ds_config.read(ROOT / "ds_configs" / f"{ds}.json")
    train(config, shards, Path(workdir), ds_json)


@pytest.mark.parametrize(
    ("ds", "ranks", "options"),
    [
        ("zero3_fp32", 2, ("ema.decay=0.8", "optimizer.learning_rate=1e-2")),
        ("zero2_fp32", 2, ()),
        ("none", 1, ()),
    ],
)
def test_the_last_checkpoint_is_the_final_weights(tiny_shards, tmp_path, ds, ranks, options):
    """Bit for bit, with the average where there is one."""
    from ufo_large import UFO
    from ufo_large.evaluation.run import evaluate

    run_ranks(train_small, ranks, str(tiny_shards), str(tmp_path / "run"), ds, *options)
    final = UFO.from_pretrained(tmp_path / "run").model.state_dict()
    last = UFO.from_pretrained(tmp_path / "run", checkpoint="last").model.state_dict()
    first = UFO.from_pretrained(tmp_path / "run", checkpoint="step-00000001").model.state_dict()
    assert last.keys() == final.keys() == first.keys()
    assert all(torch.equal(last[name], value) for name, value in final.items())
    assert not all(torch.equal(first[name], value) for name, value in final.items())

    told = {}
    for checkpoint in (None, "last", "step-00000001"):
        options = {"split": "val", "protocol": "standard", "checkpoint": checkpoint}
        done = evaluate(tmp_path / "run", str(tiny_shards), **options)
        told[checkpoint] = done.folder.relative_to(tmp_path / "run").as_posix(), done.result["details"]
    assert [folder for folder, _ in told.values()] == [
        "evaluations/val",
        "evaluations/val-step-00000002",
        "evaluations/val-step-00000001",
    ]
    assert told["last"][1] == told[None][1] != told["step-00000001"][1]

    shutil.rmtree(tmp_path / "run/weights")
    with pytest.raises(ValueError, match="this run has not finished; .*--checkpoint last .step-00000002"):
        UFO.from_pretrained(tmp_path / "run")
    folder = tmp_path / "run/checkpoints/step-00000002"
    damaged = folder / "rank-0.pt"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"step-00000002: this checkpoint cannot be read"):
        UFO.from_pretrained(tmp_path / "run", checkpoint=folder)


@pytest.mark.parametrize(("ds", "ranks"), [("none", 1), ("zero2_fp32", 2), ("zero3_fp32", 2)])
def test_frozen_weights_are_in_the_checkpoint_too(tiny_shards, tmp_path, ds, ranks):
    """Adapters learn on a trained trunk, whose file may be gone by then."""
    from ufo_large import UFO

    base = tmp_path / "base"
    run_ranks(train_small, 1, str(tiny_shards), str(base), "none")
    options = (f"pretrained={base / 'weights'}", "model.trunk.lora.rank=2", "ema.decay=0.8")
    run_ranks(train_small, ranks, str(tiny_shards), str(tmp_path / "run"), ds, *options)
    shutil.rmtree(base)
    final = UFO.from_pretrained(tmp_path / "run").model
    last = UFO.from_pretrained(tmp_path / "run", checkpoint="last").model.state_dict()
    assert sum(not p.requires_grad for p in final.parameters()) > 10
    assert all(torch.equal(last[name], value) for name, value in final.state_dict().items())
