"""A whole run, validated, written for TensorBoard, and sent to a wandb whose server hangs or goes away."""

import json

import pytest

from ufo_large.config import apply_overrides
from ufo_large.recipes import load_recipe
from ufo_large.testing.settings import IN_THE_PROCESS, SMALL_MODEL, TWO_IMAGES_EACH
from ufo_large.testing.wandb_server import WandbServer
from ufo_large.train.run import train

wandb = pytest.importorskip("wandb")
accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
TRACKING = ("tracking.wandb=online", "tracking.tensorboard=true", "tracking.pictures=2")
SMALL = (*SMALL_MODEL, *TWO_IMAGES_EACH, *IN_THE_PROCESS, *TRACKING, "evaluate_split=test")


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setattr("ufo_large.tracking.wandb.END_SECONDS", 3.0)
    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.address)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
        wandb.teardown()
        yield server
        wandb.teardown()


def config(*options):
    return apply_overrides(load_recipe("demo"), [*SMALL, "evaluate_every=2", "save_every=2", *options])


@pytest.mark.slow
def test_a_run_ends_well_where_wandbs_server_hangs_from_its_second_step_on(
    server, tiny_shards, tmp_path, monkeypatch
):
    def leaving(path, body, answer=server.answer):
        if path.endswith("/file_stream"):
            server.mood = "hangs"
        return answer(path, body)

    monkeypatch.setattr(server, "answer", leaving)
    with pytest.warns(UserWarning, match="wandb has failed.*wandb sync"):
        trainer = train(config("steps=4"), str(tiny_shards), tmp_path / "run", None)
    assert trainer.finished == 4 and list((tmp_path / "run/weights").glob("*.safetensors"))
    monkeypatch.setattr("ufo_large.tracking.wandb.START_SECONDS", 3.0)
    with pytest.warns(UserWarning, match="wandb could not be opened online"):
        trainer = train(config("steps=6"), str(tiny_shards), tmp_path / "run", None, resume="auto")
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    assert {json.loads(line)["step"] for line in lines} == {1, 2, 3, 4, 5, 6}
    events = accumulator.EventAccumulator(str(tmp_path / "run/tensorboard"), {"images": 0}).Reload()
    tags = events.Tags()
    total = next(tag for tag in tags["scalars"] if tag.endswith("/total"))
    assert [event.step for event in events.Scalars(total)] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in events.Scalars("val/score")] == [2, 4, 6]
    assert len(tags["images"]) == 6 and [e.step for e in events.Images(tags["images"][0])] == [2, 4, 6]
