"""Evaluate a run on one rank and on several: the same files, and the figures of the raw test root."""

import contextlib
import importlib.util
import io
import json
import os
import shutil
import sys
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.sharding import ShardingOptions, make_shards
from ufo_large.data.shards import ShardSet
from ufo_large.data.tiles import Tiling
from ufo_large.distributed.checkpoint import save_weights
from ufo_large.distributed.engine import PlainEngine
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.evaluation.ground_truth import truth_of_folder, truth_of_shards
from ufo_large.evaluation.loading import load_run
from ufo_large.evaluation.run import evaluate as evaluate_saved
from ufo_large.evaluation.run import evaluate_run
from ufo_large.evaluation.score import score_submission
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.runs.folder import RunFolder
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.structures import BoxPrediction, ClassPrediction, MaskPrediction
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.models import tiny_model

ROOT = Path(__file__).resolve().parents[2]
COUNTS = {"cls": 7, "dec": 5, "seg": 3}
SEG_CLASSES = ShardingOptions(counts={"seg": 19})
SIZES = {"classification": (16, 24), "detection": (48, 64), "segmentation": (32, 32)}


def write_root(root, split, rng):
    """Pictures of noise in several sizes with random labels."""
    for folder, count in (("cls", COUNTS["cls"]), ("dec", COUNTS["dec"]), ("seg/images", COUNTS["seg"])):
        (root / folder / split).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(0, 256, (40 + 3 * i, 60, 3)).astype(np.uint8)
            cv2.imwrite(str(root / folder / split / f"{i}.jpg"), noise)
    lines = [f"{i}.jpg {i % 3 + 5}" for i in range(COUNTS["cls"])]
    (root / f"cls/{split}.txt").write_text("\n".join(lines))
    images = [
        {"id": 10 * i + 3, "file_name": f"{i}.jpg", "height": 40 + 3 * i, "width": 60}
        for i in range(COUNTS["dec"])
    ]
    boxes = [(image["id"], rng.integers(1, 20, 4).tolist()) for image in images for _ in range(3)]
    annotations = [
        {"id": i, "image_id": n, "category_id": 4 + i % 2, "bbox": b, "area": b[2] * b[3], "iscrowd": 0}
        for i, (n, b) in enumerate(boxes, 1)
    ]
    categories = [{"id": 4, "name": "stop"}, {"id": 5, "name": "yield"}]
    body = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"dec/{split}.json").write_text(json.dumps(body))
    (root / "seg/label" / split).mkdir(parents=True)
    for i in range(COUNTS["seg"]):
        mask = np.kron(rng.choice([0, 4, 8, 255], (8, 10)), np.ones((8, 6)))[: 40 + 3 * i].astype(np.uint8)
        cv2.imwrite(str(root / "seg/label" / split / f"{i}.png"), mask)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    write_root(folder / "train_data", "train", rng)
    write_root(folder / "test_data", "test", rng)
    make_shards([folder / "train_data", folder / "test_data"], folder / "shards", SEG_CLASSES)
    return folder


class NoisyOracle:
    """Says the truth with errors that depend on the picture and, slightly, on the batch it comes in.

    Every call is a collective, as under ZeRO-3: ranks that call unequally often hang.
    """

    training = True

    def train(self, mode=True):
        self.training = mode

    def predict(self, batch):
        assert not self.training
        if dist.is_initialized():
            dist.all_reduce(torch.zeros(1))
        if batch.targets is None:
            return [None] * len(batch.samples)
        company = float(batch.images_BCHW.float().mean()) % 1
        return [self._predict(batch, i, company) for i in range(len(batch))]

    def _predict(self, batch, i, company):
        sample, targets = batch.samples[i], batch.targets
        generator = torch.Generator().manual_seed(int(batch.images_BCHW[i].long().sum()))
        height, width = batch.sizes_B2[i].tolist()
        if batch.task == "cls":
            scores = torch.rand(3, generator=generator) + company
            scores[targets.labels_B[i]] += 0.4
            return ClassPrediction(sample, scores)
        if batch.task == "dec":
            boxes, labels = targets.of_image(i)
            boxes = boxes + 2 * torch.rand(boxes.shape, generator=generator) + company
            boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 0.5)  # noise must not turn a box over
            boxes = boxes * torch.tensor([sample.width / width, sample.height / height] * 2)
            scores = (torch.rand(len(boxes), generator=generator) * 4).round() / 4  # many ties
            return BoxPrediction(sample, boxes, scores, labels)
        mask = targets.masks_BHW[i, :height, :width].to(torch.uint8).numpy() % 3
        mask[int(30 * company) :, ::3] = 0
        size = (sample.width, sample.height)
        return MaskPrediction(
            sample, torch.from_numpy(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST))
        )


