"""What a user may name to predict, and the lines that predictions are kept in."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ufo_large.config import LARGE_BYTES
from ufo_large.kinds import PredictionExample
from ufo_large.serving import output_folder
from ufo_large.serving.json_lines import append_lines, read_lines
from ufo_large.serving.output_folder import OutputFolder
from ufo_large.serving.overlay import draw_overlay
from ufo_large.serving.sources import is_video, list_sources
from ufo_large.structures import ClassPrediction, SampleInfo, TaskInfo


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def names(*paths) -> list[str]:
    return [found.name for found in list_sources(paths)]


def test_a_folder_gives_pictures_and_videos_below_it(tmp_path):
    touch(tmp_path, "b.JPG", "a/c.png", "a/d.mp4", ".hidden/e.png", "a/.f.png", "notes.txt")
    assert names(tmp_path) == ["a/c.png", "a/d.mp4", "b.JPG"]
    assert all(Path(found.path).is_file() for found in list_sources([tmp_path]))
    assert names(tmp_path / "a/c.png", tmp_path / "b.JPG") == ["c.png", "b.JPG"]


def test_a_list_names_files_beside_it_and_elsewhere(tmp_path):
    folder = touch(tmp_path / "here", "x/a.png")
    other = touch(tmp_path / "other", "b.png")
    (folder / "list.txt").write_text(f"x/a.png\n\n{other / 'b.png'}\n../other/c.png\nrtsp://host/live?x=1\n")
    assert names(folder / "list.txt") == ["x/a.png", "b.png", "c.png", "live"]
    found = list_sources([folder / "list.txt"])
    assert [Path(one.path).exists() for one in found] == [True, True, False, False]  # told one by one later
    assert [is_video(one.path) for one in found] == [False, False, False, True]


def test_two_files_of_one_name_and_missing_ones_are_told_at_once(tmp_path):
    touch(tmp_path, "a/x.png", "b/x.png")
    with pytest.raises(ValueError, match=r"(?s)would both be called 'x\.png'.*none: no such file or folder"):
        list_sources([tmp_path / "a", tmp_path / "b", tmp_path / "none"])
    assert names(tmp_path / "a", tmp_path / "a/x.png") == ["x.png"]  # the same file twice
    assert names(tmp_path) == ["a/x.png", "b/x.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no picture \(\.jpg"):
        list_sources([tmp_path / "empty"])


def test_names_that_json_or_the_disk_does_not_take(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).touch()
    (found,) = list_sources([tmp_path])
    assert found.name == "caf\\xe9.png" and Path(found.path).exists()
    append_lines(tmp_path / "lines.jsonl", [{"name": found.name, **found.mark, "error": found.path}])
    assert read_lines(tmp_path / "lines.jsonl")[0]["path"] == f"{tmp_path}/caf\\xe9.png"
    (tmp_path / f"{'x' * 240}.png").touch()
    with pytest.raises(ValueError, match=r"x\.png: a name of over 230 bytes; shorten it"):
        list_sources([tmp_path])


def test_results_are_of_one_file_as_it_is_now(tmp_path):
    """Another one of its name is refused, a changed one begins anew, and a stream goes on."""
    touch(tmp_path, "day1/a.png", "day1/b.png", "day2/a.png", "day1/c.mp4")
    (tmp_path / "day2/a.png").write_bytes(b"another")
    out, about = tmp_path / "out", {"weights": "w"}
    first = list_sources([tmp_path / "day1"])
    folder = OutputFolder(out, about, (), first)
    for number, one in enumerate(first[:2], 1):
        folder.mark(one.name)
        append_lines(out / "predictions.jsonl", [{"file_name": one.name, "image_id": number}])
    folder.video("c.mp4").parent.mkdir()
    folder.video("c.mp4").with_suffix(".mp4.jsonl").touch()
    folder.mark("c.mp4")
    again = OutputFolder(out, about, (), first)
    assert again.done == {"a.png", "b.png"} and again.has_video["c.mp4"]
    (tmp_path / "day1/b.png").write_bytes(b"changed")
    (tmp_path / "day1/c.mp4").write_bytes(b"changed")
    changed = list_sources([tmp_path / "day1"])
    assert OutputFolder(out, about, (), changed).done == {"a.png"}
    folder = OutputFolder(out, about, (), changed)
    assert not folder.has_video["c.mp4"]
    folder.mark("c.mp4")
    with pytest.raises(
        ValueError, match=r"a\.png there is of .*day1/a\.png, not of .*day2/a\.png; give another"
    ):
        OutputFolder(out, about, (), list_sources([tmp_path / "day2"]))
    shutil.copytree(tmp_path / "day1", tmp_path / "moved")  # with its times
    assert OutputFolder(out, about, (), list_sources([tmp_path / "moved"])).done == {"a.png"}
    (out / "videos/live.jsonl").touch()
    (out / "coco_dec.json").write_text("[]")
    streams = list_sources(["rtsp://camera/live"])
    before = {file: file.read_bytes() for file in out.rglob("*") if file.is_file()}
    with pytest.raises(ValueError, match=r"live there is of an earlier time; give another --out"):
        OutputFolder(out, about, ("dec",), streams)
    assert {file: file.read_bytes() for file in out.rglob("*") if file.is_file()} == before


def test_a_finished_folder_of_any_size_is_taken_up_and_a_cut_off_mark_does_no_harm(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "b.png")
    out, sources = tmp_path / "out", list_sources([tmp_path])
    OutputFolder(out, {}, ("dec",), sources).finish([])
    limits = []
    real = output_folder.read_json
    monkeypatch.setattr(
        output_folder,
        "read_json",
        lambda *a, **options: limits.append(options.get("limit")) or real(*a, **options),
    )
    (out / "sources.jsonl").write_text('{"name": "a.png", "path": "a.png"}\n{"na')
    for one in sources:
        OutputFolder(out, {}, ("dec",), sources).mark(one.name)
    assert [entry["name"] for entry in read_lines(out / "sources.jsonl")] == ["a.png", "b.png"]
    assert limits[1] == LARGE_BYTES  # the entries of all pictures


def test_credentials_of_streams_are_used_and_never_written_down(tmp_path):
    addresses = {
        "rtsp://admin:s3cr3t@10.0.0.5:554/live": "live",
        "rtsp://admin:s3cr3t@camera": "camera",
        "http://camera:8080/?token=s3cr3t": "camera",
        "rtsp://camera/..": "stream",
    }
    found = list_sources(list(addresses)[:2] + list(addresses)[3:])
    assert [one.path for one in found] == [a for a in addresses if "token" not in a]
    for address, name in addresses.items():
        (one,) = list_sources([address])
        assert one.name == name and "s3cr3t" not in str(one.mark)
    folder = OutputFolder(tmp_path / "out", {}, (), found)
    for one in found:
        folder.mark(one.name)
    assert "s3cr3t" not in (tmp_path / "out/sources.jsonl").read_text()
    with pytest.raises(ValueError, match="would both be called 'live'") as error:
        list_sources(["rtsp://a:s3cr3t@one/live", "rtsp://b:s3cr3t@two/live"])
    assert "s3cr3t" not in str(error.value)


def test_a_line_cut_off_is_dropped_and_a_damaged_one_told(tmp_path):
    file = tmp_path / "lines.jsonl"
    assert read_lines(file) == []
    append_lines(file, [{"a": 1}, {"a": "ü\n"}])
    whole = file.read_bytes()
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        assert read_lines(file) == [{"a": 1}, {"a": "ü\n"}][: whole[:cut].count(b"\n")]
    file.write_bytes(b"[1]\n" + whole)
    with pytest.raises(ValueError, match=r"lines\.jsonl, line 1: no JSON object; delete the line"):
        read_lines(file)


def test_words_that_do_not_fit_leave_the_size_alone():
    """The frames of a video must have one size, whatever was found in them."""

    sample = SampleInfo(key="0", file_name="a", height=60, width=90, image_id=1, order=0)
    shapes = set()
    for word in ("a", "a very long name of a class " * 9):
        info = TaskInfo(name="t", kind="classification", class_names=(word, f"{word} b"), class_ids=(0, 1))
        prediction = ClassPrediction(sample, torch.tensor([0.5, 0.5]))
        example = PredictionExample(
            info=info, image_HW3=np.zeros((60, 90, 3), np.uint8), prediction=prediction, long_side=180
        )
        overlay = draw_overlay([example, example, example])
        shapes.add(overlay.shape)
    assert len(shapes) == 1
