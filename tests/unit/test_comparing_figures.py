"""Means, differences at equal seeds, delta-m and their errors, worked by hand; tables, picture and page."""

import math
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from ufo_large.comparing.figures import (
    Estimate,
    Spread,
    by_seed,
    estimate,
    gain,
    higher_is_better,
    lead,
    spread,
    summarise,
)
from ufo_large.comparing.plot import draw
from ufo_large.comparing.recording import sizes_of
from ufo_large.comparing.records import Record, Records
from ufo_large.comparing.report import rows_of, write_comparison
from ufo_large.comparing.table import estimate_text, spread_text, titles_of, verdict, winners
from ufo_large.config import apply_overrides
from ufo_large.kinds import KINDS, Headline
from ufo_large.recipes import load_recipe
from ufo_large.testing.settings import SMALL_MODEL
from ufo_large.testing.simulated_run import INFOS

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks/results"


def record(label: str, seed: int, **figures) -> Record:
    return Record(
        label=label,
        plan={"recipe": "demo", "seed": seed, "overrides": []},
        ranks=1,
        data="0",
        scores={"val": {"score": 0.5}, "test": figures},
        traits={"conflict_rate": None},
        recorded="",
        commit=None,
        processor="x",
        torch="2",
    )


def rows(*labels_and_figures) -> list[Record]:
    """Each: a label, a metric's name, its values by seed; the score is the same."""
    return [
        record(label, seed, **{metric: value, "score": value})
        for label, metric, values in labels_and_figures
        for seed, value in enumerate(values)
    ]


def test_spread_and_standard_error_by_hand():
    """1, 3 and 2: mean 2, deviation 1, standard error 1 / sqrt(3); one value has neither."""
    assert spread([1, 3, 2]) == Spread(2, 1) and spread([]) is None and spread([4]) == Spread(4, None)
    assert estimate([1, 3, 2]) == Estimate(2, pytest.approx(1 / math.sqrt(3)))
    assert estimate([4]) == Estimate(4, None) and estimate([]) is None


def test_the_lead_is_paired_by_seed_worked_by_hand():
    """Seeds 0 to 2 lead by 1, 3 and 2 points; seed 3 has no pair. Unpaired, the error would be ten times."""
    records = rows(
        ("plain sum", "top1", (0.10, 0.40, 0.20)), ("router: task", "top1", (0.11, 0.43, 0.22, 0.9))
    )
    found = {row.label: row for row in summarise(records, ["top1", "score"])}
    assert found["router: task"].ahead == pytest.approx({0: 0.01, 1: 0.03, 2: 0.02})
    lead_of = estimate(list(found["router: task"].ahead.values()))
    assert (lead_of.value, lead_of.error) == pytest.approx((0.02, 0.01 / math.sqrt(3)))
    assert found["plain sum"].ahead == {} and found["router: task"].seeds == [0, 1, 2, 3]


def test_delta_m_by_hand_with_the_noise_of_the_single_runs():
    """Two seeds: 0.505 over 0.45 is +12.2 %; without one seed in turn +10 % and +15 %, an error of 2.5 %."""
    records = rows(("single: cls", "top1", (0.5, 0.4)), ("plain sum", "top1", (0.55, 0.46)))
    found = gain(records[2:], records[:2])
    assert (found[0].value, found[0].error) == pytest.approx((0.505 / 0.45 - 1, 0.025))
    assert found[1] == pytest.approx({0: 0.55 / 0.45 - 1, 1: 0.46 / 0.45 - 1})


def test_without_noise_in_the_single_runs_the_error_is_that_of_a_mean():
    records = rows(("single: cls", "top1", (0.5, 0.5, 0.5)), ("plain sum", "top1", (0.55, 0.6, 0.5)))
    found, gains = gain(records[3:], records[:3])
    assert (found.value, found.error) == pytest.approx((0.1, 0.1 / math.sqrt(3)))
    assert estimate(list(gains.values())) == Estimate(pytest.approx(0.1), pytest.approx(found.error))


def test_delta_m_counts_seeds_that_all_single_tasks_have():
    records = rows(
        ("single: cls", "top1", (0.5, 0.5)),
        ("single: dec", "map50", (0.5,)),
        ("plain sum", "top1", (0.6, 0.9)),
    )
    joint = [record("plain sum", seed, top1=0.6, map50=0.4, score=0.5) for seed in (0, 1)]
    found, gains = gain(joint, records[:3])
    assert found == Estimate(pytest.approx(0.0), None) and set(gains) == {0}
    assert gain(joint, []) == (None, {})


