"""wandb offline: the run, its id over a resume, and the error where wandb is missing."""

import json
import struct
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from ufo_large.kinds.review import SPREAD, SURE, WORST
from ufo_large.testing.simulated_run import invented_examples
from ufo_large.tracking import Tracker, read_metrics
from ufo_large.tracking.pictures import Picture, of_one_size
from ufo_large.tracking.wandb import WandbRun, import_wandb

pytest.importorskip("wandb")


def offline_records(path):
    """Yield the serialised records of an offline run: LevelDB's log format after a header of 7 bytes.

    A record is split into fragments (crc 4 bytes, length 2, type 1: full, first, middle, last) that never
    cross a block of 32 KiB.
    """
    data, position, parts = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while position + 7 <= len(data):
        if 32768 - position % 32768 < 7:
            position += 32768 - position % 32768
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield parts
            parts = b""


def finished_records(folder):
    """Return an offline run's records; wandb's own process may write the last ones after `finish` returns."""
    from wandb.proto import wandb_internal_pb2

    for _ in range(300):
        records = [
            wandb_internal_pb2.Record.FromString(d) for d in offline_records(next(folder.glob("*.wandb")))
        ]
        if records and records[-1].HasField("exit"):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{folder}: no exit record within 30 s")


def offline_history(folder):
    """Return (config, one dict a logged step) of an offline run."""
    config, history = {}, []
    for record in finished_records(folder):
        config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        if record.HasField("history"):
            items = record.history.item
            history.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items})
    return config, history


def run_steps(workdir, steps, resume_step=None):
    config = Tracker.Config(wandb="offline", project="tests")
    tracker = config.build(
        workdir, total_steps=9, run_config={"recipe": {"steps": 9}}, resume_step=resume_step
    )
    for step in steps:
        tracker.log(step, {"cls/total": step / 4, "balance/cosine/cls-dec": -0.5})
    tracker.examples(steps[-1], invented_examples("cls", np.random.default_rng(0)))
    tracker.finish()
    return tracker


@pytest.fixture
def quiet_wandb(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)


def test_an_offline_run_keeps_config_values_and_id_over_a_resume(tmp_path, quiet_wandb):
    workdir = tmp_path / "run"
    run_steps(workdir, [1, 2, 3])
    run_steps(workdir, [3, 4], resume_step=2)
    folders = sorted((workdir / "wandb").glob("offline-run-*"))
    ids = {f.name.split("-")[3] for f in folders}  # a second run within the second is called ...-1
    assert ids == {json.loads((workdir / "wandb_run.json").read_text())["id"]}
    config, history = offline_history(folders[0])
    assert config["recipe"] == {"steps": 9}
    assert [h["_step"] for h in history] == [1, 2, 3]
    assert [h["cls/total"] for h in history] == [0.25, 0.5, 0.75]
    assert history[-1]["examples/cls/captions"] == [
        "cls <1>.jpg: van <R&D>",
        "cls <1>.jpg: van <R&D>, wanted truck",
    ]
    for name in history[-1]["examples/cls/filenames"]:
        assert cv2.imread(str(folders[0] / "files" / name)).shape == (180, 240, 3)


