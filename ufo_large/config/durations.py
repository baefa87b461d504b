"""Durations as people write them: 2h, 90m, 45s, 1h30m, 1:30:00, or a number of seconds."""

import re

UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
WORDS = re.compile(r"(?:\d+(?:\.\d+)?[dhms])+")
CLOCK = re.compile(r"(?:\d+:)?\d+:[0-5]?\d")


def seconds_of(text: str) -> float:
    """Return the seconds of a duration. Raises ValueError for what is none."""
    told = text.strip().lower()
    if WORDS.fullmatch(told):
        return sum(float(number) * UNITS[unit] for number, unit in re.findall(r"([\d.]+)([dhms])", told))
    if CLOCK.fullmatch(told):
        parts = [int(part) for part in reversed(told.split(":"))]
        return float(sum(part * 60**power for power, part in enumerate(parts)))
    if re.fullmatch(r"\d+(?:\.\d+)?", told):
        return float(told)
    raise ValueError(f"{text!r} is no duration; write 2h, 90m, 1:30:00 (hours:minutes:seconds) or seconds")
