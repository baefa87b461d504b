"""Components from outside: a module, a file, an installed package; and what is said of a bad one."""

import functools
import json
from pathlib import Path

import pytest

from ufo_large.balancing import METHODS
from ufo_large.config import load_plugins, loaded_plugins, plugins, register
from ufo_large.recipes import demo, load_recipe

ROOT = Path(__file__).resolve().parents[2]
METHOD = '''
"""Every task counts twice."""

from dataclasses import dataclass

import torch

from ufo_large.balancing import METHODS, Balancer
from ufo_large.config import register


class Twice(Balancer):
    @dataclass(frozen=True, kw_only=True, slots=True)
    class Config(Balancer.Config):
        factor: float = 2.0

        def build(self, tasks, seed):
            return Twice(tasks, seed, self)

    def weights(self, signals):
        return torch.full((len(signals.tasks),), self.config.factor, dtype=torch.float64)


register(METHODS, "twice", Twice)
'''
RECIPE = """
from dataclasses import replace

from ufo_large.balancing import METHODS
from ufo_large.config import apply_overrides
from ufo_large.recipes import demo


def recipe():
    small = ("steps=2", "model.trunk.depth=1", "model.trunk.embed_dim=32", "model.trunk.num_heads=2")
    config = replace(demo.recipe(), name="mine", balancer=METHODS["twice"].Config(factor=3.0))
    return apply_overrides(config, [*small, "tracking.wandb=disabled"])
"""


@pytest.fixture
def forget(monkeypatch):
    """Leave registries and the list of plugins as they were."""
    monkeypatch.setattr(plugins, "_LOADED", [])
    before = dict(METHODS)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_an_installed_package_is_there_by_itself(tmp_path, tiny_shards, script):
    """Trained by its name, then scored and exported without a word of it on the command line."""
    package = tmp_path / "package"
    package.mkdir()
    (package / "my_methods.py").write_text(METHOD)
    (package / "mine.py").write_text(RECIPE)
    info = package / "my_methods-1.0.dist-info"  # as pip leaves it
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[ufo_large.plugins]\nmethods = my_methods\n")
    call = functools.partial(script, packages=package)
    run = tmp_path / "run"
    options = ("--ds", "none", "--data", tiny_shards, "--workdir", run)
    done = call("launchers/train.py", "--recipe", package / "mine.py", *options)
    assert done.returncode == 0, done.stderr
    saved = json.loads((run / "config.json").read_text())
    assert saved["plugins"] == ["my_methods"]
    assert saved["config"]["balancer"]["twice"]["factor"] == 3.0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert {lines[0][f"balance/{task}/weight"] for task in ("cls", "dec", "seg")} == {3.0}
    again = call("launchers/train.py", "--recipe", package / "mine.py", *options, "--resume", "auto")
    assert again.returncode == 0 and "is finished" in again.stdout
    assert call("launchers/export.py", "--workdir", run, "--to", "safetensors").returncode == 0
    without = script("launchers/export.py", "--workdir", run, "--to", "safetensors")
    assert without.returncode == 2
    assert "no component 'twice'" in without.stderr and "--plugin my_methods" in without.stderr


def test_a_module_and_a_file_are_loaded_once(tmp_path, monkeypatch, forget):
    (tmp_path / "methods_by_name.py").write_text(METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    for _ in range(2):
        load_plugins(["methods_by_name"])
    assert loaded_plugins() == ("methods_by_name",) and METHODS["twice"].Config().factor == 2.0
    del METHODS["twice"]
    (tmp_path / "by_path.py").write_text(METHOD)
    for _ in range(2):
        load_plugins([str(tmp_path / "by_path.py")])
    assert "twice" in METHODS


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), ("import no_such_module_at_all", "No module named"), ("1 +", "SyntaxError")],
)
def test_a_bad_plugin_is_named(tmp_path, content, message, forget):
    file = tmp_path / "bad.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=rf"plugin .*bad\.py: cannot be loaded \(.*{message}"):
        load_plugins([str(file)])
    assert loaded_plugins() == ()


def test_a_name_that_is_taken_is_refused(forget):
    with pytest.raises(ValueError, match="'tbgn' is ufo_large.balancing.tbgn.TBGN already; choose another"):
        register(METHODS, "tbgn", METHODS["pcgrad"])
    register(METHODS, "tbgn", METHODS["tbgn"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1", r"needs a function recipe\(\)"),
        ("def recipe(): return 3", r"needs a function recipe\(\)"),
        (None, "no such file"),
    ],
)
def test_a_recipe_file_that_is_none_says_what_it_needs(tmp_path, content, message):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.py: .*{message}"):
        load_recipe(str(file))


def test_a_recipe_file_is_a_recipe(tmp_path):
    file = tmp_path / "copy.py"
    file.write_text("from ufo_large.recipes.demo import recipe\n")
    assert load_recipe(str(file)) == demo.recipe()
