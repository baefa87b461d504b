"""The whole trainer on ranks: equal losses from every ZeRO stage, and exact resume."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ufo_large.config import apply_overrides
from ufo_large.data.shard_index import fingerprint_of
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL
from ufo_large.train.lock import training_alone
from ufo_large.train.speed import WARM_UP

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *SMALL_MODEL,
    "tasks.classification.loader.micro_batch=4",
    "tasks.detection.loader.micro_batch=2",
    "tasks.segmentation.loader.micro_batch=2",
    *IN_THE_PROCESS,
    NO_WANDB,
    "schedule.warmup_steps=2",
)


def train_run(
    shards: str, workdir: str, ds: str, resume: str, overrides: tuple[str, ...], micro_batches: int | None
):
    """Train the demo recipe on one rank of several; return the log of all steps and the final weights.

    `micro_batches` None: as the overrides say.
    """
    from ufo_large.distributed import ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.tracking import read_metrics
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe("demo"), [*SMALL, *overrides])
    if micro_batches is not None:
        tasks = {k: dataclasses.replace(t, micro_batches=micro_batches) for k, t in config.tasks.items()}
        config = dataclasses.replace(config, tasks=tasks)
    ds_json = None if ds == "none" else ds_config.read(ROOT / "ds_configs" / f"{ds}.json")
    trainer = train(config, shards, Path(workdir), ds_json, resume)
    found = () if trainer is None else trainer.runner.engine.full_parameters()
    weights = {n: v.numpy() for n, v in found}
    return {"log": read_metrics(Path(workdir) / "metrics.jsonl"), "weights": weights}


def losses_of(result: dict) -> dict[tuple[int, str], float]:
    """Every logged loss by (step, name)."""
    return {
        (line["step"], name): value
        for line in result["log"]
        for name, value in line.items()
        if name.split("/")[0] in ("cls", "dec", "seg")
    }


def test_every_stage_gives_the_losses_of_one_process(tiny_shards, tmp_path):
    """Two ranks with one micro-batch a task see the samples of one process with two."""
    steps = ("steps=6", "save_every=100")
    shards = str(tiny_shards)
    plain = run_ranks(train_run, 1, shards, str(tmp_path / "plain"), "none", "none", steps, 2)[0]
    expected = losses_of(plain)
    assert len(expected) >= 6 * 6
    for stage in (1, 2, 3):
        arguments = (shards, str(tmp_path / f"zero{stage}"), f"zero{stage}_fp32", "none", steps, 1)
        found = losses_of(run_ranks(train_run, 2, *arguments)[0])
        assert found.keys() == expected.keys()
        worst = max(abs(found[k] - v) / max(abs(v), 1e-3) for k, v in expected.items())
        print(f"ZeRO {stage}: largest relative difference of a loss {worst:.1e}")
        assert worst < 1e-3


def test_ten_steps_equal_five_and_five(tiny_shards, tmp_path):
    """Bitwise, under ZeRO-3 on two ranks, in the middle of an epoch, with drop path and averaged weights."""
    options = ("steps=10", "save_every=5", "keep_checkpoints=3", "model.trunk.drop_path=0.2", "ema.decay=0.8")
    arguments = (str(tiny_shards), str(tmp_path / "whole"), "zero3_fp32", "none", options, 1)
    whole = run_ranks(train_run, 2, *arguments)[0]
    checkpoints = tmp_path / "whole" / "checkpoints"
    averaged = read_weights(tmp_path / "whole")
    (checkpoints / "step-00000010" / "complete.json").unlink()
    arguments = (str(tiny_shards), str(tmp_path / "whole"), "zero3_fp32", "auto", options, 1)
    resumed = run_ranks(train_run, 2, *arguments)[0]
    first, second = losses_of(whole), losses_of(resumed)
    assert {step for step, _ in second} == set(range(1, 11))
    assert first == second
    for name, value in whole["weights"].items():
        assert (value == resumed["weights"][name]).all(), name
    again = read_weights(tmp_path / "whole")
    assert all(torch.equal(value, again[name]) for name, value in averaged.items())
    assert any((averaged[name].numpy() != value).any() for name, value in whole["weights"].items())


def everything_after(
    shards: str, workdir: str, ds: str, options: tuple[str, ...], micro_batches: int, resume: str
):
    """Train; return every parameter's weight, moments and average whole, by our layout, and the log."""
    from ufo_large.distributed import comm, ds_config
    from ufo_large.recipes import load_recipe
    from ufo_large.tracking import read_metrics
    from ufo_large.train.run import train

    config = apply_overrides(load_recipe("demo"), [*SMALL, *options])
    tasks = {k: dataclasses.replace(t, micro_batches=micro_batches) for k, t in config.tasks.items()}
    ds_json = None if ds == "none" else ds_config.read(ROOT / "ds_configs" / f"{ds}.json")
    trainer = train(dataclasses.replace(config, tasks=tasks), shards, Path(workdir), ds_json, resume)
    engine = trainer.runner.engine
    kinds = {"master": engine.master_shards(), "average": trainer.ema.state_dict()["average"]}
    for name in ("exp_avg", "exp_avg_sq"):
        kinds[name] = [state[name] for state in engine.optimizer_states()]
    mine = [
        (kind, piece.name, piece.start, shard.view(-1)[piece.offset : piece.offset + piece.count].numpy())
        for kind, own in kinds.items()
        for pieces, shard in zip(engine.layout(), own, strict=True)
        for piece in pieces
    ]
    parts: dict = {}
    for kind, name, start, values in (x for rank in comm.all_gather_objects(mine) for x in rank):
        parts.setdefault((kind, name), {})[start, len(values)] = values
    whole = {key: np.concatenate([own[at] for at in sorted(own)]) for key, own in parts.items()}
    weights = {("weight", n): v.flatten().numpy() for n, v in engine.full_parameters()}
    groups = (engine.optimizer if ds == "none" else engine._optimizer).param_groups
    return {
        "whole": whole | weights,
        "log": read_metrics(Path(workdir) / "metrics.jsonl"),
        "decays": {group["weight_decay"] for group in groups},
        "betas": {tuple(group["betas"]) for group in groups},
    }


