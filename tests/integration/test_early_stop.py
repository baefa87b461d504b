"""The best validation's weights are the run's, and a run that no longer gets better ends by itself."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ufo_large.config import apply_overrides
from ufo_large.evaluation.evaluator import Evaluator
from ufo_large.recipes import load_recipe
from ufo_large.testing.settings import IN_THE_PROCESS, NO_WANDB, SMALL_MODEL, TWO_IMAGES_EACH
from ufo_large.train.run import train

SMALL = (
    *SMALL_MODEL,
    *TWO_IMAGES_EACH,
    *IN_THE_PROCESS,
    *(NO_WANDB, "evaluate_split=test", "evaluate_every=1", "steps=9", "save_every=9"),
)
SCORES = (0.2, 0.5, 0.4, 0.5, 0.9)


@pytest.fixture
def scores(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """Validations that give SCORES in turn; what they saw."""
    seen = []

    def validate(self, model, worst):
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"score": SCORES[len(seen) - 1]}, {}

    monkeypatch.setattr(Evaluator, "validate", validate)
    return seen


def config(*options: str):
    return apply_overrides(load_recipe("demo"), [*SMALL, *options])


def weights(run: Path) -> dict[str, torch.Tensor]:
    return {n: v for file in (run / "weights").glob("*.safetensors") for n, v in load_file(file).items()}


def test_a_run_stops_and_keeps_the_weights_of_its_best_step(scores, tiny_shards, tmp_path, capsys):
    trainer = train(config("patience=2"), str(tiny_shards), tmp_path, None)
    assert trainer.finished == 4 and len(scores) == 4
    held = weights(tmp_path)
    assert held.keys() == scores[1].keys()
    assert all(torch.equal(held[name], scores[1][name]) for name in held)
    assert any(not torch.equal(held[name], scores[3][name]) for name in held)
    assert json.loads((tmp_path / "best/best.json").read_text()) == {"step": 2, "score": 0.5}
    said = capsys.readouterr().out
    assert "no better validation for 2 times: stopped after 4 steps" in said
    assert "weights of step 2, the best validation (score 0.5)" in said

    assert train(config("patience=2"), str(tiny_shards), tmp_path, None, resume="auto") is None
    assert "stopped early, 4 of 9 steps; --set patience=0 goes on" in capsys.readouterr().out

    shutil.rmtree(tmp_path / "weights")  # as where the disk was full when they were to be written
    assert train(config("patience=2"), str(tiny_shards), tmp_path, None, resume="auto").finished == 4
    assert len(scores) == 4 and all(torch.equal(weights(tmp_path)[name], held[name]) for name in held)


def test_without_patience_all_steps_run_and_the_best_is_kept(scores, tiny_shards, tmp_path):
    trainer = train(config("keep_best=true", "steps=5"), str(tiny_shards), tmp_path, None)
    assert trainer.finished == 5
    held = weights(tmp_path)
    assert all(torch.equal(held[name], scores[4][name]) for name in held)


def test_the_checkpoint_of_the_best_step_and_every_third_stay(scores, tiny_shards, tmp_path):
    """The best is step 2 until step 5 is better, and so good that step 2's goes with the next save."""
    changes = ("keep_best=true", "save_every=1", "keep_checkpoints=1", "keep_every=3")
    steps = {}
    for last in (4, 5):
        train(config(*changes, f"steps={last}"), str(tiny_shards), tmp_path, None, resume="auto")
        steps[last] = sorted(int(p.name[5:]) for p in (tmp_path / "checkpoints").iterdir())
    assert steps == {4: [2, 3, 4], 5: [3, 5]}


def test_both_need_validations(tiny_shards, tmp_path):
    with pytest.raises(ValueError, match="keep_best and patience have an effect with evaluate_every only"):
        changes = ("patience=2", "evaluate_every=0", "evaluate_split=val")
        train(config(*changes), str(tiny_shards), tmp_path, None)
