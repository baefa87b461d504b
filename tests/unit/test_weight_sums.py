"""A run's weights are compared with their checksums wherever they are read."""

import json
import re
import shutil
import subprocess

import pytest
import torch

from ufo_large.distributed import checkpoint
from ufo_large.distributed.checkpoint import load_weights, save_weights
from ufo_large.distributed.engine import PlainEngine
from ufo_large.distributed.weight_sums import INDEX
from ufo_large.testing.checkpoints import flip_byte
from ufo_large.train.best import Best
from ufo_large.train.pretrained import require_whole


@pytest.fixture
def engine(monkeypatch):
    """Its weights are in two files."""
    monkeypatch.setattr(checkpoint, "SHARD_BYTES", 40)
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 2)
    return PlainEngine(model, torch.optim.SGD(model.parameters()), torch.device("cpu"))


@pytest.fixture
def weights(tmp_path, engine):
    """The folder of a run's weights."""
    folder = tmp_path / "run/weights"
    save_weights(folder, engine)
    (tmp_path / "run/config.json").touch()
    return folder


def loaded(folder) -> dict[str, list]:
    found = {}
    load_weights(folder, lambda name, tensor: found.__setitem__(name, tensor.tolist()))
    return found


def test_the_index_says_what_sha256sum_says(weights, capsys):
    told = subprocess.run(
        ["sha256sum", *sorted(weights.glob("*.safetensors"))], capture_output=True, text=True
    )
    sums = {line.split("/")[-1]: line.split()[0] for line in told.stdout.splitlines()}
    index = json.loads((weights / INDEX).read_text())
    assert {name: entry["sha256"] for name, entry in index["metadata"]["files"].items()} == sums
    assert len(sums) == 2 and loaded(weights).keys() == {"weight", "bias"}
    require_whole(weights)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (flip_byte, "is damaged: its SHA-256 is not that of what was written"),
        (lambda file: flip_byte(file, 0.99), "is damaged: its SHA-256"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"has \d+ bytes, \d+ were written"),
        (lambda file: file.unlink(), "is missing"),
    ],
)
def test_a_damaged_file_is_named_before_anything_is_loaded(weights, damage, told):
    file = weights / "model-00002.safetensors"
    damage(file)
    words = rf"{re.escape(str(file))}: {told}.*; copy it again, or remove .*--resume auto"
    for read in (loaded, require_whole, lambda folder: require_whole(file)):
        with pytest.raises(ValueError, match=words):
            read(weights)
    seen = []
    with pytest.raises(ValueError):
        load_weights(weights, lambda name, tensor: seen.append(name))
    assert seen == []


def test_the_best_weights_keep_their_checksums_where_they_become_the_runs(tmp_path, engine):
    best = Best(tmp_path / "run/best", every=1, patience=0)
    best.offer(1, 0.5, engine)
    assert best.copy_to(tmp_path / "run/weights")
    assert loaded(tmp_path / "run/best") == loaded(tmp_path / "run/weights")
    for folder in ("best", "weights"):
        flip_byte(tmp_path / "run" / folder / "model-00001.safetensors", 0.99)
        with pytest.raises(ValueError, match=f"run/{folder}/model-00001.safetensors: is damaged"):
            require_whole(tmp_path / "run" / folder)


def test_every_byte_of_the_index_counts(weights):
    whole = (weights / INDEX).read_bytes()
    for at in range(len(whole)):
        (weights / INDEX).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match=re.escape(str(weights))):
            loaded(weights)


@pytest.mark.parametrize("content", ["5", "[]", "{}", '{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_told(weights, content):
    (weights / INDEX).write_text(content)
    for read in (loaded, require_whole):
        with pytest.raises(ValueError, match=f"{INDEX}: names no weights; copy it again"):
            read(weights)
    (weights.parent / "config.json").unlink()
    require_whole(weights)  # then they are not known to be a run's


def test_weights_of_an_earlier_version_are_read_with_a_line(weights, capsys):
    before = loaded(weights)
    index = json.loads((weights / INDEX).read_text())
    (weights / INDEX).write_text(json.dumps({"weight_map": index["weight_map"]}))
    assert loaded(weights) == before
    line = f"{weights}: written by an earlier version, without checksums; damage to them may go unseen\n"
    assert capsys.readouterr().err == line
    require_whole(weights)
    assert capsys.readouterr().err == line
    elsewhere = shutil.copytree(weights, weights.parents[1] / "of_others/vit")
    require_whole(elsewhere)
    assert capsys.readouterr().err == ""