def test_resume_on_other_ranks_and_stages_carries_everything_over(tiny_shards, tmp_path):
    """Weights, moments and average bitwise; then the losses of a run that was never stopped (below 1e-3)."""
    shards = str(tiny_shards)
    options = ("save_every=3", "ema.decay=0.8", "keep_checkpoints=9")
    start = (shards, str(tmp_path / "run"), "zero3_fp32", ("steps=3", *options), 1, "none")
    before = run_ranks(everything_after, 2, *start)[0]["whole"]
    assert all((before["weight", n] == v).all() for (kind, n), v in before.items() if kind == "master")
    for ds, ranks in (("zero3_fp32", 3), ("zero2_fp32", 3), ("zero1_fp32", 2), ("none", 1)):
        shutil.rmtree(tmp_path / "run/weights")  # as where a run is cut off before it writes them
        resumed = (shards, str(tmp_path / "run"), ds, ("steps=3", *options), 1, "auto")
        after = run_ranks(everything_after, ranks, *resumed)[0]["whole"]
        assert after.keys() == before.keys()
        assert all((after[key] == value).all() for key, value in before.items()), (ds, ranks)
    changed = (*options, "optimizer.head_rate=0.5", "optimizer.weight_decay=0.3", "optimizer.betas=[0.8,0.9]")
    for ds, ranks in (("zero3_fp32", 2), ("none", 1)):
        shutil.rmtree(tmp_path / "run/weights")
        resumed = (shards, str(tmp_path / "run"), ds, ("steps=3", *changed), 1, "auto")
        after = run_ranks(everything_after, ranks, *resumed)[0]
        assert all((after["whole"][key] == value).all() for key, value in before.items()), (ds, ranks)
        assert after["decays"] == {0.0, 0.3} and after["betas"] == {(0.8, 0.9)}
    through = (shards, str(tmp_path / "through"), "none", ("steps=6", *options), 2, "none")
    expected = losses_of(run_ranks(everything_after, 1, *through)[0])
    chain = (("none", 1, 2, 6), ("zero2_fp32", 2, 1, 9), ("zero3_fp32", 3, 1, 10))
    for ds, ranks, micro_batches, steps in chain:  # each starts from what the one before it saved
        more = (shards, str(tmp_path / "run"), ds, (f"steps={steps}", *options), micro_batches, "auto")
        result = run_ranks(everything_after, ranks, *more)[0]
        if steps == 6:
            found = losses_of(result)
            worst = max(abs(found[k] - v) / max(abs(v), 1e-3) for k, v in expected.items())
            print(f"largest relative difference of a loss {worst:.1e}")
            assert worst < 1e-3
    epochs = [line["train/epoch/cls"] for line in result["log"]]
    assert [8 * e / epochs[0] for e in epochs] == pytest.approx([*range(8, 80, 8), 84])  # images seen


