"""Durations as people write them."""

import pytest

from ufo_large.config import seconds_of


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *[("2h", 7200), ("90m", 5400), ("45s", 45), ("1h30m", 5400), ("1d", 86400), ("0.5h", 1800)],
        *[("1:30:00", 5400), ("02:05", 125), ("5400", 5400), ("1.5", 1.5), ("0", 0), (" 2H ", 7200)],
    ],
)
def test_usual_forms(text, seconds):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "two hours", "-5", "2h3", "1:2:3:4", "1:75", "h", "1e9h", "nan"])
def test_anything_else_is_refused_with_the_forms_there_are(text):
    with pytest.raises(ValueError, match="is no duration; write 2h, 90m, 1:30:00"):
        seconds_of(text)
