"""What runs have changed in the trunk: against changes made by hand, and runs that cannot be compared."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from ufo_large.comparing.weight_changes import compare_changes
from ufo_large.comparing.weight_changes_report import report_changes
from ufo_large.config import apply_overrides
from ufo_large.distributed.checkpoint import save_weights
from ufo_large.distributed.engine import PlainEngine
from ufo_large.models.weights import fill, initial_state
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import RunFolder
from ufo_large.testing.models import TINY_TASKS
from ufo_large.testing.settings import SMALL_MODEL

SHARED = "model.trunk.router=shared"


def finished_run(folder: Path, changes: dict[str, float], *overrides: str, row: int = 0) -> Path:
    """Write a run that has changed one `row` of the named weights by a number."""
    config = apply_overrides(load_recipe("demo"), [*SMALL_MODEL, *overrides])
    model = config.model.build(TINY_TASKS)
    fill(model, initial_state(model, config.seed))
    with torch.no_grad():
        for name, change in changes.items():
            model.trunk.vit.get_parameter(name)[row] += change
    RunFolder(folder).write(config, TINY_TASKS, "", "data", None)
    optimizer = torch.optim.SGD(model.parameters())
    save_weights(folder / "weights", PlainEngine(model, optimizer, torch.device("cpu")))
    return folder


def test_experts_and_a_shared_trunk_by_hand(tmp_path):
    """cls changes two weights alike, dec one of them, seg the other against cls; the joint run both."""
    at = "blocks.1.mlp.experts."
    first, second = "fc1.weight", "fc2.weight"
    changes = {f"{at}cls.{first}": 0.3, f"{at}cls.{second}": 0.3}
    changes |= {f"{at}dec.{first}": 0.2, f"{at}seg.{second}": -0.1, "blocks.0.mlp.fc1.weight": 1.0}
    routed = finished_run(tmp_path / "routed", changes)
    joint = finished_run(tmp_path / "joint", {f"blocks.1.mlp.{n}": 0.5 for n in (first, second)}, SHARED)
    found = compare_changes([routed, joint])
    assert found.rows == ("routed cls", "routed dec", "routed seg", "joint")
    assert found.places == ("blocks.1.mlp",)
    wide, hidden = 32, 128  # a row of fc1 has `wide` weights, of fc2 `hidden`
    share, rest = (wide / (wide + hidden)) ** 0.5, (hidden / (wide + hidden)) ** 0.5
    wanted = [[1, share, -rest, 1], [share, 1, 0, share], [-rest, 0, 1, -rest], [1, share, -rest, 1]]
    assert np.allclose(found.cosines_NN, wanted, atol=1e-5)
    start = initial_state(apply_overrides(load_recipe("demo"), SMALL_MODEL).model.build(TINY_TASKS), 0)
    values = {n: v for n, v in start if n in (f"trunk.vit.{at}cls.{first}", f"trunk.vit.{at}cls.{second}")}
    length = sum(float((v**2).sum()) for v in values.values()) ** 0.5
    assert found.lengths_NP[0, 0] == pytest.approx(0.3 * (wide + hidden) ** 0.5 / length, rel=1e-4)


def test_without_experts_all_places_that_changed_are_compared(tmp_path):
    one = finished_run(
        tmp_path / "a/seed0", {"blocks.0.attn.qkv.weight": 0.1, "blocks.1.norm1.weight": 1.0}, SHARED
    )
    two = finished_run(
        tmp_path / "b/seed0", {"blocks.0.attn.qkv.weight": -0.1, "blocks.1.norm1.weight": 1.0}, SHARED
    )
    found = compare_changes([one, two])
    assert found.rows == ("a/seed0", "b/seed0") and found.places == ("blocks.0.attn", "blocks.1.norm1")
    text = report_changes([one, two], tmp_path / "out")
    assert (tmp_path / "out/weight_changes.md").read_text() == f"{text}\n"
    ElementTree.parse(tmp_path / "out/weight_changes.svg")


def test_what_cannot_be_compared_is_told(tmp_path):
    qkv = {"blocks.0.attn.qkv.weight": 0.1}
    run = finished_run(tmp_path / "run", qkv, SHARED)
    with pytest.raises(ValueError, match=r"a run is given twice"):
        compare_changes([run, run])
    with pytest.raises(ValueError, match=r"still: no block of the trunk has changed"):
        compare_changes([finished_run(tmp_path / "still", {}, SHARED)])
    other = finished_run(
        tmp_path / "other", qkv, SHARED, "model.trunk.embed_dim=48", "model.trunk.num_heads=3"
    )
    with pytest.raises(
        ValueError, match=r"other has another trunk than run: 9216 weights in blocks.0.attn, 4096"
    ):
        compare_changes([run, other])
    elsewhere = finished_run(tmp_path / "elsewhere", {"blocks.1.mlp.fc1.weight": 1.0}, SHARED)
    with pytest.raises(ValueError, match=r"changed no place in common"):
        compare_changes([run, elsewhere])
    with pytest.raises(ValueError, match=r"not a run folder"):
        compare_changes([tmp_path])
    (run / "weights/model.safetensors.index.json").unlink()
    with pytest.raises(ValueError, match=r"no weights here.*has the run finished"):
        compare_changes([run])