def read_weights(workdir: Path) -> dict[str, torch.Tensor]:
    """Return what a run exported."""
    from ufo_large.distributed.checkpoint import load_weights

    found: dict[str, torch.Tensor] = {}
    load_weights(workdir / "weights", found.__setitem__)
    return found


def test_validation_sees_the_averaged_weights_and_changes_nothing(tiny_shards, tmp_path):
    """The last figures equal those of the exported weights in one process; measured: exactly."""
    from ufo_large.data.shards import ShardSet
    from ufo_large.evaluation.evaluator import Evaluator
    from ufo_large.evaluation.loading import load_model
    from ufo_large.runs.folder import RunFolder

    options = ("steps=5", "ema.decay=0.8", "optimizer.learning_rate=1e-2")
    runs = {}
    for name, more in {"plain": (), "val": ("evaluate_every=2",)}.items():
        arguments = (str(tiny_shards), str(tmp_path / name), "zero3_fp32", "none", (*options, *more), 1)
        runs[name] = run_ranks(train_run, 2, *arguments)[0]
    assert losses_of(runs["plain"]) == losses_of(runs["val"])
    found = {
        line["step"]: {k.removeprefix("val/"): v for k, v in line.items() if k.startswith("val/")}
        for line in runs["val"]["log"]
        if "val/score" in line
    }
    assert list(found) == [2, 4, 5]
    saved, shards = RunFolder(tmp_path / "val").read(), ShardSet.open(tiny_shards)
    model = load_model(saved.config.model, saved.tasks, tmp_path / "val" / "weights", torch.device("cpu"))
    loaders = {kind: task.loader for kind, task in saved.config.tasks.items()}
    evaluator = Evaluator(shards=shards, loaders=loaders, split="val", show_progress=False)
    expected, _ = evaluator.validate(model)
    assert found[5] == pytest.approx(expected, rel=1e-6)
    model.load_state_dict({n: torch.from_numpy(v) for n, v in runs["val"]["weights"].items()})
    assert evaluator.validate(model)[0] != pytest.approx(expected, rel=1e-6)


def test_a_split_that_is_not_there_is_refused_before_training(tmp_path):
    from ufo_large.testing.tiny_shards import tiny_shards

    shards = str(tiny_shards(tmp_path))
    arguments = (shards, str(tmp_path / "run"), "none", "none", ("steps=1", "evaluate_every=1"), 1)
    with pytest.raises(RuntimeError, match="no task has a labelled split 'val' .*--set evaluate_every=0"):
        run_ranks(train_run, 1, *arguments)


def test_a_workdir_that_cannot_be_made_is_refused_before_training(tiny_shards, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RuntimeError, match="file is a file, not a folder; choose another --workdir"):
        run_ranks(train_run, 1, str(tiny_shards), str(tmp_path / "file/run"), "none", "none", (), 1)


