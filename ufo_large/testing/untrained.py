"""An opened model that was never trained, in memory: the demo recipe's shape, two small blocks."""

from pathlib import Path

import torch

from ufo_large.config import apply_overrides
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import SavedRun
from ufo_large.serving.predictor import UFO
from ufo_large.serving.pretrained import Opened
from ufo_large.structures import TaskInfo
from ufo_large.testing.models import TINY_TASKS
from ufo_large.testing.settings import SMALL_MODEL


def untrained(
    folder: Path, *options: str, tasks: tuple[TaskInfo, ...] = TINY_TASKS, data: str = "", seed: int = 0
) -> UFO:
    """Return a model as if it came from `folder`; `data`: where its shards lie."""
    torch.manual_seed(seed)
    config = apply_overrides(load_recipe("demo"), [*SMALL_MODEL, *options])
    opened = Opened(config.model.build(tasks), SavedRun(config, tasks, "", data), folder, folder)
    opened.model.eval()
    return UFO(opened)
