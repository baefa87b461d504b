"""The scripts of data_sharding/, run as a user runs them but in this process."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from ufo_large.data.shard_index import read_dataset

SCRIPTS = Path(__file__).parents[2] / "data_sharding"
SIZES = ("--cls", "8", "2", "2", "--dec", "2", "1", "1", "--seg", "2", "1", "1")


@pytest.fixture
def script(monkeypatch):
    def run(name: str, *arguments) -> None:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(SCRIPTS / name), run_name="__main__")

    return run


def test_from_painting_to_verified_shards(script, tmp_path, capsys):
    world, shards = tmp_path / "world", tmp_path / "shards"
    script("make_synthetic.py", "--out", world, "--seed", 5, *SIZES)
    with pytest.raises(SystemExit) as stop:
        script("check_data.py", "--data", world, "--report", tmp_path / "report", "--jobs", 1)
    assert stop.value.code == 0
    assert json.loads((tmp_path / "report/report.json").read_text())["errors"] == []
    script(
        "make_shards.py", "--data", world, "--out", shards, "--jobs", 1, "--short-side", 64, "--shard-size", 1
    )
    script("verify_shards.py", shards, "--jobs", 1)
    printed = capsys.readouterr().out
    assert "cls: classification, 8 classes; images: train 8, val 2, test 2" in printed
    assert "9 shards, 20 samples" in printed and "all good" in printed
    again = tmp_path / "again"
    script(
        "make_shards.py", "--data", world / "track1_test_data", "--out", again, "--like", shards, "--jobs", 1
    )
    assert read_dataset(again).tasks == read_dataset(shards).tasks


def test_errors_are_one_clean_message(script, tmp_path):
    script("make_synthetic.py", "--out", tmp_path / "world", *SIZES)
    (tmp_path / "world/track1_train_data/cls/train.txt").write_text("00001.jpg\n")
    (tmp_path / "x.txt").write_text("")
    make = ("make_shards.py", "--jobs", "1", "--out", tmp_path / "o", "--data")
    world = tmp_path / "world"
    for arguments, wanted in (
        ((*make, tmp_path / "nowhere"), "error: .*no such folder"),
        ((*make, world), r"train\.txt:1: cannot read"),
        ((*make, world, "--classes", "seg"), "write TASK=N"),
        ((*make, world, "--classes", "dec=9"), "--classes dec=9 has no effect: its files say 6"),
        ((*make, world, "--classes", "pose=9"), "has no effect: there are only cls, dec, seg"),
        ((*make, world, "--short-side", "3"), "--short-side 3: at least 16"),
        (("make_shards.py", "--data", world, "--out", tmp_path / "x.txt/o"), "Not a directory; choose"),
        (("verify_shards.py", world), "not a finished shard folder"),
        (("make_synthetic.py", "--out", tmp_path), "not empty; choose a new folder"),
        (("make_synthetic.py", "--out", tmp_path / "new", "--light", "2"), "--light 2.0: give a share"),
        (("make_synthetic.py", "--out", tmp_path / "x.txt/o"), "x.txt is a file.*another --out"),
        (("check_data.py", "--data", world, "--report", tmp_path / "x.txt"), "is a file.*another --report"),
        (("check_data.py", "--data", world, "--fix", tmp_path / "x.txt"), "is a file.*another --fix"),
    ):
        with pytest.raises(SystemExit) as stop:
            script(*arguments)
        assert re.search(wanted, stop.value.code), stop.value.code


def test_check_data_fails_on_errors_unless_they_are_fixed(script, tmp_path):
    world = tmp_path / "world"
    script("make_synthetic.py", "--out", world, *SIZES)
    (world / "track1_train_data/cls/train/00002.jpg").write_bytes(b"broken")
    common = ("check_data.py", "--data", world, "--report", tmp_path / "report", "--jobs", 1)
    with pytest.raises(SystemExit) as stop:
        script(*common)
    assert stop.value.code == 1
    with pytest.raises(SystemExit) as stop:
        script(*common, "--fix", tmp_path / "fixed")
    assert stop.value.code == 0
    script("make_shards.py", "--data", tmp_path / "fixed", "--out", tmp_path / "shards", "--jobs", 1)
    assert read_dataset(tmp_path / "shards").split("cls", "train").count == 7
