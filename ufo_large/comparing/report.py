"""Write what a comparison found, from its records alone: comparison.md, comparison.svg, comparison.html."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

import ufo_large.tracking
from ufo_large.comparing.figures import Row, summarise
from ufo_large.comparing.plan import CHANGE
from ufo_large.comparing.plot import draw
from ufo_large.comparing.records import Record
from ufo_large.comparing.table import (
    Table,
    changes_table,
    cost_table,
    differences_table,
    figures_table,
    images_text,
    leads_table,
    markdown,
    titles_of,
    verdict,
    winners,
)
from ufo_large.comparing.trainings import PROTOCOL
from ufo_large.config import did_you_mean, write_text_whole

PAGE = "comparison.html"
CSS = Path(ufo_large.tracking.__file__).parent / "report.css"


def write_comparison(out: Path, records: Sequence[Record], over: str | None = None) -> str:
    """Write the note, the picture and the page of a comparison into `out`; return the note.

    `over`: the row whose leads have a table of their own; ValueError where there is none of that name.
    """
    titles, rows = titles_of(records), rows_of(records)
    labels = [row.label for row in rows if not row.is_single]
    if over is not None and over not in labels:
        raise ValueError(f"--over {over!r}: no such row.{did_you_mean(over, labels)}")
    text = "\n".join(note(rows, titles, records, over))
    out.mkdir(parents=True, exist_ok=True)
    svg = draw(rows, titles)
    write_text_whole(out / "comparison.md", f"{text}\n")
    write_text_whole(out / "comparison.svg", svg)
    write_text_whole(out / PAGE, page(rows, titles, records, svg, over))
    return text


def rows_of(records: Sequence[Record]) -> list[Row]:
    return summarise(records, list(titles_of(records)))


def note(
    rows: Sequence[Row], titles: dict[str, str], records: Sequence[Record], over: str | None = None
) -> list[str]:
    """Return the lines of the note."""
    lines = ["# One joint model, single tasks, routing and balancing", ""]
    lines += [f"{', '.join(f'{label} {value}' for label, value in facts(records))}.", ""]
    for title, text, table in sections(rows, titles, over):
        lines += [f"## {title}", "", text, "", *markdown(table), ""]
    return [*lines, *in_short(rows)]


def in_short(rows: Sequence[Row]) -> list[str]:
    """Return what to take away, a sentence each."""
    over_single = [verdict(rows), winners(rows)] if any(row.is_single for row in rows) else []
    return [*over_single, *([images_text(rows)] if images_text(rows) else [])]


def sections(
    rows: Sequence[Row], titles: dict[str, str], over: str | None = None
) -> list[tuple[str, str, Table]]:
    """Return (title, how to read it, table)."""
    control = next((row for row in rows if row.label == over), None)
    others = [row for row in rows if not row.is_single and row is not control]
    found = [
        (
            "Figures",
            "Per cent, mean and standard deviation over seeds. delta-m: mean relative gain over single-task "
            "training, with its standard error, in which the single-task runs' own noise counts. Conflict: "
            "the part of task pairs with a cosine below zero, mean over the steps.",
            figures_table(rows, titles),
        ),
        (
            "Differences at equal seeds",
            "Points, mean over seeds of the lead over the run of the same seed, with the standard error; "
            "above zero is better.",
            differences_table(rows, titles),
        ),
        (
            f"Over {over}",
            "Points, mean over seeds of the lead over the run of the same seed, with the standard error; "
            "above zero is better.",
            leads_table(others, control, titles),
        ),
        (
            "Changes of the recipe",
            "Points, mean over seeds of the changed run's lead over the recipe's of the same seed, with the "
            "standard error; below zero, the recipe's own choice is better.",
            changes_table(rows, titles),
        ),
        (
            "Cost",
            "Active: the parameters that a token of the task meets when predicting. Minutes: of the steps of "
            "one training.",
            cost_table(rows),
        ),
    ]
    told = {
        "Differences at equal seeds": any(row.ahead or any(row.over_single.values()) for row in rows),
        f"Over {over}": over is not None,
        "Changes of the recipe": any(row.label.startswith(CHANGE) for row in rows),
        "Cost": any(record.images for row in rows for record in row.records),
    }
    return [section for section in found if told.get(section[0], True)]


def facts(records: Sequence[Record]) -> list[tuple[str, Any]]:
    """Return what all runs share, and what they ran on."""
    first = records[0]
    settings = " ".join(f"--set {setting}" for setting in first.settings)
    found = [("recipe", f"{first.plan['recipe']} {settings}".strip()), ("ranks", first.ranks)]
    for label, values in (
        ("protocol", [PROTOCOL]),
        ("split", [first.split]),
        ("on", [r.gpu or r.processor for r in records]),
        ("commit", [(r.commit or "unknown")[:10] for r in records]),
    ):
        found.append((label, " and ".join(dict.fromkeys(values))))
    return found


def page(
    rows: Sequence[Row], titles: dict[str, str], records: Sequence[Record], svg: str, over: str | None = None
) -> str:
    """Return the page as text, with everything in it."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    pages = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return pages.get_template(PAGE).render(
        name=records[0].plan["recipe"],
        css=Markup(CSS.read_text(encoding="utf-8")),
        facts=facts(records),
        in_short=in_short(rows),
        svg=Markup(svg),
        tables=sections(rows, titles, over),
        records=records,
    )
