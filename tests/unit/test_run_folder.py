"""What a run's folder may make this machine do, and what is said of damaged files in it."""

import dataclasses
import json
import sys
import types
from dataclasses import dataclass

import pytest

from ufo_large.balancing import Balancer
from ufo_large.config import from_dict, read_json, to_dict, write_json
from ufo_large.recipes import load_recipe
from ufo_large.structures import TaskInfo
from ufo_large.tracking import write_report
from ufo_large.train.run_folder import RunFolder

TASKS = (TaskInfo(name="cls", kind="classification", class_names=("a", "b"), class_ids=(0, 1)),)


@pytest.fixture
def folder(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.write(load_recipe("demo"), TASKS, "0" * 64, "shards", None)
    return run


def change(folder, **parts):
    folder.config_file.write_text(json.dumps(json.loads(folder.config_file.read_text()) | parts))


def test_a_run_is_read_as_it_was_written(folder):
    saved = folder.read()
    assert (saved.config, saved.tasks) == (load_recipe("demo"), TASKS)
    assert (saved.fingerprint, saved.data) == ("0" * 64, "shards")


def test_a_config_calls_nothing(folder, tmp_path):
    """What a finder of the hole wrote; `fetch_bytes` opens the address, which runs the command."""
    url, retry = f"pipe:touch {tmp_path / 'hacked'}; echo hi", {"_class": "ufo_large.data.opener:Retry"}
    change(folder, config={"_class": "ufo_large.data.opener:fetch_bytes", "url": url, "retry": retry})
    with pytest.raises(ValueError, match=r"run/config\.json: .*fetch_bytes', which is no config type"):
        folder.read()
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "name",
    [
        "ufo_large.data.opener:fetch_to_cache",  # a function
        "ufo_large.data.opener:shutil.rmtree",  # of a module that ours imports
        "ufo_large.data.opener:Path",  # a class that ours imports
        "ufo_large.train.run_folder:RunConfig",  # a config type, but of another module
        "ufo_large.train.run_folder:RunFolder.read",  # a method
        "ufo_large.train.run_folder:RunFolder",  # a dataclass, but of positional fields
        "ufo_large.structures.batch:TaskBatch",  # a dataclass, but not frozen
        "ufo_large.balancing.pcgrad:PCGrad",
        "ufo_large.no_such_module:Config",
        "ufo_large.train.config:NoSuchConfig",
        "ufo_large.train.config:",
        "ufo_large./tmp/evil:Config",
        "ufo_large:",
        "subprocess:run",
        "subprocess:Popen",
        "dataclasses:Field",
        "os:system",
        "",
        None,
        ["ufo_large.train.config:RunConfig"],
    ],
)
def test_only_config_types_are_built(name):
    with pytest.raises(ValueError, match="which is no"):
        from_dict({"balancer": [{"_class": name}]})


def test_no_module_of_a_strangers_choice_is_imported(tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'hacked')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="its module is imported before"):
        from_dict({"_class": "stranger:Config"})
    assert not (tmp_path / "hacked").exists() and "stranger" not in sys.modules


@pytest.fixture
def outside(monkeypatch):
    """A module outside of ufo_large, imported, with a balancer and with a dataclass that is none of ours."""
    module = types.ModuleType("outside_methods")
    monkeypatch.setitem(sys.modules, module.__name__, module)

    class Mine(Balancer):
        @dataclass(frozen=True, kw_only=True)
        class Config(Balancer.Config):
            strength: float = 1.0

    @dataclass(frozen=True, kw_only=True)
    class Other:
        strength: float = 1.0

    module.Mine, module.Other = Mine, Other
    for cls, name in ((Mine, "Mine"), (Mine.Config, "Mine.Config"), (Other, "Other")):
        cls.__module__, cls.__qualname__ = module.__name__, name
    return module


