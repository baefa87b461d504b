"""The tables of a comparison, in Markdown: figures, differences at equal seeds, what each row costs."""

from collections.abc import Mapping, Sequence

from ufo_large.comparing.figures import Estimate, Row, Spread, estimate, lead, spread
from ufo_large.comparing.plan import CHANGE, RECIPE, SUM
from ufo_large.comparing.records import Record
from ufo_large.evaluation.compare import columns
from ufo_large.tracking.banner import short, thousands

Table = tuple[list[str], list[list[str]]]
"""Titles, and rows of cells; the first column is the row's name."""


def titles_of(records: Sequence[Record]) -> dict[str, str]:
    """Return metric -> title of every figure that some record has."""
    return columns([record.figures for record in records])


def figures_table(rows: Sequence[Row], titles: Mapping[str, str]) -> Table:
    """Mean and standard deviation over seeds, in per cent; delta-m with its standard error."""
    body = [
        [
            row.label,
            str(len(row.seeds)),
            *(spread_text(spread_of(row, metric)) for metric in titles),
            estimate_text(row.delta_m, sign=True),
            spread_text(row.val),
            conflict_of(row),
        ]
        for row in rows
    ]
    return ["run", "seeds", *titles.values(), "delta-m", "mean on val", "conflict"], body


def differences_table(rows: Sequence[Row], titles: Mapping[str, str]) -> Table:
    """Leads at equal seeds in points, with their standard errors; those over the plain sum seed by seed."""
    metrics = [metric for metric in titles if metric != "score"]
    body = [
        [
            row.label,
            *(estimate_text(_over_single(row, metric), sign=True) for metric in metrics),
            estimate_text(estimate(list(row.ahead.values())), sign=True),
            _by_seed(row.ahead),
        ]
        for row in rows
        if not row.is_single
    ]
    over = [f"{titles[metric]} over single" for metric in metrics]
    return ["run", *over, f"mean over the {SUM}", "seed by seed"], body


def changes_table(rows: Sequence[Row], titles: Mapping[str, str]) -> Table:
    """What each change of the recipe does, as `leads_table` of the recipe says it."""
    changes = [row for row in rows if row.label.startswith(CHANGE)]
    own = next((row for row in rows if row.label == RECIPE), None)
    head, body = leads_table(changes, own, titles)
    return ["change", *head[1:]], [[label.removeprefix(CHANGE), *cells] for label, *cells in body]


def leads_table(rows: Sequence[Row], over: Row | None, titles: Mapping[str, str]) -> Table:
    """Leads over one row, in points at equal seeds, and seed by seed in the mean."""
    other, body = {} if over is None else over.values, []
    for row in rows:
        leads = {m: lead(row.values.get(m, {}), other.get(m, {}), m) for m in titles}
        cells = [estimate_text(estimate(list(found.values())), sign=True) for found in leads.values()]
        body.append([row.label, *cells, _by_seed(leads.get("score", {}))])
    return ["run", *titles.values(), "mean, seed by seed"], body


def cost_table(rows: Sequence[Row]) -> Table:
    """Parameters in all and per task, minutes of training."""
    tasks = list(dict.fromkeys(task for row in rows for record in row.records for task in record.active))
    body = []
    for row in rows:
        first, minutes = row.records[0], [r.seconds / 60 for r in row.records if r.seconds is not None]
        active = [short(first.active[task]) if task in first.active else "" for task in tasks]
        total = "" if first.parameters is None else short(first.parameters)
        time = f"{sum(minutes) / len(minutes):.1f}" if minutes else ""
        body.append([row.label, total, *active, time])
    return ["run", "parameters", *(f"active, {task}" for task in tasks), "minutes"], body


def images_text(rows: Sequence[Row]) -> str:
    """Say how many images of each task every row saw, where the records tell."""
    seen: dict[str, set[float]] = {}
    for record in (record for row in rows for record in row.records):
        for task, count in record.images.items():
            seen.setdefault(task, set()).add(count)
    if not seen:
        return ""
    told = [
        f"{task} {' or '.join(thousands(round(c)) for c in sorted(counts))}" for task, counts in seen.items()
    ]
    return f"Images seen in training: {', '.join(told)}."


def verdict(rows: Sequence[Row]) -> str:
    """Return who is first by delta-m of the rows with most seeds, and its lead over the next one."""
    known = [row for row in rows if row.delta_m]
    most = max((len(row.gains) for row in known), default=0)
    ranked = sorted((row for row in known if len(row.gains) == most), key=lambda row: -row.delta_m.value)
    if len(ranked) < 2:
        return "Not enough runs to compare yet."
    first, second = ranked[:2]
    apart = [first.gains[seed] - second.gains[seed] for seed in first.gains if seed in second.gains]
    lead, told = estimate(apart), ""
    if lead is not None and lead.error is not None:
        sure = "at least" if abs(lead.value) >= 2 * lead.error else "less than"
        told = f"; seed by seed it leads by {estimate_text(lead)}, {sure} two standard errors"
    return f"First by delta-m: {first.label}, then {second.label}{told}."


def winners(rows: Sequence[Row]) -> str:
    """Return which rows are above single-task training for sure, in delta-m and without harm to a task."""
    sure = [row.label for row in rows if _is_above_single(row)]
    return (
        "Above single-task training by at least two standard errors of delta-m, with no metric worse by more "
        f"than its deviation over seeds: {', '.join(sure) or 'no row'}."
    )


def _is_above_single(row: Row) -> bool:
    found = row.delta_m
    if found is None or found.error is None or found.value <= 0 or found.value < 2 * found.error:
        return False
    leads = {metric: estimate(list(own.values())) for metric, own in row.over_single.items()}
    return all(
        lead is None or lead.value >= -(spread_of(row, metric).deviation or 0.0)
        for metric, lead in leads.items()
    )


def spread_of(row: Row, metric: str) -> Spread | None:
    return spread(list(row.values.get(metric, {}).values()))


def _over_single(row: Row, metric: str) -> Estimate | None:
    return estimate(list(row.over_single.get(metric, {}).values()))


def conflict_of(row: Row) -> str:
    """Return the part of task pairs with a cosine below zero, mean over steps and seeds."""
    rates = [r.traits["conflict_rate"] for r in row.records if r.traits.get("conflict_rate") is not None]
    return f"{sum(rates) / len(rates):.0%}" if rates else ""


def _by_seed(leads: Mapping[int, float]) -> str:
    return ", ".join(f"{100 * value:+.2f}" for value in leads.values())


def spread_text(found: Spread | None) -> str:
    if found is None:
        return ""
    return f"{100 * found.mean:.2f}" + ("" if found.deviation is None else f" ± {100 * found.deviation:.2f}")


def estimate_text(found: Estimate | None, sign: bool = False) -> str:
    if found is None:
        return ""
    value = f"{100 * found.value:{'+' if sign else ''}.2f}"
    return value + ("" if found.error is None else f" ± {100 * found.error:.2f}")


def markdown(table: Table) -> list[str]:
    """Return the lines of a table whose figures stand to the right."""
    head, body = table
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return [f"| {' | '.join(cells)} |" for cells in lines]
