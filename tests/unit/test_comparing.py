"""compare_tasks.py plans, skips, chooses and sums up right; trainings are invented here."""

import json
import os
import runpy
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from ufo_large.comparing import comparison, trainings
from ufo_large.comparing.options import Options
from ufo_large.comparing.places import Place, places
from ufo_large.comparing.plan import FIXED, SHARED, SUM, Plan, equal_lengths
from ufo_large.comparing.recording import images_of, traits_of
from ufo_large.comparing.records import Records
from ufo_large.comparing.trainings import Interrupted, Workshop, work
from ufo_large.config import apply_overrides
from ufo_large.data.shards import ShardSet
from ufo_large.finetuning.children import Children
from ufo_large.finetuning.machine import Machine
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.testing.settings import SMALL_MODEL
from ufo_large.train.lock import training_alone
from ufo_large.train.run import trained_tasks

ROOT = Path(__file__).resolve().parents[2]
ALONE = {"cls": {"top1": 0.5}, "dec": {"map50": 0.4}, "seg": {"miou": 0.2}}
NORMS = {"cls": 8.0, "dec": 1.0, "seg": 1.0}
FACTORS = {
    "plain-sum": 0.9,
    "router-task": 0.95,
    "router-residual": 1.0,
    "router-residual-fraction-0.5-blocks-1": 1.0,
    "balancer-tbgn": 1.1,
    "balancer-pcgrad": 1.2,
    "constants-cls3-dec1-seg1": 1.3,
    "both-residual-pcgrad": 1.4,
    "both-residual-constants-cls3-dec1-seg1": 1.5,
}
SMALL = ("--recipe", "demo", *(word for setting in SMALL_MODEL for word in ("--set", setting)))


def invented_scores(command: list[str]) -> dict:
    """Return scores that depend on the row only."""
    folder = Path(command[command.index("--workdir") + 1])
    split = command[command.index("--split") + 1]
    alone = Path(command[command.index("--data") + 1]).name
    factor = FACTORS.get(folder.parent.name, 0.8)
    own = {alone: ALONE[alone]} if alone in ALONE else ALONE
    factor = 1.0 if alone in ALONE else factor
    tasks = {task: {m: factor * v for m, v in metrics.items()} for task, metrics in own.items()}
    scores = {m: v for metrics in tasks.values() for m, v in metrics.items()}
    return scores | {
        "score": sum(scores.values()) / len(scores),
        "tasks": tasks,
        "protocol": "standard",
        "split": split,
    }


def save_config(command: list[str], folder: Path) -> None:
    sets = [command[i + 1] for i, word in enumerate(command) if word == "--set"]
    config = apply_overrides(load_recipe(command[command.index("--recipe") + 1]), sets)
    data = command[command.index("--data") + 1]
    RunFolder(folder).write(config, trained_tasks(ShardSet.open(data)), "", data, None)


class Done:
    """A process that has ended."""

    def __init__(self, returncode: int):
        self.returncode = returncode

    def poll(self) -> int:
        return self.returncode

    wait = poll


@pytest.fixture
def calls(monkeypatch):
    """Replace trainings and scorings; return the list of them. Training in a folder of FAILING fails."""
    made = []

    def start(self, command, log, place):
        made.append(command)
        folder = Path(command[command.index("--workdir") + 1])
        if any(word.endswith("train.py") for word in command):
            if folder.parent.name in FAILING:
                log.write("error: no such weights\n")
                return Done(2)
            (folder / "weights").mkdir()
            save_config(command, folder)
            row = {f"balance/{t}/grad_norm": n for t, n in NORMS.items()} | {"balance/conflict_rate": 0.5}
            rows = [{"step": s, "train/step_seconds": 30.0, **row} for s in (1, 2)]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            results = RunFolder(folder).own_results(command[command.index("--split") + 1])
            results.mkdir(parents=True, exist_ok=True)
            (results / "metrics.json").write_text(json.dumps(invented_scores(command)))
        return Done(0)

    monkeypatch.setattr(Workshop, "start", start)
    monkeypatch.setattr(trainings, "PAUSE_S", 0.0)
    return made


