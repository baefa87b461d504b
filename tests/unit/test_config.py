"""Overrides typed by the declaration, configs saved and built again, and every error with its remedy."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ufo_large.balancing import METHODS
from ufo_large.config import (
    Problems,
    apply_overrides,
    choice,
    choice_of_entries,
    did_you_mean,
    from_dict,
    to_dict,
)
from ufo_large.recipes import known_recipes, load_recipe
from ufo_large.runs.config import RunConfig


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
        ("optional=null", lambda c: c.optional, None),
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
        ("inner.pair=1", "needs 2 comma-separated values; write 1,1"),
        ("inner.pair=1,2,3", "needs 2 comma-separated values"),
        ("inner.on=yes", "write true or false"),
        ("inner=3", "set its parts"),
        ("optional.cont=5", "Did you mean 'count'"),
        ("by_name.c.rate=1", "--set by_name.c=ENTRY before it makes an entry 'c'"),
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
    assert from_dict(RunConfig, json.loads(json.dumps(to_dict(recipe)))) == recipe


def test_unknown_recipe_lists_the_known():
    with pytest.raises(ValueError, match=r"no recipe 'demoo'.*Did you mean 'demo'"):
        load_recipe("demoo")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("keep_every=-500",), "keep_every=-500: must be 0 (off) or positive"),
        (("save_every=200", "keep_every=500"), "keep_every=500: must be a multiple of save_every=200"),
    ],
)
def test_checkpoints_that_are_never_saved_cannot_be_kept(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        apply_overrides(load_recipe("demo"), changes)


def test_a_saved_component_is_its_name_with_its_options():
    saved = to_dict(OUTER)
    assert saved["method"].keys() == {"fixed"} and saved["methods"]["old"].keys() == {"fixed"}
    assert from_dict(Outer, saved) == OUTER


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("inner.rate", "fast", "config.inner.rate: 'fast' is not of the type float"),
        ("inner.rate", float("nan"), "config.inner.rate: nan is not finite"),
        ("inner.on", 1, "config.inner.on: 1 is not of the type bool"),
        ("inner.limit", True, "config.inner.limit: True is not of the type"),
        ("inner.limit", [3], r"config.inner.limit: \[3\] is not of the type"),
        ("inner.pair", [1], r"config.inner.pair: \[1\] has 1 values, 2 are wanted"),
        ("inner.sizes", [1, "2"], r"config.inner.sizes\[1\]: '2' is not of the type int"),
        ("inner.sizes", 3, "config.inner.sizes: 3 is no list"),
        ("inner.mode", "slowly", "config.inner.mode: 'slowly' is none of 'fast', 'slow'"),
        ("inner", None, "config.inner: None is no group of fields"),
        ("inner", {"_class": "os:system"}, "config.inner: Inner has no field '_class'"),
        ("by_name", [], r"config.by_name: \[\] is no group of entries"),
        ("optional", {"shar": 1}, "config.optional: Group has no field 'shar'.*'share'"),
        ("shares", {"cls": "1"}, "config.shares.cls: '1' is not of the type float"),
        ("method", "tbgn", "config.method: 'tbgn' is not one component with its options"),
        ("method", {"tbgm": {}}, "config.method: no component 'tbgm'.*--plugin.*Did you mean 'tbgn'"),
        ("methods", {"old": {"os.system": "ls"}}, "config.methods.old: no component 'os.system'"),
    ],
)
def test_a_changed_file_is_refused_with_its_place(path, value, message):
    saved = to_dict(OUTER)
    *parents, last = path.split(".")
    node = saved
    for parent in parents:
        node = node[parent]
    node[last] = value
    with pytest.raises(ValueError, match=message):
        from_dict(Outer, saved)


def test_a_field_newer_than_the_file_gets_its_default():
    saved = to_dict(load_recipe("demo"))
    del saved["model"]["trunk"]["frozen_blocks"], saved["optimizer"]["head_rate"], saved["balancer"]
    found = from_dict(RunConfig, saved)
    assert (found.model.trunk.frozen_blocks, found.optimizer.head_rate) == (0, 1.0)
    assert found.balancer == next(f for f in fields(RunConfig) if f.name == "balancer").default_factory()


def test_what_a_config_refuses_is_told_with_its_place():
    saved = to_dict(load_recipe("demo"))
    saved["optimizer"]["clip_norm"] = -1.0
    with pytest.raises(ValueError, match="config.optimizer: clip_norm=-1.0: must be 0"):
        from_dict(RunConfig, saved)


def test_unknown_field_of_a_saved_config():
    saved = to_dict(load_recipe("demo"))
    saved["stepps"] = saved.pop("steps")
    with pytest.raises(ValueError, match="Did you mean 'steps'"):
        from_dict(RunConfig, saved)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=4,
)


def leaves(value, path=()):
    """Yield the path of every value in nested JSON."""
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from leaves(child, (*path, key))


@settings(max_examples=300, deadline=None)
@given(place=st.integers(min_value=0), new=JSON_VALUES)
def test_whatever_stands_in_a_file_ends_in_a_config_or_a_message(place, new):
    saved = json.loads(json.dumps(to_dict(load_recipe("demo"))))
    paths = [path for path in leaves(saved) if path]
    *parents, last = paths[place % len(paths)]
    node = saved
    for parent in parents:
        node = node[parent]
    node[last] = new
    try:
        assert isinstance(from_dict(RunConfig, saved), RunConfig)
    except ValueError as error:
        assert str(error).startswith("config")


def test_problems_are_listed_together():
    problems = Problems("labels.txt")
    problems.raise_if_any()
    for line in range(30):
        problems.add(f"line {line} is wrong")
    with pytest.raises(ValueError, match=r"30 problems(.|\n)*line 0(.|\n)*and 10 more"):
        problems.raise_if_any()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.lr=1", "no field 'lr' in OptimizerConfig. Did you mean 'learning_rate'"),
        ("lr=1", "Did you mean optimizer.learning_rate?"),
        ("learning_rate=1", "Did you mean optimizer.learning_rate?"),
        ("wd=1", "Did you mean optimizer.weight_decay?"),
        ("router=learned", "Did you mean model.trunk.router?"),
        ("decay=0.9", "Did you mean ema.decay"),
        ("tasks.detection.batch_size=1", "Did you mean tasks.detection.loader.micro_batch or"),
        ("tasks.detection.loader.image_size=224", "write 224,224"),
        ("epochs=3", "Did you mean 'steps'?"),
        ("tasks.cls.loader.workers=1", "Did you mean 'classification'?"),
        ("tasks.cls.loader.workers=1", "--set tasks.classification.loader.workers=... sets that one"),
        ("tasks.cls.loader.workers=1", "--set tasks.cls=classification before it"),
        ("tasks.cls.loader=1", "Did you mean 'classification'?"),
    ],
)
def test_a_name_that_others_use_leads_to_ours(assignment, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        apply_overrides(load_recipe("demo"), [assignment])


def test_an_unknown_trunk_names_the_nearest_alone():
    with pytest.raises(
        ValueError, match="'vit_giant_patch14_clip_225' is no timm model.*Did you mean 'vit_giant"
    ) as told:
        apply_overrides(load_recipe("demo"), ["model.trunk.name=vit_giant_patch14_clip_225"])
    assert len(str(told.value)) < 400 and re.search(
        r"Nearest of \d{3} known: (\w+, ){4}\w+\.$", str(told.value)
    )


def test_of_many_known_names_only_near_ones_are_listed():
    told = did_you_mean(
        "vit_giant_patch14_clip_225", [f"vit_{i}" for i in range(99)] + ["vit_giant_patch14_clip_224"]
    )
    assert "Did you mean 'vit_giant_patch14_clip_224'?" in told
    assert "Nearest of 100 known: vit_giant_patch14_clip_224, " in told and told.count(",") == 4