def test_a_component_from_outside_is_built_where_it_is_imported(outside, monkeypatch):
    recipe = dataclasses.replace(load_recipe("demo"), balancer=outside.Mine.Config(strength=2.0))
    assert from_dict(to_dict(recipe)) == recipe
    with pytest.raises(ValueError, match=r"'outside_methods:Other', which is not part of ufo_large"):
        from_dict(to_dict(outside.Other()))
    saved = to_dict(recipe)
    monkeypatch.delitem(sys.modules, "outside_methods")
    with pytest.raises(ValueError, match=r"Mine\.Config'.*its module is imported before"):
        from_dict(saved)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [("steps", "many", "RunConfig cannot be built"), ("stepps", 3, "Did you mean 'steps'")],
)
def test_a_field_that_does_not_fit_names_the_file(folder, field, value, message):
    change(folder, config=to_dict(load_recipe("demo")) | {field: value})
    with pytest.raises(ValueError, match=rf"run/config\.json: .*{message}"):
        folder.read()


def test_a_missing_field_is_told():
    saved = to_dict(load_recipe("demo"))
    del saved["steps"]
    with pytest.raises(ValueError, match="RunConfig cannot be built .*'steps'"):
        from_dict(saved)


@pytest.mark.parametrize("content", [b"", b"  \n", b'{"config": {"_cl', b"[]", b"{}", b"\xff\xfe", b"\0\0\0"])
@pytest.mark.parametrize("read", [RunFolder.read, RunFolder.read_tasks])
def test_a_damaged_config_is_named_with_the_remedy(folder, content, read):
    folder.config_file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"run/config\.json: not .*put a copy of the run's config\.json there"
    ):
        read(folder)


@pytest.mark.parametrize(
    "parts",
    [
        {"tasks": ["cls"]},
        {"tasks": [{"name": "cls"}]},
        {"data": {"path": "shards"}},
        {"data": None},
        {"config": []},
        {"config": {"_class": "ufo_large.train.schedule:Schedule"}},
    ],
)
def test_a_config_of_another_form_is_named_with_the_remedy(folder, parts):
    change(folder, **parts)
    with pytest.raises(ValueError, match=r"run/config\.json: .*put a copy of the run's"):
        folder.read()


@pytest.mark.parametrize(
    "file", ["config.json", "environment.json", "metrics.json", "examples/examples.json"]
)
def test_the_report_names_a_damaged_file(tmp_path, file):
    (tmp_path / "examples").mkdir()
    (tmp_path / file).write_text('{"a": ')
    with pytest.raises(ValueError, match=rf"{file}: not JSON \(Expecting value.*; \w+"):
        write_report(tmp_path)


def test_json_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(ValueError, match="nan"):
        write_json(file, {"a": float("nan")}, allow_nan=False)
    monkeypatch.setattr("os.replace", lambda *_: 1 / 0)  # killed before the end
    with pytest.raises(ZeroDivisionError):
        write_json(file, {"a": 2})
    assert read_json(file, "") == {"a": 1}


class Shards:
    def __init__(self, root, fingerprint):
        self.root, self.fingerprint = root, fingerprint


def test_results_of_other_shards_and_splits_have_folders_of_their_own(tmp_path):
    folder, own, other = RunFolder(tmp_path), "a" * 64, "b" * 64
    found = {
        (split, fingerprint, root): folder.results(split, Shards(root, fingerprint), trained_on=own)
        for split in ("test", "val")
        for root, fingerprint in [
            ("x/city", own),
            ("x/city", other),
            ("x/town/", other),
            ("https://h/town?token=secret", "c" * 64),
            ("pipe:cat ../{}", "../../../b"),
        ]
    }
    assert found["test", own, "x/city"] == tmp_path
    assert found["val", own, "x/city"] == tmp_path / "evaluations/val"
    assert found["test", other, "x/city"] == tmp_path / "evaluations/city-bbbbbbbb"
    assert found["val", other, "x/town/"] == tmp_path / "evaluations/town-bbbbbbbb-val"
    assert found["test", "c" * 64, "https://h/town?token=secret"] == tmp_path / "evaluations/town-cccccccc"
    assert len(set(found.values())) == len(found)
    assert all(place.resolve().is_relative_to(tmp_path) for place in found.values())