def test_tasks_that_rest_are_left_out_and_resume_is_exact(tiny_shards, tmp_path):
    """Detection every second step, segmentation only from step 6 on; bitwise, a stop at 5 in between."""
    options = (
        "steps=8",
        "save_every=5",
        "keep_checkpoints=3",
        "tasks.detection.micro_batches=0.5",
        "tasks.segmentation.micro_batches=0",
        "tasks.segmentation.micro_batches_from.6=1.5",
        "balancer=dwa",
        "balancer.window=2",
    )
    arguments = (str(tiny_shards), str(tmp_path), "zero3_fp32", "none", options, None)
    whole = run_ranks(train_run, 2, *arguments)[0]
    present = [{n.split("/")[0] for n in line if n.endswith("/total")} for line in whole["log"]]
    assert present == [{"cls"}, {"cls", "dec"}] * 3 + [{"cls", "seg"}, {"cls", "dec", "seg"}]
    assert all(
        {n.split("/")[1] for n in line if n.endswith("/weight")} == p
        for line, p in zip(whole["log"], present, strict=True)
    )
    images = [line["train/images_per_second"] * line["train/step_seconds"] for line in whole["log"]]
    assert images == pytest.approx([8, 12, 8, 12, 8, 12, 12, 20])
    of_dec = [line["train/images_per_second/dec"] * line["train/step_seconds"] for line in whole["log"]]
    assert of_dec == pytest.approx([0, 4, 0, 4, 0, 4, 0, 4])
    for line in whole["log"]:
        shares = [line[f"train/{name}"] for name in ("data_wait_share", "network_wait_share", "host_share")]
        assert min(shares) >= 0 and sum(shares) == pytest.approx(1)
    (tmp_path / "checkpoints" / "step-00000008" / "complete.json").unlink()
    resumed = run_ranks(train_run, 2, str(tiny_shards), str(tmp_path), "zero3_fp32", "auto", options, None)[0]
    assert losses_of(whole) == losses_of(resumed)
    for name, value in whole["weights"].items():
        assert (value == resumed["weights"][name]).all(), name


def test_the_log_has_tokens_and_operations_behind_the_warm_up(tiny_shards, tmp_path):
    options = (f"steps={WARM_UP + 2}", "save_every=100", "log_every=1")
    log = run_ranks(train_run, 1, str(tiny_shards), str(tmp_path), "none", "none", options, 1)[0]["log"]
    assert all(line["train/tokens_per_second"] > line["train/images_per_second"] for line in log)
    assert ["train/tflops" in line for line in log] == [False] * WARM_UP + [True] * 2
    for task in ("cls", "dec", "seg"):
        assert log[-1][f"train/tflops/{task}"] > 0
    assert not any("mfu" in key for line in log for key in line)  # a processor's peak is not known


def test_a_mix_with_an_empty_step_is_refused(tiny_shards, tmp_path):
    options = (
        "steps=1",
        *(f"tasks.{k}.micro_batches=0.2" for k in ("classification", "detection", "segmentation")),
    )
    with pytest.raises(RuntimeError, match="at least 1 together"):
        run_ranks(train_run, 1, str(tiny_shards), str(tmp_path), "none", "none", options, None)


def test_a_started_folder_is_not_overwritten(tiny_shards, tmp_path):
    options = ("steps=1",)
    arguments = (str(tiny_shards), str(tmp_path), "none", "none", options, 1)
    run_ranks(train_run, 1, *arguments)
    with pytest.raises(RuntimeError, match="--resume auto"):
        run_ranks(train_run, 1, *arguments)


def train_refused(*arguments) -> str:
    """Return the words with which the rank is refused."""
    try:
        train_run(*arguments)
    except ValueError as error:
        return str(error)
    return "trained"


def test_all_ranks_leave_a_folder_where_another_run_trains(tiny_shards, tmp_path):
    with training_alone(tmp_path):
        before = {f: f.read_bytes() for f in tmp_path.iterdir()}
        arguments = (str(tiny_shards), str(tmp_path), "zero3_fp32", "none", ("steps=1",), 1)
        for told in run_ranks(train_refused, 2, *arguments):
            assert f"{tmp_path}: another run trains here (process {os.getpid()} on" in told
        assert {f: f.read_bytes() for f in tmp_path.iterdir()} == before