def evaluate(shards, workdir, micro_batch, protocol):
    """Runs on every rank; returns what evaluate_run returns there, the validation's figures and images."""
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    loaders = {
        kind: LoaderConfig(micro_batch=micro_batch, image_size=size, workers=0)
        for kind, size in SIZES.items()
    }
    evaluator = Evaluator(shards=ShardSet.open(shards), loaders=loaders, show_progress=False)
    model = NoisyOracle()
    scored = evaluate_run(evaluator, model, workdir, protocol)
    result = scored and scored.result
    validation, reviewed = evaluator.validate(model, 3)
    assert model.training and evaluator.validate(model) == (validation, {})
    return result, validation, {task: dict(found.images) for task, found in reviewed.items()}


@pytest.fixture(scope="module")
def alone(data):
    """What one process leaves behind, at a batch size that divides none of the counts."""
    return _run(data, "alone", lambda *args: [evaluate(*args)])


def _run(data, name, launch):
    workdir = data / name
    workdir.mkdir()
    return workdir, launch(data / "shards", workdir, 2, "standard")


def test_three_ranks_leave_the_files_of_one(data, alone):
    """Three ranks share four, three and two batches, so that some have none to predict in a round."""
    folder, [one] = alone
    workdir, several = _run(data, "three", lambda *args: run_ranks(evaluate, 3, *args))
    for name in ("submission.json", "metrics.json", "figures.json"):
        assert (workdir / name).read_bytes() == (folder / name).read_bytes()
    assert [result is None for result, *_ in several] == [False] + [True, True]
    assert all(found == list(one[1:]) for _, *found in several)
    assert one[2].keys() == {"cls", "dec", "seg"}
    assert all(images and max(map(len, images.values())) <= 3 for images in one[2].values())


def test_figures_are_those_of_the_raw_test_root(alone, data):
    workdir, [(result, validation, _)] = alone
    raw = score_submission(workdir / "submission.json", data / "test_data", "standard")
    assert json.loads((workdir / "metrics.json").read_text()) == result
    for key in ("top1", "map50", "miou", "score", "protocol", "images"):
        assert result[key] == raw[key]
    assert list(result["details"].values()) == list(raw["details"].values())
    assert 0 < result["top1"] < 1 and 0 < result["map50"] < 1 and 0 < result["miou"] < 1
    assert result["miou"] == validation["seg/miou"] and result["top1"] == validation["cls/top1"]
    assert result["map50"] == pytest.approx(validation["dec/map50"], abs=1e-6)
    assert {m: set(found) for m, found in result["baselines"].items()} == {
        "top1": {"majority_class"},
        "map50": {"no_boxes"},
        "miou": {"most_frequent_class", "most_frequent_class_per_position"},
    }


def test_baselines_by_hand(alone):
    """Classes 5 6 7 5 6 7 5: the most frequent is right 3 times in 7. No box has no precision."""
    _, [(result, *_)] = alone
    assert result["baselines"]["top1"] == {"majority_class": 3 / 7}
    assert result["baselines"]["map50"] == {"no_boxes": 0.0}


