"""Nothing outside kinds/ and tasks/ asks which kind a task is, or which class a target or prediction has."""

import ast
from pathlib import Path

import pytest

import ufo_large.kinds
from ufo_large.kinds import KINDS, Headline, Kind, kind_of, register_kind
from ufo_large.structures import TaskInfo

ROOT = Path(__file__).resolve().parents[2]
FREE = ("kinds", "tasks", "recipes", "testing")
"""Recipes set up known kinds by name, and `testing` makes examples of each."""
SCRIPTS = ("launchers", "eval", "data_sharding")
CLASSES = ("Targets", "Prediction", "TrueBoxes", "FoundBoxes")


def named(node: ast.AST) -> set[str]:
    """Return the names of kinds among the constants below a node."""
    found = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return found & KINDS.keys()


def question(node: ast.AST) -> str:
    """Say which forbidden question a node asks; empty for none."""
    if isinstance(node, ast.Compare) and named(node):
        return "compares with the name of a kind"
    if isinstance(node, ast.Match) and any(named(case.pattern) for case in node.cases):
        return "matches the name of a kind"
    if (
        isinstance(node, ast.Dict)
        and len({k.value for k in node.keys if isinstance(k, ast.Constant)} & KINDS.keys()) > 1
    ):
        return "is a table keyed by kinds"
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and node.slice.value in KINDS:
        return "picks the entry of a kind"
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "isinstance":
        asked = [n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)]
        if any(name.endswith(CLASSES) for name in asked):
            return "asks for the class of a target or prediction"
    return ""


def questions(source: str) -> list[tuple[int, str]]:
    return [(node.lineno, told) for node in ast.walk(ast.parse(source)) if (told := question(node))]


def test_no_question_about_kinds_outside_of_them():
    files = [
        p for p in sorted((ROOT / "ufo_large").rglob("*.py")) if p.relative_to(ROOT).parts[1] not in FREE
    ]
    files += [p for folder in SCRIPTS for p in sorted((ROOT / folder).glob("*.py"))]
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {path.read_text().splitlines()[line - 1].strip()} ({told})"
        for path in files
        for line, told in questions(path.read_text())
    ]
    assert not wrong, "questions that a kind should answer:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "line",
    [
        'if info.kind == "detection": pass',
        'x = kind in ("classification", "depth")',
        'TABLE = {"classification": 1, "detection": 2}',
        'x = table["segmentation"]',
        "x = isinstance(batch.targets, (ClassTargets, int))",
        "x = isinstance(p, BoxPrediction)",
        'match kind:\n    case "depth": pass',
    ],
)
def test_the_questions_that_are_looked_for(line):
    assert [found for found, _ in questions(line)] == [1]


def test_an_unknown_kind_names_the_known_ones_and_the_remedy():
    with pytest.raises(ValueError, match=r"unknown kind 'depht'.*--plugin.*Did you mean 'depth'"):
        kind_of(TaskInfo(name="a", kind="depht"))


def test_a_name_or_headline_that_is_taken_is_refused(monkeypatch):
    monkeypatch.setattr(ufo_large.kinds, "KINDS", dict(KINDS))
    abstract = {name: lambda self, *args: None for name in Kind.__abstractmethods__}
    for name, headline in (("detection", "new"), ("new", "map50")):
        made = type(
            "New",
            (Kind,),
            {**abstract, "name": name, "headline": Headline(name=headline, title="", label="")},
        )
        with pytest.raises(ValueError, match="rename yours"):
            register_kind(made())


def test_a_figure_where_less_is_better_counts_as_a_share():
    less = Headline(name="error", title="", label="", higher_is_better=False)
    assert [less.share(v) for v in (0.0, 1.0, 3.0)] == [1.0, 0.5, 0.25]
    assert Headline(name="top1", title="", label="").share(0.3) == 0.3