FAILING: set[str] = set()


def compare(monkeypatch, capsys, *options) -> dict[str, dict]:
    """Run the command; return its rows by label."""
    words = ["compare_tasks.py", *SMALL, *map(str, options), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(ROOT / "launchers/compare_tasks.py"), run_name="__main__")
    return {row["label"]: row for row in json.loads(capsys.readouterr().out.splitlines()[-1])}


def trained(calls) -> list[str]:
    """Return the rows that were trained, in order."""
    folders = [Path(c[c.index("--workdir") + 1]) for c in calls if any(w.endswith("train.py") for w in c)]
    return [f"{folder.parent.name}/{folder.name}" for folder in folders]


def settings_of(calls, row: str) -> list[str]:
    command = next(c for c in calls if row in " ".join(c) and any(w.endswith("train.py") for w in c))
    return [command[i + 1] for i, word in enumerate(command) if word == "--set"]


def test_all_runs_once_and_the_table_by_hand(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 2, "--balancers", "tbgn", "pcgrad")
    options = (*options, "--routers", "shared", "task", "residual")
    rows = compare(monkeypatch, capsys, *options)
    gains = {label: row["delta_m"] and round(100 * row["delta_m"]["value"], 6) for label, row in rows.items()}
    assert gains == {
        "single: cls": None,
        "single: dec": None,
        "single: seg": None,
        "plain sum": -10,
        "router: task": -5,
        "router: residual": 0,
        "balancer: tbgn": 10,
        "balancer: pcgrad": 20,
        "both: residual + pcgrad": 40,
    }
    assert all(row["seeds"] == [0, 1] for row in rows.values())
    lead = 0.2 * sum(v for own in ALONE.values() for v in own.values()) / 3
    assert rows["balancer: tbgn"]["ahead"] == pytest.approx({"0": lead, "1": lead}, abs=1e-12)
    assert rows["balancer: tbgn"]["delta_m"]["error"] == pytest.approx(0, abs=1e-12)
    assert len(trained(calls)) == 2 * len(rows)
    assert [name.partition("/")[2] for name in trained(calls)] == ["seed0"] * 8 + ["seed1"] * 8 + [
        "seed0",
        "seed1",
    ]
    before = len(calls)
    assert compare(monkeypatch, capsys, *options) == rows and len(calls) == before


