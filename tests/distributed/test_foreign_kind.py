"""A kind of task that the package does not know goes the whole way: shards to comparison, on two ranks."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ufo_large.config import load_plugins
from ufo_large.testing.scenes import Scene
from ufo_large.testing.tasks import PYRAMID_WIDTH, TRUNK_WIDTH, check_task
from ufo_large.testing.tiny_shards import write_tiny_data

PLUGIN = Path(__file__).resolve().parents[1] / "plugins" / "brightness.py"
RECIPE = PLUGIN.with_name("brightness_recipe.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> list[Path]:
    """Signs in the contest's layout, and grey pictures whose brightness is the number."""
    root = tmp_path_factory.mktemp("data")
    signs = write_tiny_data(root / "track1_train_data", count=12)
    for unused in ("cls", "seg"):
        shutil.rmtree(signs / unused)
    test = root / "track1_test_data" / "dec"
    shutil.copytree(signs / "dec/train", test / "test")
    shutil.copyfile(signs / "dec/train.json", test / "test.json")
    numbers, rng = {"train": {}, "test": {}}, np.random.default_rng(0)
    (root / "grey").mkdir()
    for split, count in (("train", 12), ("test", 7)):
        for i in range(count):
            name, level = f"{split}{i}.png", int(rng.integers(0, 256))
            cv2.imwrite(str(root / "grey" / name), np.full((40, 50, 3), level, np.uint8))
            numbers[split][name] = level / 255
    (root / "grey/brightness.json").write_text(json.dumps(numbers))
    return [root, root / "grey"]


@pytest.fixture(scope="module")
def run(data, tmp_path_factory, two_ranks, script) -> Path:
    """Shards and a trained run, made with the user's own commands."""
    folder = tmp_path_factory.mktemp("foreign")
    made = script(
        "data_sharding/make_shards.py", "--plugin", PLUGIN, "--data", *data, "--out", folder / "shards"
    )
    assert made.returncode == 0, made.stderr
    assert "brightness: brightness, 0 classes; images: train 12, test 7" in made.stdout
    trained = two_ranks(
        *("launchers/train.py", "--plugin", PLUGIN, "--recipe", RECIPE),
        *("--data", folder / "shards", "--workdir", folder / "run"),
    )
    assert trained.returncode == 0, trained.stdout[-3000:] + trained.stderr[-3000:]
    return folder / "run"


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return {
        name: t for file in sorted(run.glob("weights/*.safetensors")) for name, t in load_file(file).items()
    }


def test_the_head_keeps_the_contract():
    load_plugins([str(PLUGIN)])
    from ufo_large.tasks import HEADS

    module = HEADS["brightness"]["number"]
    plugin = __import__("sys").modules[module.__module__]
    targets = plugin.NumberTargets(torch.tensor([0.25, 0.5, 1.0]))

    def check(prediction, targets, index):
        assert prediction.number == targets.numbers_B[index]

    from ufo_large.structures import TaskInfo

    scene = Scene(
        info=TaskInfo(name="road", kind="brightness"),
        targets=targets,
        broken=plugin.NumberTargets(torch.tensor([0.25, torch.nan, 1.0])),
        check=check,
    )
    torch.manual_seed(0)
    head = module.Config(scale=10.0).build(scene.info, TRUNK_WIDTH, PYRAMID_WIDTH)
    check_task(head, lambda head, features, batch: {"number_B": batch.targets.numbers_B.clone()}, scene=scene)


def test_it_trains_beside_detection_and_is_validated(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = {key: value for line in lines for key, value in line.items()}
    assert {"brightness/square", "brightness/total", "dec/total", "val/brightness/mae"} <= last.keys()
    assert 0 < last["val/score"] < 1
    saved = json.loads((run / "config.json").read_text())
    assert saved["plugins"] == [str(PLUGIN)]
    assert saved["config"]["model"]["heads"]["brightness"] == {"number": {"scale": 1.0}}


def test_it_resumes_exactly(run, tmp_path, two_ranks):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    done = two_ranks(
        *("launchers/train.py", "--plugin", PLUGIN, "--recipe", RECIPE, "--data", run.parent / "shards"),
        *("--workdir", copy, "--resume", copy / "checkpoints" / "step-00000002"),
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    before, after = weights_of(run), weights_of(copy)
    assert before.keys() == after.keys() and "heads.brightness.linear.weight" in before
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture(scope="module")
def scored(run, two_ranks, script) -> list[dict]:
    found = []
    for start in (script, two_ranks):
        done = start("eval/run_all.py", "--plugin", PLUGIN, "--workdir", run, "--data", run.parent / "shards",
                     "--protocol", "standard")  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        found.append(
            json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("{")))
            | {"figures": json.loads((run / "figures.json").read_text())}
        )
    return found


def test_two_ranks_score_what_one_does(scored, run):
    one, two = scored
    assert one == two
    share = 1 / (1 + one["mae"])
    assert one["score"] == pytest.approx((one["map50"] + share) / 2)
    assert one["images"] == {"dec": 12, "brightness": 7}
    assert set(one["baselines"]["mae"]) == {"mean_of_training"}
    assert one["figures"]["tasks"]["brightness"][0]["note"] == "7 images"
    assert "brightness" not in json.loads((run / "submission.json").read_text())


def test_report_and_comparison_show_it(scored, run, script):
    page = (run / "report.html").read_text()
    assert "mean absolute error" in page and "said " in page
    assert "How close" in page and "Worst" in page
    compared = script("eval/compare_runs.py", "--plugin", PLUGIN, run, run, "--single", run)
    assert compared.returncode == 0, compared.stderr
    assert "MAE" in compared.stdout and "+0.00 %" in compared.stdout


@pytest.mark.parametrize("command", ["eval/run_all.py", "launchers/export.py"])
def test_without_the_plugin_the_run_says_which_it_wants(run, script, command):
    rest = ("--data", run.parent / "shards") if "eval" in command else ("--to", "safetensors")
    done = script(command, "--workdir", run, *rest)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "--plugin" in done.stderr and "brightness" in done.stderr


def test_it_is_predicted_by_the_command(run, data, tmp_path, script):
    """With the answer that `Kind.described` has for any kind."""
    command = ("launchers/predict.py", "--workdir", run, data[1], "--out", tmp_path / "out")
    refused = script(*command)
    assert refused.returncode == 2 and f"--plugin {PLUGIN}" in refused.stderr
    done = script(*command, "--plugin", PLUGIN)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out/predictions.jsonl").read_text().splitlines()]
    assert len(lines) == 19
    said = [line["tasks"]["brightness"]["said"] for line in lines]
    assert all(isinstance(number, float) for number in said) and len(set(said)) > 1
    assert (tmp_path / "out/coco_dec.json").is_file() and not (tmp_path / "out/coco_brightness.json").exists()
