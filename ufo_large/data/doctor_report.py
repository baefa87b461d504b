"""Show a diagnosis: tables on the terminal, and one HTML page with thumbnails of the worst."""

import base64
import html
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from ufo_large.data.doctor import Diagnosis
from ufo_large.kinds import kind_of
from ufo_large.media.pictures import decode_rgb, encode_jpeg, mask_values
from ufo_large.structures import Example, Finding, TaskInfo

THUMBNAILS_PER_KIND = 12
THUMBNAIL_SIDE = 200
COLOUR_STEP, TURBO = 158, cv2.COLORMAP_TURBO

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Data check</title>
<style>
body{{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1d2430}}
table{{border-collapse:collapse}}td,th{{padding:.25rem .8rem;text-align:left;border-bottom:1px solid #d8dde6}}
figure{{display:inline-block;width:13rem;margin:.4rem;vertical-align:top}}img{{max-width:100%;border-radius:4px}}
figcaption{{font-size:12px;overflow-wrap:anywhere;color:#4a5566}}
.none{{background:#eef1f5;padding:2rem;text-align:center}}
.bar{{background:#4472b8;height:.7rem;min-width:1px}}</style>
<h1>Data check</h1>{body}</html>
"""


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
    parts = [_counts_table(diagnosis)]
    for severity, kind, found in _kinds(diagnosis):
        parts.append(f"<h2>{severity}: {html.escape(kind)} ({len(found)})</h2>")
        parts += [_figure(finding, examples) for finding in found[:THUMBNAILS_PER_KIND]]
        if len(found) > THUMBNAILS_PER_KIND:
            parts.append(f"<p>and {len(found) - THUMBNAILS_PER_KIND} more, listed in the JSON.</p>")
    parts += [
        _class_table(task, classes) for task, classes in diagnosis.classes.items() if any(classes.values())
    ]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PAGE.format(body="\n".join(parts)), encoding="utf-8")


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
    picture = _thumbnail(path, examples.get(path)) if finding.path else None
    shown = '<div class="none">no picture</div>'
    if picture is not None:
        data = base64.b64encode(encode_jpeg(picture, 80)).decode()
        shown = f'<img alt="{html.escape(path.name)}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{shown}<figcaption>{html.escape(finding.message)}</figcaption></figure>"


def _as_colours(mask: Path) -> np.ndarray:
    """Show class numbers, which would look black, as colours far apart; RGB, uint8 [H, W, 3]."""
    data = mask.read_bytes()
    try:
        values = mask_values(data)
    except ValueError:  # it has colours
        return decode_rgb(data)
    return cv2.applyColorMap((values.astype(np.int64) * COLOUR_STEP % 256).astype(np.uint8), TURBO)[..., ::-1]


def _thumbnail(path: Path, known: tuple[TaskInfo, Example] | None) -> np.ndarray | None:
    """Return a small picture with its truth drawn in, or a map of values as colours; None if unreadable."""
    try:
        rgb = decode_rgb(path.read_bytes()) if known else _as_colours(path)
    except (OSError, ValueError, SyntaxError):
        return None
    height, width = rgb.shape[:2]
    scale = THUMBNAIL_SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.ascontiguousarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA))
    if known and known[1].labeled:
        kind_of(known[0]).mark(small, known[1].truth, scale)
    return small
