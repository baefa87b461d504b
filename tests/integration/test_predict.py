"""Predict with a trained run: from Python, by the command, and with the model saved and opened again."""

import hashlib
import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from ufo_large import UFO
from ufo_large.config import apply_overrides
from ufo_large.data.shards import ShardSet
from ufo_large.data.views import Views
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.kinds.protocols import get_protocol
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.serving.pictures import Named
from ufo_large.structures.batch import map_arrays
from ufo_large.testing.distributed import run_ranks
from ufo_large.testing.scripts import run_python
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL

ROOT = Path(__file__).resolve().parents[2]
TASKS = ("cls", "dec", "seg")
SMALL = (
    "steps=2",
    *SMALL_MODEL,
    "tasks.classification.loader.micro_batch=4",
    "tasks.detection.loader.micro_batch=6",
    "tasks.detection.loader.tiles.columns=2",
    "tasks.segmentation.loader.micro_batch=2",
    "tasks.segmentation.loader.keep_aspect=true",
    *IN_THE_PROCESS,
    NO_WANDB,
)


def train_small(shards: str, workdir: str, *options: str) -> None:
    from ufo_large.train.run import train

    train(apply_overrides(load_recipe("demo"), [*SMALL, *options]), shards, Path(workdir), None)


@pytest.fixture(scope="module")
def run(tiny_shards, tmp_path_factory) -> Path:
    """A finished run of two steps: two tiles of each picture with boxes, the aspect kept in segmentation."""
    workdir = tmp_path_factory.mktemp("run") / "tiny"
    run_ranks(train_small, 1, str(tiny_shards), str(workdir))
    return workdir


@pytest.fixture(scope="module")
def model(run) -> UFO:
    return UFO.from_pretrained(run)


def test_pictures(shards: Path, task: str) -> list[str]:
    """The files that the test split of a task was packed from, in its official order."""
    reader = ShardSet.open(shards).split(task, "test")
    samples = sorted((reader.sample(i) for i in range(len(reader))), key=lambda s: s.order)
    folder = shards.parent / "world" / "track1_test_data" / task
    return [str(next(folder.rglob(sample.file_name))) for sample in samples]


test_pictures.__test__ = False


def assert_same(found, expected) -> None:
    """Bit for bit, whatever tensors a prediction has."""
    tensors = []
    for prediction in (found, expected):
        own = []
        map_arrays(prediction, lambda t, own=own: own.append(t) or t)
        tensors.append(own)
    assert len(tensors[0]) == len(tensors[1]) > 0
    assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


VIEWS = {"flip": True, "scales": [0.5, 1.0]}


@pytest.mark.parametrize("views", [{}, VIEWS], ids=["plain", "views"])
def test_a_path_gives_the_bits_of_the_evaluation(tiny_shards, run, views, tmp_path):
    """Also where the recipe asks for several views of each image."""
    shutil.copytree(run, tmp_path / "run")
    body = json.loads((run / "config.json").read_text())
    for task in body["config"]["tasks"].values():
        task["loader"]["views"] |= views
    (tmp_path / "run/config.json").write_text(json.dumps(body))
    model, saved = UFO.from_pretrained(tmp_path / "run"), RunFolder(tmp_path / "run").read()
    if views:  # once more asked for, of a run without
        asked = UFO.from_pretrained(run).seeing(Views(flip=True, scales=(0.5, 1.0)))
    evaluator = Evaluator(
        shards=ShardSet.open(tiny_shards),
        loaders=saved.test_feeds(),
        patch=model.model.trunk.stride,
        show_progress=False,
    )
    for info in evaluator.tasks:
        expected = sorted(evaluator.predictions(model.model, info), key=lambda p: p.sample.order)
        paths = test_pictures(tiny_shards, info.name)
        results = model.predict(paths, tasks=[info.name])
        assert len(results) == len(expected) > 3
        for result, prediction in zip(results, expected, strict=True):
            assert_same(result[info.name], prediction)
        if views:
            for result, prediction in zip(asked.predict(paths, tasks=[info.name]), expected, strict=True):
                assert_same(result[info.name], prediction)


