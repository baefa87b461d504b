"""What a run's folder may make this machine do, and what is said of damaged files in it."""

import dataclasses
import json
import sys
from dataclasses import dataclass

import pytest

from ufo_large.balancing import METHODS
from ufo_large.config import read_json, to_dict, write_json
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.structures import TaskInfo
from ufo_large.tracking import write_report

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
    with pytest.raises(ValueError, match=r"run/config\.json: .*RunConfig has no field '_class'"):
        folder.read()
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    "name", ["os.system", "ufo_large.data.opener:fetch_bytes", "__class__", "", "Config"]
)
@pytest.mark.parametrize("place", ["balancer", "model.trunk.router", "tasks.detection.loader.transform"])
def test_only_registered_components_are_built(folder, place, name):
    config = to_dict(load_recipe("demo"))
    *parents, last = place.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    node[last] = {name: {}}
    change(folder, config=config)
    with pytest.raises(ValueError, match=rf"run/config\.json: config\.{place}: no component"):
        folder.read()


def test_no_plugin_of_a_strangers_choice_is_imported(folder, tmp_path, monkeypatch):
    (tmp_path / "stranger.py").write_text(f"open({str(tmp_path / 'hacked')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    change(folder, plugins=["stranger", str(tmp_path / "stranger.py")])
    assert folder.read().config == load_recipe("demo")
    assert not (tmp_path / "hacked").exists() and "stranger" not in sys.modules


def test_a_component_from_outside_is_built_where_it_is_registered(folder, monkeypatch):
    class Mine(METHODS["tbgn"]):
        @dataclass(frozen=True, kw_only=True, slots=True)
        class Config(METHODS["tbgn"].Config):
            strength: float = 1.0

    monkeypatch.setitem(METHODS, "mine", Mine)
    recipe = dataclasses.replace(load_recipe("demo"), balancer=Mine.Config(strength=2.0))
    folder.write(recipe, TASKS, "0" * 64, "shards", None)
    assert folder.read().config == recipe
    change(folder, plugins=["my_methods"])
    monkeypatch.delitem(METHODS, "mine")
    with pytest.raises(ValueError, match=r"no component 'mine'.*it was trained with --plugin my_methods"):
        folder.read()


def test_a_config_of_another_format_is_told(folder):
    change(folder, format="ufo-large-run/1")
    with pytest.raises(
        ValueError, match=r"run/config\.json: format 'ufo-large-run/1', but this version reads"
    ):
        folder.read()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("steps", "many", "config.steps: 'many' is not of the type int"),
        ("steps", 0, "steps=0: must be at least 1"),
        ("stepps", 3, "Did you mean 'steps'"),
    ],
)
def test_a_field_that_does_not_fit_names_the_file(folder, field, value, message):
    change(folder, config=to_dict(load_recipe("demo")) | {field: value})
    with pytest.raises(ValueError, match=rf"run/config\.json: .*{message}"):
        folder.read()


def test_a_missing_field_is_told(folder):
    saved = to_dict(load_recipe("demo"))
    del saved["steps"]
    change(folder, config=saved)
    with pytest.raises(ValueError, match=r"run/config\.json: config: RunConfig lacks steps"):
        folder.read()


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
        {"plugins": [3]},
    ],
)
def test_a_config_of_another_form_is_named_with_the_remedy(folder, parts):
    change(folder, **parts)
    with pytest.raises(ValueError, match=r"run/config\.json: .*put a copy of the run's"):
        folder.read()


@pytest.mark.parametrize(
    "file",
    ["config.json", "environment.json", "metrics.json", "figures.json", "examples/examples.json"],
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
