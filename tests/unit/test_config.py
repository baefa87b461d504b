"""Overrides typed by the declaration, configs saved and built again, and every error with its remedy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pytest

from ufo_large.balancing import METHODS
from ufo_large.config import Problems, apply_overrides, choice, choice_of_entries, from_dict, to_dict
from ufo_large.recipes import known_recipes, load_recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 0.5
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[int, int] = (3, 4)
    mode: Literal["fast", "slow"] = "fast"
    limit: int | None = 3
    on: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    share: float = 0.1
    count: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    by_name: Mapping[str, Inner] = field(default_factory=lambda: {"a": Inner(), "b": Inner()})
    method: object = choice(METHODS, "fixed")
    shares: dict[str, float] = field(default_factory=dict)
    optional: Group | None = None
    methods: Mapping[str, object] = choice_of_entries(METHODS)


OUTER = Outer(methods={"old": METHODS["fixed"].Config()})


@pytest.mark.parametrize(
    ("assignment", "read", "expected"),
    [
        ("inner.rate=2", lambda c: c.inner.rate, 2.0),
        ("inner.sizes=5,6,7", lambda c: c.inner.sizes, (5, 6, 7)),
        ("inner.pair=5,6", lambda c: c.inner.pair, (5, 6)),
        ("inner.mode=slow", lambda c: c.inner.mode, "slow"),
        ("inner.limit=none", lambda c: c.inner.limit, None),
        ("inner.limit=9", lambda c: c.inner.limit, 9),
        ("inner.on=true", lambda c: c.inner.on, True),
        ("by_name.b.rate=1", lambda c: (c.by_name["a"].rate, c.by_name["b"].rate), (0.5, 1.0)),
        ("by_name.c=b", lambda c: dict(c.by_name), {"a": Inner(), "b": Inner(), "c": Inner()}),
        ("method=tbgn", lambda c: type(c.method), METHODS["tbgn"].Config),
        ("shares.cls=2", lambda c: c.shares, {"cls": 2.0}),
        ("method.every_k_steps=4", lambda c: c.method.every_k_steps, 4),
        ("optional.count=5", lambda c: c.optional, Group(count=5)),
        ("optional=none", lambda c: c.optional, None),
        ("methods.old=tbgn", lambda c: dict(c.methods), {"old": METHODS["tbgn"].Config()}),
        ("methods.new=rlw", lambda c: list(c.methods), ["old", "new"]),
        ("methods.old.every_k_steps=4", lambda c: c.methods["old"].every_k_steps, 4),
    ],
)
def test_override(assignment, read, expected):
    assert read(apply_overrides(OUTER, [assignment])) == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.rat=2", "Did you mean 'rate'"),
        ("inner.rate=fast", "not a valid float"),
        ("inner.mode=slowly", "Did you mean 'slow'"),
        ("inner.pair=1", "needs 2 comma-separated values"),
        ("inner.on=yes", "write true or false"),
        ("inner=3", "set its parts"),
        ("optional.cont=5", "Did you mean 'count'"),
        ("by_name.c.rate=1", "--set by_name.c=ENTRY copies one"),
        ("by_name.a=3", "set a field of it, or give an entry to copy. Known: a, b"),
        ("method=tbgm", "Did you mean 'tbgn'"),
        ("methods.old=tbgm", "Did you mean 'tbgn'"),
        ("methods.new.every_k_steps=4", "no entry 'new'"),
        ("inner.rate", "write it as path.to.field=value"),
        ("inner.rate.more=1", "shorten the path"),
    ],
)
def test_bad_override_names_the_remedy(assignment, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        apply_overrides(OUTER, [assignment])


@pytest.mark.parametrize("name", known_recipes())
def test_recipe_survives_saving(name):
    recipe = load_recipe(name)
    assert from_dict(to_dict(recipe)) == recipe


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match=r"no recipe 'demoo'.*Did you mean 'demo'"):
        load_recipe("demoo")


def test_foreign_classes_are_not_loaded():
    with pytest.raises(ValueError, match="not part of ufo_large"):
        from_dict({"_class": "os:path"})


def test_unknown_field_of_a_saved_config():
    saved = to_dict(load_recipe("demo"))
    saved["stepps"] = saved.pop("steps")
    with pytest.raises(ValueError, match="Did you mean 'steps'"):
        from_dict(saved)


def test_problems_are_listed_together():
    problems = Problems("labels.txt")
    problems.raise_if_any()
    for line in range(30):
        problems.add(f"line {line} is wrong")
    with pytest.raises(ValueError, match=r"30 problems(.|\n)*line 0(.|\n)*and 10 more"):
        problems.raise_if_any()
