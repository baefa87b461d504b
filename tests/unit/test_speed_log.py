"""What a step logs of its speed: images of each task, and the GPU's memory where there is a GPU."""

from types import SimpleNamespace

import pytest
import torch

from ufo_large.train.trainer import Trainer


def trainer_on(device, **loaders):
    feeds = {task: SimpleNamespace(loader=loader) for task, loader in loaders.items()}
    runner = SimpleNamespace(feeds=feeds, engine=SimpleNamespace(device=torch.device(device)))
    trainer = Trainer.__new__(Trainer)
    trainer.runner = runner
    return trainer


def test_images_and_waiting_are_counted_from_a_step_to_the_next():
    a, b = SimpleNamespace(wait_s=1.0, images=8), SimpleNamespace(wait_s=0.5, images=4)
    trainer = trainer_on("cpu", a=a, b=b)
    before = trainer._loaded()
    a.images, a.wait_s, b.wait_s = 24, 1.25, 1.0
    assert trainer._loaded_since(before) == (0.75, {"a": 16, "b": 0})


@pytest.mark.parametrize(("device", "told"), [("cpu", {}), ("cuda:1", {"train/peak_memory_gib": 1.5})])
def test_peak_memory_is_that_of_the_ranks_own_gpu(monkeypatch, device, told):
    peaks = {torch.device("cuda", 0): 0, torch.device("cuda", 1): 3 << 29}
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    assert trainer_on(device)._peak_memory() == told