def test_truth_of_shards_is_that_of_the_folder(data):
    known = {info.name: info for info in ShardSet.open(data / "shards").tasks}
    folder, shards = truth_of_folder(data, known=known), truth_of_shards(ShardSet.open(data / "shards"))
    for task, truth in folder.items():
        assert truth.file_names == shards[task].file_names and truth.info == shards[task].info
    for i in range(COUNTS["dec"]):
        a, b = folder["dec"].read(i), shards["dec"].read(i)
        for name in ("boxes_xywh_G4", "labels_G", "crowds_G", "areas_G"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    for i in range(COUNTS["seg"]):
        np.testing.assert_array_equal(folder["seg"].read(i), shards["seg"].read(i))
    assert [folder["cls"].read(i) for i in range(7)] == [shards["cls"].read(i) for i in range(7)]


def test_a_split_without_truth_gives_the_submission_alone(data, tmp_path):
    root = tmp_path / "test_data"
    shutil.copytree(data / "test_data/dec", root / "dec")
    (root / "dec/test.json").rename(root / "dec/val.json")  # only the categories, as in the contest
    (root / "dec/test.txt").write_text("".join(f"{i}.jpg\n" for i in range(COUNTS["dec"])))
    make_shards([root], tmp_path / "shards", ShardingOptions())
    result = submission_alone(tmp_path / "shards", tmp_path / "found")
    assert result is None
    assert [f.name for f in (tmp_path / "found").iterdir()] == ["submission.json"]
    entries = json.loads((tmp_path / "found/submission.json").read_text())["dec"]
    assert {e["image_id"] for e in entries} == {1, 5}


def test_what_cannot_be_scored_leaves_the_earlier_results(data, alone, tmp_path, monkeypatch):
    shutil.copytree(alone[0], tmp_path / "run")
    before = files_of(tmp_path / "run")
    monkeypatch.setattr("ufo_large.evaluation.run.trivial_baselines", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        evaluate(data / "shards", tmp_path / "run", 2, "standard")
    after = files_of(tmp_path / "run")
    unscored = json.loads(after.pop("submission_unscored.json"))
    assert after == before and unscored == json.loads(before["submission.json"])


def files_of(folder):
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def submission_alone(shards, workdir):
    class OneBox(NoisyOracle):
        def predict(self, batch):
            one = torch.tensor([[1.0, 2.0, 3.0, 5.0]]), torch.ones(1), torch.zeros(1).long()
            none = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0).long()
            return [BoxPrediction(s, *(one if s.order in (0, 4) else none)) for s in batch.samples]

    loader = LoaderConfig(micro_batch=3, image_size=(32, 32), workers=0)
    evaluator = Evaluator(shards=ShardSet.open(shards), loaders={"dec": loader}, show_progress=False)
    return evaluate_run(evaluator, OneBox(), workdir)


def test_boxes_found_in_tiles_are_joined(data):
    """Two tiles of 35 px in 60, the second from 25 on; each holds a box at its (5, 5)."""

    class CornerBox(NoisyOracle):
        def predict(self, batch):
            box = torch.tensor([[5.0, 5.0, 9.0, 9.0]]), torch.ones(1), torch.zeros(1).long()
            return [BoxPrediction(sample, *box) for sample in batch.samples]

    tiles = Tiling(rows=1, columns=2, overlap=10, whole=False)
    loader = LoaderConfig(micro_batch=4, image_size=(32, 32), workers=0, tiles=tiles)
    evaluator = Evaluator(
        shards=ShardSet.open(data / "shards"), loaders={"detection": loader}, show_progress=False
    )
    info = evaluator.shards.task("dec")
    predictions = list(evaluator.predictions(CornerBox(), info))
    assert [p.sample.order for p in predictions] == list(range(COUNTS["dec"]))
    for prediction in predictions:
        assert prediction.boxes_xyxy_N4.tolist() == [[5, 5, 9, 9], [30, 5, 34, 9]]


@pytest.fixture(scope="module")
def run_folder(data):
    return write_run(data, data / "run")


def write_run(data, place, num_tasks=3):
    """Write a finished run whose model is real, tiny and untrained, of the first tasks; return its folder."""
    torch.manual_seed(0)
    shards = ShardSet.open(data / "shards")
    tasks = shards.tasks[:num_tasks]
    loaders = {
        kind: TaskConfig(loader=LoaderConfig(micro_batch=2, image_size=size, workers=0))
        for kind, size in SIZES.items()
    }
    optimizer = OptimizerConfig(learning_rate=1e-3)
    config = RunConfig(name="tiny", steps=1, model=tiny_model(), tasks=loaders, optimizer=optimizer)
    folder = RunFolder(place)
    folder.write(config, tasks, shards.fingerprint, str(data / "shards"), None)
    model = config.model.build(tasks)
    save_weights(folder.weights, PlainEngine(model, optimizer.build(model), torch.device("cpu")))
    return folder.root


def run_script(*arguments):
    """Call eval/run_all.py in this process; return what it printed and its exit code.

    In one thread, as on a machine of one core: some processors round small products by the number of threads.
    """
    spec = importlib.util.spec_from_file_location("run_all_script", ROOT / "eval/run_all.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    sys.argv = ["run_all.py", *map(str, arguments)]
    said = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with mock.patch.object(os, "sched_getaffinity", return_value={0}), said[0] as out, said[1] as err:
        try:
            script.main()
        except SystemExit as stop:
            return err.getvalue(), stop.code
    return out.getvalue(), 0


def test_the_script_evaluates_a_run_alike_on_one_and_two_ranks(data, run_folder):
    other = data / "run_on_two"
    shutil.copytree(run_folder, other)
    text, code = run_script("--workdir", run_folder, "--data", data / "shards")
    assert code == 0
    line = json.loads(text.splitlines()[-1])
    (printed, _), (silence, _) = run_ranks(run_script, 2, "--workdir", other, "--data", data / "shards")
    assert json.loads(printed.splitlines()[-1]) == line and silence == ""
    for name in ("submission.json", "metrics.json", "figures.json", "examples/examples.json"):
        assert (run_folder / name).read_bytes() == (other / name).read_bytes()
    raw = score_submission(run_folder / "submission.json", data / "test_data", line["protocol"])
    assert [line[k] for k in ("top1", "map50", "miou", "score")] == [
        raw[k] for k in ("top1", "map50", "miou", "score")
    ]


VIEWS = ("--flip", "--scales", "1", "1.5", "--fusion", "wbf")


def test_results_of_views_are_alike_on_two_ranks_and_have_a_folder_of_their_own(data, tmp_path):
    """Of 4, 3 and 2 batches the second rank's last one of detection is empty, in every view."""
    run, other = write_run(data, tmp_path / "one"), write_run(data, tmp_path / "two")
    assert run_script("--workdir", run, "--data", data / "shards")[1] == 0
    before = files_of(run)
    text, code = run_script("--workdir", run, "--data", data / "shards", *VIEWS)
    results = run / "evaluations/flip-scales_1_1.5-wbf"
    assert code == 0 and f"report: {results / 'report.html'}" in text
    assert {f: content for f, content in files_of(run).items() if not f.startswith("evaluations/")} == before
    run_ranks(run_script, 2, "--workdir", other, "--data", data / "shards", *VIEWS)
    for name in ("submission.json", "metrics.json"):
        assert (results / name).read_bytes() == (other / results.relative_to(run) / name).read_bytes()
        assert (results / name).read_bytes() != before[name]
    assert json.loads(before["metrics.json"])["inputs"] == {"cls": "16x24", "dec": "48x64", "seg": "32x32"}
    assert json.loads((results / "metrics.json").read_text())["inputs"] == {
        "cls": "16x24, scales 1 1.5, flip, mean",
        "dec": "48x64, scales 1 1.5, flip, wbf",
        "seg": "32x32, scales 1 1.5, flip, mean",
    }
    assert "48x64, scales 1 1.5, flip, wbf" in (results / "report.html").read_text()


def test_set_overrules_the_views_of_all_tasks(data, tmp_path):
    run = write_run(data, tmp_path / "run")
    option = "tasks.detection.loader.views.flip=false"
    assert run_script("--workdir", run, "--data", data / "shards", "--flip", "--set", option)[1] == 0
    results = run / "evaluations/flip-detection.views.flip_false"
    assert json.loads((results / "metrics.json").read_text())["inputs"]["dec"] == "48x64"
    assert not (run / "metrics.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--fusion", "wbf"), "--fusion has no effect on any task of the run: cls (classification), dec"),
        (
            ("--flip", "--fusion", "wbff"),
            "--fusion wbff is no way to join predictions of any task of the run.",
        ),
        (("--scales", "1", "0"), "must be different numbers above 0"),
        (("--set", "tasks.detection.loader.views.fusion=nms"), "has nothing to join; set flip or scales"),
    ],
)
def test_views_without_effect_are_refused(data, run_folder, options, told):
    text, code = run_script("--workdir", run_folder, "--data", data / "shards", *options)
    assert code == 2 and told in text


