"""Plan and log side by side: the page's figures by hand, nothing where nothing was planned, hostile plans."""

import json

import pytest

from ufo_large.tracking import read_metrics, write_report
from ufo_large.tracking.plan_check import FILE_NAME, LIMIT, MAX_PARTS, read_plan_check, save_plan

GIB = 2**30
BAD = "<img src=x onerror=alert(1)>"
CLS = {"computing": 0.2, "host": 0.3, "exposed": 0.05, "micro_batches": 2.0, "seconds": 0.7}
DEC = {"computing": 0.2, "host": 0.1, "exposed": 0.0, "micro_batches": 0.5, "seconds": 0.1}
MEMORY = {
    "states": {"weights": 2 * GIB, "moments": 4 * GIB},
    "gathered": 0.0,
    "passing": 6 * GIB,
    "live": 12 * GIB,
    "reserved": 15 * GIB,
    "outside": GIB,
}
PLAN = {
    "gpu": "NVIDIA H100",
    "gpus": 8,
    "checkpointing": "full",
    "compiles": True,
    "memory": MEMORY,
    "step_seconds": 1.0,
    "time": {"tasks": {"cls": CLS, "dec": DEC}, "optimizer": 0.2},
}


def write_log(folder, steps=10, first=1):
    """Steps of 2 and, from the middle on, 1.25 s, in every second of which `dec` has a micro-batch."""
    with (folder / "metrics.jsonl").open("a") as file:
        for step in range(first, first + steps):
            late = step >= first + steps // 2
            values = {
                "cls/total": 1.0,
                "train/step_seconds": 1.25 if late else 2.0,
                "train/task_seconds/cls": 0.8,
                "train/mfu": 0.4,
                "train/data_wait_share": 0.1,
                "train/peak_memory_gib": 8.0 if late else 10.0,
                "train/peak_reserved_gib": 12.5,
            }
            values |= {"train/task_seconds/dec": 0.3} if step % 2 else {}
            file.write(json.dumps({"step": step} | values) + "\n")


def rows_of(folder):
    check = read_plan_check(folder, read_metrics(folder / "metrics.jsonl"))
    return {(title, row.name): row for title, _, rows in check.tables for row in rows}


def test_figures_stand_side_by_side(tmp_path):
    save_plan(tmp_path, PLAN, finished=0)
    write_log(tmp_path, steps=8)
    rows = rows_of(tmp_path)
    found = {name: (row.planned, row.measured, row.error) for (_, name), row in rows.items()}
    assert found["weights"] == (2.0, None, "")
    assert found["live at most"] == (12.0, 10.0, "+20.0\u00a0%")
    assert found["reserved by torch"] == (15.0, 12.5, "+20.0\u00a0%")
    assert found["cls"] == (0.7, pytest.approx(0.8), "-12.5\u00a0%")
    assert found["dec"][:2] == (0.1, pytest.approx(0.15))  # in every second step
    assert found["a step"] == (1.0, 1.25, "-20.0\u00a0%")
    rest = rows["A step", "optimizer, balancing, average"]
    assert (rest.planned, rest.measured) == (0.2, pytest.approx(1.25 - 0.8 - 0.15))
    assert found["MFU"] == (pytest.approx(0.5), pytest.approx(0.4), "+25.0\u00a0%")  # as many operations
    shares = [row.planned for (title, _), row in rows.items() if title == "Shares of a step"][:4]
    assert shares == pytest.approx([0.4 + 0.1, 0.2, 0.1, 0.2])
    assert found["waiting for data"][:2] == (None, pytest.approx(0.1))


def test_a_start_is_compared_with_its_own_steps(tmp_path):
    write_log(tmp_path, steps=8)
    save_plan(tmp_path, PLAN, finished=8)
    row = rows_of(tmp_path)["Memory of a rank", "live at most"]
    assert (row.planned, row.measured, row.error, row.text(row.measured)) == (12.0, None, "", "–")
    write_log(tmp_path, steps=1, first=9)
    assert rows_of(tmp_path)["Memory of a rank", "live at most"].measured == 8.0


def test_the_page_has_it_where_something_was_planned(tmp_path):
    write_log(tmp_path)
    assert "Plan and measurement" not in write_report(tmp_path).read_text()
    save_plan(tmp_path, PLAN, finished=0)
    page = write_report(tmp_path).read_text()
    assert "8 x NVIDIA H100, checkpointing full" in page and "planned as not compiled" in page
    save_plan(tmp_path, PLAN | {"step_seconds": None, "time": None, "compiles": False}, finished=0)
    page = write_report(tmp_path).read_text()
    assert "no time was planned" in page and "Shares of a step" not in page and "not compiled" not in page
    save_plan(tmp_path, None, finished=0)  # it goes on where nothing is planned
    assert read_plan_check(tmp_path, []) is None


@pytest.mark.parametrize(
    "text", ["{", "[]", "7", '{"memory": 3}', '{"memory": {}, "memory": {}}', " " * LIMIT + "{}"]
)
def test_damaged_plans_are_named(tmp_path, text):
    (tmp_path / FILE_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"plan\.json: .*; remove it"):
        read_plan_check(tmp_path, [])


def test_plans_of_strangers_stay_text_and_short(tmp_path):
    many = {f"{BAD}{i}": i for i in range(1000)}
    odd = {
        "tasks": {BAD: CLS, "cls": 3, **{f"task {i}": {"seconds": "x"} for i in range(9)}},
        "optimizer": True,
    }
    plan = PLAN | {"gpu": BAD, "gpus": [], "memory": MEMORY | {"states": many, "live": "much"}, "time": odd}
    (tmp_path / FILE_NAME).write_text(json.dumps(plan | {"step_seconds": 1e-320, "from_step": {}}))
    write_log(tmp_path)
    page = write_report(tmp_path).read_text()
    assert "<img src=x" not in page and page.count("&lt;img src=x") == MAX_PARTS + 2
