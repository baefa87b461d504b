"""The comparison of runs: the gain by hand, and runs whose figures do not compare."""

import json

import pytest
from rich.console import Console

from ufo_large.evaluation.compare import comparison_table, delta_m, read_results


def result(top1, map50, miou, **changes):
    figures = {"top1": top1, "map50": map50, "miou": miou, "score": 0.5, "protocol": "official"}
    return figures | {"split": "test", "images": {"cls": 3, "dec": 2}} | changes


def save(folder, content):
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(content))
    return folder


def test_delta_m_by_hand():
    """+10 %, -20 % and +50 % make +13.3 %."""
    singles = [result(0.5, None, None), result(None, 0.5, None), result(None, None, 0.2)]
    assert delta_m(result(0.55, 0.4, 0.3), singles) == pytest.approx(0.4 / 3, abs=1e-12)
    assert delta_m(result(0.55, None, None), singles) == pytest.approx(0.1, abs=1e-12)
    assert delta_m(result(0.55, 0.4, 0.3), singles[:2]) is None
    assert delta_m(result(0.55, 0.4, 0.3), [result(0.5, 0.0, 0.2)]) is None


def test_delta_m_wants_each_task_of_a_kind_alone():
    """Cars 90 and flowers 50 jointly, cars 90 alone: nothing is lost, and nothing is known of the flowers."""
    both = result(0.7, None, None, tasks={"cars": {"top1": 0.9}, "flowers": {"top1": 0.5}})
    cars = result(0.9, None, None, tasks={"cars": {"top1": 0.9}})
    flowers = result(0.4, None, None, tasks={"flowers": {"top1": 0.4}})
    assert delta_m(both, [cars]) is None
    assert delta_m(both, [cars, flowers]) == pytest.approx(0.7 / 0.65 - 1)
    seeds = [cars, cars, flowers]  # as many of the one as of the other would be chance
    assert delta_m(both, seeds) == pytest.approx(0.7 / 0.65 - 1)
    jointly = result(0.9, None, None, tasks={"cars": {"top1": 0.9}})
    assert delta_m(jointly, seeds) == 0  # the flowers are none of its tasks
    assert delta_m(jointly, [flowers]) is None


def test_runs_side_by_side(tmp_path):
    runs = [save(tmp_path / "a", result(0.5, 0.25, 0.125)), save(tmp_path / "b", result(0.75, None, 0.5))]
    results = read_results(runs)
    console = Console(width=200, record=True)
    console.print(comparison_table(results, {str(runs[0]): 0.1, str(runs[1]): None}))
    text = console.export_text()
    assert all(part in text for part in ("protocol official, split test", "50.00", "12.50", "+10.00 %"))


def test_runs_that_do_not_compare_are_listed_together(tmp_path):
    runs = [
        save(tmp_path / "a", result(0.5, 0.5, 0.5)),
        save(tmp_path / "b", result(0.5, 0.5, 0.5, protocol="standard", images={"cls": 4, "seg": 9})),
        tmp_path / "c",
    ]
    with pytest.raises(ValueError) as caught:
        read_results(runs)
    with pytest.raises(ValueError, match=r"a/metrics.json: not a run's folder; give the folder that holds"):
        read_results([runs[0] / "metrics.json"])
    text = str(caught.value)
    assert "3 problems" in text and "c/metrics.json: missing; score the run" in text
    assert "b: protocol is standard" in text and "b: images is {'cls': 4, 'seg': 9}" in text