def test_what_each_row_says_to_the_trainer(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    """The demo's own router is `task`, its balancer `tbgn`: those keep the recipe's settings."""
    own = ("--routers", "task", "residual:fraction=0.5:blocks=1", "--balancers", "tbgn", "pcgrad")
    own = (*own, "--pairs", "task+pcgrad")
    compare(monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, "--seeds", 1, *own)
    common = ["seed=0", *SMALL_MODEL]
    residual = [
        "model.trunk.router=residual",
        "model.trunk.router.fraction=0.5",
        "model.trunk.router.blocks=1",
    ]
    assert settings_of(calls, "single-cls") == settings_of(calls, "plain-sum") == [*common, SHARED, FIXED]
    assert settings_of(calls, "router-task") == [*common, FIXED]
    assert settings_of(calls, "router-residual") == [*common, *residual, FIXED]
    assert settings_of(calls, "balancer-tbgn") == [*common, SHARED]
    assert settings_of(calls, "balancer-pcgrad") == [*common, SHARED, "balancer=pcgrad"]
    assert settings_of(calls, "both-task") == [*common, "balancer=pcgrad"]
    assert settings_of(calls, "both-residual") == [*common, *residual, "balancer=pcgrad"]
    single = next(c for c in calls if "single-cls" in " ".join(c))
    assert single[single.index("--data") + 1] == str(tmp_path / "shards/cls")


def test_changes_are_measured_against_the_recipe(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(FACTORS, "recipe", 1.0)
    monkeypatch.setitem(FACTORS, "change-optimizer.layer_decay-0.9", 0.7)
    own = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 2, "--only", "changes")
    rows = compare(monkeypatch, capsys, *own, "--changes", "optimizer.layer_decay=0.9", "balancer=pcgrad")
    assert set(rows) == {"recipe", "change: optimizer.layer_decay=0.9", "change: balancer=pcgrad"}
    assert settings_of(calls, "recipe") == ["seed=0", *SMALL_MODEL]
    assert settings_of(calls, "change-balancer") == ["seed=0", *SMALL_MODEL, "balancer=pcgrad"]
    note = (tmp_path / "comparison.md").read_text()
    line = "-15.00 ± 0.00 | -12.00 ± 0.00 | -6.00 ± 0.00 | -11.00 ± 0.00 | -11.00, -11.00 |"  # 0.3 of ALONE
    assert f"| optimizer.layer_decay=0.9 | {line}" in note
    assert "delta-m" not in (tmp_path / "comparison.svg").read_text() and "## Differences" not in note


def test_seeds_may_be_trained_elsewhere_and_joined(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    own = ("--data", tiny_shards, "--routers", "--balancers", "--only", "plain sum", "--seeds", 2)
    here, there = tmp_path / "here", tmp_path / "there"
    compare(monkeypatch, capsys, *own, "--out", here)
    compare(monkeypatch, capsys, *own, "--out", there, "--first-seed", 2)
    assert trained(calls) == [f"plain-sum/seed{n}" for n in range(4)]
    with (here / "records.jsonl").open("a") as joined:
        joined.write((there / "records.jsonl").read_text())
    rows = compare(monkeypatch, capsys, *own[:-1], 4, "--out", here)
    assert rows["plain sum"]["seeds"] == [0, 1, 2, 3] and len(trained(calls)) == 4


def test_constants_are_tuned_on_val_of_the_first_seed(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    own = ("--routers", "residual", "--balancers", "pcgrad", "constants", "--seeds", 2)
    rows = compare(monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, *own)
    tried = {label: len(row["seeds"]) for label, row in rows.items() if label.startswith("constants")}
    assert len(tried) == 7 and tried.pop("constants cls3 dec1 seg1") == 2 and set(tried.values()) == {1}
    assert rows["both: residual + constants cls3 dec1 seg1"]["delta_m"]["value"] == pytest.approx(0.5)
    assert settings_of(calls, "constants-cls3-dec1-seg1")[-3:] == [
        "balancer.by_task.cls=3",
        "balancer.by_task.dec=1",
        "balancer.by_task.seg=1",
    ]
    picture = (tmp_path / "comparison.svg").read_text()
    assert "constants cls3 dec1 seg1" in picture and "dec0.333" not in picture
    before = len(calls)
    assert compare(monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, *own) == rows
    assert len(calls) == before


def test_a_finished_training_that_was_not_scored_is_only_scored(
    calls, tiny_shards, tmp_path, monkeypatch, capsys
):
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 1, "--only", SUM)
    rows = compare(monkeypatch, capsys, *options)
    (tmp_path / "plain-sum/seed0/metrics.json").unlink()
    (tmp_path / "records.jsonl").unlink()
    del calls[:]
    assert compare(monkeypatch, capsys, *options) == rows
    assert [[Path(w).name for w in c if w.endswith(".py")][-1] for c in calls] == ["run_all.py"]
    assert Records(tmp_path / "records.jsonl").rows[0].wall_s is None  # part of it was done before


def test_the_record_of_a_run_has_what_table_and_picture_need(
    calls, tiny_shards, tmp_path, monkeypatch, capsys
):
    compare(
        monkeypatch,
        capsys,
        "--data",
        tiny_shards,
        "--out",
        tmp_path,
        "--seeds",
        1,
        "--only",
        SUM,
        "single: cls",
    )
    by_label = {r.label: r for r in Records(tmp_path / "records.jsonl").rows}
    plain, alone = by_label[SUM], by_label["single: cls"]
    assert plain.seconds == 60 and plain.wall_s is not None and plain.split == "test"
    assert plain.images["cls"] == alone.images["cls"] == 260 * 40
    assert alone.parameters == alone.active["cls"] == plain.active["cls"] < plain.parameters
    assert plain.traits == {"grad_norm": pytest.approx(NORMS), "conflict_rate": 0.5}
    assert plain.scores["val"]["tasks"]["dec"] == {"map50": pytest.approx(0.36)}


def test_records_go_on_without_the_runs(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    options = ("--data", tiny_shards, "--seeds", 1, "--routers", "task", "--balancers", "pcgrad")
    options = (*options, "--records", tmp_path / "records.jsonl")
    some = compare(
        monkeypatch, capsys, *options, "--out", tmp_path / "one", "--only", SUM, "balancer: pcgrad"
    )
    assert set(some) == {SUM, "balancer: pcgrad"} and len(calls) == 2 * 3  # a training, two splits
    del calls[:]
    rows = compare(monkeypatch, capsys, *options, "--out", tmp_path / "two")
    assert not {"plain-sum/seed0", "balancer-pcgrad/seed0"} & set(trained(calls)) and len(rows) == 7
    again = compare(monkeypatch, capsys, *options[-2:], "--out", tmp_path / "three", "--table")
    assert again == rows
    for name in ("comparison.md", "comparison.svg", "comparison.html"):
        assert (tmp_path / "three" / name).read_text() == (tmp_path / "two" / name).read_text()


def test_one_failure_stops_no_other_run_and_is_told(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules[__name__], "FAILING", {"plain-sum"})
    with pytest.raises(SystemExit, match=r"(?s)1 runs failed.*plain sum, seed 0.*no such weights"):
        compare(
            monkeypatch,
            capsys,
            "--data",
            tiny_shards,
            "--out",
            tmp_path,
            "--seeds",
            1,
            "--balancers",
            "pcgrad",
        )
    assert "single: seg" in (tmp_path / "comparison.md").read_text()
    assert "both-residual-pcgrad/seed0" in trained(calls)


def test_where_every_run_fails_the_reason_is_told(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules[__name__], "FAILING", {"plain-sum"})
    with pytest.raises(SystemExit, match=r"(?s)no finished run.*plain sum, seed 0.*no such weights"):
        compare(monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, "--only", SUM, "--seeds", 1)


def test_rows_that_nobody_asked_for_are_not_checked(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    """A task that rests has no single-task run, and there is no block 99 to route."""
    settings = ("micro_batches=0.5", "micro_batches_from.10=2")
    words = [w for s in settings for w in ("--set", f"tasks.detection.{s}")]
    words += ["--set", "steps=100", "--routers", "residual:blocks=99"]
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 1, *words)
    compare(monkeypatch, capsys, *options, "--only", SUM)
    assert trained(calls) == ["plain-sum/seed0"] and not (tmp_path / "shards").exists()
    with pytest.raises(SystemExit, match=r"--only 'single: decs': no such row.*'single: dec'"):
        compare(monkeypatch, capsys, *options, "--only", "single: decs")
    with pytest.raises(SystemExit, match=r"router.blocks names .99., but the trunk has"):
        compare(monkeypatch, capsys, *options, "--only", "router: residual:blocks=99")
    with pytest.raises(SystemExit, match="'dec' rests at times"):
        compare(monkeypatch, capsys, *options, "--only", "single: dec")


def test_two_comparisons_may_write_one_file_of_records(tmp_path):
    lines = (ROOT / "benchmarks/results/balancing_quality_mini_1000_steps.jsonl").read_text().splitlines()
    whole = tmp_path / "all.jsonl"
    whole.write_text("\n".join(lines[:2]))
    rows = Records(whole).rows
    here, there = (Records(tmp_path / "shared.jsonl") for _ in range(2))
    here.add(rows[0])
    there.add(rows[1])
    assert Records(tmp_path / "shared.jsonl").rows == rows == there.rows


def test_gpus_are_those_that_the_caller_may_see(monkeypatch):
    """Of the GPUs 4, 2 and 7 two trainings get one each, by its own number; a name is not for DeepSpeed."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 2,7")
    machine = Machine(gpus=3, cores=1, memory=1 << 30, bf16=True)
    assert [place.gpus for place in places(machine, 2, 1, None)] == [("4",), ("2",)]
    shop = Workshop(root=ROOT, out=ROOT, machine=machine, ranks=1, sharded=False, splits=())
    assert shop._environment(Place(gpus=("2",)))["CUDA_VISIBLE_DEVICES"] == "2"
    start = Children(root=ROOT, machine=replace(machine, gpus=2))._start(sharded=True)
    assert start[start.index("--include") + 1] == "localhost:4,2" and "--num_gpus" not in start
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937")
    with pytest.raises(ValueError, match="names GPU-8932f937; give GPUs by number"):
        Children(root=ROOT, machine=replace(machine, gpus=1))._start(sharded=True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [place.gpus for place in places(machine, 2, 1, None)] == [("0",), ("1",)]
    assert "--num_gpus" in Children(root=ROOT, machine=machine)._start(sharded=True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--only", "sum"), r"--only 'sum': no such row.*plain sum"),
        (("--routers", "residul"), r"--routers residul: no 'residul'.*Did you mean 'residual'"),
        (("--routers", "residual:0.5"), r"'0.5' is no setting; write residual:field=value"),
        (("--routers", "residual:fracton=0.5"), r"router: residual:fracton=0.5: .*fraction"),
        (
            ("--set", "balancer=pcgrad"),
            r"--set balancer=pcgrad: the rows differ in balancer; say it with --balancers",
        ),
        (("--set", "seed=3"), r"say it with --seeds"),
        (
            ("--set", "patience=2", "--set", "evaluate_every=2"),
            r"patience=2 ends rows after different numbers",
        ),
        (("--seeds", "0"), r"--seeds 0: give 1 or more"),
        (("--first-seed", "-1"), r"--first-seed -1: give 0 or more"),
        (("--first-seed", "2", "--balancers", "constants"), r"--first-seed 2: constants are tuned on seed 0"),
        (("--changes", "optimizer.layer_deca=1"), r"change: optimizer.layer_deca=1: .*layer_decay"),
        (("--changes", "seed=4"), r"--changes seed=4: rows have equal seeds"),
        (("--changes", "balancer=tbgn"), r"change: balancer=tbgn: the recipe says so already"),
        (("--only", "changes"), r"--only 'changes': no such row"),
        (("--pairs", "task"), r"--pairs task: write ROUTER\+BALANCER"),
        (("--pairs", "shared+tbgn"), r"other than shared and fixed"),
        (("--pairs", "task+pcgard"), r"--pairs pcgard: no 'pcgard'.*Did you mean 'pcgrad'"),
        (("--set", "ds=none", "--ranks", "2"), r"--ranks 2: ds=none trains in one process"),
        (("--cores", "4096"), r"--jobs 1 with --cores 4096 take 4096 cores"),
        (("--set", "pretrained=nowhere.safetensors"), r"nowhere.safetensors"),
        (("--set", "keep_best=true"), r"(?s)all rows: .*keep_best and patience have an effect with"),
        (("--data", "s3://bucket/shards"), r"single-task runs need the shards in a local folder"),
    ],
)
def test_what_does_not_fit_is_told_before_anything_is_trained(
    calls, tiny_shards, tmp_path, monkeypatch, capsys, options, told
):
    with pytest.raises(SystemExit, match=told):
        compare(monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, *options)
    assert not calls


def test_runs_of_another_plan_are_not_mixed_in(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 1, "--only", SUM)
    compare(monkeypatch, capsys, *options, "--set", "steps=8")
    with pytest.raises(SystemExit, match=r"'plain sum', seed 0, has plan .*steps=8.*give another --records"):
        compare(monkeypatch, capsys, *options, "--set", "steps=9")
    (tmp_path / "records.jsonl").unlink()
    with pytest.raises(SystemExit, match="holds another plan"):
        compare(monkeypatch, capsys, *options, "--set", "steps=9")
    with pytest.raises(SystemExit, match=r"no finished run is recorded"):
        compare(monkeypatch, capsys, "--out", tmp_path / "none", "--table")


def test_a_changed_recipe_file_is_another_plan(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    recipe = tmp_path / "mine.py"
    recipe.write_text("from ufo_large.recipes.demo import recipe\n")
    options = ("--recipe", recipe, "--data", tiny_shards, "--out", tmp_path, "--seeds", 1, "--only", SUM)
    compare(monkeypatch, capsys, *options)
    recipe.write_text("# changed\nfrom ufo_large.recipes.demo import recipe\n")
    with pytest.raises(SystemExit, match=r"mine.py sha256:\w+.*mine.py sha256:"):
        compare(monkeypatch, capsys, *options)


def plan_of(tiny_shards, tmp_path, *settings) -> Plan:
    return Plan(Options(recipe="demo", data=str(tiny_shards), out=tmp_path, settings=settings))


def test_no_row_stops_early(tiny_shards, tmp_path):
    recipe = tmp_path / "patient.py"
    told = "return apply_overrides(demo.recipe(), ['evaluate_every=10', 'patience=3'])"
    imports = "from ufo_large.config import apply_overrides\nfrom ufo_large.recipes import demo"
    recipe.write_text(f"{imports}\n\n\ndef recipe():\n    {told}\n")
    plan = Plan(Options(recipe=str(recipe), data=str(tiny_shards), out=tmp_path))
    assert plan.common == ("patience=0",) and not plan.config.patience


def test_a_single_task_run_sees_its_task_as_often(tiny_shards, tmp_path):
    """Half a micro-batch a step: half as many steps, warm-up and validations with them."""
    plan = plan_of(
        tiny_shards, tmp_path, "tasks.detection.micro_batches=0.5", "steps=100", "evaluate_every=10"
    )
    shards = ShardSet.open(tiny_shards)
    for info in plan.tasks:
        alone = plan.config_of(plan.single(info)[0])
        together = images_of(plan.config, (info,), shards, 2)
        assert images_of(alone, (info,), shards, 2) == together
    dec = plan.config_of(plan.single(plan.tasks[1])[0])
    assert (dec.steps, dec.schedule.warmup_steps, dec.evaluate_every) == (50, 10, 5)
    later = plan_of(
        tiny_shards,
        tmp_path,
        "tasks.detection.micro_batches=0.5",
        "tasks.detection.micro_batches_from.10=2",
    )
    with pytest.raises(ValueError, match="rests at times"):
        later.known_rows()


def test_a_view_shows_one_task(tiny_shards, tmp_path):
    from ufo_large.comparing.one_task import one_task_view

    for _ in range(2):
        view = ShardSet.open(one_task_view(tiny_shards, "dec", tmp_path))
    whole = ShardSet.open(tiny_shards)
    assert [t.name for t in view.tasks] == ["dec"]
    assert len(view.split("dec", "train")) == len(whole.split("dec", "train")) > 0
    assert view.split("dec", "train").read(0).image == whole.split("dec", "train").read(0).image


def test_constants_that_make_gradients_equally_long():
    log = [{f"balance/{t}/grad_norm": n * s for t, n in NORMS.items()} for s in (0.5, 2.0)]
    assert equal_lengths(traits_of(log)["grad_norm"]) == {"cls": 0.25, "dec": 2.0, "seg": 2.0}


def test_a_damaged_or_foreign_record_is_named(tmp_path):
    file = tmp_path / "records.jsonl"
    whole = (ROOT / "benchmarks/results/balancing_quality_mini_1000_steps.jsonl").read_text().splitlines()
    file.write_text(f"{whole[0][:50]}\n{whole[1]}\n")
    with pytest.raises(ValueError, match=r"records.jsonl, line 1: no record of a run"):
        Records(file)
    file.write_text(f"{whole[0]}\n{whole[0]}\n")
    with pytest.raises(ValueError, match=r"line 2: 'pcgrad', seed 0, is there already"):
        Records(file)
    file.write_text(f"{whole[0]}\n{whole[1].replace('mini', 'small')}\n")
    with pytest.raises(
        ValueError, match=r"line 2: recipe small, in the first record of .* mini: they are of two"
    ):
        Records(file)


def test_hours_from_a_measurement(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    """Joint runs of 2,400 s, three single ones that take as long as one of them together."""
    pace = {"step_s": 1.0, "image_s": {"cls": 0.0, "dec": 0.0, "seg": 0.0}}
    start = Workshop.start

    def measure(self, command, log, place):
        if "--measure" not in command:
            return start(self, command, log, place)
        config = json.loads(Path(command[command.index("--measure") + 1]).read_text())["config"]
        assert config["steps"] == 2400
        (tmp_path / "measured/pace.json").write_text(
            json.dumps(pace | {"image_s": dict.fromkeys(NORMS, 1e-9)})
        )
        return Done(0)

    monkeypatch.setattr(Workshop, "start", measure)
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 1, "--set", "steps=2400", "--jobs", 2)
    options = (*options, "--routers", "task", "--balancers", "pcgrad")
    monkeypatch.setattr(sys, "argv", ["compare_tasks.py", *SMALL, *map(str, options), "--hours"])
    runpy.run_path(str(ROOT / "launchers/compare_tasks.py"), run_name="__main__")
    # plain sum, router, balancer, best
    assert f"about {5 * 2400 / 2 / 3600:.2f} hours are left, 2 at a time" in capsys.readouterr().out
    assert not trained(calls)


class Scripts(Workshop):
    """Runs are small programs."""

    def commands(self, run, place):
        yield [sys.executable, "-c", PROGRAM, str(self.folder(run).root)]


PROGRAM = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def stop(number, frame):
    (folder / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
(folder / "cores").write_text(repr(sorted(os.sched_getaffinity(0))))
if folder.parent.name == "slow":
    (folder / "started").touch()
    time.sleep(60)
"""


def scripts(tmp_path) -> Scripts:
    machine = Machine(gpus=0, cores=1, memory=1 << 30, bf16=False)
    return Scripts(root=ROOT, out=tmp_path, machine=machine, ranks=1, sharded=False, splits=("val",))


def runs(tiny_shards, tmp_path, *labels):
    plan = plan_of(tiny_shards, tmp_path)
    return [plan.joint(label)[0] for label in labels]


def test_a_training_gets_its_own_cores_and_leaves_the_commands_alone(tiny_shards, tmp_path):
    mine = sorted(os.sched_getaffinity(0))
    place, told = Place(cores=(mine[-1],)), []
    jobs = runs(tiny_shards, tmp_path, "a", "b")
    assert not work(scripts(tmp_path), [place], jobs, lambda run, seconds: told.append(run.label))
    assert told == ["a", "b"] and (tmp_path / "a/seed0/cores").read_text() == repr([mine[-1]])
    assert sorted(os.sched_getaffinity(0)) == mine


def test_a_signal_lets_trainings_save_and_starts_no_others(tiny_shards, tmp_path):
    def interrupt():
        while not (tmp_path / "slow/seed0/started").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    sender = threading.Thread(target=interrupt)
    sender.start()
    with pytest.raises(Interrupted):
        work(scripts(tmp_path), [Place()], runs(tiny_shards, tmp_path, "slow", "next"), pytest.fail)
    sender.join()
    assert (tmp_path / "slow/seed0/saved").exists() and not (tmp_path / "next/seed0/cores").exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_goes_wrong_here_leaves_no_training_behind(tiny_shards, tmp_path):
    def finished(run, seconds):
        while not (tmp_path / "slow/seed0/started").exists():
            time.sleep(0.02)
        raise ValueError("no score")

    with pytest.raises(ValueError, match="no score"):
        work(scripts(tmp_path), [Place(), Place()], runs(tiny_shards, tmp_path, "slow", "quick"), finished)
    assert (tmp_path / "slow/seed0/saved").exists()


def test_two_comparisons_do_not_share_a_folder(calls, tiny_shards, tmp_path, monkeypatch, capsys):
    with training_alone(tmp_path), pytest.raises(SystemExit, match="another run trains here.* another --out"):
        compare(monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, "--only", SUM)
    assert not calls


def test_rows_are_checked_before_any_is_trained(tiny_shards, tmp_path):
    plan = Plan(Options(recipe="demo", data=str(tiny_shards), out=tmp_path, routers=("task:blocks=9",)))
    whole = comparison.Comparison(plan, scripts(tmp_path), [Place()], Records(tmp_path / "records.jsonl"))
    with pytest.raises(ValueError, match=r"(?s)1. router: task:blocks=9: .*router.blocks names \[9\]"):
        whole.check()
