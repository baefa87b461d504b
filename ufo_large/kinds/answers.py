"""Reading a submission's entries: what the kinds share."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

MAX_INT = 1 << 63


class Repeated(dict):
    """A JSON object in which keys stand twice; plain dict would silently keep the last."""

    keys_twice: list[str]


def named_answers(
    raw: Any,
    names: Sequence[str],
    form: str,
    parse: Callable[[str, Any, Callable[[str], None]], Any],
    report: Callable[[str], None],
) -> list[Any]:
    """Read answers that go by name, from a list of dicts or one dict; None for a name without one."""
    known = set(names)
    answers: dict[str, Any] = {}
    for name, value in _pairs(raw, form, report):
        if name not in known:
            report(f"{name!r} is no image of the test set; remove it, or correct the name")
        elif name in answers:
            report(f"{name!r} is answered twice; keep one")
        else:
            answers[name] = parse(name, value, report)
    for name in names:
        if name not in answers:
            report(f"{name!r} has no answer; add {form}")
    return [answers.get(name) for name in names]


def _pairs(raw: Any, form: str, report: Callable[[str], None]) -> Iterator[tuple[str, Any]]:
    """Yield (name, value); a name that stands twice comes twice."""
    if not isinstance(raw, list | dict):
        report(f"a JSON {type(raw).__name__}; write a list of {form}")
        return
    for position, item in enumerate(raw if isinstance(raw, list) else [raw]):
        if not isinstance(item, dict):
            report(f"entry {position} is {short(item)}; write {form}")
            continue
        yield from item.items()
        if isinstance(item, Repeated):
            yield from ((key, item[key]) for key in item.keys_twice)


def is_int(value: Any) -> bool:
    """Tell whether it is a whole number that fits into 64 bits with a sign."""
    return isinstance(value, int) and not isinstance(value, bool) and -MAX_INT <= value < MAX_INT


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def short(value: Any) -> str:
    """Return the value as JSON, cut to 80 characters."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:77] + "..."
