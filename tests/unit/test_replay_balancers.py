"""Balancing methods on a recorded run: against TorchJD on the vectors themselves, by hand, and bad input."""

import json
import math
from xml.etree import ElementTree

import pytest
import torch
from torchjd import aggregation

from ufo_large.comparing.replay_report import replay_run
from ufo_large.comparing.replaying import replay, signals_of

TASKS = ("cls", "dec", "seg")


def row_of(step: int, gradients_MN: torch.Tensor, tasks=TASKS) -> dict[str, float]:
    """Return what a run logs of gradients that are known."""
    norms_M = gradients_MN.norm(dim=1)
    row = {"step": step, "train/lr": 0.1}
    for task, norm in zip(tasks, norms_M.tolist(), strict=True):
        row |= {f"{task}/total": 1.0 + norm, f"balance/{task}/grad_norm": norm, f"balance/{task}/weight": 1.0}
    cosines_MM = gradients_MN @ gradients_MN.T / (norms_M * norms_M[:, None])
    for j, second in enumerate(tasks):
        for i, first in enumerate(tasks[:j]):
            row[f"balance/cosine/{first}-{second}"] = float(cosines_MM[i, j])
    return row


def random_gradients(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([5.0, 1.0, 0.3], dtype=torch.float64)
    return torch.randn(3, 6, generator=generator, dtype=torch.float64) * lengths[:, None]


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("aligned_mtl", aggregation.AlignedMTL()),
        ("imtl_g", aggregation.IMTLG()),
        ("conflictfree", aggregation.ConFIG()),
        ("mgda", aggregation.MGDA(epsilon=1e-9, max_iters=5000)),
    ],
)
def test_cosines_are_those_of_torchjds_vectors(name, theirs):
    gradients = [random_gradients(seed) for seed in range(4)]
    found = replay(signals_of([row_of(i + 1, g) for i, g in enumerate(gradients)]), [name, "tbgn"])
    vectors = {
        name: [theirs(g) for g in gradients],
        "fixed": [g.sum(0) for g in gradients],
        "tbgn": [(g / g.norm(dim=1, keepdim=True)).sum(0) for g in gradients],
    }
    for other in ("fixed", "tbgn"):
        pairs = zip(vectors[name], vectors[other], strict=True)
        wanted = sum(float(torch.cosine_similarity(a, b, dim=0)) for a, b in pairs) / len(gradients)
        i, j = found.methods.index(name), found.methods.index(other)
        assert found.cosines_NN[i, j] == pytest.approx(wanted, abs=1e-3)


def test_orthogonal_gradients_by_hand():
    """Lengths 3 and 4: shares of 9 and 16 in 25; (1, 1) and (3, 4) have a cosine of 7 / (5 sqrt 2)."""
    steps = signals_of([row_of(1, torch.tensor([[3.0, 0.0], [0.0, 4.0]], dtype=torch.float64), TASKS[:2])])
    found = replay(steps, ["tbgn", "pcgrad"], alike=0.995)
    assert found.pairs == {("cls", "dec"): (0.0, 0.0)}
    i, j = found.methods.index("tbgn"), found.methods.index("fixed")
    assert found.cosines_NN[i, j] == pytest.approx(7 / (5 * math.sqrt(2)))
    assert found.shares["fixed"] == pytest.approx({"cls": 0.36, "dec": 0.64})
    assert found.shares["tbgn"] == pytest.approx({"cls": 0.5, "dec": 0.5})
    assert set(map(frozenset, found.groups)) == {frozenset(["tbgn"]), frozenset(["fixed", "pcgrad"])}
    assert len(replay(steps, ["tbgn", "pcgrad"], alike=0.98).groups) == 1


def test_steps_that_measured_nothing_are_left_out():
    whole = row_of(2, random_gradients(0))
    unmeasured = {key: value for key, value in whole.items() if "cosine" not in key} | {"step": 3}
    alone = row_of(4, random_gradients(0)[:1], ("cls",))
    two = row_of(5, random_gradients(1)[:2], TASKS[:2])
    broken = whole | {"step": 6, "dec/total": math.nan}
    hostile = whole | {"step": 7, "balance/cls/grad_norm": "9" * 9}
    steps = signals_of([{"step": 1, "val/score": 0.5}, whole, unmeasured, alone, two, broken, hostile])
    assert [(s.step, s.tasks) for s in steps] == [(1, TASKS), (4, TASKS[:2]), (6, TASKS[1:])]
    assert replay(steps).steps == 3


def test_a_method_that_cannot_read_the_losses_is_left_out_and_said():
    steps = signals_of([row_of(1, random_gradients(0)) | {"dec/total": -1.0}])
    found = replay(steps, ["dwa", "tbgn"])
    assert "dwa" not in found.methods and "needs losses of at least 0" in found.refused["dwa"]


def test_note_and_picture(tmp_path):
    rows = [row_of(i + 1, random_gradients(i)) for i in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = replay_run(tmp_path, None, 0.99, None)
    assert (tmp_path / "balancers.md").read_text() == f"{text}\n"
    assert "3 steps of cls, dec, seg, 24 methods" in text and text.count("\n| `") == 24
    drawn = ElementTree.fromstring((tmp_path / "balancers.svg").read_text())
    squares = [e for e in drawn.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill-opacity")]
    assert len(squares) == 24 * 24


@pytest.mark.parametrize(
    ("lines", "names", "alike", "told"),
    [
        (None, None, 0.99, "no metrics.jsonl there; give the folder of a run that has trained"),
        ([{"step": 1, "cls/total": 1.0}], None, 0.99, "metrics.jsonl: no step has the losses"),
        ([], ["tbng"], 0.99, "unknown balancing method 'tbng'.*Did you mean 'tbgn'"),
        ([], None, 1.5, "--alike 1.5: a cosine above 0, at most 1"),
    ],
)
def test_bad_input(tmp_path, lines, names, alike, told):
    if lines is not None:
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=told):
        replay_run(tmp_path, names, alike, None)


def test_a_task_that_rests_in_the_first_step_is_replayed_where_it_takes_part():
    """Cosines are logged in the run's order of tasks, whichever is first in the log; none has all three."""
    gradients = random_gradients(0)
    log = [row_of(1, gradients[1:], TASKS[1:]), row_of(2, gradients[:2], TASKS[:2])]
    found = replay(signals_of(log), ["tbgn"])
    assert found.steps == 2 and set(found.tasks) == set(TASKS) and not found.refused
