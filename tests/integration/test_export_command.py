"""launchers/export.py on a run folder."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from ufo_large.config import apply_overrides
from ufo_large.distributed.checkpoint import save_weights
from ufo_large.distributed.engine import PlainEngine
from ufo_large.models.weights import fill, initial_state
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.testing.models import TINY_TASKS, tiny_model

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of the demo recipe that has been given its weights without training."""
    return write_run(tmp_path_factory.mktemp("run"))


def write_run(root: Path, *overrides: str) -> Path:
    config = apply_overrides(load_recipe("demo"), overrides)
    folder = RunFolder(root)
    folder.write(config, TINY_TASKS, "0" * 64, "nowhere", None)
    model = config.model.build(TINY_TASKS)
    fill(model, initial_state(model, seed=0))
    folder.weights.mkdir()
    state = model.state_dict()
    save_file(state, folder.weights / "model-00001.safetensors")
    index = {"weight_map": dict.fromkeys(state, "model-00001.safetensors")}
    (folder.weights / "model.safetensors.index.json").write_text(json.dumps(index))
    return root


@pytest.fixture
def export(monkeypatch, capsys):
    """Run the command in this process; return what it printed, or the error after exit code 2."""

    def call(run: Path, *options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["export.py", "--workdir", str(run), *options])
        try:
            runpy.run_path(str(ROOT / "launchers" / "export.py"), run_name="__main__")
        except SystemExit as stop:
            assert stop.code == 2
            return capsys.readouterr().err
        return capsys.readouterr().out

    return call


def test_each_form_is_written(run, export):
    """Each beside the others: none replaces another's file."""
    for options in ((), ("--out", str(run / "cls"))):
        line = export(run, "--task", "cls", "--to", "timm", *options).splitlines()[-1]
        dense = eval(line, {"timm": timm})
        assert dense(torch.zeros(1, 3, 96, 96)).shape == (1, 5)
    export(run, "--task", "dec", "--to", "timm")
    export(run, "--to", "safetensors")
    folders = {file.parent for file in (run / "export").rglob("model.safetensors")}
    assert folders == {run / "export", run / "export/cls-timm", run / "export/dec-timm"}
    assert any(".experts." in name for name in load_file(run / "export" / "model.safetensors"))


def test_a_residual_run_becomes_a_wider_dense_model(export, tmp_path):
    """Half as many hidden units again; the demo's MLPs have four times the width."""
    run = write_run(tmp_path, "model.trunk.router=residual", "model.trunk.router.fraction=0.5")
    dense = eval(export(run, "--task", "cls", "--to", "timm").splitlines()[-1], {"timm": timm})
    assert {block.mlp.fc2.in_features for block in dense.blocks} == {6 * dense.embed_dim}
    assert dense(torch.zeros(1, 3, 96, 96)).shape == (1, 5)


def test_files_are_as_readable_as_any_other(run, export, tmp_path):
    """A run's weights and what is exported; safetensors alone would leave them to their owner."""
    model = tiny_model().build(TINY_TASKS)
    engine = PlainEngine(model, torch.optim.SGD(model.parameters()), torch.device("cpu"))
    before = os.umask(0o022)
    try:
        save_weights(tmp_path / "weights", engine)
        for options in (("--task", "cls", "--to", "timm"), ("--to", "safetensors")):
            export(run, *options, "--out", str(tmp_path / options[-1]))
    finally:
        os.umask(before)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len([file for file in files if file.suffix == ".safetensors"]) == 3
    assert {oct(file.stat().st_mode & 0o777) for file in files} == {"0o644"}


def test_the_timm_folder_has_the_input_of_the_tasks_own_loader(run, export):
    for task, size in (("cls", (3, 64, 64)), ("dec", (3, 96, 144))):
        dense = eval(export(run, "--task", task, "--to", "timm").splitlines()[-1], {"timm": timm})
        assert timm.data.resolve_model_data_config(dense)["input_size"] == size


def test_a_wrong_call_says_what_to_do(run, export):
    assert "Did you mean 'cls'" in export(run, "--task", "clss", "--to", "timm")
    assert "--task belongs to" in export(run, "--task", "cls", "--to", "safetensors")
    assert "--size H W" in export(run, "--task", "cls", "--to", "onnx")
    file = run / "a-file"
    file.touch()
    assert "is a file, not a folder; choose another --out" in export(
        run, "--task", "cls", "--to", "timm", "--out", str(file)
    )
    assert "not a run folder" in export(run / "none", "--task", "cls", "--to", "timm")