def test_where_less_is_better_every_difference_is_turned(monkeypatch):
    """An error of 0.4 alone and of 0.3 jointly: a lead of 0.1, a gain of 25 %."""
    kind = type(
        "Less", (), {"headline": Headline(name="error", title="error", label="", higher_is_better=False)}
    )
    monkeypatch.setitem(KINDS, "less", kind())
    records = rows(("single: dst", "error", (0.4, 0.4)), ("plain sum", "error", (0.3, 0.3)))
    found = summarise(records, ["error"])[1]
    assert found.over_single["error"] == pytest.approx({0: 0.1, 1: 0.1})
    assert (found.delta_m.value, found.delta_m.error) == pytest.approx((0.25, 0))
    assert lead({0: 1.0}, {0: 3.0}, "dst/error") == {0: 2.0}
    assert higher_is_better("score") and higher_is_better("top1") and not higher_is_better("error")


def test_two_tasks_of_a_kind_stand_beside_their_mean():
    tasks = {"near": {"map50": 0.2}, "far": {"map50": 0.4}}
    records = [record("plain sum", 0, map50=0.3, score=0.3, tasks=tasks)]
    for name, values in tasks.items():
        figures = {"map50": values["map50"], "score": values["map50"], "tasks": {name: values}}
        records.append(record(f"single: {name}", 0, **figures))
    assert list(titles_of(records)) == ["map50", "score", "near/map50", "far/map50"]
    assert by_seed(records[:1], "far/map50") == {0: 0.4} and by_seed(records[1:], "map50") == {
        0: pytest.approx(0.3)
    }
    joint = next(row for row in rows_of(records) if row.label == "plain sum")
    assert joint.over_single["near/map50"] == {0: 0.0} and joint.delta_m.value == pytest.approx(0)


def test_a_mean_over_tasks_of_a_kind_wants_each_of_them_alone():
    """Seed 0 has `near` alone, seed 1 both: only seed 1 compares the means, both compare `near`."""
    tasks = {"near": {"map50": 0.2}, "far": {"map50": 0.4}}
    joint = [record("plain sum", seed, map50=0.3, score=0.3, tasks=tasks) for seed in (0, 1)]
    alone = [record("single: near", s, map50=0.2, score=0.2, tasks={"near": tasks["near"]}) for s in (0, 1)]
    assert gain(joint, alone) == (None, {})
    alone.append(record("single: far", 1, map50=0.4, score=0.4, tasks={"far": tasks["far"]}))
    found = next(row for row in rows_of([*joint, *alone]) if row.label == "plain sum")
    assert found.over_single["map50"] == {1: pytest.approx(0.0)} and set(found.gains) == {1}
    assert found.over_single["near/map50"] == {0: 0.0, 1: 0.0}


def test_numbers_in_words():
    assert spread_text(Spread(0.5, 0.0123)) == "50.00 ± 1.23" and spread_text(Spread(0.5)) == "50.00"
    assert estimate_text(Estimate(0.01, 0.005), sign=True) == "+1.00 ± 0.50"
    assert spread_text(None) == estimate_text(None) == ""


def test_the_verdict_compares_at_equal_seeds():
    records = rows(
        ("single: cls", "top1", (0.5, 0.5)),
        ("plain sum", "top1", (0.50, 0.60)),
        ("router: task", "top1", (0.51, 0.62)),
        ("constants cls3", "top1", (0.9,)),
    )
    told = verdict(rows_of(records))
    assert told.startswith(
        "First by delta-m: router: task, then plain sum; seed by seed it leads by 3.00 ± 1.00"
    )
    assert "at least two standard errors" in told
    assert verdict(rows_of(records[:4])) == "Not enough runs to compare yet."


def test_who_is_above_single_task_training():
    """The plain sum gains 5 % and 0.1 % in its two seeds; a row that loses mAP50 for Top-1 harms a task."""
    alone = [record("single: cls", s, top1=0.5, score=0.5) for s in (0, 1)]
    alone += [record("single: dec", s, map50=0.5, score=0.5) for s in (0, 1)]
    tops = {"plain sum": (0.55, 0.501), "router: task": (0.55, 0.552), "router: learned": (0.8, 0.802)}
    maps = {"plain sum": 0.5, "router: task": 0.5, "router: learned": 0.4}
    joint = [
        record(label, seed, top1=top, map50=maps[label], score=0.5)
        for label, both in tops.items()
        for seed, top in enumerate(both)
    ]
    assert winners(rows_of(alone + joint)).endswith("over seeds: router: task.")
    assert winners(rows_of(alone + joint[:2])).endswith("over seeds: no row.")


