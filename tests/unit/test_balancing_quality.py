"""The comparison on real data plans, skips, tunes and sums up right; trainings are invented here."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from ufo_large.config import apply_overrides
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
ALONE = {"cls": {"top1": 0.5}, "dec": {"map50": 0.4}, "seg": {"miou": 0.2}}
NORMS = {"cls": 8.0, "dec": 1.0, "seg": 1.0}


@pytest.fixture
def quality(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import balancing_quality

    yield balancing_quality
    for name in ("balancing_quality", "run_queue"):
        del sys.modules[name]


def invented_scores(command: list[str]) -> dict:
    """Return scores that depend on the balancer only."""
    folder = Path(command[command.index("--workdir") + 1])
    alone = Path(command[command.index("--data") + 1]).name
    if alone in ALONE:
        return ALONE[alone] | {"score": 0.0}
    gain = {"plain-sum": 0.9, "tbgn-default": 1.1, "pcgrad": 1.2, "constants-cls3-dec1-seg1": 1.3}
    factor = gain.get(folder.parent.name, 0.8)
    scores = {m: factor * v for own in ALONE.values() for m, v in own.items()}
    return scores | {"score": sum(scores.values()) / 3}


@pytest.fixture
def calls(quality, monkeypatch):
    """Replace trainings and scorings; return the list of them."""
    import run_queue

    made = []

    def call(self, command, log):
        made.append(command)
        folder = Path(command[command.index("--workdir") + 1])
        if any(c.endswith("train.py") for c in command):
            (folder / "weights").mkdir()
            rows = [
                {f"balance/{t}/grad_norm": n for t, n in NORMS.items()} | {"balance/conflict_rate": 0.5}
            ] * 2
            (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
        else:
            results = RunFolder(folder).own_results(command[command.index("--split") + 1])
            results.mkdir(parents=True, exist_ok=True)
            (results / "metrics.json").write_text(json.dumps(invented_scores(command)))
        return False

    monkeypatch.setattr(run_queue.RunQueue, "_call", call)
    return made


def run(quality, monkeypatch, capsys, *options) -> list[dict]:
    monkeypatch.setattr(sys, "argv", ["balancing_quality.py", *map(str, options), "--json"])
    quality.main()
    return json.loads(capsys.readouterr().out.splitlines()[-1])["rows"]


def test_all_runs_once_and_the_table_by_hand(quality, calls, tiny_shards, tmp_path, monkeypatch, capsys):
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 0, 1, "--methods", "pcgrad", "--steps", 8)
    rows = {row["label"]: row for row in run(quality, monkeypatch, capsys, *options)}
    trained = [c for c in calls if any(a.endswith("train.py") for a in c)]
    assert len(trained) == 6 + 6 + 7 + 1  # singles, joint, candidates of seed 0, the best one's seed 1
    gains = {label: row["delta_m"] and round(100 * row["delta_m"][0], 6) for label, row in rows.items()}
    assert gains == {
        "single: cls": None,
        "single: dec": None,
        "single: seg": None,
        "plain sum": -10,
        "tbgn (default)": 10,
        "pcgrad": 20,
        "tuned constants: cls3 dec1 seg1": 30,
    }
    assert all(row["seeds"] == 2 and row["conflict_rate"] == 0.5 for row in rows.values())
    assert rows["plain sum"]["ahead"] is rows["single: cls"]["ahead"] is None
    lead = 0.2 * sum(v for own in ALONE.values() for v in own.values()) / 3
    assert rows["tbgn (default)"]["ahead"] == pytest.approx((lead, 0), abs=1e-12)
    before = len(calls)
    again = run(quality, monkeypatch, capsys, *options)
    assert len(calls) == before and [row["label"] for row in again] == list(rows)


def test_a_finished_training_that_was_not_scored_is_only_scored(
    quality, calls, tiny_shards, tmp_path, monkeypatch, capsys
):
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 0, "--methods", "pcgrad")
    run(quality, monkeypatch, capsys, *options)
    (tmp_path / "pcgrad" / "seed0" / "metrics_test.json").unlink()
    del calls[:]
    run(quality, monkeypatch, capsys, *options)
    assert [c[1].rpartition("/")[2] for c in calls] == ["run_all.py"]


def test_the_lead_is_paired_by_seed_worked_by_hand(quality):
    """Seeds 0 to 2 lead by 1, 3 and 2 points: mean 2, standard error 1 / sqrt(3); seed 3 has no pair."""
    scores = {"sum": (0.10, 0.40, 0.20), "one": (0.11, 0.43, 0.22, 0.9)}
    runs = {
        label: [
            quality.Run(label=label, seed=s, recipe="mini", data="", overrides=()) for s in range(len(own))
        ]
        for label, own in scores.items()
    }

    class Queue:
        def result(self, run, split):
            return {"score": scores[run.label][run.seed]}

    found = quality.paired(runs["one"], runs["sum"], Queue())
    assert found == pytest.approx((0.02, 0.01 / 3**0.5))
    assert quality.paired(runs["one"][:1], runs["sum"], Queue()) is None


def test_recorded_runs_need_no_folder(quality, calls, tiny_shards, tmp_path, monkeypatch, capsys):
    options = ("--data", tiny_shards, "--seeds", 0, "--methods", "pcgrad", "--records", tmp_path / "runs")
    part = ("--out", tmp_path / "one", "--only", "plain sum", "pcgrad")
    some = run(quality, monkeypatch, capsys, *options, *part)
    assert {row["label"]: row["seeds"] for row in some if row["seeds"]} == {"plain sum": 1, "pcgrad": 1}
    assert len(calls) == 2 * 3  # a training, two splits
    rows = run(quality, monkeypatch, capsys, *options, "--out", tmp_path / "two")
    assert not {"plain-sum", "pcgrad"} & {f.name for f in (tmp_path / "two").iterdir()}
    again = run(quality, monkeypatch, capsys, *options, "--out", tmp_path / "three", "--table")
    assert again == rows and all(row["seeds"] == 1 for row in rows)
    other = run(quality, monkeypatch, capsys, *options, "--out", tmp_path / "four", "--table", "--steps", 9)
    assert all(row["seeds"] == 0 for row in other)


def test_an_unknown_row_is_told(quality, calls, tiny_shards, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match=r"no such rows: \['sum'\]; there are .*'plain sum'"):
        run(quality, monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, "--only", "sum")


def test_runs_of_another_plan_are_not_mixed_in(quality, calls, tiny_shards, tmp_path, monkeypatch, capsys):
    options = ("--data", tiny_shards, "--out", tmp_path, "--seeds", 0, "--methods", "pcgrad")
    run(quality, monkeypatch, capsys, *options, "--steps", 8)
    with pytest.raises(SystemExit, match="holds another plan"):
        run(quality, monkeypatch, capsys, *options, "--steps", 9)


def test_the_table_of_an_unfinished_comparison(quality, calls, tiny_shards, tmp_path, monkeypatch, capsys):
    rows = run(quality, monkeypatch, capsys, "--data", tiny_shards, "--out", tmp_path, "--table")
    assert not calls and all(row["seeds"] == 0 and row["score"] is None for row in rows)


def test_constants_that_make_gradients_equally_long(quality):
    from run_queue import traits_of

    log = [{f"balance/{t}/grad_norm": n * s for t, n in NORMS.items()} for s in (0.5, 2.0)]
    assert quality.equal_lengths(traits_of(log)["grad_norm"]) == {"cls": 0.25, "dec": 2.0, "seg": 2.0}


def test_a_single_task_run_sees_its_task_as_often(quality):
    info = TaskInfo(name="dec", kind="detection", class_names=("x",), class_ids=(0,))
    config = apply_overrides(load_recipe("demo"), ["steps=100"])
    assert quality.single_overrides(config, info) == []
    half = apply_overrides(config, ["tasks.detection.micro_batches=0.5"])
    assert quality.single_overrides(half, info) == ["steps=50", "tasks.detection.micro_batches=1"]
    later = apply_overrides(half, ["tasks.detection.micro_batches_from.10=2"])
    with pytest.raises(ValueError, match="rests at times"):
        quality.single_overrides(later, info)


def test_a_view_shows_one_task(quality, tiny_shards, tmp_path):
    from ufo_large.data.shards import ShardSet

    view = ShardSet.open(quality.one_task_view(tiny_shards, "dec", tmp_path))
    whole = ShardSet.open(tiny_shards)
    assert [t.name for t in view.tasks] == ["dec"]
    assert len(view.split("dec", "train")) == len(whole.split("dec", "train")) > 0
    assert view.split("dec", "train").read(0).image == whole.split("dec", "train").read(0).image


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("balancing.py", ("--methods", "pcgard"), "Did you mean 'pcgrad'"),
        ("balancing.py", (), "no such folder"),
        ("balancing_quality.py", ("--out", "runs"), "no such folder"),
    ],
)
def test_a_wrong_call_of_a_benchmark_is_one_clean_message(monkeypatch, capsys, tmp_path, name, options, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.setattr(sys, "argv", [name, "--data", str(tmp_path / "none"), *options])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(BENCHMARKS / name), run_name="__main__")
    assert said in f"{stop.value.code} {capsys.readouterr().err}"


@pytest.mark.parametrize("name", ["draw_balancing.py", "draw_quality.py", "draw_transforms.py"])
def test_help_of_a_picture_script_draws_nothing(monkeypatch, capsys, name):
    script = BENCHMARKS.parent / "docs" / name
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(script), run_name="__main__")
    assert stop.value.code == 0 and "--out" in capsys.readouterr().out
