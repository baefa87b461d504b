"""What launchers/weight_changes.py writes and prints."""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from ufo_large.comparing.heatmap import CELL, GAP, framed, margin, names, squares
from ufo_large.comparing.table import markdown
from ufo_large.comparing.weight_changes import Changes, compare_changes
from ufo_large.config import require_writable, write_text_whole

NOTE, PICTURE = "weight_changes.md", "weight_changes.svg"
COLUMN = 34


def report_changes(runs: Sequence[Path], out: Path) -> str:
    """Compare runs, write note and picture into `out`; return the note. ValueError as `compare_changes`."""
    require_writable(out, "--out")
    found = compare_changes(runs)
    text = "\n".join(note(found))
    out.mkdir(parents=True, exist_ok=True)
    write_text_whole(out / NOTE, f"{text}\n")
    write_text_whole(out / PICTURE, draw(found))
    return text


def note(found: Changes) -> list[str]:
    """Return the lines: lengths of the changes, then their cosines."""
    lengths = [
        [row, *(f"{100 * length:.2f}" for length in lengths_P)]
        for row, lengths_P in zip(found.rows, found.lengths_NP, strict=True)
    ]
    cosines = [
        [row, *(f"{cosine:.3f}" for cosine in cosines_N)]
        for row, cosines_N in zip(found.rows, found.cosines_NN, strict=True)
    ]
    return [
        "# What training has changed in the trunk",
        "",
        "Length of the change, per cent of the start's length:",
        "",
        *markdown((["run", *found.places], lengths)),
        "",
        "Cosines of the changes, in these places together:",
        "",
        *markdown((["run", *found.rows], cosines)),
    ]


def draw(found: Changes) -> str:
    """Return the cosines as squares, and right of them how far each row went in every place."""
    left, side = margin(found.rows), CELL * len(found.rows)
    start = left + side + GAP
    body = [*names(found.rows, left), *squares(found.cosines_NN, left, 0.0), *_lengths(found, start, left)]
    told = "cosines of the changes; right: their length in each place, per cent of the start"
    width = max(start + COLUMN * len(found.places) + GAP, left + 400)
    return framed(body, left, side, width, told, "Cosines of what runs have changed")


def _lengths(found: Changes, start: float, top: float) -> Iterator[str]:
    for p, place in enumerate(found.places):
        x = start + COLUMN * p + COLUMN / 2
        where = f"translate({x + 4:.1f} {top - 6:.1f}) rotate(-90)"
        yield f'<text class="h-name" transform="{where}">{escape(place)}</text>'
        for i in range(len(found.rows)):
            y = top + CELL * i + CELL / 2 + 4
            text = f"{100 * found.lengths_NP[i, p]:.1f}"
            yield f'<text class="h-note" text-anchor="middle" x="{x:.1f}" y="{y:.1f}">{text}</text>'