def test_a_submission_has_no_views(data, alone):
    text, code = run_script(
        "--submission", alone[0] / "submission.json", "--data", data / "test_data", "--flip"
    )
    assert code == 2 and "--flip: of a model; a submission is scored as it is" in text


def test_results_of_other_splits_and_shards_leave_a_finished_run_alone(data, run_folder, tmp_path):
    run = Path(shutil.copytree(run_folder, tmp_path / "run"))
    assert run_script("--workdir", run, "--data", data / "shards")[1] == 0
    before = files_of(run)
    assert {"submission.json", "metrics.json", "report.html", "examples/examples.json"} <= before.keys()

    for root in ("train_data", "test_data"):
        shutil.copytree(data / root, tmp_path / "town" / root)
    noise = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "town/test_data/cls/test/0.jpg"), noise)
    roots = [tmp_path / "town" / root for root in ("train_data", "test_data")]
    make_shards(roots, tmp_path / "town/shards", SEG_CLASSES)
    mark = f"shards-{ShardSet.open(tmp_path / 'town/shards').fingerprint[:8]}"
    for shards, split, name in (
        (data / "shards", "train", "train"),
        (tmp_path / "town/shards", "test", mark),
        (tmp_path / "town/shards", "train", f"{mark}-train"),
    ):
        text, code = run_script("--workdir", run, "--data", shards, "--split", split)
        results = run / "evaluations" / name
        assert code == 0 and f"report: {results / 'report.html'}" in text
        assert json.loads((results / "metrics.json").read_text())["split"] == split
        assert {Path(f).parts[0] for f in files_of(results)} == {
            *("submission.json", "metrics.json", "figures.json", "report.html", "examples")
        }
        kept = {f: content for f, content in files_of(run).items() if not f.startswith("evaluations/")}
        assert kept == before