def test_weights_without_a_checkpoint_are_not_overwritten(tiny_shards, tmp_path):
    run_ranks(train_run, 1, str(tiny_shards), str(tmp_path), "none", "none", ("steps=1",), 1)
    shutil.rmtree(tmp_path / "checkpoints")
    for resume in ("none", "auto"):
        with pytest.raises(RuntimeError, match="weights of a finished run but no checkpoint"):
            run_ranks(train_run, 1, str(tiny_shards), str(tmp_path), "none", resume, ("steps=2",), 1)
    assert (tmp_path / "weights").is_dir()


def test_a_refused_resume_changes_nothing(tiny_shards, tmp_path):
    run_ranks(train_run, 1, str(tiny_shards), str(tmp_path), "none", "none", ("steps=1",), 1)
    before = {f: f.read_bytes() for f in (tmp_path / "config.json", tmp_path / "metrics.jsonl")}
    options = ("steps=2", "balancer=pcgrad")
    with pytest.raises(RuntimeError, match="the checkpoint's balancer is"):
        run_ranks(train_run, 1, str(tiny_shards), str(tmp_path), "none", "auto", options, 1)
    assert all(f.read_bytes() == content for f, content in before.items())


def test_going_on_from_an_earlier_checkpoint_sets_later_ones_aside(tiny_shards, tmp_path):
    """Else --resume auto would take up the branch that was left, and its folders crowd out the new ones."""
    options = ("save_every=1", "keep_checkpoints=9")
    arguments = (str(tiny_shards), str(tmp_path), "none")
    run_ranks(train_run, 1, *arguments, "none", ("steps=3", *options), 1)
    (tmp_path / "chosen").symlink_to(tmp_path / "checkpoints" / "step-00000001")
    run_ranks(train_run, 1, *arguments, str(tmp_path / "chosen"), ("steps=2", *options), 1)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        *("left-1-step-00000002", "left-1-step-00000003", "step-00000001", "step-00000002")
    ]
    resumed = run_ranks(train_run, 1, *arguments, "auto", ("steps=2", *options), 1)[0]
    assert [line["step"] for line in resumed["log"] if "train/lr" in line] == [1, 2]


def test_a_finished_run_is_left_alone_and_goes_on_when_told_so(tiny_shards, tmp_path):
    arguments = (str(tiny_shards), str(tmp_path), "none")
    run_ranks(train_run, 1, *arguments, "none", ("steps=2",), 1)
    before = {f: f.read_bytes() for f in sorted(tmp_path.rglob("*")) if f.is_file()}
    run_ranks(train_run, 1, *arguments, "auto", ("steps=2",), 1)
    with pytest.raises(RuntimeError, match="has 2 finished steps, more than steps=1"):
        run_ranks(train_run, 1, *arguments, "auto", ("steps=1",), 1)
    assert {f: f.read_bytes() for f in sorted(tmp_path.rglob("*")) if f.is_file()} == before
    first = read_weights(tmp_path)
    run_ranks(train_run, 1, *arguments, "auto", ("steps=3",), 1)
    (tmp_path / "weights").rename(tmp_path / "later")
    (tmp_path / "left-1-weights").rename(tmp_path / "weights")
    kept = read_weights(tmp_path)
    assert all(torch.equal(value, kept[name]) for name, value in first.items())


