"""The table of results on the console."""

import io

from rich.console import Console

from ufo_large.evaluation.table import results_table


def test_tasks_of_one_kind_have_a_row_each():
    result = {
        "map50": 0.6,
        "top1": 0.9,
        "score": 0.75,
        "protocol": "standard",
        "tasks": {"dec": {"map50": 0.4}, "lamps": {"map50": 0.8}, "cls": {"top1": 0.9}},
        "baselines": {"map50": {"no_boxes": 0.0}},
    }
    console = Console(file=io.StringIO(), width=120)
    console.print(results_table(result))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in console.file.getvalue().splitlines()]
    assert [row for row in rows if row] == [
        ["Top-1", "90.00 %", ""],
        ["mAP50 of dec", "40.00 %", ""],
        ["mAP50 of lamps", "80.00 %", ""],
        ["mAP50, mean of 2 tasks", "60.00 %", "no boxes 0.00 %"],
        ["mean", "75.00 %", ""],
    ]
