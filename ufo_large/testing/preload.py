"""Imported once by the process that forks test ranks, so that each rank starts in a blink."""

import contextlib
import gc
import os

os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ["OMP_NUM_THREADS"] = "1"

from ufo_large.distributed import zero  # noqa: F401
from ufo_large.train import run  # noqa: F401

with contextlib.suppress(ImportError):  # what `wandb.init` imports, in seconds, at every start
    import wandb.sdk.launch.inputs.internal  # noqa: F401

gc.freeze()  # what is imported stays; DeepSpeed collects at every start, and so needs not look at it again