@pytest.mark.parametrize(("ds", "ranks"), [("none", 1), ("zero3_fp32", 2)])
def test_a_checkpoint_that_is_cut_off_names_the_earlier_one(tiny_shards, tmp_path, ds, ranks):
    arguments = (str(tiny_shards), str(tmp_path), ds)
    options = ("save_every=1", "keep_checkpoints=9", "steps=2")
    run_ranks(train_run, ranks, *arguments, "none", options, 1)
    for file in (tmp_path / "checkpoints/step-00000002").rglob("*.pt"):
        os.truncate(file, file.stat().st_size // 2)
    said = "step-00000002: this checkpoint cannot be read .*--resume .*step-00000001"
    with pytest.raises(RuntimeError, match=said):
        chosen = str(tmp_path / "checkpoints/step-00000002")
        run_ranks(train_run, ranks, *arguments, chosen, (*options, "steps=3"), 1)


def test_a_task_that_has_only_validation_data_is_not_validated(tiny_shards, tmp_path):
    shards = Path(shutil.copytree(tiny_shards, tmp_path / "shards"))
    whole = json.loads((shards / "dataset.json").read_text())
    del whole["splits"]["seg"]["train"]
    whole["fingerprint"] = fingerprint_of(whole)
    (shards / "dataset.json").write_text(json.dumps(whole))
    options = ("steps=1", "evaluate_every=1")
    log = run_ranks(train_run, 1, str(shards), str(tmp_path / "run"), "none", "none", options, 1)[0]["log"]
    found = {name.split("/")[1] for line in log for name in line if name.startswith("val/")}
    assert found == {"cls", "dec", "score"}


def test_another_data_set_than_the_checkpoints_is_refused(tiny_shards, tmp_path):
    arguments = (str(tiny_shards), str(tmp_path), "none", "none", ("steps=1",), 1)
    run_ranks(train_run, 1, *arguments)
    saved = json.loads((tmp_path / "config.json").read_text())
    saved["data"]["fingerprint"] = "0" * 64
    (tmp_path / "config.json").write_text(json.dumps(saved))
    arguments = (str(tiny_shards), str(tmp_path), "none", "auto", ("steps=2",), 1)
    with pytest.raises(RuntimeError, match="trained on other shards"):
        run_ranks(train_run, 1, *arguments)


def test_weights_of_a_run_are_the_models(tiny_shards, tmp_path):
    arguments = (str(tiny_shards), str(tmp_path), "zero3_fp32", "none", ("steps=1",), 1)
    result = run_ranks(train_run, 2, *arguments)[0]
    read = read_weights(tmp_path)
    assert read.keys() == result["weights"].keys()
    assert all((read[n].numpy() == v).all() for n, v in result["weights"].items())


def test_a_run_that_blows_up_names_rank_step_and_task(tiny_shards, tmp_path):
    options = ("steps=4", "optimizer.learning_rate=1e30", "optimizer.clip_norm=0", "schedule.warmup_steps=0")
    arguments = (str(tiny_shards), str(tmp_path), "zero3_fp32", "none", options, 1)
    with pytest.raises(RuntimeError, match=r"not finite(.|\n)*raised on rank \d after 1 finished steps"):
        run_ranks(train_run, 2, *arguments)


def test_weights_of_a_run_with_classes_in_another_order_are_refused(tiny_shards, tmp_path):
    run_ranks(train_run, 1, str(tiny_shards), str(tmp_path / "run"), "none", "none", ("steps=1",), 1)
    saved = json.loads((tmp_path / "run/config.json").read_text())
    seg = next(task for task in saved["tasks"] if task["name"] == "seg")
    seg["class_names"] = seg["class_names"][::-1]
    for task in saved["tasks"]:
        task["class_ids"] = [n + 1 for n in task["class_ids"]]  # numbers of a file, nothing in the model
    del saved["config"]["model"]
    (tmp_path / "run/config.json").write_text(json.dumps(saved))
    options = ("steps=1", f"pretrained={tmp_path / 'run/weights'}")
    with pytest.raises(RuntimeError, match="task 'seg': the run of .*other classes.*--like") as stop:
        run_ranks(train_run, 1, str(tiny_shards), str(tmp_path / "more"), "none", "none", options, 1)
    assert "task 'cls'" not in str(stop.value)


def test_refused_weights_leave_no_run_behind(tiny_shards, tmp_path):
    (tmp_path / "vit.safetensors").write_bytes(b"no weights")
    options = ("steps=1", f"pretrained={tmp_path / 'vit.safetensors'}")
    for ds, ranks in (("none", 1), ("zero3_fp32", 2)):
        with pytest.raises(RuntimeError, match=r"vit\.safetensors"):
            run_ranks(train_run, ranks, str(tiny_shards), str(tmp_path / "run"), ds, "none", options, 1)
        assert not (tmp_path / "run").exists()
