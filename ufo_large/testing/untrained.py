"""An opened model that was never trained, in memory, and a server of it on this machine."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import uvicorn

from ufo_large.data.loader import LoaderConfig
from ufo_large.data.shard_index import DATASET_FILE
from ufo_large.data.shards import ShardSet
from ufo_large.runs.config import RunConfig, TaskConfig
from ufo_large.runs.folder import SavedRun
from ufo_large.runs.optimizer import OptimizerConfig
from ufo_large.serving.limits import Limits
from ufo_large.serving.predictor import UFO
from ufo_large.serving.pretrained import Opened
from ufo_large.serving.serve import bound, make_server
from ufo_large.structures import TaskInfo
from ufo_large.testing.models import TINY_TASKS, tiny_model

SIZES = {"classification": (32, 32), "detection": (64, 96), "segmentation": (64, 96)}


def untrained(folder: Path, tasks: tuple[TaskInfo, ...] = TINY_TASKS, data: str = "") -> UFO:
    """Return a tiny model as if it came from the run in `folder`, trained on the shards at `data`."""
    torch.manual_seed(0)
    feeds = {
        kind: TaskConfig(loader=LoaderConfig(micro_batch=8, image_size=size)) for kind, size in SIZES.items()
    }
    config = RunConfig(
        name="untrained",
        steps=1,
        model=tiny_model(),
        tasks=feeds,
        optimizer=OptimizerConfig(learning_rate=1e-3),
    )
    fingerprint = ShardSet.open(data).fingerprint if Path(data, DATASET_FILE).is_file() else ""
    saved = SavedRun(config, tasks, fingerprint, data)
    opened = Opened(config.model.build(tasks), saved, folder, folder)
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