def test_all_tasks_together_say_what_each_says_alone(tiny_shards, model):
    pictures = [path for task in TASKS for path in test_pictures(tiny_shards, task)[:3]]
    together = model.predict(pictures)
    for task in TASKS:
        for one, both in zip(model.predict(pictures, tasks=[task]), together, strict=True):
            assert list(both.to_dict()["tasks"]) == list(TASKS)
            assert_same(one[task], both[task])


def test_at_one_size_the_shared_blocks_run_once_and_no_bit_changes(tiny_shards, model):
    size = (96, 128)
    pictures = [path for task in TASKS for path in test_pictures(tiny_shards, task)[:3]]
    calls = []
    handle = model.model.trunk.vit.blocks[0].register_forward_pre_hook(lambda *_: calls.append(1))
    together = model.predict(pictures, size=size)
    passes = len(calls)
    for task in TASKS:
        for one, both in zip(model.predict(pictures, tasks=[task], size=size), together, strict=True):
            assert_same(one[task], both[task])
    handle.remove()
    assert passes == -(-len(pictures) // 2)  # in the smallest micro-batch, segmentation's
    assert len(calls) == (1 + len(TASKS)) * passes
    with pytest.raises(ValueError, match=r"size=\(0, 128\): give height and width"):
        model.predict(pictures, size=(0, 128))


def test_the_submission_of_the_evaluation_holds_the_same_boxes(tiny_shards, run, model):
    saved = RunFolder(run).read()
    evaluator = Evaluator(
        shards=ShardSet.open(tiny_shards), loaders=saved.test_feeds(), only=("dec",), show_progress=False
    )
    entries = evaluator.gathered(model.model, get_protocol("official"))[0]["dec"]
    results = model.predict(test_pictures(tiny_shards, "dec"), tasks=["dec"])
    found = [entry for result in results for entry in result.to_coco()]
    assert [{k: v for k, v in entry.items() if k != "file_name"} for entry in found] == entries
    assert len(entries) > 0


def test_a_picture_may_be_an_array_or_a_pil_image(tiny_shards, model, tmp_path):
    """A PNG's pixels are the same by every way; so are then the bits."""
    pixels = np.random.default_rng(0).integers(0, 256, (70, 110, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    by_path = model.predict(tmp_path / "a.png")
    assert by_path.file_name == str(tmp_path / "a.png")
    for given in (pixels, Image.open(tmp_path / "a.png"), Image.fromarray(pixels).convert("RGBA")):
        result = model.predict(given)
        for task in TASKS:
            assert_same(map_arrays(result[task], lambda t: t), by_path[task])
    assert model.predict(pixels).file_name == "image 1"
    grey = pixels[..., 0]
    assert_same(model.predict(grey)["seg"], model.predict(np.repeat(grey[..., None], 3, 2))["seg"])
    with pytest.raises(ValueError, match=r"an array of float64 \[70, 110, 3\]; give uint8"):
        model.predict(pixels / 255)
    with pytest.raises(TypeError, match="int is no picture"):
        model.predict([3])


def test_a_bad_picture_does_not_stop_the_others(tiny_shards, model, tmp_path):
    good = test_pictures(tiny_shards, "seg")[:3]
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(Path(good[0]).read_bytes()[:700])
    results = model.predict([good[0], cut, good[1], "/none.png", good[2]], tasks=["seg"])
    assert [bool(r.error) for r in results] == [False, True, False, True, False]
    assert results[3].error == "missing"
    opened = model.predict([Image.open(good[0]), Image.open(cut)], tasks=["seg"])  # PIL reads it later
    assert not opened[0].error and "unreadable" in opened[1].error and opened[1].file_name == str(cut)
    alone = model.predict(good, tasks=["seg"])
    for result, expected in zip([results[0], results[2], results[4]], alone, strict=True):
        assert (result["seg"].mask_HW == expected["seg"].mask_HW).float().mean() > 0.999
    with pytest.raises(ValueError, match=r"/none\.png: missing"):
        model.predict("/none.png")
    with pytest.raises(ValueError, match=r"none\.png: missing; there is no prediction"):
        results[3].overlay()


def test_unknown_tasks_are_named(model):
    with pytest.raises(ValueError, match=r"'segg'.*no such task.*Did you mean 'seg'"):
        model.predict(np.zeros((8, 8, 3), np.uint8), tasks=["segg"])
    with pytest.raises(ValueError, match="give a list of names"):
        model.predict(np.zeros((8, 8, 3), np.uint8), tasks="seg")


def test_results_are_saved_shown_and_said(tiny_shards, model, tmp_path):
    path = test_pictures(tiny_shards, "dec")[0]
    result = model.predict(path)
    said = json.loads(result.to_json())
    with Image.open(path) as image:
        assert (said["width"], said["height"]) == image.size
    names = set(model.tasks["cls"].class_names)
    assert said["tasks"]["cls"]["class"] in names
    for box in said["tasks"]["dec"]["boxes"]:
        assert 0 <= box["box_xyxy"][0] <= box["box_xyxy"][2] <= said["width"]
    assert result.overlay().shape[2] == 3
    result.save(tmp_path / "a.jpg")
    result.save(tmp_path / "a.json")
    result.save(tmp_path / "all")
    name = Path(path).name
    there = {p.name for p in (tmp_path / "all").iterdir()}
    assert there == {f"{name}.overlay.jpg", f"{name}.json", f"{name}.seg.mask.png"}
    with Image.open(tmp_path / "all" / f"{name}.seg.mask.png") as mask:
        assert mask.size == (said["width"], said["height"]) and mask.mode == "L"
    with pytest.raises(ValueError, match=r"\.gif: give a name with \.jpg"):
        result.save(tmp_path / "a.gif")
    with pytest.raises(ValueError, match="no form for cls"):
        model.predict(path, tasks=["cls"]).to_coco()


def test_a_saved_model_is_the_same_bit_for_bit(tiny_shards, run, model, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    body = {
        "score": 0.5,
        "top1": 0.5,
        "protocol": "standard",
        "split": "test",
        "tasks": {"cls": {"top1": 0.5}},
        "baselines": {"top1": {"majority_class": 0.25}},
    }
    (copy / "metrics.json").write_text(json.dumps(body))
    UFO.from_pretrained(copy).save_pretrained(tmp_path / "saved", license="apache-2.0")
    again = UFO.from_pretrained(tmp_path / "saved")
    for name, tensor in model.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], tensor), name
    assert again.tasks == model.tasks
    pictures = test_pictures(tiny_shards, "dec")[:4]
    for a, b in zip(again.predict(pictures), model.predict(pictures), strict=True):
        assert all(assert_same(a[task], b[task]) is None for task in TASKS)
    config = json.loads((tmp_path / "saved/config.json").read_text())
    assert config["license"] == "apache-2.0"
    assert config["preprocessing"]["dec"]["tiles"] == [1, 2]
    assert config["preprocessing"]["seg"] | {"height": 128, "width": 192} == config["preprocessing"]["seg"]
    assert "keep aspect" in config["preprocessing"]["seg"]["resize"]
    assert [task["class_names"] for task in config["tasks"]] == [
        list(i.class_names) for i in model.tasks.values()
    ]
    assert str(tiny_shards) not in (tmp_path / "saved/config.json").read_text()
    card = (tmp_path / "saved/README.md").read_text()
    assert card.startswith('---\nlibrary_name: ufo-large\nlicense: "apache-2.0"\n')
    assert "| Top-1 accuracy | 0.5000 | majority class 0.2500 |" in card
    assert "- command: `" in card
    for info in model.tasks.values():
        assert f"| {info.name} | {info.kind} |" in card
    files = {file.name for file in (tmp_path / "saved").iterdir()}
    assert files == {"config.json", "model.safetensors", "README.md"}


def test_a_model_saved_again_keeps_its_card(model, tmp_path):
    model.save_pretrained(tmp_path / "one")
    (tmp_path / "one/README.md").write_text("# mine\n")
    UFO.from_pretrained(tmp_path / "one").save_pretrained(tmp_path / "two")
    assert (tmp_path / "two/README.md").read_text() == "# mine\n"


def test_a_licence_stays_with_its_model_and_another_goes_into_the_card_too(model, tmp_path):
    model.save_pretrained(tmp_path / "one", license="apache-2.0")
    saved = UFO.from_pretrained(tmp_path / "one")
    for folder, given, license in (("two", None, "apache-2.0"), ("three", "mit", "mit")):
        saved.save_pretrained(tmp_path / folder, license=given)
        assert json.loads((tmp_path / folder / "config.json").read_text())["license"] == license
        card = (tmp_path / folder / "README.md").read_text()
        assert card.splitlines()[2] == f'license: "{license}"' and card.count("license:") == 1
    model.save_pretrained(tmp_path / "unknown")
    assert "has stated none" in (tmp_path / "unknown/README.md").read_text()
    UFO.from_pretrained(tmp_path / "unknown").save_pretrained(tmp_path / "known", license="mit")
    assert "has stated none" not in (tmp_path / "known/README.md").read_text()


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_files_of_other_programs_are_not_replaced(model, name, tmp_path):
    (tmp_path / name).write_text('{"theirs": 1}')
    with pytest.raises(ValueError, match=f"{name} there is of no saved model and would be replaced"):
        model.save_pretrained(tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {name: '{"theirs": 1}'}


def test_a_run_is_not_overwritten_and_a_damaged_model_is_told(run, model, tmp_path):
    with pytest.raises(ValueError, match="is a run's folder; give another one"):
        model.save_pretrained(run)
    model.save_pretrained(tmp_path / "saved")
    weights = tmp_path / "saved/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ValueError, match=r"model\.safetensors: cannot be read.*copy it again"):
        UFO.from_pretrained(tmp_path / "saved")
    with pytest.raises(ValueError, match="no such folder; give a run's"):
        UFO.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="not a run folder"):
        UFO.from_pretrained(tmp_path)


@pytest.fixture
def predict(monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it printed."""

    def call(*options: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["predict.py", *map(str, options)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "launchers" / "predict.py"), run_name="__main__")
        printed = capsys.readouterr()
        return stop.value.code, printed.out + printed.err

    return call


def contents(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {
        str(p.relative_to(folder)): f"{p.stat().st_mtime_ns} {hashlib.sha256(p.read_bytes()).hexdigest()}"
        for p in files
    }


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture
def mixed(tiny_shards, tmp_path) -> Path:
    """A folder with pictures in a folder below, one that is cut off, and a file that is none."""
    folder = tmp_path / "mixed"
    (folder / "below").mkdir(parents=True)
    for i, path in enumerate(test_pictures(tiny_shards, "seg")[:3]):
        shutil.copy(path, folder / "below" / f"{i}{Path(path).suffix}")
    first = next((folder / "below").iterdir())
    (folder / "cut.jpg").write_bytes(first.read_bytes()[:700])
    (folder / "notes.md").write_text("no picture")
    return folder


def test_a_folder_is_predicted_and_the_same_command_goes_on(run, model, mixed, predict, tmp_path):
    before, out = contents(run), tmp_path / "out"
    code, printed = predict("--workdir", run, mixed, "--out", out)
    assert code == 1 and re.search(r"left out: cut\.jpg: (truncated|unreadable)", printed)
    lines = lines_of(out / "predictions.jsonl")
    names = [line["file_name"] for line in lines]
    assert sorted(Path(name).stem for name in names) == ["0", "1", "2"] and len(names) == 3
    assert [line["file_name"] for line in lines_of(out / "left_out.jsonl")] == ["cut.jpg"]
    for line in lines:
        with Image.open(out / "files/seg" / f"{line['file_name']}.mask.png") as mask:
            assert mask.size == (line["width"], line["height"])
        with Image.open(out / "overlays" / f"{line['file_name']}.jpg") as overlay:
            overlay.load()
    boxes = json.loads((out / "coco_dec.json").read_text())
    assert {entry["file_name"] for entry in boxes} <= set(names) and boxes
    truth = COCO()
    truth.dataset = {
        "images": [{"id": line["image_id"]} for line in lines],
        "annotations": [],
        "categories": [{"id": i} for i in model.tasks["dec"].class_ids],
    }
    truth.createIndex()
    assert len(truth.loadRes(str(out / "coco_dec.json")).anns) == len(boxes)
    assert contents(run) == before

    (mixed / "cut.jpg").unlink()
    shutil.copy(mixed / names[0], mixed / "new.png" if names[0].endswith("png") else mixed / "new.jpg")
    kept = contents(out / "overlays")
    with (out / "predictions.jsonl").open("a") as file:
        file.write('{"file_name": "new')  # a crash cut the line off
    code, printed = predict("--workdir", run, mixed, "--out", out)
    assert code == 0 and "1 pictures predicted; 3 were there already" in printed
    assert contents(out / "overlays").items() >= kept.items()
    again = lines_of(out / "predictions.jsonl")
    assert again[:3] == lines and again[3]["file_name"].startswith("new")
    assert again[3]["image_id"] not in {line["image_id"] for line in lines}
    assert not (out / "left_out.jsonl").exists()
    assert json.loads((out / "coco_dec.json").read_text())[: len(boxes)] == boxes
    assert not list(out.rglob("*.part*"))

    inside = mixed / "results"
    for there in (0, 4):  # results in the folder itself are no pictures
        code, printed = predict("--workdir", run, mixed, "--out", inside)
        assert code == 0 and f"{4 - there} pictures predicted" in printed

    code, printed = predict("--workdir", run, mixed, "--out", out, "--tasks", "cls")
    assert code == 2 and "other weights, tasks or settings" in printed


def test_wrong_calls_say_what_to_do(run, mixed, predict, tmp_path):
    code, printed = predict("--workdir", run, tmp_path / "none", "--out", tmp_path / "out")
    assert code == 2 and "no such file or folder" in printed
    code, printed = predict("--workdir", run, mixed, "--out", run / "predictions")
    assert code == 2 and "which is only read; give another --out" in printed
    code, printed = predict("--workdir", run, mixed, "--out", mixed)
    assert code == 2 and "holds other files" in printed
    code, printed = predict("--workdir", run, mixed, "--checkpoint", "step-9", "--out", tmp_path / "out")
    assert code == 2 and re.search(r"checkpoint step-9: not in .*last, step-00000002", printed)
    code, printed = predict("--workdir", run, mixed, "--out", tmp_path / "out", "--size", "64,64", "--flip")
    assert code == 2 and "--size shows every picture once, whole; leave out --flip" in printed
    code, printed = predict("--workdir", run, mixed, "--out", tmp_path / "out", "--size", "0,64")
    assert code == 2 and "give height and width, both at least 1" in printed
    code, printed = predict("--workdir", run, mixed, "--out", tmp_path / "out", "--fusion", "wbf")
    assert code == 2 and "it joins the views of --flip and --scales" in printed
    code, printed = predict("--workdir", run, mixed, "--out", tmp_path / "out", "--set", "steps=9")
    assert code == 2 and "a finished run takes only tasks.<task>.loader" in printed
    assert not (tmp_path / "out").exists()


def write_video(path: Path, frames: int) -> list[np.ndarray]:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 64))
    for i in range(frames):
        picture = np.full((64, 96, 3), 20 * i, np.uint8)
        cv2.rectangle(picture, (8 * i, 10), (8 * i + 20, 40), (0, 200, 0), -1)
        writer.write(picture)
    writer.release()
    capture = cv2.VideoCapture(str(path))
    return [cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB) for _ in range(frames)]


def test_a_video_gives_a_line_per_frame_and_a_video(run, model, predict, tmp_path):
    frames = write_video(tmp_path / "a.avi", 11)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    code, printed = predict(
        "--workdir",
        run,
        tmp_path / "a.avi",
        tmp_path / "broken.mp4",
        "--out",
        tmp_path / "out",
        "--tasks",
        "cls,seg",
    )
    assert code == 1 and "left out: broken.mp4: not a video" in printed
    assert "0 pictures and 11 frames of videos predicted" in printed
    lines = lines_of(tmp_path / "out/videos/a.avi.jsonl")
    assert [line["frame"] for line in lines] == list(range(1, 12))
    assert [line["seconds"] for line in lines] == [round(i / 10, 4) for i in range(11)]
    given = (Named(source=frame, name="a.avi", number=i) for i, frame in enumerate(frames, 1))
    expected = [result.to_dict()["tasks"] for result in model.stream(given, ["cls", "seg"], at_once=8)]
    assert [line["tasks"] for line in lines] == expected
    masks = sorted((tmp_path / "out/videos/a.avi.files/seg").iterdir())
    assert [mask.name for mask in masks] == [f"{i:06d}.mask.png" for i in range(1, 12)]
    with Image.open(masks[4]) as mask:
        assert mask.size == (96, 64)
    (entries,) = (json.loads(p.read_text()) for p in (tmp_path / "out/videos").glob("*.coco_*.json"))
    assert {entry["image_id"] for entry in entries} <= set(range(1, 12)) and entries
    there = {path.name for path in (tmp_path / "out/videos").iterdir()}
    assert there == {f"a.avi.{end}" for end in ("files", "coco_seg.json", "mp4", "jsonl")}
    drawn = cv2.VideoCapture(str(tmp_path / "out/videos/a.avi.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 11 and drawn.get(cv2.CAP_PROP_FPS) == 10
    code, printed = predict(
        "--workdir", run, tmp_path / "a.avi", "--out", tmp_path / "out", "--tasks", "cls,seg"
    )
    assert code == 0 and "1 were there already" in printed


def test_a_model_in_the_hubs_cache_is_opened_without_a_network(model, mixed, tmp_path, monkeypatch):
    """As the hub's client leaves it: refs/main names the commit, snapshots/<commit> has the files."""
    cached = tmp_path / "hub/models--someone--streets"
    commit = "0" * 39 + "1"
    model.save_pretrained(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs/main").write_text(commit)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    out = tmp_path / "out"
    done = run_python(
        "launchers/predict.py",
        "--workdir",
        "someone/streets",
        mixed / "below",
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert done.returncode == 0, done.stderr
    found = {line["file_name"]: line["tasks"]["cls"]["class"] for line in lines_of(out / "predictions.jsonl")}
    results = model.predict(mixed / "below", tasks=["cls"])
    assert found == {Path(r.file_name).name: r.to_dict()["tasks"]["cls"]["class"] for r in results}
    other = run_python("launchers/predict.py", "--workdir", "someone/else", mixed, "--out", out)
    assert other.returncode == 2 and "the hub gives no such model" in other.stderr


def test_the_package_is_light_until_the_model_is_asked_for():
    asked = "print('torch' in sys.modules)"
    code = f"import sys, ufo_large; {asked}; ufo_large.UFO; {asked}"
    assert run_python("-c", code).stdout.split() == ["False", "True"]
    with pytest.raises(ImportError, match="cannot import name 'Nothing'"):
        from ufo_large import Nothing  # noqa: F401