def test_wandb_missing_says_how_to_go_on(monkeypatch):

    def refuse(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", refuse)
    with pytest.raises(ValueError, match="pip install wandb.*tracking.wandb=disabled"):
        import_wandb()


def test_a_run_goes_on_where_wandbs_process_has_ended(tmp_path, monkeypatch):
    """As after a launcher's SIGTERM, which goes to every process: told once, the local log is whole."""

    class Gone:
        def define_metric(self, name, **settings):
            pass

        def log(self, values, step):
            raise ConnectionResetError("Connection lost")

        def finish(self):
            raise AssertionError("asked again")

    fake = SimpleNamespace(init=lambda **settings: Gone(), Settings=SimpleNamespace)
    monkeypatch.setattr("ufo_large.tracking.wandb.import_wandb", lambda: fake)
    tracker = Tracker.Config(wandb="offline").build(tmp_path, total_steps=2, run_config={})
    with pytest.warns(
        UserWarning, match=r"wandb has failed \(ConnectionResetError: Connection lost\)"
    ) as warned:
        tracker.log(1, {"cls/total": 0.5})
        tracker.log(2, {"cls/total": 0.25})
        tracker.finish()
    assert len(warned) == 1
    assert [line["cls/total"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0.5, 0.25]


def test_a_process_of_wandbs_that_crashes_at_the_start_leaves_a_run_offline(tmp_path, monkeypatch):
    """Its crash is a bare Exception of a private module, and closing what has crashed fails too."""
    logged = []

    def init(mode, **settings):
        if mode == "online":
            raise type("HandleAbandonedError", (Exception,), {})()
        return SimpleNamespace(
            define_metric=lambda *a, **k: None,
            log=lambda values, step: logged.append((step, values)),
            finish=lambda: None,
        )

    def teardown():
        raise ConnectionResetError("Connection lost")

    fake = SimpleNamespace(init=init, Settings=SimpleNamespace, teardown=teardown)
    monkeypatch.setattr("ufo_large.tracking.wandb.import_wandb", lambda: fake)
    with pytest.warns(UserWarning, match="could not be opened online .HandleAbandonedError"):
        run = WandbRun(tmp_path, "online", project="tests", config={})
    run.log(2, {"val/score": 0.5})
    assert logged == [(2, {"val/score": 0.5, "val/step": 2.0})]


def test_disabled_never_imports_wandb(tmp_path, monkeypatch):
    monkeypatch.setattr("ufo_large.tracking.wandb.import_wandb", lambda: pytest.fail("wandb was imported"))
    Tracker.Config(wandb="disabled").build(tmp_path, total_steps=1, run_config={}).finish()
    assert (tmp_path / "metrics.jsonl").exists()


def picture(caption, image, overlay=None):
    return Picture(caption=caption, image_HW3=image, overlay=overlay or {})


def test_pictures_of_a_gallery_are_padded_to_one_size():
    tall, wide = np.full((5, 2, 3), 7, np.uint8), np.full((3, 4, 3), 9, np.uint8)
    mask = {"masks": {"truth": {"mask_data": np.ones((3, 4), np.uint8), "class_labels": {1: "car"}}}}
    first, second = of_one_size([picture("tall", tall), picture("wide", wide, mask)])
    a, b = first.image_HW3, second.image_HW3
    assert (first.caption, second.caption) == ("tall", "wide") and a.shape == b.shape == (5, 4, 3)
    padded = second.overlay["masks"]["truth"]["mask_data"]
    assert (padded[:3] == 1).all() and (padded[3:] == 255).all() and padded.shape == (5, 4)
    assert (a[:, :2] == 7).all() and not a[:, 2:].any() and (b[:3] == 9).all() and not b[3:].any()
    assert of_one_size([]) == []


def test_wandb_is_given_galleries_of_one_size(tmp_path, quiet_wandb):
    run = WandbRun(tmp_path, "offline", project="tests", config={})
    pictures = [picture(str(height), np.full((height, 20, 3), 7, np.uint8)) for height in (10, 30)]
    run.pictures(1, {"found": pictures, "other": pictures[:1]})
    run.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    files = sorted((folder / "files/media/images").rglob("*.png"))
    assert sorted((f.name.split("_")[0], cv2.imread(str(f)).shape[0]) for f in files) == [
        ("found", 30),
        ("found", 30),
        ("other", 10),
    ]


def test_found_boxes_and_masks_are_overlays_of_the_plain_picture(tmp_path, quiet_wandb):
    """wandb itself checks the form of boxes and masks; what it stored is read back from its files."""
    run, random = WandbRun(tmp_path, "offline", project="tests", config={}), np.random.default_rng(0)
    Tracker([run]).examples(1, [e for task in ("cls", "dec", "seg") for e in invented_examples(task, random)])
    run.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    boxes = [json.loads(f.read_text()) for f in (folder / "files/media/metadata/boxes2D").rglob("*.json")]
    captions = {box["box_caption"] for found in boxes for box in found["box_data"]}
    assert {"stop 90%", "stop"} <= captions
    stored = [cv2.imread(str(m), -1) for m in (folder / "files/media/images/mask").rglob("*.png")]
    truths = [example.truth for example in invented_examples("seg", random)]  # one of them is what was said
    assert {mask.tobytes() for mask in stored} == {mask.tobytes() for mask in truths}
    assert all(mask.shape == truths[0].shape for mask in stored)


def test_the_worst_pictures_are_a_table(tmp_path, quiet_wandb):
    """wandb's own file of the table is read back."""
    run, random = WandbRun(tmp_path, "offline", project="tests", config={}), np.random.default_rng(0)
    groups = (SPREAD, WORST, SURE)
    examples = [replace(invented_examples("dec", random)[1], group=group) for group in groups]
    Tracker([run]).examples(1, examples)
    run.finish()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    (table,) = (folder / "files/media/table").rglob("*.table.json")
    held = json.loads(table.read_text())
    assert table.parent.name == "worst" and table.name.startswith("dec")
    assert held["columns"] == ["picture", "why", "what was said"]
    assert [why for _, why, _ in held["data"]] == [WORST, SURE]
    assert all(said.startswith("dec <1>.jpg: ") for *_, said in held["data"])
    pictures = [Picture(caption="a", image_HW3=np.zeros((4, 5, 3), np.uint8), why=WORST)]
    ((image, *_),) = run._table(pictures).data  # the file has its class's name alone: an artifact takes it
    assert isinstance(image, import_wandb().Image)


def test_the_command_is_sent_without_credentials(tmp_path, quiet_wandb, monkeypatch):
    words = ["launchers/train.py", "--data", "https://user:s3cr3t@host/shards"]
    monkeypatch.setattr("sys.argv", words)
    run_steps(tmp_path / "run", [1])
    assert sys.argv == words
    deadline = time.monotonic() + 60  # wandb's own process may write it after the run has ended
    while not (told := holders(tmp_path / "run", b"***@host/shards")) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert told and not holders(tmp_path / "run", b"s3cr3t")


def holders(folder: Path, words: bytes) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and words in file.read_bytes()]