def test_leads_over_a_row_are_worked_by_hand(tmp_path):
    """Seeds that only one of both has do not count: 2 and 4 points are 3 ± 1; without one, no figure."""
    records = rows(
        ("balancer: tbgn", "top1", (0.50, 0.60, 0.9)),
        ("both: task + tbgn", "top1", (0.52, 0.64)),
        ("single: cls", "top1", (0.5,)),
    )
    text = write_comparison(tmp_path, [*records, record("other", 7, top1=0.1, score=0.1)], "balancer: tbgn")
    table = text.partition("## Over balancer: tbgn")[2].partition("## ")[0]
    assert [line for line in table.splitlines() if line.startswith("| ")][2:] == [
        "| both: task + tbgn | +3.00 ± 1.00 | +3.00 ± 1.00 | +2.00, +4.00 |",
        "| other |  |  |  |",
    ]
    assert "Over balancer: tbgn" in (tmp_path / "comparison.html").read_text()
    with pytest.raises(ValueError, match=r"--over 'tbgn': no such row\..*balancer: tbgn"):
        write_comparison(tmp_path, records, "tbgn")


def test_figures_of_a_split():
    both = record("plain sum", 0, score=0.7)
    assert both.figures["score"] == 0.7 and both.of_split("val").figures["score"] == 0.5
    with pytest.raises(ValueError, match="--split test: 'plain sum', seed 0, has val"):
        both.of_split("val").of_split("test")


def test_the_committed_records_give_the_committed_table(tmp_path):
    """The note's means and deviations came from an earlier program; every joint row must come out again."""
    text = write_comparison(tmp_path, Records(RESULTS / "balancing_quality_mini_1000_steps.jsonl").rows)
    note = (RESULTS / "balancing_quality_mini_x86_64_202611.md").read_text()
    lines = [line.split(" | ") for line in note.partition("## 150 steps")[0].splitlines() if " ± " in line]
    lines = [cells for cells in lines if len(cells) == 9]
    assert len(lines) == 9
    for name, seeds, *figures, _, delta, _ in lines:
        name = name.removeprefix("| ").replace("tuned constants: ", "constants ").strip()
        again = next(line for line in text.splitlines() if line.startswith(f"| {name} |")).split(" | ")
        assert again[1] == seeds and again[2:6] == figures
        assert again[6].removeprefix("+").split(" ±")[0] == delta.split(" ±")[0]


def test_parameters_that_a_token_meets():
    """One block is routed: one of two paths, k of the experts, the shared MLP and the narrow one by it."""
    tasks, small = (INFOS["cls"], INFOS["dec"]), SMALL_MODEL

    def sizes(router: str) -> tuple[int, int]:
        config = apply_overrides(load_recipe("demo"), [f"model.trunk.router={router}", *small])
        found = sizes_of(config, tasks)
        return found["parameters"], found["active"]["cls"]

    mlp = 2 * 32 * 128 + 128 + 32
    (plain, alone), gate = sizes("shared"), 32 * 4
    assert sizes("task") == (plain + mlp, alone)
    assert sizes("learned")[1] == alone and sizes("learned")[0] > plain + 2 * mlp
    narrow = 2 * 32 * 32 + 32 + 32
    assert sizes("residual") == (plain + 2 * narrow, alone + narrow)
    in_all, active = sizes("token_topk")
    assert 0 <= in_all - (plain + 3 * mlp + 2 * gate) <= 2 * 4 and 0 <= active - (alone + mlp + gate) <= 4


def test_names_are_escaped_in_picture_and_page(tmp_path):
    records = rows(("single: cls", "top1", (0.5,)), ("router: <script>alert(1)</script>", "top1", (0.6,)))
    write_comparison(tmp_path, records)
    tags = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append(tag)
    parser.feed((tmp_path / "comparison.html").read_text())
    assert "script" not in tags and {"svg", "table"} <= set(tags)


def test_the_picture_is_well_formed_and_has_every_run():
    records = Records(RESULTS / "balancing_quality_mini_1000_steps.jsonl").rows
    found = rows_of(records)
    picture = ElementTree.fromstring(draw(found, titles_of(records)))
    shown = [row for row in found if not row.is_single and not row.is_trial]
    dots = [e for e in picture.iter() if e.tag.endswith("circle")]
    assert len(dots) == 4 * sum(len(row.seeds) for row in shown) == 4 * 6 * 5
    width, height = map(float, picture.get("viewBox").split()[2:])
    assert all(0 < float(e.get("cx")) < width and 0 < float(e.get("cy")) < height for e in dots)
