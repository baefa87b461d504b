"""An opened model that was never trained, in memory, and a server of it on this machine."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn

from ufo_large.config import apply_overrides
from ufo_large.recipes import load_recipe
from ufo_large.runs.folder import SavedRun
from ufo_large.serving.limits import Limits
from ufo_large.serving.predictor import UFO
from ufo_large.serving.pretrained import Opened
from ufo_large.serving.serve import bound, make_server
from ufo_large.structures import TaskInfo
from ufo_large.testing.models import TINY_TASKS
from ufo_large.testing.settings import SMALL_MODEL


def untrained(
    folder: Path, *options: str, tasks: tuple[TaskInfo, ...] = TINY_TASKS, data: str = "", seed: int = 0
) -> UFO:
    """Return the demo recipe with two small blocks, as if from `folder`, with its shards at `data`."""
    torch.manual_seed(seed)
    config = apply_overrides(load_recipe("demo"), [*SMALL_MODEL, *options])
    opened = Opened(config.model.build(tasks), SavedRun(config, tasks, "", data), folder, folder)
    opened.model.eval()
    return UFO(opened)


@contextmanager
def served(model: UFO, limits: Limits | None = None) -> Iterator[tuple[str, uvicorn.Server]]:
    """Serve the model on a free port as the command does; yields the address and the server."""
    with bound("127.0.0.1", 0) as listening:
        server = make_server(model, "127.0.0.1", limits or Limits())
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", server
        finally:
            server.should_exit = True
            thread.join()
