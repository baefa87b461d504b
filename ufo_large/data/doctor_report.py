"""Show a diagnosis: tables on the terminal, and one HTML page with samples as read and what is wrong."""

import html
from collections import defaultdict
from pathlib import Path
from string import Template

from rich.console import Console
from rich.table import Table

from ufo_large.data.doctor import Diagnosis
from ufo_large.data.doctor_pictures import figure_html, samples_html, thumbnail
from ufo_large.structures import Example, Finding, TaskInfo

THUMBNAILS_PER_KIND = 12
THUMBNAIL_SIDE = 200

PAGE = Template(Path(__file__).with_suffix(".html").read_text(encoding="utf-8"))


def print_tables(diagnosis: Diagnosis, console: Console | None = None) -> None:
    console = console or Console()
    table = Table("task", "split", "images", "errors", "warnings", title="data")
    for task in diagnosis.tasks:
        for split, examples in task.splits.items():
            place = (task.info.name, split)
            errors, warnings = (sum((f.task, f.split) == place for f in found)
                                for found in (diagnosis.errors, diagnosis.warnings))  # fmt: skip
            table.add_row(*place, str(len(examples)), str(errors), str(warnings))
    console.print(table)
    if diagnosis.errors or diagnosis.warnings:
        table = Table("", "kind", "count", title="findings")
        table.add_column("for instance", overflow="fold")
        for severity, kind, found in _kinds(diagnosis):
            table.add_row(severity, kind, str(len(found)), html_free(found[0].message))
        console.print(table)


def html_free(text: str) -> str:
    """Escape what rich would read as markup."""
    return text.replace("[", r"\[")


def _kinds(diagnosis: Diagnosis) -> list[tuple[str, str, list[Finding]]]:
    grouped: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for severity, findings in (("error", diagnosis.errors), ("warning", diagnosis.warnings)):
        for finding in findings:
            grouped[severity, finding.kind].append(finding)
    return [(severity, kind, found) for (severity, kind), found in grouped.items()]


def write_html(diagnosis: Diagnosis, file: Path) -> None:
    """Write one page that needs no other file."""
    examples = {
        e.image: (task.info, e) for task in diagnosis.tasks for split in task.splits.values() for e in split
    }
    parts = [_counts_table(diagnosis), '<div class="samples">', *samples_html(diagnosis), "</div>"]
    for severity, kind, found in _kinds(diagnosis):
        parts.append(f"<h2>{severity}: {html.escape(kind)} ({len(found)})</h2>")
        parts += [_figure(finding, examples) for finding in found[:THUMBNAILS_PER_KIND]]
        if len(found) > THUMBNAILS_PER_KIND:
            parts.append(f"<p>and {len(found) - THUMBNAILS_PER_KIND} more, listed in the JSON.</p>")
    parts += [
        _class_table(task, classes) for task, classes in diagnosis.classes.items() if any(classes.values())
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PAGE.substitute(body="\n".join(parts)), encoding="utf-8")


def _counts_table(diagnosis: Diagnosis) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(task.info.name)}</td><td>{split}</td><td>{len(examples)}</td></tr>"
        for task in diagnosis.tasks
        for split, examples in task.splits.items()
    )
    told = f"<p>{len(diagnosis.errors)} errors, {len(diagnosis.warnings)} warnings.</p>"
    return f"{told}<table><tr><th>task<th>split<th>images</tr>{rows}</table>"


def _class_table(task: str, classes: dict[str, int]) -> str:
    most = max(classes.values())
    rows = ""
    for name, count in sorted(classes.items(), key=lambda item: -item[1]):
        bar = f'<div class="bar" style="width:{20 * count / most:.2f}rem"></div>'
        rows += f"<tr><td>{html.escape(name)}</td><td>{count}</td><td>{bar}</td></tr>"
    return f"<h2>{html.escape(task)}: classes in train</h2><table>{rows}</table>"


def _figure(finding: Finding, examples: dict[Path, tuple[TaskInfo, Example]]) -> str:
    path = Path(finding.path)
    picture = thumbnail(path, examples.get(path), THUMBNAIL_SIDE) if finding.path else None
    return figure_html(path.name, picture, html.escape(finding.message))
