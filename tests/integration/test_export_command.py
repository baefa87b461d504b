"""launchers/export.py on a run folder."""

import json
import os
import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from ufo_large import UFO
from ufo_large.config import apply_overrides
from ufo_large.data.scenes import render_street
from ufo_large.distributed.checkpoint import save_weights
from ufo_large.distributed.engine import PlainEngine
from ufo_large.models.multitask import MultitaskModel
from ufo_large.models.weights import fill, initial_state
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.tasks.detection_fcos import FCOSDetector
from ufo_large.testing.models import TINY_TASKS, tiny_model
from ufo_large.testing.settings import SMALL_MODEL

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run of the demo recipe that has been given its weights without training."""
    return write_run(tmp_path_factory.mktemp("run"), *SMALL_MODEL)


def write_run(root: Path, *overrides: str) -> Path:
    config = apply_overrides(load_recipe("demo"), overrides)
    folder = RunFolder(root)
    folder.write(config, TINY_TASKS, "0" * 64, "nowhere", None)
    model = config.model.build(TINY_TASKS)
    fill(model, initial_state(model, seed=0))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.heads.parameters():  # else nothing would be found in any picture
            parameter.add_(0.2 * torch.randn_like(parameter))
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
    for options in ((), ("--out", str(run / "cls")), ("--out", str(run / "cls"))):
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


def test_the_card_of_a_timm_folder_loads_it(run, export, tmp_path, monkeypatch):
    figures = {"split": "test", "protocol": "contest", "top1": 0.5, "ap50": 0.25}
    (run / "metrics.json").write_text(json.dumps(figures))
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (50, 70), (200, 30, 30)).save("picture.jpg")
    shapes, texts = {"cls": (1, 5), "dec": (1, 32)}, {}
    for task, shape in shapes.items():
        out = tmp_path / f"{task}-timm"
        export(run, "--task", task, "--to", "timm", "--out", str(out), "--license", "mit")
        texts[task] = (out / "README.md").read_text()
        example = re.search("```python\n(.*?)```", texts[task], re.S)[1].replace("FOLDER", str(out))
        names = {}
        exec(example, names)
        assert names["outputs"].shape == shape
        assert json.loads((out / "config.json").read_text())["pretrained_cfg"]["license"] == "mit"
    assert 'library_name: timm\nlicense: "mit"' in texts["cls"]
    assert "| Top-1 accuracy | 0.5000 |" in texts["cls"] and "0.25" not in texts["cls"]
    assert "## Results" not in texts["dec"] and "## Training" in texts["dec"]
    assert "| cls | classification | 64 x 64, stretch | 5: c0, c1, c2, c3, c4 |" in texts["cls"]


def test_the_example_of_the_documentation_finds_what_the_run_finds(run, export, tmp_path, monkeypatch):
    """A graph of detection, at the run's own size; the file says how pictures are prepared."""
    pytest.importorskip("onnxruntime")
    told = export(run, "--task", "dec", "--to", "onnx", "--out", str(tmp_path / "RUN/export"))
    assert re.search(r"dec.onnx; largest difference to torch 0.0e\+00 \(\d+ boxes compared\)", told)
    assert oct((tmp_path / "RUN/export/dec.onnx").stat().st_mode & 0o777) == "0o644"
    rng = np.random.default_rng(0)
    street = Image.fromarray(render_street(96, 144, rng).rgb_HW3)
    monkeypatch.chdir(tmp_path)
    street.save("street.png")
    text = (ROOT / "docs/models.md").read_text()
    example = next(code for code in re.findall("```python\n(.*?)```", text, re.S) if "onnxruntime" in code)
    names = {}
    exec(example, names)
    wanted = UFO.from_pretrained(run).predict("street.png", tasks=["dec"]).predictions["dec"]
    assert len(wanted.scores_N) > 3
    np.testing.assert_allclose(names["boxes"], wanted.boxes_xyxy_N4, atol=1e-3)
    np.testing.assert_allclose(names["scores"][: len(wanted.scores_N)], wanted.scores_N, atol=1e-5)
    about, trunk = names["about"], UFO.from_pretrained(run).model.trunk.vit
    assert about.pop("preprocessing") == {
        "height": 96,
        "width": 144,
        "resize": "stretch",
        "interpolation": "linear, in two steps where it shrinks",
        "tiles": None,
        "colour_order": "RGB",
        "layout": "NCHW",
        "dtype": "uint8",
        "range": [0, 255],
        "mean": list(trunk.pretrained_cfg["mean"]),
        "std": list(trunk.pretrained_cfg["std"]),
        "normalised_by": "the graph",
    }
    assert about == {
        "format": "ufo-large-onnx/1",
        "task": "dec",
        "kind": "detection",
        "class_names": ["c0", "c1", "c2"],
        "class_ids": [0, 1, 2],
    }


def test_a_wrong_call_says_what_to_do_before_the_model_is_built(run, export, tmp_path, monkeypatch):
    monkeypatch.setattr(MultitaskModel, "__init__", None)
    timm_cls = ("--task", "cls", "--to", "timm")
    assert "Did you mean 'cls'" in export(run, "--task", "clss", "--to", "timm")
    assert "--to onnx writes one task; give --task, one of cls, dec, seg" in export(run, "--to", "onnx")
    assert "--task cls belongs to" in export(run, "--task", "cls", "--to", "safetensors")
    assert "--size 8 8 belongs to --to onnx" in export(run, *timm_cls, "--size", "8", "8")
    assert "--size 0 8: give at least one pixel" in export(
        run, "--task", "cls", "--to", "onnx", "--size", "0", "8"
    )
    assert "--license mit belongs to --to timm" in export(run, "--to", "safetensors", "--license", "mit")
    assert "not a run folder" in export(run / "none", *timm_cls)
    assert "checkpoint last: not in" in export(run, *timm_cls, "--checkpoint", "last")
    empty = tmp_path / "run"
    empty.mkdir()
    (empty / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "it has saved no whole checkpoint yet" in export(empty, *timm_cls)


def test_a_folder_with_something_else_is_left_alone(run, export, tmp_path):
    file = tmp_path / "a-file"
    file.touch()
    timm_cls = ("--task", "cls", "--to", "timm", "--out")
    assert "is a file, not a folder; choose another --out" in export(run, *timm_cls, str(file))
    assert f"{tmp_path}: holds other files (a-file); give another --out" in export(
        run, *timm_cls, str(tmp_path)
    )
    before = (run / "config.json").read_bytes()
    assert "holds other files" in export(run, *timm_cls, str(run))
    assert "config.json there belongs to another model" in export(
        run, "--to", "safetensors", "--out", str(run)
    )
    assert (run / "config.json").read_bytes() == before
    saved = UFO.from_pretrained(run).save_pretrained(tmp_path / "saved")
    assert "config.json there belongs to another model" in export(run, *timm_cls, str(saved))


def test_a_head_without_a_graph_says_so_and_not_what_else_is_missing(run, export, monkeypatch):
    monkeypatch.delattr(FCOSDetector, "graph_outputs")
    assert "FCOSDetector cannot become ONNX" in export(run, "--task", "dec", "--to", "onnx")
