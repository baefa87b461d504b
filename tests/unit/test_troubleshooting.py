"""Every error text that the documentation quotes is still a message of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/troubleshooting.md"
ANYTHING = "…"


def messages() -> Iterator[str]:
    """Yield every string of the code that is no docstring, with `…` where a value stands."""
    folders = ("ufo_large", "launchers", "eval", "data_sharding")
    for path in (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                yield "".join(v.value if isinstance(v, ast.Constant) else ANYTHING for v in node.values)
            elif (
                isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
            ):
                yield node.value


@pytest.fixture(scope="module")
def spoken() -> str:
    """All messages, one a line."""
    return "\n".join(message.replace("\n", " ") for message in messages())


def quoted() -> list[str]:
    return re.findall(r"^\| `([^`]+)` \| ", PAGE.read_text(encoding="utf-8"), re.M)


def is_spoken(text: str, spoken: str) -> bool:
    """Whether one message has all parts of the text, in order."""
    return re.search(".*".join(map(re.escape, text.split(ANYTHING))), spoken) is not None


def test_the_page_has_texts_in_every_table():
    rows = [
        line for line in PAGE.read_text().splitlines() if line.startswith("| ") and "| text |" not in line
    ]
    assert len(quoted()) == len(rows) >= 25


@pytest.mark.parametrize("text", quoted())
def test_a_quoted_text_is_a_message_of_the_code(text, spoken):
    assert is_spoken(text, spoken), f"{text!r}: no message says this; correct docs/troubleshooting.md"
    assert max(map(len, text.split(ANYTHING))) >= 9


def test_a_text_that_nobody_says_is_found(spoken):
    assert not is_spoken("no such folder; check --date", spoken)
    assert not is_spoken("check --data … no such folder", spoken)