def test_a_task_that_was_not_trained_is_left_out_and_said(data, tmp_path):
    run = write_run(data, tmp_path / "run", num_tasks=2)
    text, code = run_script("--workdir", run, "--data", data / "shards")
    assert code == 0 and "not evaluated, since it was not trained: seg" in text
    line = json.loads(text.splitlines()[-1])
    assert line["top1"] is not None and "miou" not in line
    assert json.loads((run / "submission.json").read_text()).keys() >= {"cls", "dec"}


def test_shards_of_other_tasks_are_refused(data, run_folder, tmp_path):
    shutil.copytree(data / "test_data/seg", tmp_path / "test_data/seg")
    (tmp_path / "test_data/seg/classes.txt").write_text("".join(f"area {i}\n" for i in range(9)))
    make_shards([tmp_path / "test_data"], tmp_path / "shards", ShardingOptions())
    text, code = run_script("--workdir", run_folder, "--data", tmp_path / "shards")
    assert code == 2 and "task 'seg' has 9 classes, in the model 19" in text
    text, code = run_script("--workdir", tmp_path, "--data", data / "shards")
    assert code == 2 and "not a run folder" in text
    text, code = run_script("--workdir", run_folder, "--data", data / "shards", "--split", "val")
    assert code == 2 and "no task that the model knows has a split 'val'" in text


def test_in_bfloat16_a_model_predicts_nearly_the_same_and_the_results_say_so(data, run_folder):
    """bfloat16 has 8 bits: measured, class scores differ by 0.01 at most, and not by 0."""
    folder, shards = RunFolder(run_folder), ShardSet.open(data / "shards")
    saved = folder.read()
    model = load_run(folder, saved, torch.device("cpu"))
    exact, coarse = (
        Evaluator(shards=shards, loaders=saved.test_feeds(), bfloat16=rounded, show_progress=False)
        for rounded in (False, True)
    )
    info = shards.task("cls")
    pairs = zip(exact.predictions(model, info), coarse.predictions(model, info), strict=True)
    differences = [(a.scores_K - b.scores_K).abs().max().item() for a, b in pairs]
    assert 0 < max(differences) < 0.03
    done = evaluate_saved(run_folder, str(data / "shards"), split="test", protocol="standard", bfloat16=True)
    assert done.folder.name == "bfloat16"
    assert all(told.endswith(", bfloat16") for told in done.result["inputs"].values())
